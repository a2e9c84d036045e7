//! Evaluations for tests: invented counts over real class lists.

// Each test file uses only a part of this module.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)] // the configured exception does not reach helper functions

use std::collections::BTreeMap;

use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::json;
use zeg_base::fingerprint::Fingerprint;
use zeg_eval::page::{CurvePoint, ReportInput, RunInput};
use zeg_eval::{
    BenchmarkRef, ClassRef, ClassShare, ConfusionMatrix, Evaluation, GalleryEntry, ImageScore,
    Metric, ModelRef, NanRule, Protocol, Rank, Timing, gallery,
};
use zeg_vocab::classes::ClassSet;

pub(crate) const IGNORE: u16 = u16::MAX;

/// Pseudo-random numbers that are the same on every system (Knuth's MMIX constants).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }

    /// Returns a number in 0..1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }
}

/// Returns the classes of a built-in list, or numbered classes of which every seventh is unseen.
pub(crate) fn classes(list: &str) -> Vec<ClassRef> {
    let mut numbers = Numbers(7);
    let mut class = |name: String, unseen| ClassRef {
        name,
        unseen,
        colour: [0; 3].map(|_| 40 + numbers.below(200) as u8),
    };
    if let Ok(count) = list.parse::<usize>() {
        return (0..count)
            .map(|label| {
                class(
                    format!("class number {label}, also called thing {label}"),
                    label % 7 == 3,
                )
            })
            .collect();
    }
    let set = ClassSet::by_name(list).unwrap();
    let names = set.classes.iter().enumerate();
    names
        .map(|(label, name)| class(name.clone(), set.unseen.contains(&label)))
        .collect()
}

/// Returns the labels of an image of 32 × 24 pixels in stripes, and a prediction that is mostly right.
pub(crate) fn labelled_image(seed: u64, classes: usize) -> (Vec<u16>, Vec<u16>) {
    let mut numbers = Numbers(seed * 977 + 5);
    let quality = numbers.fraction();
    let (mut truth, mut prediction) = (Vec::new(), Vec::new());
    let present: Vec<u16> = (0..4)
        .map(|_| numbers.below(classes as u64) as u16)
        .collect();
    for pixel in 0..32 * 24 {
        let label = present[pixel % 32 / 8];
        truth.push(if pixel % 31 == 0 { IGNORE } else { label });
        // Wrong pixels of a class are mostly predicted as the next class.
        let other = (usize::from(label) + 1 + numbers.below(3) as usize / 2) % classes;
        let right = numbers.fraction() < 0.35 + 0.65 * quality;
        prediction.push(if right { label } else { other as u16 });
    }
    (truth, prediction)
}

/// Returns an evaluation of the images with these numbers.
pub(crate) fn evaluation(
    list: &str,
    numbered_images: std::ops::Range<u64>,
    seed: u64,
) -> Evaluation {
    let classes = classes(list);
    let mut confusion = ConfusionMatrix::new(classes.len());
    let mut scores = Vec::new();
    for number in numbered_images.clone() {
        let (truth, prediction) = labelled_image(number + 10_000 * seed, classes.len());
        confusion.add(&truth, &prediction, IGNORE).unwrap();
        let id = format!("2007_{number:06}");
        scores.push(ImageScore::of(id, (&truth, &prediction), classes.len(), IGNORE).unwrap());
    }
    let (dataset, title, official) = match list {
        "voc20" => ("voc12", "PASCAL VOC 2012", Some(1449)),
        "coco-stuff171" => ("coco-stuff164k", "COCO-Stuff 164k", Some(5000)),
        "pascal-context60" => ("pascal-context", "PASCAL Context", Some(5105)),
        _ => ("my-images", "My images", None),
    };
    let mut evaluation = Evaluation {
        format: 1,
        program: "zeg 0.1.0".into(),
        benchmark: BenchmarkRef {
            dataset: dataset.into(),
            title: title.into(),
            class_list: list.into(),
            split: "val".into(),
            official_images: official,
        },
        protocol: Protocol::Inductive,
        trained_on: Some(dataset.into()),
        method: "ZegCLIP".into(),
        model: ModelRef {
            path: format!("runs/zegclip-{seed}/model.safetensors"),
            sha256: format!("{seed:x}").repeat(64),
            step: Some(20_000),
            seed: Some(seed),
        },
        templates: "single".into(),
        inference: json!({"short-side": 512, "crop": 512, "stride": 426, "seen-offset": 0.1_f32}),
        scales: vec![1.0],
        flip: false,
        fingerprint: Fingerprint::new()
            .with("class list: names", list)
            .with("images", "1449 (0123)")
            .with("images: file contents", "1449 (89ab)")
            .with("label rule: kind", "index")
            .with("label rule: zero-is", "ignore")
            .with("weights: SHA-256", "ab")
            .with("class embeddings: templates", "single (4567)"),
        classes,
        images: numbered_images.end - numbered_images.start,
        image_scores: scores,
        reliability: None,
        skipped: Vec::new(),
        tied: Vec::new(),
        confusion,
        metric: Metric::MeanIou,
        nan_rule: NanRule::Mmseg,
        shard: None,
        timing: Timing {
            wall_s: 1234.5,
            model_s: 2345.25,
            threads: 2,
            machine: "test machine, 2 cores".into(),
        },
        gallery: Vec::new(),
    };
    evaluation.gallery = entries(&evaluation, numbered_images, seed);
    evaluation
}

