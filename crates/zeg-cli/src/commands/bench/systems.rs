//! The systems of `zeg bench --table`, with the figures that were published for them.

use serde::Serialize;

/// What the published figures were measured on.
pub(super) const PUBLISHED_ON: &str = "one GTX 1080 Ti, images of 512×512; trained parameters, unused ones included (ZegCLIP, CVPR 2023, table 3)";

/// A system with the classes of a data set.
#[derive(Debug)]
pub(super) struct System {
    /// Name of the method, as in experiment files.
    pub(super) method: &'static str,
    /// Name of the data set whose number of classes is used.
    pub(super) dataset: &'static str,
    /// Path of its experiment file in the repository.
    pub(super) experiment: &'static str,
    /// Text of the experiment file.
    pub(super) text: &'static str,
    /// The published figures, if there are any.
    pub(super) published: Option<PublishedCost>,
}

/// Published cost and speed of a system.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct PublishedCost {
    /// Trained parameters in millions.
    pub(super) parameters_m: f64,
    /// Multiply-accumulates of one image, in 10⁹; the paper calls them FLOPs.
    pub(super) macs_g: f64,
    /// Images in a second.
    pub(super) images_per_s: f64,
}

/// Returns a system whose experiment is `configs/DATASET/FILE` of the repository.
macro_rules! system {
    ($method:literal, $dataset:literal, $file:literal, $published:expr) => {
        System {
            method: $method,
            dataset: $dataset,
            experiment: concat!("configs/", $dataset, "/", $file),
            text: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../configs/",
                $dataset,
                "/",
                $file
            )),
            published: $published,
        }
    };
}

/// Published figures of a system (ZegCLIP, CVPR 2023, table 3).
const fn published(parameters_m: f64, macs_g: f64, images_per_s: f64) -> PublishedCost {
    PublishedCost {
        parameters_m,
        macs_g,
        images_per_s,
    }
}

/// All systems. The published ZegFormer has a ResNet-101; no cost of CLIP-RC was published.
pub(super) static SYSTEMS: [System; 6] = [
    system!(
        "zegformer",
        "voc12",
        "zegformer-r101.toml",
        Some(published(60.3, 1829.3, 1.7))
    ),
    system!(
        "zegclip",
        "voc12",
        "zegclip-inductive.toml",
        Some(published(13.8, 110.4, 9.0))
    ),
    system!("clip-rc", "voc12", "clip-rc-inductive.toml", None),
    system!(
        "zegformer",
        "coco-stuff164k",
        "zegformer-r101.toml",
        Some(published(60.3, 1875.1, 1.5))
    ),
    system!(
        "zegclip",
        "coco-stuff164k",
        "zegclip-inductive.toml",
        Some(published(14.6, 123.9, 6.7))
    ),
    system!("clip-rc", "coco-stuff164k", "clip-rc-inductive.toml", None),
];
