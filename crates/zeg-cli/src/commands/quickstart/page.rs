//! The quickstart's page: images with predictions of unseen classes first, then the comparison of the methods.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use askama::Template;
use zeg::{
    data::{
        SampleSource as _,
        mini_world::{Part, World, WorldConfig, WorldSet},
    },
    image::{LabelMap, RgbImage, decode_labels, distinct_palette, write_rgb_png},
    vocab::classes::ClassSet,
};

use super::{plan::PlannedMethod, runs::RunScores};
use crate::commands::shared::Existing;

/// Name of the page in the quickstart's folder.
pub(super) const FILE_NAME: &str = "index.html";
/// Images on the page.
const SHOWN: usize = 6;
/// Test images that they are chosen from.
const CANDIDATES: usize = 400;
/// Share of the class colour in a tinted pixel, in 1/256.
const TINT: u32 = 154;

/// Test images with objects of unseen classes, on disk.
pub(super) struct TestImages {
    pub(super) folder: PathBuf,
    classes: ClassSet,
    samples: Vec<TestImage>,
}

struct TestImage {
    id: String,
    image: RgbImage,
    truth: LabelMap,
}

impl TestImages {
    /// Chooses the test images by their truth alone and writes them to a folder.
    ///
    /// Images with the largest share of unseen pixels come first, one for each unseen class before a class repeats.
    pub(super) fn write(folder: PathBuf, split: u64) -> anyhow::Result<Self> {
        let world = Arc::new(World::new(WorldConfig {
            split_seed: split,
            ..WorldConfig::default()
        })?);
        let classes = world.classes().clone();
        let set = WorldSet::new(world, Part::Test, CANDIDATES);
        let mut rated = Vec::new();
        for index in 0..set.len() {
            let sample = set.load(index)?;
            let mut pixels = vec![0_usize; classes.len()];
            for &label in sample.labels.labels() {
                if classes.is_unseen(usize::from(label)) {
                    pixels[usize::from(label)] += 1;
                }
            }
            let total: usize = pixels.iter().sum();
            let largest = (0..pixels.len()).max_by_key(|&class| pixels[class]);
            rated.push((total, largest.unwrap_or(0), sample));
        }
        rated.sort_by_key(|(total, ..)| std::cmp::Reverse(*total)); // stable: equal shares in the set's order
        let mut samples: Vec<TestImage> = Vec::new();
        let mut shown = vec![0_usize; classes.len()];
        for round in 1..=SHOWN {
            for (_, class, sample) in &rated {
                if samples.len() < SHOWN && shown[*class] < round {
                    let taken = samples.iter().any(|image| image.id == sample.id);
                    if !taken {
                        shown[*class] += 1;
                        samples.push(TestImage {
                            id: sample.id.clone(),
                            image: sample.image.clone(),
                            truth: sample.labels.clone(),
                        });
                    }
                }
            }
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for sample in &samples {
            let file = folder.join(format!("{}.png", sample.id));
            write_rgb_png(&Existing::Replace.place(&file)?, &sample.image)?;
        }
        Ok(Self {
            folder,
            classes,
            samples,
        })
    }

    /// Returns the names of all classes, seen ones first.
    pub(super) fn class_names(&self) -> &[String] {
        &self.classes.classes
    }
}

/// What the page is about.
pub(super) struct PageContent<'a> {
    /// The method whose predictions are shown.
    pub(super) best: &'a PlannedMethod,
    pub(super) methods: &'a [PlannedMethod],
    pub(super) splits: &'a [u64],
    pub(super) scores: &'a [RunScores],
    pub(super) images: &'a TestImages,
    /// Folder of the predicted label maps.
    pub(super) predictions: &'a Path,
    /// The pages that compare the methods in detail, one a split.
    pub(super) reports: &'a [PathBuf],
    pub(super) seconds: f64,
    pub(super) threads: usize,
}

impl<'a> PageContent<'a> {
    /// Returns the scores of a method, one a split.
    fn of(&self, method: &PlannedMethod) -> impl Iterator<Item = &'a RunScores> {
        let scores = self.scores.iter();
        scores.filter(move |score| score.method == method.name)
    }
}

#[derive(Template)]
#[template(path = "quickstart.html")]
struct Page {
    version: &'static str,
    best: String,
    unseen_ious: String,
    seen: usize,
    unseen: usize,
    others: Vec<OtherScores>,
    shots: Vec<Shot>,
    splits: Vec<u64>,
    rows: Vec<Row>,
    reports: Vec<(u64, String)>,
    seconds: String,
    threads: usize,
}

/// A method beside the best one, for the sentence about it.
struct OtherScores {
    title: String,
    unseen_ious: String,
}

/// An image with truth and prediction; addresses are relative to the page.
struct Shot {
    image: String,
    truth: String,
    prediction: String,
    classes: Vec<Chip>,
}

/// A class of an image.
struct Chip {
    name: String,
    colour: String,
    is_unseen: bool,
    /// Intersection over union in this image, in percent; `None` where the class is only predicted.
    iou: Option<String>,
}

struct Row {
    title: String,
    about: String,
    is_best: bool,
    /// mIoU(U), mIoU(S) and hIoU of each split.
    cells: Vec<[String; 3]>,
    seconds: String,
}

