//! Tests class files of any content: valid files give back their classes, and all others are errors.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests
#![allow(clippy::format_push_string, clippy::format_collect)] // texts of some lines

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use zeg_vocab::classes::{
    ClassFileError, ClassQuery, ClassSet, MAX_CLASSES, QueryError, Role, parse_class_file,
    parse_class_list, parse_classes_argument,
};

/// Names that need quotes in neither format.
fn any_name() -> impl Strategy<Value = String> {
    "[\\p{L}\\p{N}][\\p{L}\\p{M}\\p{N} '-]{0,20}"
}

/// Classes whose names end in different numbers; the first one is a foreground class.
fn any_classes() -> impl Strategy<Value = Vec<ClassQuery>> {
    let class = (
        prop::collection::vec(any_name(), 1..4),
        any::<bool>(),
        prop::option::of(any::<[u8; 3]>()),
        prop::option::of(0_u8..=8),
    );
    prop::collection::vec(class, 1..8).prop_map(|classes| {
        let mut numbers = 0..;
        let classes = classes.into_iter().enumerate();
        classes
            .map(|(label, (names, background, colour, threshold))| {
                let mut names = names
                    .into_iter()
                    .zip(&mut numbers)
                    .map(|(name, number)| format!("{name} {number}"));
                ClassQuery {
                    name: names.next().unwrap(),
                    synonyms: names.collect(),
                    role: if background && label > 0 {
                        Role::Background
                    } else {
                        Role::Foreground
                    },
                    colour,
                    threshold: threshold.map(|eighths| f32::from(eighths) / 8.0),
                }
            })
            .collect()
    })
}

fn toml_of(classes: &[ClassQuery]) -> String {
    let mut text = String::new();
    for class in classes {
        let quoted = |name: &str| toml::Value::from(name).to_string();
        let synonyms: Vec<String> = class.synonyms.iter().map(|name| quoted(name)).collect();
        text += &format!(
            "[[class]]\nname = {}\nsynonyms = [{}]\n",
            quoted(&class.name),
            synonyms.join(", ")
        );
        if let Some([r, g, b]) = class.colour {
            text += &format!("color = \"#{r:02x}{g:02X}{b:02x}\"\n");
        }
        if let Some(threshold) = class.threshold {
            text += &format!("threshold = {threshold}\n");
        }
        text += &format!("background = {}\n", !class.role.is_foreground());
    }
    text
}

proptest! {
    #[test]
    fn toml_files_give_back_their_classes(classes in any_classes()) {
        let read = parse_class_file(&toml_of(&classes), Path::new("any.toml")).unwrap();
        prop_assert_eq!(read, classes);
    }

    #[test]
    fn text_files_and_lists_give_the_same_classes(classes in any_classes()) {
        let plain: Vec<ClassQuery> = classes
            .into_iter()
            .map(|class| ClassQuery { synonyms: class.synonyms, ..ClassQuery::new(class.name) })
            .collect();
        let joined = |between: &str, last: &str| -> String {
            let lines = plain.iter().map(|class| class.names().collect::<Vec<_>>().join(between));
            lines.collect::<Vec<_>>().join(last)
        };
        let file = parse_class_file(&joined(" , ", "\r\n\n# note\n"), Path::new("any.txt")).unwrap();
        prop_assert_eq!(&file, &plain);
        prop_assert_eq!(parse_class_list(&joined("|", ", ")).unwrap(), plain);
    }

    #[test]
    fn any_text_is_a_split_or_an_error(
        text in "(zs3-|[0-9]|none|all|published|voc20|/|cow|sofa|bag|screen|,| |#|\n|\\PC){0,12}",
        list in prop::sample::select(ClassSet::names().to_vec()),
        in_file in any::<bool>(),
    ) {
        let set = ClassSet::by_name(list).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("split.txt");
        fs::write(&path, &text).unwrap();
        let text = if in_file { path.to_str().unwrap() } else { &text };
        if let Ok(split) = set.clone().with_split(text) {
            prop_assert_eq!(&split.classes, &set.classes);
            prop_assert!(split.unseen.is_sorted_by(|a, b| a < b));
            prop_assert!(split.unseen.iter().all(|label| *label < set.len()));
        }
    }

    #[test]
    fn any_bytes_are_classes_or_an_error(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(\\[\\[class\\]\\]|name|synonyms|color|threshold|background|=|\\[|\\]|\"|'|#|,|\\||\n|\r| |[0-9a-z]|\\PC){0,60}"
                .prop_map(String::into_bytes),
        ],
        extension in prop::sample::select(vec!["txt", "toml"]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any").with_extension(extension);
        fs::write(&path, &bytes).unwrap();
        for classes in [
            parse_classes_argument(&format!("@{}", path.display())).ok(),
            parse_classes_argument(&String::from_utf8_lossy(&bytes)).ok(),
        ].into_iter().flatten() {
            prop_assert!(!classes.is_empty());
            for name in classes.iter().flat_map(ClassQuery::names) {
                prop_assert!(!name.trim().is_empty() && !name.contains(char::is_control), "{:?}", name);
            }
        }
    }
}

#[test]
fn a_file_may_have_as_many_classes_as_there_are_labels() {
    let text = |classes: usize| -> String {
        (0..classes)
            .map(|index| format!("class {index}\n"))
            .collect()
    };
    let classes = parse_class_file(&text(MAX_CLASSES), Path::new("many.txt")).unwrap();
    assert_eq!(classes.len(), MAX_CLASSES);
    let error = parse_class_file(&text(MAX_CLASSES + 1), Path::new("many.txt")).unwrap_err();
    assert!(
        matches!(
            error,
            ClassFileError::List {
                source: QueryError::TooManyClasses { .. },
                ..
            }
        ),
        "{error}"
    );
}
