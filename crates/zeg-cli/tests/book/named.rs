//! Files of configurations, scripts and tests that the pages name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

use crate::pages::{book, is_blessing, markdown_files, repository};

/// Pages that name tests as what shows a statement.
const WITH_TESTS: [&str; 2] = ["project/claims.md", "project/tried.md"];

/// Every file of `configs/`, `reference/` and `.ci/` that a page names exists; help texts are pages of the reference.
#[test]
fn named_files_exist() {
    if is_blessing() {
        return; // other tests are writing pages
    }
    let path = Regex::new(r"configs/[\w/.-]+\.toml|reference/\w+\.py|\.ci/[a-z-]+").unwrap();
    let mut files = markdown_files(&book());
    files.push(repository().join("README.md"));
    files.push(repository().join("CONTRIBUTING.md"));
    let mut found = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for named in path.find_iter(&text) {
            let named = named.as_str();
            // A name that stands for several suites.
            if named == "configs/ablations/SUITE.toml" {
                continue;
            }
            let exists = repository().join(named).is_file();
            assert!(exists, "{}: {named} does not exist", file.display());
            found += 1;
        }
    }
    assert!(found > 100, "{found}");
}

/// Every test that the pages on claims and on faults name exists, and so does every target of `--test`.
///
/// A test is a word of at least three parts with underscores between them.
#[test]
fn named_tests_exist() {
    let test = Regex::new(r"^[a-z0-9]+(?:_[a-z0-9]+){2,}$").unwrap();
    let target = Regex::new(r"--test (\w+)").unwrap();
    let crates = repository().join("crates");
    let mut sources = String::new();
    for file in rust_files(&crates) {
        sources += &fs::read_to_string(file).unwrap();
    }
    let mut found = 0;
    for page in WITH_TESTS {
        let text = fs::read_to_string(book().join(page)).unwrap();
        for word in text.split(|letter: char| letter.is_whitespace() || "`,".contains(letter)) {
            // Targets have such names, too, as `end_to_end`.
            if test.is_match(word) && !has_target(&crates, word) {
                let exists = sources.contains(&format!("fn {word}("));
                assert!(exists, "{page}: there is no test {word}");
                found += 1;
            }
        }
        for named in target.captures_iter(&text) {
            let name = &named[1];
            assert!(
                has_target(&crates, name),
                "{page}: there is no --test {name}"
            );
        }
    }
    assert!(found > 50, "{found}");
}

/// Whether a crate has an integration test of this name.
fn has_target(crates: &Path, name: &str) -> bool {
    fs::read_dir(crates).unwrap().any(|entry| {
        let tests = entry.unwrap().path().join("tests");
        tests.join(format!("{name}.rs")).is_file() || tests.join(name).join("main.rs").is_file()
    })
}

/// Returns all Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
