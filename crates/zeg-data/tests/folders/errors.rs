//! Descriptions that are refused.

use super::*;

#[test]
fn errors_name_the_line() {
    let rooms = Rooms::new();
    let rest = "kind = 'index'\nclasses = ['wall', 'floor', 'sofa']\n";
    let good = format!("{START}{rest}");
    assert!(rooms.labels(&good).is_ok());
    for (from, to, line, expected) in [
        (
            "name = 'rooms'",
            "name = 'rooms'\nimage = 'x'",
            2,
            "unknown field `image`, expected one of `name`, `title`, `root`, `images`, `labels`",
        ),
        ("name = 'rooms'\n", "", 1, "missing field `name`"),
        (
            "'rooms'",
            "' '",
            1,
            "`name` is \"\"; it must not be empty or contain `/`, `\\` or control characters",
        ),
        (
            "images/{id}",
            "images/*",
            2,
            "write `{id}` for the id of an image",
        ),
        ("'labels/{id}.png'", "[]", 3, "`labels` must be a path"),
        (
            "'labels/{id}.png'",
            "'../labels/{id}.png'",
            3,
            "leads out of the data set's folder",
        ),
        (
            "'index'",
            "'grey'",
            4,
            "unknown variant `grey`, expected one of `index`, `palette`, `binary`",
        ),
        (
            "'index'",
            "'index'\nthreshold = 3",
            5,
            "`threshold` is only allowed with kind = \"binary\"",
        ),
        (
            "'index'",
            "'palette'\nzero-is = 'class'",
            5,
            "`zero-is` is only allowed with kind = \"index\"",
        ),
        (
            "'index'",
            "'index'\nzero-is = 'background'",
            5,
            "unknown variant `background`, expected `ignore` or `class`",
        ),
        (
            "'index'",
            "'index'\nmetric = 'iou'",
            5,
            "unknown variant `iou`, expected `miou` or `dice`",
        ),
        (
            "'index'",
            "'index'\nignore = [70000]",
            5,
            "invalid value: integer `70000`",
        ),
        (
            "['wall', 'floor', 'sofa']",
            "['wall', 'Wall']",
            5,
            "\"Wall\" is already named",
        ),
        ("['wall', 'floor', 'sofa']", "[]", 5, "names no class"),
        (
            "['wall', 'floor', 'sofa']",
            "['wall', 'sofa | couch|settee']",
            5,
            "write synonyms as { name = \"sofa\", synonyms = [\"couch\", \"settee\"] }",
        ),
        (
            "['wall', 'floor', 'sofa']",
            "'voc22'",
            5,
            "unknown class list \"voc22\"",
        ),
        (
            "['wall', 'floor', 'sofa']",
            "['wall', 3]",
            5,
            "a class must be a name or a table with a `name`",
        ),
        (
            "'floor'",
            "{ name = 'floor', id = 3 }",
            5,
            "unknown field `id`, expected one of `name`, `synonyms`, `value`, `color`, `colour`",
        ),
        (
            "'floor'",
            "{ name = 'floor', value = -3 }",
            5,
            "`value` of class \"floor\" is -3",
        ),
        (
            "'floor'",
            "{ name = 'floor', colour = '#000000' }",
            5,
            "which is only allowed with kind = \"palette\"",
        ),
        (
            "'sofa']",
            "'sofa']\nunseen = ['soffa']",
            6,
            "unknown class \"soffa\"; did you mean \"sofa\"?",
        ),
        (
            "'sofa']",
            "'sofa']\nunseen = 3",
            6,
            "`unseen` must be a list of class names",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = ['a', 'a']",
            7,
            "the split lists an id twice",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = ['../a']",
            7,
            "a split needs at least one id",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = 3",
            7,
            "a split must be \"all\"",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = { images = 'a' }",
            7,
            "missing field `labels`",
        ),
        ("'sofa']", "'sofa'", 5, ""),
    ] {
        let error = rooms.refusal(&good.replacen(from, to, 1));
        assert!(
            error.contains(&format!("rooms.toml: line {line}: ")),
            "{to}: {error}"
        );
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn invalid_descriptions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in [("a.toml", &b"name = \xff"[..]), ("b.TOML", b"")] {
        let path = folder.path().join(path);
        fs::write(&path, bytes).unwrap();
        let error = open(path.to_str().unwrap(), Path::new(""), "all").unwrap_err();
        assert!(
            matches!(error, DataError::Text(_) | DataError::Description { .. }),
            "{error}"
        );
    }
    let missing = open("no/such.toml", Path::new(""), "all").unwrap_err();
    assert!(matches!(missing, DataError::Text(_)), "{missing}");
}
