//! Tests of the mini world as a data set: exported to a folder, and read by the loader without files.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zeg_data::augment::Whole;
use zeg_data::mini_world::{Counts, DESCRIPTION, Part, World, WorldConfig, WorldError, WorldSet};
use zeg_data::{
    DataError, Dataset, Loader, LoaderOptions, OnBadSample, Pipeline, Preprocess, SampleSource,
    Selection,
};
use zeg_image::Normalization;

fn world(change: impl FnOnce(&mut WorldConfig)) -> World {
    let mut config = WorldConfig::default();
    change(&mut config);
    World::new(config).unwrap()
}

fn open(folder: &Path, split: &str) -> Result<Dataset, DataError> {
    zeg_data::open(&Selection {
        dataset: folder.join(DESCRIPTION).to_str().unwrap(),
        root: Path::new(""),
        split,
        classes: None,
        unseen: None,
    })
}

const COUNTS: Counts = Counts { train: 12, val: 5 };

#[test]
fn an_export_is_a_data_set_with_the_same_labels() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("world");
    let world = world(|config| config.split_seed = 3);
    let calls = AtomicUsize::new(0);
    let count = |progress: zeg_data::prepare::Progress| {
        assert!(progress.done <= progress.total && progress.total == 17);
        calls.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let exported = world.export(&target, COUNTS, 2, &count).unwrap();
    assert_eq!((exported.written, exported.skipped), (17, 0));
    assert!(!exported.stopped && calls.into_inner() == 17);
    for (part, len) in [(Part::Train, 12), (Part::Val, 5)] {
        let dataset = open(&target, &part.to_string()).unwrap();
        assert_eq!((&dataset.classes, dataset.len()), (world.classes(), len));
        let memory = WorldSet::new(Arc::new(world.clone()), part, len);
        for index in 0..len {
            let (file, made) = (dataset.load(index).unwrap(), memory.load(index).unwrap());
            assert_eq!((&file.id, &file.labels), (&made.id, &made.labels));
            let bytes = file.image.as_raw().iter().zip(made.image.as_raw());
            let error: f64 = bytes
                .map(|(a, b)| f64::from(*a) - f64::from(*b))
                .map(|difference| difference * difference)
                .sum();
            let error = error / file.image.as_raw().len() as f64;
            assert!(error < 150.0, "JPEG error {error}");
            // Both kinds of source have the same ids.
            assert_eq!(SampleSource::id(&dataset, index), memory.id(index));
        }
    }
    // The folder can also be read as VOC.
    let voc = zeg_data::list(&Selection {
        dataset: "voc12",
        root: &target,
        split: "val",
        classes: None,
        unseen: None,
    });
    assert_eq!(voc.unwrap().len(), 5);
}

fn go_on(_: zeg_data::prepare::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_stopped_export_is_continued_and_an_export_of_another_world_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(|_| {});
    let stop = |progress: zeg_data::prepare::Progress| {
        if progress.done == 4 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let begun = world.export(folder.path(), COUNTS, 1, &stop).unwrap();
    assert_eq!((begun.written, begun.stopped), (4, true));
    assert!(matches!(
        open(folder.path(), "train"),
        Err(DataError::Text(_))
    ));
    let finished = world.export(folder.path(), COUNTS, 1, &go_on).unwrap();
    assert_eq!((finished.written, finished.skipped), (13, 4));
    assert_eq!(open(folder.path(), "train").unwrap().len(), 12);
    let nothing = world.export(folder.path(), COUNTS, 1, &go_on).unwrap();
    assert_eq!((nothing.written, nothing.skipped), (0, 17));

    let other = self::world(|config| config.seed = 1);
    let refused = other.export(folder.path(), COUNTS, 1, &go_on);
    let description = folder.path().join(DESCRIPTION);
    assert!(matches!(refused, Err(WorldError::Occupied { path }) if path == description));
    let more = Counts { val: 6, ..COUNTS };
    assert!(world.export(folder.path(), more, 1, &go_on).is_err());
}

#[test]
fn an_export_does_not_replace_other_files() {
    for file in [
        "mini-world.toml",
        "JPEGImages/train-000003.jpg",
        "SegmentationClass/val-000000.png",
        "ImageSets/Segmentation/val.txt",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let refused = world(|_| {}).export(folder.path(), COUNTS, 1, &go_on);
        assert!(
            matches!(refused, Err(WorldError::Occupied { path: named }) if named == path),
            "{file}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "{file}");
    }
    let world = world(|_| {});
    for (train, val) in [(0, 0), (1_000_001, 1), (1, usize::MAX)] {
        let refused = world.export(Path::new("/nowhere"), Counts { train, val }, 1, &go_on);
        assert!(matches!(refused, Err(WorldError::Setting { .. })));
    }
}

#[test]
fn the_loader_reads_a_world_without_files() {
    let set: Arc<dyn SampleSource> =
        Arc::new(WorldSet::new(Arc::new(world(|_| {})), Part::Train, 10));
    let whole = Whole {
        size: 64,
        ..Whole::default()
    };
    let batches = |workers| {
        let pipeline = Pipeline::new(Preprocess::Whole(whole.clone()), Normalization::IMAGENET);
        let options = LoaderOptions {
            batch_size: 4,
            seed: 1,
            start_batch: 0,
            workers,
            on_bad_sample: OnBadSample::Stop,
        };
        let mut loader = Loader::new(Arc::clone(&set), pipeline.unwrap(), options).unwrap();
        [(); 5].map(|()| loader.next_batch().unwrap())
    };
    let one = batches(1);
    assert_eq!(one, batches(3));
    let ids: BTreeSet<&String> = one.iter().flat_map(|batch| &batch.ids).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!(one[0].images.len(), 4 * 3 * 64 * 64);
    let index: u64 = one[0].ids[0]
        .strip_prefix("train-")
        .unwrap()
        .parse()
        .unwrap();
    let labels = set.load(index as usize).unwrap().labels;
    assert_eq!(one[0].labels[..64 * 64], *labels.labels());
    assert!(matches!(
        set.load(10),
        Err(DataError::NoSuchSample { len: 10, .. })
    ));
}
