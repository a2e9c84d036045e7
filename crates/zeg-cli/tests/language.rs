//! The words that the glossary retired stay retired: a list of searches over everything that is read.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A search for a retired word.
struct Search {
    /// The word, in lower case.
    word: &'static str,
    /// Whether it counts inside longer words and identifiers too.
    matching: Matching,
    /// Beginnings of the paths that are searched; empty for all.
    within: &'static [&'static str],
    /// Parts of `path:line` that make a find legitimate: aliases for old names, and other meanings of the word.
    allowed: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Matching {
    Anywhere,
    WholeWord,
}

/// Files that have to name retired words: the glossary, the aliases and this list.
const ALIASES: [&str; 4] = [
    "docs/src/reference/glossary.md",
    "crates/zeg-cli/src/renamed_flags.rs",
    "crates/zeg-model/src/renamed.rs",
    "crates/zeg-cli/tests/language.rs",
];

const SEARCHES: [Search; 9] = [
    Search {
        word: "picture",
        matching: Matching::Anywhere,
        within: &[],
        allowed: &[
            "alias = \"",
            // The captions that the embedded model was pre-trained on, and its manifest.
            "mini_world/caption.rs",
            "tests/mini_world.rs",
            "assets/miniclip.json",
        ],
    },
    Search {
        word: "photograph",
        matching: Matching::Anywhere,
        within: &[],
        // Phrases that a user might type, and a class of ADE20K.
        allowed: &["a photograph of a dog", "photographic camera"],
    },
    Search {
        word: "word list",
        matching: Matching::Anywhere,
        within: &[],
        allowed: &[],
    },
    Search {
        word: "word-list",
        matching: Matching::Anywhere,
        within: &[],
        allowed: &[],
    },
    Search {
        word: "given as words",
        matching: Matching::Anywhere,
        within: &[],
        allowed: &[],
    },
    Search {
        word: "how sure",
        matching: Matching::Anywhere,
        within: &[],
        allowed: &[],
    },
    Search {
        word: "cached-views",
        matching: Matching::Anywhere,
        within: &[],
        // What format 2 of checkpoints had, and a seed with it.
        allowed: &["zeg-model/src/checkpoint.rs", "fuzz/make_seeds.py"],
    },
    Search {
        word: "view",
        matching: Matching::WholeWord,
        // A view of a tensor in a file of weights is the word of that field.
        within: &[
            "README.md",
            "docs/",
            "configs/",
            "crates/zeg/",
            "crates/zeg-cli/src/",
            "crates/zeg-model/src/",
            "crates/zeg-image/src/",
            "crates/zeg-data/src/",
        ],
        allowed: &[
            // an element of Label Studio's labelling interface
            "docs/src/guide/label-studio.md:   <View>",
            "docs/src/guide/label-studio.md:   </View>",
            "zeg-model/src/checkpoint.rs",
            "key_table_tests.rs",
            "tensor view",
        ],
    },
    Search {
        word: "views",
        matching: Matching::WholeWord,
        within: &[
            "README.md",
            "docs/",
            "configs/",
            "crates/zeg/",
            "crates/zeg-cli/",
            "crates/zeg-model/src/",
            "crates/zeg-image/src/",
            "crates/zeg-data/src/",
        ],
        allowed: &[
            "zeg-model/src/checkpoint.rs",
            "key_table_tests.rs",
            "tensor views",
            "tests/common/mod.rs", // of tensors
        ],
    },
];

/// Folders and endings of the files that people read.
const ENDINGS: [&str; 9] = [
    "rs", "md", "toml", "py", "html", "css", "js", "snap", "json",
];
/// Folders that hold golden data, what was built, or what a release said in its time.
const SKIPPED: [&str; 6] = ["target", "golden", ".git", "node_modules", "corpus", "book"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            if !SKIPPED.contains(&name.as_str()) {
                collect(&path, files);
            }
        } else if ENDINGS.contains(
            &path
                .extension()
                .unwrap_or_default()
                .to_string_lossy()
                .as_ref(),
        ) && name != "CHANGELOG.md"
        {
            files.push(path);
        }
    }
}

/// Files below the folders of the repository that are written by hand, with their paths from its root.
fn readable_files() -> Vec<(String, String)> {
    let root = root();
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    files.push(root.join("Cargo.toml"));
    for folder in ["crates", "docs", "configs", "reference", "fuzz"] {
        collect(&root.join(folder), &mut files);
    }
    files
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let name = path
                .strip_prefix(&root)
                .ok()?
                .to_string_lossy()
                .replace('\\', "/");
            Some((name, text))
        })
        .collect()
}

fn is_found(line: &str, search: &Search) -> bool {
    let line = line.to_lowercase();
    line.match_indices(search.word).any(|(start, found)| {
        let is_letter = |c: char| c.is_alphanumeric() || c == '_';
        let before = line[..start].chars().next_back().is_some_and(is_letter);
        let after = line[start + found.len()..]
            .chars()
            .next()
            .is_some_and(is_letter);
        search.matching == Matching::Anywhere || !before && !after
    })
}

fn finds(files: &[(String, String)]) -> Vec<String> {
    let mut finds = Vec::new();
    for (name, text) in files {
        if ALIASES.contains(&name.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for search in &SEARCHES {
                let within = search.within.is_empty()
                    || search.within.iter().any(|start| name.starts_with(start));
                if !within || !is_found(line, search) {
                    continue;
                }
                let place = format!("{name}:{line}");
                if !search.allowed.iter().any(|part| place.contains(part)) {
                    finds.push(format!("{name}:{}: {:?}: {line}", number + 1, search.word));
                }
            }
        }
    }
    finds
}

#[test]
fn retired_words_are_only_aliases() {
    let files = readable_files();
    assert!(files.len() > 300, "{} files", files.len());
    let finds = finds(&files);
    assert!(finds.is_empty(), "see the glossary:\n{}", finds.join("\n"));
}

#[test]
fn a_retired_word_is_found() {
    let planted = |name: &str, text: &str| finds(&[(name.to_owned(), text.to_owned())]).len();
    assert_eq!(
        planted("crates/zeg/src/a.rs", "/// Returns the Picture."),
        1
    );
    assert_eq!(planted("crates/zeg/src/a.rs", "let view = 1;"), 1);
    assert_eq!(planted("crates/zeg/src/a.rs", "let review = 1;"), 0);
    assert_eq!(planted("crates/zeg-weights/src/a.rs", "let view = 1;"), 0);
}
