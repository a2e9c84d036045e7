//! Compares the built-in template sets with reference copies, and tests template files of any content.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests

use std::path::Path;

use proptest::prelude::*;
use zeg_vocab::templates::{Template, TemplateSet};

/// `reference/template_golden.py` takes the 80 templates from the package open_clip.
#[test]
fn the_imagenet_templates_are_the_published_ones() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/imagenet_templates.txt");
    let golden = TemplateSet::open(&golden).unwrap();
    let built_in = TemplateSet::by_name("imagenet-80").unwrap();
    assert_eq!(built_in.templates().len(), 80);
    assert_eq!(built_in.templates(), golden.templates());
}

proptest! {
    #[test]
    fn a_template_keeps_its_text(before in "[^{}\\p{Cc}]{0,40}", after in "[^{}\\p{Cc}]{0,40}", name in "\\PC{0,20}") {
        let text = format!("{before}{{}}{after}");
        let template = Template::parse(&text).unwrap();
        prop_assert_eq!(template.to_string(), text);
        prop_assert_eq!(template.render(&name), format!("{before}{name}{after}"));
    }

    #[test]
    fn any_text_is_a_set_or_an_error(text in "(\\{\\}|[a#\\{\\}\\r\\n\\t]|\\PC|\\p{Cc}){0,60}") {
        if let Ok(set) = TemplateSet::parse_file(&text, Path::new("any.txt")) {
            prop_assert!(!set.templates().is_empty());
            prop_assert!(set.render("dog").iter().all(|sentence| sentence.contains("dog")));
        }
    }

    #[test]
    fn any_name_is_a_set_or_an_error(name in "\\PC{0,80}") {
        let _ = TemplateSet::by_name_or_file(&name);
    }
}
