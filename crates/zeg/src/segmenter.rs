//! The façade for other Rust programs: load a model, say which classes, segment pictures.
//!
//! ```no_run
//! use zeg::{DeviceChoice, Segmenter};
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut segmenter = Segmenter::load("model.safetensors".as_ref(), None, DeviceChoice::Cpu)?;
//! segmenter.set_classes(&zeg::vocab::classes::parse_class_list("dog, sofa|couch")?, None)?;
//! let picture = zeg::image::decode_rgb("living-room.jpg".as_ref())?;
//! let labels = segmenter.segment(&picture)?; // one class index a pixel, at the picture's own size
//! # Ok(())
//! # }
//! ```

use std::path::Path;

use burn::tensor::Device;
use zeg_image::{LabelMap, RgbImage};
use zeg_model::{
    embeddings::{ClassEmbeddings, same_name},
    inference::{ClassQueries, Inference, segment},
};
use zeg_vocab::{classes::ClassQuery, templates::TemplateSet};

use crate::{
    device::DeviceChoice,
    loading::LoadedModel,
    words::{WordSources, embed},
};

/// A model with classes to tell apart. The words are encoded once, the pictures one by one.
#[derive(Debug)]
pub struct Segmenter {
    loaded: LoadedModel,
    stored: ClassEmbeddings,
    device: Device,
    classes: Vec<String>,
    queries: Option<ClassQueries>,
    inference: Inference,
}

impl Segmenter {
    /// Opens a checkpoint.
    ///
    /// - `base`: the frozen weights' file, where it is not the one the checkpoint names
    ///
    /// # Errors
    /// A file cannot be read or does not fit, or this build lacks the device.
    pub fn load(
        checkpoint: &Path,
        base: Option<&Path>,
        device: DeviceChoice,
    ) -> anyhow::Result<Self> {
        let device = device.open().map_err(anyhow::Error::msg)?;
        let loaded = LoadedModel::open(checkpoint, base, &device)?;
        let stored = loaded.checkpoint.embeddings()?;
        let inference = loaded.checkpoint.info.experiment.inference;
        Ok(Self {
            loaded,
            stored,
            device,
            classes: Vec::new(),
            queries: None,
            inference,
        })
    }

    /// Says which classes to tell apart.
    ///
    /// - `table`: class embeddings to take instead of those the model brings
    ///
    /// # Errors
    /// The list is empty, or a name cannot be embedded.
    pub fn set_classes(
        &mut self,
        classes: &[ClassQuery],
        table: Option<&Path>,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(!classes.is_empty(), "no class is given to tell apart");
        let names: Vec<Vec<String>> = classes
            .iter()
            .map(|c| c.names().map(str::to_owned).collect())
            .collect();
        let templates =
            TemplateSet::by_name(&self.loaded.checkpoint.info.experiment.data.templates)?;
        let sources = WordSources {
            table,
            table_names: None,
            stored: Some(&self.stored),
            weights: &self.loaded.weights,
            templates: &templates,
        };
        let embeddings = embed(&names, &sources, &self.device)?;
        let trained_on = &self.loaded.checkpoint.info.classes;
        let seen = classes
            .iter()
            .map(|class| {
                trained_on
                    .iter()
                    .any(|t| t.seen && class.names().any(|n| same_name(n, &t.name)))
            })
            .collect();
        self.classes = classes.iter().map(|class| class.name.clone()).collect();
        self.queries = Some(ClassQueries {
            text: embeddings.to_tensor(&self.device),
            seen,
        });
        Ok(())
    }

    /// Names of the classes, by class index.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How pictures go through the model.
    pub fn inference_mut(&mut self) -> &mut Inference {
        &mut self.inference
    }

    /// The class index of every pixel, at the picture's own size; [`zeg_image::IGNORE_LABEL`] where no class reaches
    /// the threshold of [`Inference`].
    ///
    /// # Errors
    /// No classes are set.
    pub fn segment(&self, picture: &RgbImage) -> anyhow::Result<LabelMap> {
        let queries = self
            .queries
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("set_classes has not been called"))?;
        Ok(segment(
            &self.loaded.model,
            picture,
            queries,
            &self.inference,
            &self.device,
        )?)
    }
}
