//! Tests of the built-in list of models: its names, its sizes, and its output as a table and as JSON.

#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use zeg_hub::{Cache, HubError, Registry, rows, table};

fn one_model(name: &str) -> String {
    format!(
        "[[model]]\nname = '{name}'\nabout = 'a'\nfamily = 'clip'\nformat = 'safetensors'\nlicence = 'MIT'\n\
         [[model.file]]\nname = 'a'\nsources = ['https://host.test/a']"
    )
}

#[test]
fn a_misspelt_name_gets_a_suggestion_and_nonsense_gets_none() {
    let registry = Registry::built_in().unwrap();
    let closest = |name: &str| match registry.find(name).unwrap_err() {
        HubError::UnknownModel { closest, .. } => closest,
        other => panic!("{other}"),
    };
    assert_eq!(closest("clip-vit-b16").as_deref(), Some("clip-vit-b-16"));
    assert_eq!(closest("zegcilp").as_deref(), Some("zegclip"));
    assert_eq!(closest("a photograph of a dog on a sofa"), None);
    assert_eq!(closest(&"x".repeat(1 << 20)), None);
}

#[test]
fn a_users_entry_replaces_the_built_in_one_of_the_same_name() {
    let mut registry = Registry::built_in().unwrap();
    let count = registry.entries().len();
    registry.add(&one_model("zegclip"), "test").unwrap();
    assert_eq!(registry.entries().len(), count);
    assert_eq!(registry.find("zegclip").unwrap().files().len(), 1);
    registry.add(&one_model("tiny"), "test").unwrap();
    assert_eq!(registry.entries().len(), count + 1);
}

#[test]
fn the_total_size_is_known_if_all_sizes_are() {
    let registry = Registry::built_in().unwrap();
    let size = |name: &str| registry.find(name).unwrap().size();
    assert_eq!(size("clip-vit-b-16"), Some(350_837_078));
    assert_eq!(size("clip-vit-b-16-laion2b"), None);
    assert_eq!(size("zegclip"), None);
    assert_eq!(
        size("clip-vit-base-patch32"),
        Some(605_247_071 + 4186 + 316)
    );
}

#[test]
fn the_table_shows_name_size_and_licence() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::built_in().unwrap();
    let rows = rows(&registry, &Cache::at(folder.path()));
    let table = table(&rows);
    let line = |name: &str| {
        let start = format!(" {name} ");
        table.lines().find(|line| line.starts_with(&start)).unwrap()
    };
    assert!(line("clip-vit-b-16").contains("351 MB"));
    assert!(line("clip-vit-b-16-laion2b").contains("unknown"));
    assert!(line("clip-vit-b-32-laion2b").contains("605 MB+"));
    assert!(line("zegclip").contains("by hand"));
    assert!(line("clip-rc-voc12-inductive").contains("not stated"));
    let widest = table.lines().map(|line| line.chars().count()).max();
    assert!(widest.unwrap() <= 110, "{widest:?}\n{table}");
}

#[test]
fn the_json_output_has_every_field() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::built_in().unwrap();
    let rows = rows(&registry, &Cache::at(folder.path()));
    let json = serde_json::to_value(&rows).unwrap();
    let find = |name: &str| {
        let mut rows = json.as_array().unwrap().iter();
        rows.find(|row| row["name"] == name).unwrap().clone()
    };
    let archive = find("clip-vit-b-16");
    assert_eq!(archive["presence"], "absent");
    assert_eq!(archive["format"], "torch-archive");
    assert_eq!(archive["size"], 350_837_078);
    assert!(
        archive["files"][0]["sha256"]
            .as_str()
            .unwrap()
            .starts_with("5806e77c")
    );
    assert_eq!(
        find("clip-vit-b-16-laion2b")["size"],
        serde_json::Value::Null
    );
    assert!(
        find("zegclip")["manual"]["page"]
            .as_str()
            .unwrap()
            .contains("ZegCLIP")
    );
}
