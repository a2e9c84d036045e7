//! Tests of conversions that are repeated, stopped or made in place, and of damaged and incomplete downloads.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

#[path = "prepare_runs/faults.rs"]
mod faults;
#[path = "prepare_runs/places.rs"]
mod places;
mod prepare_common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use prepare_common::{contents, copy_of, download, go_on, options, prepare, times};
use proptest::prelude::*;
use proptest::sample::Index;
use zeg_data::datasets;
use zeg_data::prepare::{ImagePlacement, OnBad, PrepareError, PrepareOptions, Progress, plan};

/// Every conversion with its tiny download.
const ALL: [(&str, &str); 9] = [
    ("voc12", "voc"),
    ("coco-stuff164k", "coco"),
    ("pascal-context", "context_json"),
    ("pascal-context", "context_mat"),
    ("pascal-context", "context_png"),
    ("pascal-context", "context_release"),
    ("ade20k", "ade20k"),
    ("ade20k-full", "ade_full"),
    ("cityscapes", "cityscapes"),
];

#[test]
fn repeating_a_conversion_converts_nothing() {
    for (name, folder) in ALL {
        let to = tempfile::tempdir().unwrap();
        let first = prepare(name, &download(folder), to.path());
        let before = times(to.path());
        let second = prepare(name, &download(folder), to.path());
        assert_eq!(
            (second.converted, second.linked, second.copied, second.lists),
            (0, 0, 0, 0)
        );
        assert_eq!(second.skipped, first.converted + first.linked, "{name}");
        assert_eq!(times(to.path()), before, "{name}");
    }
}

#[test]
fn a_stopped_conversion_is_continued() {
    for (name, folder) in ALL {
        let whole = tempfile::tempdir().unwrap();
        let all = prepare(name, &download(folder), whole.path());
        let expected = contents(whole.path());
        let files = all.converted + all.linked;
        for stop_after in 1..files {
            let to = tempfile::tempdir().unwrap();
            let plan = plan(name, &download(folder)).unwrap();
            let stop = |progress: Progress| {
                assert_eq!(progress.total, files);
                if progress.done >= stop_after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let stopped = plan.run(to.path(), &options(), &stop).unwrap();
            assert!(stopped.stopped);
            assert_eq!(stopped.lists, 0);
            let made = contents(to.path());
            assert!(
                made.len() >= stop_after && made.len() <= stop_after + 1,
                "{name}"
            );
            // All existing files are complete, and no temporary file is left.
            assert!(
                made.iter()
                    .all(|(file, bytes)| expected.get(file) == Some(bytes)),
                "{name}"
            );
            let rest = prepare(name, &download(folder), to.path());
            assert!(!rest.stopped);
            assert_eq!(rest.skipped, made.len());
            assert_eq!(contents(to.path()), expected, "{name} after {stop_after}");
        }
    }
}

#[test]
fn a_result_older_than_its_source_is_made_again() {
    let to = tempfile::tempdir().unwrap();
    let from = copy_of("coco");
    prepare("coco-stuff164k", from.path(), to.path());
    let mask = from
        .path()
        .join("stuffthingmaps/train2017/000000000025.png");
    let later = SystemTime::now() + Duration::from_mins(1);
    fs::File::options()
        .write(true)
        .open(mask)
        .unwrap()
        .set_modified(later)
        .unwrap();
    let again = prepare("coco-stuff164k", from.path(), to.path());
    assert_eq!((again.converted, again.skipped), (1, 5));
}

#[test]
fn context_labels_without_background_are_recognised_by_255() {
    let from = copy_of("context_png");
    let voc = from.path().join("VOCdevkit/VOC2010");
    fs::remove_dir_all(voc.join("SegmentationClassContext")).unwrap();
    fs::create_dir(voc.join("SegmentationClassContext")).unwrap();
    let save = |number: usize| {
        let file = |folder: &str, ending: &str| {
            voc.join(folder).join(format!("2010_{number:06}.{ending}"))
        };
        image::GrayImage::from_raw(4, 1, vec![0, 58, 255, number as u8])
            .unwrap()
            .save(file("SegmentationClassContext", "png"))
            .unwrap();
        image::RgbImage::new(4, 1)
            .save(file("JPEGImages", "jpg"))
            .unwrap();
    };
    (0..5).for_each(save);
    let error = plan("pascal-context", from.path()).unwrap_err();
    assert!(matches!(error, PrepareError::Ambiguous { .. }), "{error}");
    (5..30).for_each(save);
    let to = tempfile::tempdir().unwrap();
    let summary = prepare("pascal-context", from.path(), to.path());
    assert_eq!(summary.converted, 30);
    let made = to.path().join("SegmentationClassContext/2010_000007.png");
    assert_eq!(
        zeg_image::decode_labels(&made).unwrap().labels(),
        [1, 59, 0, 8]
    );
}

/// Overwrites some bytes of a file and may cut it.
fn scramble(path: &Path, flips: &[(Index, u8)], cut: Option<Index>) {
    let mut bytes = fs::read(path).unwrap();
    for (index, value) in flips {
        let index = index.index(bytes.len());
        bytes[index] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_does_not_stop_the_others(
        which in 0..ALL.len(),
        file in any::<Index>(),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<Index>()),
    ) {
        let (name, folder) = ALL[which];
        let from = copy_of(folder);
        let files: Vec<PathBuf> = contents(from.path()).into_keys().collect();
        scramble(&from.path().join(file.get(&files)), &flips, cut);
        let to = tempfile::tempdir().unwrap();
        if let Ok(planned) = plan(name, from.path()) {
            // The other files are made, unless the damaged file is one that is needed for all of them.
            let result = planned.run(to.path(), &options(), &go_on);
            let harm = matches!(result, Err(PrepareError::Threads { .. } | PrepareError::Unwritable { .. }));
            prop_assert!(!harm, "{:?}", result);
        }
        prop_assert!(!contents(to.path()).keys().any(|file| file.to_string_lossy().contains(".zeg-")));
    }

    #[test]
    fn damaged_annotations_do_not_panic(
        flips in prop::collection::vec((any::<Index>(), 32_u8..127), 1..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        let from = copy_of("context_json");
        scramble(&from.path().join("trainval_merged.json"), &flips, cut);
        let to = tempfile::tempdir().unwrap();
        if let Ok(planned) = plan("pascal-context", from.path()) {
            let _ = planned.run(to.path(), &options(), &go_on);
        }
    }
}
