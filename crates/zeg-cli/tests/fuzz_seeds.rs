//! Replays the seeds of the fuzz targets with the functions that the targets call, without cargo-fuzz.
#![allow(clippy::unwrap_used)] // in tests

#[allow(unreachable_pub)] // the fuzz targets use it as a library
#[path = "../../../fuzz/src/files.rs"]
mod files;
#[allow(unreachable_pub)]
#[path = "../../../fuzz/src/models.rs"]
mod models;

use std::{collections::BTreeSet, fs, path::PathBuf};

/// Largest size of all seeds together, in bytes.
const MOST_BYTES: usize = 2 << 20;

fn seeds_of(target: &str) -> Vec<PathBuf> {
    let folder = files::repository().join("fuzz/seeds").join(target);
    let mut seeds: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

#[test]
fn no_seed_of_a_fuzz_target_is_a_finding() {
    let targets: Vec<_> = files::TARGETS.into_iter().chain(models::TARGETS).collect();
    let mut bytes = 0;
    for (name, target) in &targets {
        for seed in seeds_of(name) {
            let data = fs::read(&seed).unwrap();
            bytes += data.len();
            let result = std::panic::catch_unwind(|| target(&data));
            assert!(result.is_ok(), "{} is a finding", seed.display());
        }
    }
    assert!(bytes <= MOST_BYTES, "the seeds have {bytes} bytes");

    // Every target has a file, every file is a target, and so are the folders of seeds.
    let root = files::repository().join("fuzz");
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let known: BTreeSet<String> = targets.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), known);
    assert_eq!(names("seeds"), known);
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for name in &known {
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(
            manifest.contains(&path),
            "{name} is missing in fuzz/Cargo.toml"
        );
    }
}
