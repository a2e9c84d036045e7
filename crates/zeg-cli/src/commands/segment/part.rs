//! A part of a divided run: `--shard I/N` takes every N-th image, and the journal of its folder says which.
//!
//! Every process expands the same arguments to the same list, checks the whole of it, and segments its own images. The
//! part keeps a digest of the list, so that parts of different lists are not merged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeg::{
    eval::Shard,
    export::{Classes, ExportError},
};
use zeg_base::{fingerprint::digest, paths::path_text};

use super::{args::SegmentSettings, inputs::Input};

/// What the journal of a part says about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Number of the part, from 1, and number of parts.
    pub(super) shard: Shard,
    /// Digest of the paths of all images, those of the other parts included.
    pub(super) list: String,
    /// The images of the part, in the order of the list.
    pub(super) images: Vec<PartImage>,
    /// Kinds of files.
    pub(super) kinds: Vec<String>,
    /// Opacity of the colours in overlays.
    pub(super) opacity: f32,
    /// Smallest region in annotations, in pixels.
    pub(super) minimal_area: u64,
    pub(super) label_studio_prefix: String,
    /// Title of the model's method.
    pub(super) method: String,
    classes: PartClasses,
}

/// An image of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PartImage {
    /// Path of its results without an extension, in the output folder.
    pub(super) stem: PathBuf,
    /// Its path within the folder that was named.
    pub(super) relative: PathBuf,
}

/// The class list of exports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PartClasses {
    names: Vec<String>,
    palette: Vec<[u8; 3]>,
    /// Labels of the background classes.
    background: Vec<u16>,
}

/// The images of a part, or of the whole.
pub(super) struct Division {
    pub(super) inputs: Vec<Input>,
    /// Path of each image's results without an extension, relative to the output folder.
    pub(super) stems: Vec<PathBuf>,
    /// Digest of the paths of all images; `None` if the run is not divided.
    list: Option<String>,
}

impl Division {
    /// Takes the images of a part; without a part, all.
    ///
    /// - `stems`: one for each image
    ///
    /// # Errors
    /// Returns an error if there are fewer images than parts, or an image comes from standard input.
    pub(super) fn of(
        shard: Option<Shard>,
        inputs: Vec<Input>,
        stems: Vec<PathBuf>,
    ) -> anyhow::Result<Self> {
        let Some(Shard { index, count }) = shard else {
            return Ok(Self {
                inputs,
                stems,
                list: None,
            });
        };
        anyhow::ensure!(
            !inputs.iter().any(Input::is_stdin),
            "--shard divides files; an image from standard input (`-`) is one alone"
        );
        anyhow::ensure!(
            inputs.len() as u64 >= index,
            "--shard {index}/{count}: there are only {} images, so that this part has none",
            inputs.len()
        );
        let list = digest(inputs.iter().map(|input| path_text(&input.image.relative)));
        let pairs = (0_u64..).zip(inputs.into_iter().zip(stems));
        let own = pairs.filter(|(position, _)| position % count == index - 1);
        let (inputs, stems) = own.map(|(_, pair)| pair).unzip();
        Ok(Self {
            inputs,
            stems,
            list: Some(list),
        })
    }

    /// Returns what the journal keeps of the part; `None` if the run is not divided.
    ///
    /// - `method`: title of the model's method
    pub(super) fn part(
        &self,
        settings: &SegmentSettings,
        classes: &Classes,
        method: &str,
    ) -> Option<Part> {
        let output = &settings.output;
        let images = self.inputs.iter().zip(&self.stems);
        let images = images.map(|(input, stem)| PartImage {
            stem: stem.clone(),
            relative: input.image.relative.clone(),
        });
        let labels = (0..).zip(&settings.classes);
        let background = labels.filter(|(_, class)| !class.role.is_foreground());
        Some(Part {
            shard: settings.shard?,
            list: self.list.clone()?,
            images: images.collect(),
            kinds: output.kinds.iter().map(|kind| kind.name.into()).collect(),
            opacity: output.opacity,
            minimal_area: output.minimal_area,
            label_studio_prefix: output.label_studio_prefix.clone(),
            method: method.to_owned(),
            classes: PartClasses {
                names: classes.names().to_vec(),
                palette: super::work::palette(classes),
                background: background.map(|(label, _)| label).collect(),
            },
        })
    }
}

impl Part {
    /// Returns the class list of exports.
    ///
    /// # Errors
    /// Returns an error if there are more classes than labels.
    pub(super) fn classes(&self) -> Result<Classes, ExportError> {
        let PartClasses {
            names,
            palette,
            background,
        } = self.classes.clone();
        Ok(Classes::new(names, palette)?.with_background(background))
    }
}
