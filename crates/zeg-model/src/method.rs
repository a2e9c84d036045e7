//! The seam between the methods and everything else.
//!
//! A *method* ([`Method`]) is one entry of the list in [`crate::methods`]. It reads its own section of an experiment
//! into an *architecture* ([`Architecture`]), which builds a *model* ([`Model`]). The rest of the code knows these
//! three traits and nothing else; what only one method has stays in its folder.
//!
//! A method's model implements [`SegmentationModel`]; see [`crate::model`].

use std::{fmt::Debug, sync::Arc};

use burn::tensor::Device;
use serde_json::json;
use zeg_image::normalize::Normalization;

pub use crate::model::{Encoding, Model, ModelFacts, Scoring, SegmentationModel, WindowBatch};

use crate::{
    ModelError, Precision,
    config::{Activation, VisionConfig},
    cost::Cost,
    inference::Inference,
    params::list_params,
    section::Section,
    weights::{KeyTable, ParamBuilder, Provenance, StateDict},
};

/// What a method starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartingPoint {
    /// It is trained on masks, from an experiment file.
    Masks,
    /// It uses plain CLIP weights as they are.
    PlainClip,
}

/// A way of segmenting with class names: what the rest of the code has to know of it.
pub trait Method: Debug + Send + Sync {
    /// Name in files and on the command line, such as `my-method`.
    fn name(&self) -> &'static str;

    /// Name for people.
    fn title(&self) -> &'static str;

    /// What it starts from.
    fn starting_point(&self) -> StartingPoint;

    /// Reads the method's section of an experiment file (`[model]` without `method`).
    ///
    /// - `tower`: the image tower to use instead of a named one, where it is known from weights
    ///
    /// # Errors
    /// A key is not known, a value is out of range, or the values do not fit each other.
    fn configure(
        &self,
        section: &Section,
        tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError>;

    /// Recognises a published checkpoint of this method; `None` where the weights are something else.
    ///
    /// # Errors
    /// The weights are of this method, but contradict themselves.
    fn recognize(&self, weights: &StateDict) -> Result<Option<Arc<dyn Architecture>>, ModelError> {
        let _ = weights;
        Ok(None)
    }

    /// The key tables of its published checkpoints.
    fn key_tables(&self) -> &'static [KeyTable] {
        &[]
    }

    /// Returns the section of a model that is computed to try a machine; [`Method::configure`] gets it with
    /// [`ExampleSize::tower`].
    ///
    /// A model of published size should take seconds on two cores. [`ExampleSize::section`] has the keys of the image
    /// tower, for methods that name theirs.
    fn example(&self, size: ExampleSize) -> Section {
        let _ = size;
        Section::default()
    }

    /// Brings the experiment of a checkpoint of format 1 up to date, as far as it is this method's matter.
    fn upgrade_experiment(&self, experiment: &mut serde_json::Value) {
        let _ = experiment;
    }
}

/// CLIP's image tower as weights hold it, and what its images are normalised with.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainTower {
    /// The architecture, without prompts and region tokens.
    pub encoder: VisionConfig,
    /// Mean and standard deviation of pixels.
    pub normalization: Normalization,
}

/// How large a model is that is computed to try a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExampleSize {
    /// Milliseconds. No width is a multiple of what vector instructions take at once.
    Small,
    /// As published, a ViT-B/16.
    Published,
}

impl ExampleSize {
    /// Both, the small one first.
    pub const ALL: [Self; 2] = [Self::Small, Self::Published];

    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Published => "published",
        }
    }

    /// Side in pixels of the images that a method trained on masks is made for.
    const fn side(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Published => 512,
        }
    }

    /// CLIP's image tower.
    pub fn tower(self) -> PlainTower {
        let published = VisionConfig {
            patch: 16,
            width: 768,
            layers: 12,
            heads: 12,
            embed_dim: 512,
            input_resolution: 224,
            double_class_embedding: false,
            activation: Activation::default(),
            prompts: None,
            regions: None,
        };
        PlainTower {
            encoder: match self {
                Self::Published => published,
                Self::Small => VisionConfig {
                    patch: 8,
                    width: 72,
                    layers: 3,
                    heads: 3,
                    embed_dim: 40,
                    input_resolution: self.side(),
                    ..published
                },
            },
            normalization: Normalization::CLIP,
        }
    }

    /// The keys `encoder` and `input-resolution` of a method's section, with such a tower.
    pub fn section(self) -> Section {
        let VisionConfig {
            patch,
            width,
            layers,
            heads,
            embed_dim,
            ..
        } = self.tower().encoder;
        let mut section = Section::default();
        section.set(
            "encoder",
            json!({
                "patch": patch,
                "width": width,
                "layers": layers,
                "heads": heads,
                "embed-dim": embed_dim,
            }),
        );
        section.set("input-resolution", self.side());
        section
    }
}

