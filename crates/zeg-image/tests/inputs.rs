//! Tests of the images, and their order, that arguments of every kind stand for in a folder tree.

#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zeg_image::{InputError, InputImage, Recursion, expand};

/// A temporary folder tree with empty files.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for file in [
            "holiday/b.JPG",
            "holiday/a.png",
            "holiday/notes.txt",
            "holiday/.hidden.png",
            "holiday/.cache/x.png",
            "holiday/2024/c.webp",
            "holiday/2024/deep/d.tif",
            "holiday/2024/photo[1].jpg",
            "texts/readme.md",
            "one.image",
        ] {
            let path = tree.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn expand(&self, args: &[&str], recursion: Recursion) -> Result<Vec<InputImage>, InputError> {
        let args: Vec<PathBuf> = args.iter().map(|arg| self.path(arg)).collect();
        expand(&args, recursion)
    }

    /// Expands the arguments and returns relative paths with `/` between folders.
    fn relative(&self, args: &[&str], recursion: Recursion) -> Vec<String> {
        let images = self.expand(args, recursion).unwrap();
        for image in &images {
            assert!(image.path.ends_with(&image.relative) && image.path.is_file());
        }
        let text = |image: InputImage| image.relative.to_str().unwrap().replace('\\', "/");
        images.into_iter().map(text).collect()
    }
}

#[test]
fn a_folder_stands_for_its_images_sorted_by_name() {
    let tree = Tree::new();
    assert_eq!(
        tree.relative(&["holiday"], Recursion::FolderOnly),
        ["a.png", "b.JPG"]
    );
    assert_eq!(
        tree.relative(&["holiday"], Recursion::Subfolders),
        [
            "2024/c.webp",
            "2024/deep/d.tif",
            "2024/photo[1].jpg",
            "a.png",
            "b.JPG"
        ]
    );
}

#[test]
fn patterns_match_within_their_folders() {
    let tree = Tree::new();
    for (pattern, expected) in [
        ("holiday/*", &["a.png", "b.JPG"][..]),
        ("holiday/*.png", &["a.png"]),
        ("holiday/?.{png,JPG}", &["a.png", "b.JPG"]),
        ("holiday/[b]*", &["b.JPG"]),
        ("holiday/*/*", &["2024/c.webp", "2024/photo[1].jpg"]),
        ("holiday/**/d*", &["2024/deep/d.tif"]),
        ("*/2024/c.*", &["holiday/2024/c.webp"]),
        // The name of an existing file is not treated as a pattern.
        ("holiday/2024/photo[1].jpg", &["photo[1].jpg"]),
    ] {
        assert_eq!(
            tree.relative(&[pattern], Recursion::FolderOnly),
            expected,
            "{pattern}"
        );
    }
}

/// A folder whose name holds brackets or braces is no pattern, before and behind a part that is one.
#[test]
fn patterns_below_folders_with_brackets_find_their_images() {
    let tree = Tree::new();
    for file in ["Photos [2024]/a.jpg", "Photos [2024]/sub {x}/b.jpg"] {
        let path = tree.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    for (pattern, expected) in [
        ("Photos [2024]/*.jpg", "a.jpg"),
        ("Photos [2024]/sub {x}/*.jpg", "b.jpg"),
        ("Photos*/sub {x}/*.jpg", "Photos [2024]/sub {x}/b.jpg"),
        ("holiday/2024/photo[1]*", "photo[1].jpg"),
    ] {
        assert_eq!(
            tree.relative(&[pattern], Recursion::FolderOnly),
            [expected],
            "{pattern}"
        );
    }
}

#[test]
fn a_file_that_is_named_twice_is_listed_once() {
    let tree = Tree::new();
    let images = tree
        .expand(
            &[
                "one.image",
                "holiday/b.JPG",
                "holiday",
                "holiday/../holiday/a.png",
                "holiday/*",
            ],
            Recursion::FolderOnly,
        )
        .unwrap();
    let names: Vec<_> = images
        .iter()
        .map(|image| image.relative.to_str().unwrap())
        .collect();
    assert_eq!(names, ["one.image", "b.JPG", "a.png"]);
}

#[test]
fn errors_say_what_was_found_instead() {
    let tree = Tree::new();
    let error = |arg: &str| {
        let text = tree
            .expand(&[arg], Recursion::FolderOnly)
            .unwrap_err()
            .to_string();
        text.replace(&tree.0.path().display().to_string(), "ROOT")
            .replace('\\', "/")
    };
    assert_eq!(
        error("texts"),
        "ROOT/texts: no images in this folder; it contains 1 other file and 0 folders"
    );
    assert_eq!(
        error("."),
        "ROOT/.: no images in this folder; it contains 1 other file and 2 folders"
    );
    assert_eq!(
        error("*.txt"),
        "pattern \"ROOT/*.txt\" matches no image; it matches nothing else"
    );
    assert_eq!(
        error("holi*"),
        "pattern \"ROOT/holi*\" matches no image; it matches 0 other files and 1 folder"
    );
    assert_eq!(
        error("hoilday"),
        "ROOT/hoilday: no such file or folder; did you mean ROOT/holiday?"
    );
    assert_eq!(
        error("holiday/z.jpg"),
        "ROOT/holiday/z.jpg: no such file or folder; did you mean ROOT/holiday/b.JPG?"
    );
    assert_eq!(
        error("elsewhere/*.png"),
        "ROOT/elsewhere: no such file or folder"
    );
    assert!(error("holiday/[a").starts_with("pattern \"ROOT/holiday/[a\": "));
    assert!(matches!(
        expand(&[], Recursion::FolderOnly),
        Err(InputError::NoArguments)
    ));
    let long = Path::new("x").join("y".repeat(100_000));
    assert!(expand(&[long], Recursion::FolderOnly).is_err());
}

#[cfg(unix)]
#[test]
fn links_are_followed_even_in_cycles() {
    use std::os::unix::fs::symlink;
    let tree = Tree::new();
    symlink(tree.path("holiday"), tree.path("holiday/2024/up")).unwrap();
    symlink(tree.path("texts"), tree.path("texts/self")).unwrap();
    symlink(tree.path("holiday/2024"), tree.path("texts/linked")).unwrap();
    symlink("nowhere", tree.path("texts/broken.png")).unwrap();
    symlink(tree.path("holiday/a.png"), tree.path("texts/alias.png")).unwrap();
    assert_eq!(
        tree.relative(&["texts"], Recursion::Subfolders),
        [
            "alias.png",
            "linked/c.webp",
            "linked/deep/d.tif",
            "linked/photo[1].jpg",
            "linked/up/a.png",
            "linked/up/b.JPG"
        ]
    );
    assert!(matches!(
        expand(&["/dev/null".into()], Recursion::FolderOnly),
        Err(InputError::NotRegular { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_argument_is_images_or_an_error(arg in "([*?\\[\\]{},./\\\\!^-]|[a-z0-9]|\\PC){1,30}") {
        // The argument must not lead out of the tree.
        prop_assume!(!arg.contains("..") && !arg.starts_with(['/', '\\']));
        let tree = Tree::new();
        if let Ok(images) = tree.expand(&[&arg], Recursion::FolderOnly) {
            prop_assert!(!images.is_empty());
        }
    }
}
