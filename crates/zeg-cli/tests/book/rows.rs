//! Rows of suites that the pages name.

use std::{collections::BTreeSet, fs};

use regex::Regex;

use crate::pages::{book, markdown_files, repository};

/// Every `zeg ablate SUITE … --only ROWS` of the pages names rows that the suite has.
#[test]
fn commands_choose_rows_that_their_suites_have() {
    let command = Regex::new(r"zeg ablate (configs/\S+\.toml)[^`\n]*?--only ([\w+,-]+)").unwrap();
    let mut files = markdown_files(&book());
    files.push(repository().join("README.md"));
    let mut found = 0;
    for file in files {
        // A command goes on in the next line after a backslash.
        let text = fs::read_to_string(&file).unwrap().replace("\\\n", " ");
        for named in command.captures_iter(&text) {
            let suite = fs::read_to_string(repository().join(&named[1])).unwrap();
            let suite: toml::Table = suite.parse().unwrap();
            let rows = suite["rows"].as_array().unwrap().iter();
            let rows: BTreeSet<&str> = rows.map(|row| row["name"].as_str().unwrap()).collect();
            for row in named[2].split(',') {
                let file = file.display();
                assert!(rows.contains(row), "{file}: {} has no row {row}", &named[1]);
                found += 1;
            }
        }
    }
    assert!(found > 0, "no command of the pages chooses rows");
}