/// A configured method: everything about a model but its parameters.
pub trait Architecture: Debug + Send + Sync {
    /// Name of the method.
    fn method(&self) -> &'static str;

    /// Name of the method for people.
    fn title(&self) -> &'static str;

    /// Builds the model of parameters, which may be fresh, frozen, trained, packed, or without values.
    ///
    /// - `params`: at the root of the names
    /// - `apart`: the same names, for a part of the model that no gradient passes
    ///
    /// # Errors
    /// What must be pre-trained is not in the weights, or a tensor has another shape.
    fn assemble(
        &self,
        params: &ParamBuilder,
        apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError>;

    /// Reads a model; what the weights lack, and the method trains, starts fresh.
    ///
    /// # Errors
    /// See [`Architecture::assemble`].
    fn build(
        &self,
        weights: &StateDict,
        device: &Device,
        seed: u64,
    ) -> Result<(Box<dyn Model>, Provenance), ModelError> {
        let trained = |key: &str| self.trains(key);
        let params = ParamBuilder::new(weights, device, seed, &trained);
        let apart = ParamBuilder::apart(weights, device, seed);
        let model = self.assemble(&params, &apart)?;
        Ok((model, params.provenance()))
    }

    /// Reads a model for inference alone: on the CPU, linear layers hold packed weights.
    ///
    /// # Errors
    /// As [`Architecture::build`], or the device cannot compute with this precision.
    fn build_packed(
        &self,
        weights: &StateDict,
        device: &Device,
        precision: Precision,
    ) -> Result<Box<dyn Model>, ModelError> {
        let params = ParamBuilder::packed(weights, device, 0, precision)?;
        self.assemble(&params, &params)
    }

    /// Returns the model's shape without values, for counting.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    fn blueprint(&self, device: &Device) -> Result<Box<dyn Model>, ModelError> {
        let weights = StateDict::default();
        let trained = |key: &str| self.trains(key);
        let params = ParamBuilder::blueprint(&weights, device, &trained);
        let apart = ParamBuilder::blueprint(&weights, device, &|_| false);
        self.assemble(&params, &apart)
    }

    /// Whether the parameter of this name learns.
    fn trains(&self, key: &str) -> bool;

    /// Whether a checkpoint keeps the parameter of this name although it does not learn.
    fn keeps(&self, key: &str) -> bool {
        let _ = key;
        false
    }

    /// The name under which weights hold the parameter `key` of the model, where it is another.
    fn weight_name(&self, key: &str) -> String {
        key.to_owned()
    }

    /// Whether the parameter of this name belongs to a backbone of the method's own, which is pre-trained in another file
    /// than CLIP.
    fn is_backbone(&self, key: &str) -> bool {
        let _ = key;
        false
    }

    /// CLIP's image tower, which sees images or crops of them; `None` where the method has none.
    fn encoder(&self) -> Option<&VisionConfig>;

    /// The sides of an image must be multiples of this many pixels.
    fn stride(&self) -> usize;

    /// Side in pixels of the images that the model is made for and that its cost is told for.
    fn resolution(&self) -> usize;

    /// How scores are made of its logits.
    fn scoring(&self) -> Scoring;

    /// Whether the image encoder is CLIP's own, which training does not change: models of one such encoder can share
    /// the encodings of images.
    fn has_frozen_encoder(&self) -> bool {
        false
    }

    /// The architecture with an image tower that its own checkpoint lacks; `None` where it lacks none.
    ///
    /// - `tower`: CLIP's, from another file
    fn with_tower(&self, tower: &VisionConfig) -> Option<Arc<dyn Architecture>> {
        let _ = tower;
        None
    }

    /// How images go through a model of this architecture unless somebody says otherwise.
    fn default_inference(&self) -> Inference {
        Inference::default()
    }

    /// Checks that an image side in pixels suits the model beyond being a multiple of the stride.
    ///
    /// - `setting`: its name in the experiment file
    ///
    /// # Errors
    /// It does not; the error says what would.
    fn check_side(&self, setting: &str, pixels: usize) -> Result<(), ModelError> {
        let _ = (setting, pixels);
        Ok(())
    }

    /// Parameters and multiply-accumulates of one square image of [`Architecture::resolution`].
    ///
    /// # Errors
    /// The configuration contradicts itself.
    fn cost(&self, classes: usize) -> Result<Cost, ModelError>;
}

impl dyn Architecture + '_ {
    /// Lists the parameters of the blueprint, with which of them learn.
    ///
    /// # Errors
    /// See [`Architecture::blueprint`].
    pub fn params(&self) -> Result<Vec<crate::params::ParamInfo>, ModelError> {
        let blueprint = self.blueprint(&Device::flex())?;
        Ok(list_params(&*blueprint, |key| self.trains(key)))
    }
}