/// Returns the gallery: two images of each rank.
fn entries(
    evaluation: &Evaluation,
    numbered_images: std::ops::Range<u64>,
    seed: u64,
) -> Vec<GalleryEntry> {
    let scores: Vec<(&str, f64)> = evaluation
        .image_scores
        .iter()
        .map(|labelled_image| (labelled_image.id.as_str(), labelled_image.miou.unwrap()))
        .collect();
    let numbers: Vec<u64> = numbered_images.collect();
    let entry = |(position, rank): (usize, Rank)| {
        let (id, score) = scores[position];
        let count = evaluation.classes.len();
        let (truth, prediction) = labelled_image(numbers[position] + 10_000 * seed, count);
        let file = |kind: &str, ending: &str| format!("gallery/{id}.{kind}.{ending}");
        GalleryEntry {
            id: id.to_owned(),
            rank,
            score,
            image: file("image", "jpg"),
            truth: file("truth", "png"),
            prediction: file("prediction", "png"),
            error: file("error", "png"),
            classes: ClassShare::of((&truth, &prediction), count, IGNORE).unwrap(),
        }
    };
    gallery::pick(&scores, 2).into_iter().map(entry).collect()
}

/// Writes the thumbnails of the gallery.
pub(crate) fn write_thumbnails(evaluation: &Evaluation, folder: &Path) {
    std::fs::create_dir_all(folder.join("gallery")).unwrap();
    for (number, entry) in evaluation.gallery.iter().enumerate() {
        for (kind, file) in [&entry.image, &entry.truth, &entry.prediction, &entry.error]
            .into_iter()
            .enumerate()
        {
            let image = RgbImage::from_fn(96, 72, |x, y| {
                let class = &evaluation.classes
                    [(x as usize / 24 + kind + number) % evaluation.classes.len()];
                let [r, g, b] = class.colour;
                Rgb([r, g, b.wrapping_add(y as u8)])
            });
            image.save(folder.join(file)).unwrap();
        }
    }
}

/// Returns a log with a falling, noisy loss.
pub(crate) fn curves(steps: u64, seed: u64) -> Vec<CurvePoint> {
    let mut numbers = Numbers(seed);
    let step = |step: u64| {
        let progress = step as f64 / steps as f64;
        let fall = (-6.0 * progress).exp();
        let focal = 0.02 + 1.4 * fall * (0.6 + 0.8 * numbers.fraction());
        let dice = 0.25 + 0.7 * fall * (0.7 + 0.6 * numbers.fraction());
        CurvePoint {
            step,
            loss: Some(focal + dice),
            lr: Some(2e-4 * (step.min(1500) as f64 / 1500.0) * (1.0 - progress).powf(0.9)),
            more: BTreeMap::from([
                ("focal".to_owned(), focal.into()),
                ("dice".to_owned(), dice.into()),
            ]),
        }
    };
    (0..steps).map(step).collect()
}

/// Returns the input of a report of these evaluations, without logs, experiments and thumbnails.
pub(crate) fn input(title: &str, evaluations: Vec<Evaluation>) -> ReportInput {
    let run = |evaluation| RunInput {
        evaluation,
        folder: "nowhere".into(),
        curves: Vec::new(),
        experiment: None,
    };
    ReportInput {
        title: title.into(),
        runs: evaluations.into_iter().map(run).collect(),
        images: Vec::new(),
    }
}
