//! The tiny downloads of `reference/prepare_formats.py`, and what tests of preparation ask of folders.

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

/// The folder of a download as the script wrote it.
pub(crate) fn download(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/prepare")
        .join(name)
}

/// Two threads, problems reported, ADE20K-Full shrunk to the 24 pixels that the script uses.
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

/// Plans and runs; everything must go well.
pub(crate) fn prepare(name: &str, from: &Path, to: &Path) -> Summary {
    let plan = plan(name, from).unwrap();
    let summary = plan.run(to, &options(), &go_on).unwrap();
    assert_eq!(summary.failed, [], "{plan}");
    summary
}

/// A copy that may be damaged.
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

/// Every file below a folder with its content; links are followed.
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

/// Every file below a folder with the time of its last change; of a link, its own.
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
