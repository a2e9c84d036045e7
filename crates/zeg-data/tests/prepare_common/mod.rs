//! The tiny downloads of `reference/prepare_formats.py`, and helpers that compare folders in tests of preparation.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part; a failure is a failed test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeg_data::prepare::{OnBad, PrepareOptions, Progress, Summary, plan};

/// Returns the folder of a download as the script wrote it.
pub(crate) fn download(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/prepare")
        .join(name)
}

/// Returns options with two threads, bad files reported, and ADE20K-Full shrunk to the 24 pixels of the script.
pub(crate) fn options() -> PrepareOptions {
    PrepareOptions {
        threads: 2,
        on_bad: OnBad::Report,
        shrink: Some(24),
        ..PrepareOptions::default()
    }
}

pub(crate) fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Plans and carries out a conversion in which no file may fail.
pub(crate) fn prepare(name: &str, from: &Path, to: &Path) -> Summary {
    let plan = plan(name, from).unwrap();
    let summary = plan.run(to, &options(), &go_on).unwrap();
    assert_eq!(summary.failed, [], "{plan}");
    summary
}

/// Returns a temporary copy of a download, which a test may damage.
pub(crate) fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&download(name), folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Returns every file below a folder with its content; links are followed.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    visit(folder, &mut |path| {
        all.insert(
            path.strip_prefix(folder).unwrap().into(),
            fs::read(path).unwrap(),
        );
    });
    all
}

/// Returns every file below a folder with the time of its last change; for a link, the time of the link itself.
pub(crate) fn times(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut all = BTreeMap::new();
    visit(folder, &mut |path| {
        let time = fs::symlink_metadata(path).unwrap().modified().unwrap();
        all.insert(path.strip_prefix(folder).unwrap().into(), time);
    });
    all
}

fn visit(folder: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, each);
        } else {
            each(&path);
        }
    }
}
