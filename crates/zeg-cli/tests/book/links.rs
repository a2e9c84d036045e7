//! Links and anchors of the Markdown files, and the summary.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use regex::Regex;

use crate::pages::{book, is_blessing, markdown_files, repository};

/// Every relative link leads to a file of the repository, and every anchor to a heading.
#[test]
fn links_resolve() {
    if is_blessing() {
        return; // other tests are writing pages
    }
    let root = repository();
    let mut files: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
        .iter()
        .map(|name| root.join(name))
        .collect();
    files.extend(markdown_files(&book()));
    let pattern = Regex::new(r"\]\(([^()\s]*)\)").unwrap();
    let mut broken = Vec::new();
    for file in &files {
        let text = prose(&fs::read_to_string(file).unwrap());
        let folder = file.parent().unwrap();
        for link in pattern.captures_iter(&text) {
            let link = &link[1];
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                file.clone()
            } else {
                normal(&folder.join(path))
            };
            let found = target.exists() && (anchor.is_empty() || anchors(&target).contains(anchor));
            // A page of the book can only reach what is built with it.
            let inside = !file.starts_with(book()) || target.starts_with(book());
            if !found || !inside {
                broken.push(format!(
                    "{}: {link}",
                    file.strip_prefix(&root).unwrap().display()
                ));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

/// Every page is in `SUMMARY.md` once, and every entry of it is a page.
#[test]
fn every_page_is_in_the_summary() {
    if is_blessing() {
        return; // other tests are writing pages
    }
    let summary = fs::read_to_string(book().join("SUMMARY.md")).unwrap();
    let pattern = Regex::new(r"\]\(([^()\s]+)\)").unwrap();
    let mut listed = BTreeMap::<PathBuf, usize>::new();
    for link in pattern.captures_iter(&summary) {
        *listed.entry(normal(&book().join(&link[1]))).or_default() += 1;
    }
    let twice: Vec<_> = listed.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        twice.is_empty(),
        "pages that are listed more than once: {twice:?}"
    );
    let mut pages = markdown_files(&book());
    pages.retain(|page| !page.ends_with("SUMMARY.md"));
    let listed: Vec<_> = listed.into_keys().collect();
    assert_eq!(
        listed, pages,
        "left: the summary; right: the pages there are"
    );
}

/// Every code block names its language: one without would be compiled as Rust.
#[test]
fn code_blocks_name_their_language() {
    for file in markdown_files(&book()) {
        let text = fs::read_to_string(&file).unwrap();
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                assert!(
                    inside || !language.is_empty(),
                    "{}:{}: a code block without a language",
                    file.display(),
                    number + 1
                );
                inside = !inside;
            }
        }
    }
}

/// The text without code blocks and code spans.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    // A code span keeps its place, so that a link's text may be one.
    Regex::new("`[^`\n]*`")
        .unwrap()
        .replace_all(&kept, "code")
        .into_owned()
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// The anchors of a Markdown file's headings, as mdBook and GitHub make them.
fn anchors(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let mut anchors = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        }
        let title = line.trim_start_matches('#');
        if inside || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let mut anchor = String::new();
        for c in title.trim().chars() {
            match c {
                c if c.is_alphanumeric() || c == '_' || c == '-' => anchor.extend(c.to_lowercase()),
                c if c.is_whitespace() => anchor.push('-'),
                _ => {}
            }
        }
        let mut unique = anchor.clone();
        let mut number = 0;
        while anchors.contains(&unique) {
            number += 1;
            unique = format!("{anchor}-{number}");
        }
        anchors.insert(unique);
    }
    anchors
}