/// Writes `index.html` and its images into the quickstart's folder; returns the page's path.
pub(super) fn write(folder: &Path, content: &PageContent) -> anyhow::Result<PathBuf> {
    let unseen_ious = |method: &PlannedMethod| {
        let of = content.of(method);
        let values: Vec<String> = of.map(|s| percent(s.miou_unseen)).collect();
        values.join(" and ")
    };
    let pixels = folder.join("page");
    fs::create_dir_all(&pixels).with_context(|| pixels.display().to_string())?;
    let shots = content
        .images
        .samples
        .iter()
        .map(|sample| shot(sample, content, &pixels))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let classes = &content.images.classes;
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        best: content.best.title.clone(),
        unseen_ious: unseen_ious(content.best),
        seen: classes.len() - classes.unseen.len(),
        unseen: classes.unseen.len(),
        others: content
            .methods
            .iter()
            .filter(|method| method.name != content.best.name)
            .map(|method| OtherScores {
                title: method.title.clone(),
                unseen_ious: unseen_ious(method),
            })
            .collect(),
        shots,
        splits: content.splits.to_vec(),
        rows: content
            .methods
            .iter()
            .map(|method| Row {
                title: method.title.clone(),
                about: method.about.clone(),
                is_best: method.name == content.best.name,
                cells: content
                    .of(method)
                    .map(|s| [s.miou_unseen, s.miou_seen, s.hiou].map(percent))
                    .collect(),
                seconds: content
                    .of(method)
                    .map(|s| format!("{:.0}", s.train_seconds))
                    .collect::<Vec<_>>()
                    .join(", "),
            })
            .collect(),
        reports: content
            .splits
            .iter()
            .copied()
            .zip(content.reports.iter().map(|path| relative(path, folder)))
            .collect(),
        seconds: format!("{:.0}", content.seconds),
        threads: content.threads,
    };
    let path = folder.join(FILE_NAME);
    Existing::Replace.write(&path, page.render()?)?;
    Ok(path)
}

/// Writes an image, its truth and its prediction in colour.
fn shot(sample: &TestImage, content: &PageContent, pixels: &Path) -> anyhow::Result<Shot> {
    let classes = &content.images.classes;
    let palette = distinct_palette(classes.len());
    let predicted = decode_labels(&content.predictions.join(format!("{}.png", sample.id)))?;
    let (truth, found) = (sample.truth.labels(), predicted.labels());
    anyhow::ensure!(
        truth.len() == found.len(),
        "{}: prediction of another size",
        sample.id
    );
    let write = |kind: &str, image: &RgbImage| {
        let name = format!("{}.{kind}.png", sample.id);
        write_rgb_png(&Existing::Replace.place(&pixels.join(&name))?, image)?;
        anyhow::Ok(format!("page/{name}"))
    };
    // Pixels without a label in the truth stay grey in both, so that the two can be compared by eye.
    let labelled: Vec<bool> = truth
        .iter()
        .map(|&label| usize::from(label) < classes.len())
        .collect();
    let mut chips = Vec::new();
    for (class, name) in classes.classes.iter().enumerate() {
        let (mut both, mut either, mut in_truth) = (0_usize, 0_usize, 0_usize);
        for ((&truth, &found), _) in truth.iter().zip(found).zip(&labelled).filter(|(_, l)| **l) {
            let (a, b) = (usize::from(truth) == class, usize::from(found) == class);
            both += usize::from(a && b);
            either += usize::from(a || b);
            in_truth += usize::from(a);
        }
        if in_truth > 0 {
            let iou = both as f64 / either.max(1) as f64;
            let [r, g, b] = palette[class];
            chips.push(Chip {
                name: name.clone(),
                colour: format!("rgb({r},{g},{b})"),
                is_unseen: classes.is_unseen(class),
                iou: Some(format!("{:.0} %", 100.0 * iou)),
            });
        }
    }
    chips.sort_by_key(|chip| !chip.is_unseen);
    Ok(Shot {
        image: write("image", &sample.image)?,
        truth: write("truth", &tinted(&sample.image, truth, &labelled, &palette))?,
        prediction: write(
            "prediction",
            &tinted(&sample.image, found, &labelled, &palette),
        )?,
        classes: chips,
    })
}

/// Blends class colours over the labelled pixels of a greyed image.
fn tinted(image: &RgbImage, labels: &[u16], labelled: &[bool], palette: &[[u8; 3]]) -> RgbImage {
    let mut tinted = image.clone();
    for ((pixel, &label), &is_labelled) in tinted.pixels_mut().zip(labels).zip(labelled) {
        let [r, g, b] = pixel.0.map(u32::from);
        let grey = (r * 77 + g * 150 + b * 29) >> 8;
        let colour = palette.get(usize::from(label)).filter(|_| is_labelled);
        pixel.0 = match colour {
            Some(colour) => {
                colour.map(|tint| ((grey * (256 - TINT) + u32::from(tint) * TINT + 128) >> 8) as u8)
            }
            None => [(grey / 2 + 64) as u8; 3],
        };
    }
    tinted
}

/// Returns a path as an address relative to a folder.
fn relative(path: &Path, folder: &Path) -> String {
    let path = path.strip_prefix(folder).unwrap_or(path);
    path.to_string_lossy().replace('\\', "/")
}

/// Returns a fraction of 1 in percent with one decimal.
pub(super) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", 100.0 * value))
}
