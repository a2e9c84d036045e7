//! A tiny data set in a temporary folder: a few images of coloured blocks in VOC's layout.

#![allow(dead_code, reason = "every test file uses only a part of this")]

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;
use zeg_data::{DataError, Dataset, Selection};

/// Opens a built-in data set, or one that a TOML file describes, with its default classes.
pub(crate) fn open(dataset: &str, root: &Path, split: &str) -> Result<Dataset, DataError> {
    zeg_data::open(&Selection {
        dataset,
        root,
        split,
        classes: None,
        unseen: None,
    })
}

/// Returns a folder of real excerpts beside the repository; if there is none, prints so and returns `None`.
pub(crate) fn shared_data(folder: &str) -> Option<PathBuf> {
    use std::io::Write as _;

    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data")
        .join(folder);
    if path.is_dir() {
        return Some(path);
    }
    // Written directly to standard error, because the test harness captures `eprintln!`.
    let line = format!("skipped: no excerpt at {}\n", path.display());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// `VOCdevkit/VOC2012` in a temporary folder, which is removed when the value is dropped.
pub(crate) struct TinyVoc {
    folder: TempDir,
}

impl TinyVoc {
    /// Makes a data set whose lists `train` and `val` name these images; all files exist.
    pub(crate) fn new(train: &[&str], val: &[&str]) -> Self {
        let voc = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for folder in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
            fs::create_dir_all(voc.root().join(folder)).unwrap();
        }
        for (seed, id) in train.iter().chain(val).enumerate() {
            voc.add(id, seed as u32);
        }
        voc.list("train", &train.join("\n"));
        voc.list("val", &val.join("\n"));
        voc
    }

    /// Returns the temporary folder, which holds `VOCdevkit`.
    pub(crate) fn outermost(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the temporary folder, which must be held as long as the data set is used.
    pub(crate) fn into_folder(self) -> TempDir {
        self.folder
    }

    /// Returns the folder `VOCdevkit/VOC2012`.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("VOCdevkit/VOC2012")
    }

    /// Returns the image file of an id.
    pub(crate) fn image(&self, id: &str) -> PathBuf {
        self.root().join(format!("JPEGImages/{id}.jpg"))
    }

    /// Returns the label file of an id.
    pub(crate) fn labels(&self, id: &str) -> PathBuf {
        self.root().join(format!("SegmentationClass/{id}.png"))
    }

    /// Writes a split list.
    pub(crate) fn list(&self, split: &str, text: &str) {
        let list = format!("ImageSets/Segmentation/{split}.txt");
        fs::write(self.root().join(list), text).unwrap();
    }

    /// Writes an image of 48×36 pixels and its label map, with all values from 0 to 20 and 255.
    pub(crate) fn add(&self, id: &str, seed: u32) {
        let value = |x: u32, y: u32| match (x / 8 + 6 * (y / 9) + seed) % 22 {
            21 => 255,
            value => value as u8,
        };
        let image = RgbImage::from_fn(48, 36, |x, y| {
            Rgb([value(x, y), (5 * x) as u8, (seed * 40) as u8])
        });
        image.save(self.image(id)).unwrap();
        GrayImage::from_fn(48, 36, |x, y| Luma([value(x, y)]))
            .save(self.labels(id))
            .unwrap();
    }

    /// Truncates an image file to half its size.
    pub(crate) fn truncate_image(&self, id: &str) {
        let bytes = fs::read(self.image(id)).unwrap();
        fs::write(self.image(id), &bytes[..bytes.len() / 2]).unwrap();
    }
}
