//! Fuzzes the parsers of class files (text and TOML), class lists and template files; the first byte modulo 4 selects
//! one.
//!
//! Seeds: `cargo +nightly fuzz run class_file fuzz/corpus/class_file fuzz/seeds/class_file`.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zeg_vocab::classes::{ClassQuery, MAX_NAME_CHARACTERS, parse_class_file, parse_class_list};
use zeg_vocab::templates::TemplateSet;

fuzz_target!(|data: &[u8]| {
    let Some((form, bytes)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let classes = match form % 4 {
        0 => parse_class_file(text, Path::new("fuzz.txt")).ok(),
        1 => parse_class_file(text, Path::new("fuzz.toml")).ok(),
        2 => parse_class_list(text).ok(),
        _ => {
            let _ = TemplateSet::parse_file(text, Path::new("fuzz.txt"));
            None
        }
    };
    for class in classes.iter().flatten() {
        for name in class.names() {
            assert!(!name.trim().is_empty() && name.trim() == name);
            assert!(name.chars().count() <= MAX_NAME_CHARACTERS);
            assert!(!name.contains(char::is_control));
        }
        assert!(class.threshold.is_none_or(|score| (0.0..=1.0).contains(&score)));
    }
    if let Some(classes) = classes {
        assert!(classes.iter().any(|class: &ClassQuery| class.role.is_foreground()));
    }
});
