//! Generated data in the layouts of the benchmarks and of the medical data sets: images of two rectangles, each in the
//! colour of its class.

use std::{fs, path::Path};

use image::{GrayImage, Luma, Rgb, RgbImage};
use zeg::vocab::classes::voc_colour;

/// Width and height of an image in pixels.
const SIZE: (u32, u32) = (48, 40);
/// Number of training images; the images after them are for scoring.
const TRAINING: usize = 4;
/// Number of all images.
const ALL: usize = 6;

/// The values of a label map: those of its two rectangles, and of the rest.
#[derive(Clone, Copy)]
struct Values {
    first: u8,
    second: u8,
    rest: u8,
}

impl Values {
    fn at(self, x: u32, y: u32) -> u8 {
        match (x, y) {
            (4..20, 6..30) => self.first,
            (26..44, 10..36) => self.second,
            _ => self.rest,
        }
    }
}

/// Writes an image and its label map.
fn write_pair(image: &Path, labels: &Path, values: Values) {
    for path in [image, labels] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let colour = |x, y| Rgb(voc_colour(usize::from(values.at(x, y))));
    RgbImage::from_fn(SIZE.0, SIZE.1, colour)
        .save(image)
        .unwrap();
    let value = |x, y| Luma([values.at(x, y)]);
    GrayImage::from_fn(SIZE.0, SIZE.1, value)
        .save(labels)
        .unwrap();
}

/// Writes COCO-Stuff 164K; every other image has an object of the unseen class `cow`.
pub(crate) fn write_coco_stuff(root: &Path) {
    for number in 0..ALL {
        let split = if number < TRAINING {
            "train2017"
        } else {
            "val2017"
        };
        let values = Values {
            first: number as u8,
            second: if number % 2 == 0 { 19 } else { 40 },
            rest: 255,
        };
        write_pair(
            &root.join(format!("images/{split}/{number:012}.jpg")),
            &root.join(format!(
                "annotations/{split}/{number:012}_labelTrainIds.png"
            )),
            values,
        );
    }
}

/// Writes PASCAL Context; every other image has an object of the unseen class `aeroplane`.
pub(crate) fn write_pascal_context(root: &Path) {
    let ids: Vec<String> = (0..ALL).map(|number| format!("2008_{number:06}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let values = Values {
            first: number as u8 + 2,
            second: if number % 2 == 0 { 1 } else { 40 },
            rest: 0,
        };
        write_pair(
            &root.join(format!("JPEGImages/{id}.jpg")),
            &root.join(format!("SegmentationClassContext/{id}.png")),
            values,
        );
    }
    let lists = root.join("ImageSets/SegmentationContext");
    fs::create_dir_all(&lists).unwrap();
    fs::write(lists.join("train.txt"), ids[..TRAINING].join("\n")).unwrap();
    fs::write(lists.join("val.txt"), ids[TRAINING..].join("\n")).unwrap();
}

/// A medical data set: the name of its description, its splits, and the paths of its pairs with `#` for the number.
pub(crate) struct Medical {
    pub(crate) name: &'static str,
    pub(crate) train: &'static str,
    pub(crate) eval: &'static str,
    /// Image and mask of each part.
    parts: &'static [(&'static str, &'static str)],
}

/// The sets without an official split are divided by the parts of their only one.
const TRAIN_PART: &str = "all:not-1/5";
const EVAL_PART: &str = "all:1/5";

pub(crate) const MEDICAL: [Medical; 7] = [
    Medical {
        name: "btmri",
        train: TRAIN_PART,
        eval: EVAL_PART,
        parts: &[("images/#.png", "masks/#.png")],
    },
    Medical {
        name: "busi",
        train: TRAIN_PART,
        eval: EVAL_PART,
        parts: &[
            ("benign/benign (#).png", "benign/benign (#)_mask.png"),
            (
                "malignant/malignant (#).png",
                "malignant/malignant (#)_mask.png",
            ),
        ],
    },
    Medical {
        name: "cvc-clinicdb",
        train: TRAIN_PART,
        eval: EVAL_PART,
        parts: &[("Original/#.tif", "Ground Truth/#.tif")],
    },
    Medical {
        name: "eus",
        train: "train",
        eval: "test",
        parts: &[
            (
                "Train_Folder/img/C01_V1_#.png",
                "Train_Folder/label/C01_V1_#.png",
            ),
            (
                "Test_Folder/img/C02_V1_#.png",
                "Test_Folder/label/C02_V1_#.png",
            ),
        ],
    },
    Medical {
        name: "isic2018",
        train: "train",
        eval: "test",
        parts: &[
            (
                "ISIC2018_Task1-2_Training_Input/ISIC_#.jpg",
                "ISIC2018_Task1_Training_GroundTruth/ISIC_#_segmentation.png",
            ),
            (
                "ISIC2018_Task1-2_Test_Input/ISIC_#.jpg",
                "ISIC2018_Task1_Test_GroundTruth/ISIC_#_segmentation.png",
            ),
        ],
    },
    Medical {
        name: "kvasir-seg",
        train: TRAIN_PART,
        eval: EVAL_PART,
        parts: &[("images/#.jpg", "masks/#.jpg")],
    },
    Medical {
        name: "qata-cov19",
        train: "train",
        eval: "test",
        parts: &[
            (
                "Train Set/Images/covid_#.png",
                "Train Set/Ground-truths/mask_covid_#.png",
            ),
            (
                "Test Set/Images/covid_#.png",
                "Test Set/Ground-truths/mask_covid_#.png",
            ),
        ],
    },
];

impl Medical {
    /// Writes images with one bright rectangle in their masks.
    pub(crate) fn write(&self, root: &Path) {
        let values = Values {
            first: 255,
            second: 0,
            rest: 0,
        };
        for (image, mask) in self.parts {
            for number in 0..ALL {
                let path = |pattern: &str| root.join(pattern.replace('#', &number.to_string()));
                write_pair(&path(image), &path(mask), values);
            }
        }
    }
}
