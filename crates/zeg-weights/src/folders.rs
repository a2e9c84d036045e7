//! Finds the folders in which the configuration of weights may lie.
//!
//! A model cache keeps every file under its digest and names it by links: `snapshots/REVISION/model.safetensors` leads
//! to `blobs/DIGEST`, and only the snapshot has a `config.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The largest number of links that are followed.
const MOST_LINKS: usize = 40;
/// The largest number of snapshots, and of files of a snapshot, that are looked at.
const MOST_ENTRIES: usize = 1000;
/// Name of the folder with the contents in the model cache of Hugging Face.
const BLOBS: &str = "blobs";
/// Name of the folder with the links, beside [`BLOBS`].
const SNAPSHOTS: &str = "snapshots";

/// Returns the folders in which the configuration of a weight file may lie, the most likely first: its own, those that
/// its links lead to, and the snapshots of a model cache that link to it.
pub(crate) fn folders_of(file: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut add = |folder: PathBuf| {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    };
    let mut file = file.to_owned();
    for _ in 0..=MOST_LINKS {
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        add(folder.clone());
        let Ok(target) = fs::read_link(&file) else {
            break;
        };
        file = folder.join(target); // an absolute target replaces the folder
    }
    snapshots_of(&file).into_iter().for_each(add);
    folders
}

/// Returns the snapshots of a model cache that link to a blob of it, sorted; none if the file is not in such a cache.
fn snapshots_of(blob: &Path) -> Vec<PathBuf> {
    let Ok(blob) = blob.canonicalize() else {
        return Vec::new();
    };
    let blobs = blob.parent();
    let Some(cache) = blobs
        .filter(|folder| folder.ends_with(BLOBS))
        .and_then(Path::parent)
    else {
        return Vec::new();
    };
    let links_to_it = |snapshot: &PathBuf| {
        let mut files = entries(snapshot).into_iter();
        files.any(|file| file.canonicalize().is_ok_and(|file| file == blob))
    };
    let snapshots = entries(&cache.join(SNAPSHOTS)).into_iter();
    snapshots.filter(links_to_it).collect()
}

/// Returns the paths in a folder, sorted; none if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let found = found.take(MOST_ENTRIES);
    let mut paths: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_configuration_of_a_model_cache_is_found_from_every_link_and_from_the_blob() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (blobs, other) = (root.join("blobs"), root.join("snapshots/b"));
        let snapshot = root.join("snapshots/a");
        for folder in [&blobs, &snapshot, &other] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(blobs.join("1234"), "weights").unwrap();
        fs::write(blobs.join("5678"), "other weights").unwrap();
        symlink("../../blobs/1234", snapshot.join("model.safetensors")).unwrap();
        symlink("../../blobs/5678", other.join("model.safetensors")).unwrap();
        let mine = root.join("mine.safetensors");
        symlink(snapshot.join("model.safetensors"), &mine).unwrap();

        assert_eq!(
            folders_of(&blobs.join("1234")),
            [blobs.clone(), snapshot.clone()]
        );
        let from_link = folders_of(&mine);
        assert_eq!(from_link[..2], [root.clone(), snapshot.clone()]);
        assert!(!from_link.contains(&other), "{from_link:?}");
        let from_snapshot = folders_of(&snapshot.join("model.safetensors"));
        assert_eq!(from_snapshot[0], snapshot);
    }

    #[test]
    fn links_in_a_circle_and_absent_files_end() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        symlink(&one, &two).unwrap();
        symlink(&two, &one).unwrap();
        assert_eq!(folders_of(&one), [folder.path()]);
        assert_eq!(folders_of(Path::new("no-such-file")), [Path::new("")]);
    }
}
