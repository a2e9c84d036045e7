//! Files whose keys are written by hand in the reference: the tables there list exactly the keys that are read.

use std::{collections::BTreeSet, fs, path::Path};

use zeg::vocab::classes::parse_classes_argument;

use crate::{pages::book, schema::expected_keys};

#[test]
fn the_data_set_reference_lists_the_keys_there_are() {
    let page = "reference/configuration/data-set.md";
    let head = "name = 'a'\nimages = 'i/{id}.jpg'\nlabels = 'l/{id}.png'\nkind = 'index'\n";
    for (heading, text) in [
        (
            "## Keys of the file",
            format!("{head}classes = ['x', 'y']\nno-such-key = 1\n"),
        ),
        (
            "## A class",
            format!("{head}classes = ['x', {{ name = 'y', no-such-key = 1 }}]\n"),
        ),
        (
            "## A split",
            format!(
                "{head}classes = ['x', 'y']\n[splits]\na = {{ images = 'i', labels = 'l', no-such-key = 1 }}\n"
            ),
        ),
    ] {
        let error = error_of(&text, |path| {
            zeg::data::classes(path, None, None)
                .unwrap_err()
                .to_string()
        });
        assert_eq!(
            keys_of(page, heading),
            expected_keys(&error),
            "{heading}: {error}"
        );
    }
}

#[test]
fn the_class_file_reference_lists_the_keys_there_are() {
    let page = "reference/configuration/class-file.md";
    for (heading, text) in [
        (
            "## Keys of the file",
            "no-such-key = 1\n[[class]]\nname = 'a'\n",
        ),
        ("## A class", "[[class]]\nname = 'a'\nno-such-key = 1\n"),
    ] {
        let error = error_of(text, |path| {
            parse_classes_argument(path).unwrap_err().to_string()
        });
        assert_eq!(
            keys_of(page, heading),
            expected_keys(&error),
            "{heading}: {error}"
        );
    }
}

/// What reading a file with this text says.
fn error_of(text: &str, read: impl Fn(&str) -> String) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.toml");
    fs::write(&file, text).unwrap();
    read(file.to_str().unwrap())
}

/// The keys in the first column of the table below a heading; a second name stands behind `or`.
fn keys_of(page: &str, heading: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(book().join(Path::new(page))).unwrap();
    let (_, section) = text
        .split_once(&format!("{heading}\n"))
        .unwrap_or_else(|| panic!("{page} lacks {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells
        .flat_map(|cell| cell.split(" or "))
        .map(|key| key.trim_matches('`').to_owned())
        .collect()
}
