//! The interface between the segmentation methods and the rest of the code.
//!
//! A *method* ([`Method`]) is one entry of the list in [`crate::methods`]. It reads its own section of an experiment
//! into an *architecture* ([`Architecture`]), which builds a *model* ([`Model`]). The rest of the code knows these
//! three traits and nothing else; everything specific to one method stays in that method's folder.
//!
//! A method's model implements [`SegmentationModel`]; see [`crate::model`].

use std::{fmt::Debug, sync::Arc};

use burn::tensor::Device;
use serde_json::json;
use zeg_image::normalize::Normalization;

pub use crate::model::{
    Encoding, Model, ModelFacts, Resampling, Scoring, SegmentationModel, WindowBatch,
};

use crate::{
    ModelError, Precision,
    config::{Activation, VisionConfig},
    cost::Cost,
    inference::Inference,
    params::list_params,
    section::Section,
    weights::{KeyTable, ParamBuilder, Provenance, StateDict},
};

/// The weights that a method starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartingPoint {
    /// The method is trained on masks, from an experiment file.
    Masks,
    /// The method uses plain CLIP weights without training.
    PlainClip,
}

/// A segmentation method, as the rest of the code sees it.
pub trait Method: Debug + Send + Sync {
    /// Returns the name in files and on the command line, such as `my-method`.
    fn name(&self) -> &'static str;

    /// Returns the name to display.
    fn title(&self) -> &'static str;

    /// Returns the weights that the method starts from.
    fn starting_point(&self) -> StartingPoint;

    /// Reads the method's section of an experiment file (`[model]` without `method`).
    ///
    /// - `tower`: the image tower to use instead of a named one, where the weights determine it
    ///
    /// # Errors
    /// Returns an error if a key is unknown, a value is out of range, or the values contradict each other.
    fn configure(
        &self,
        section: &Section,
        tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError>;

    /// Recognises a published checkpoint of this method; returns `None` if the weights are something else.
    ///
    /// # Errors
    /// Returns an error if the weights belong to this method but are inconsistent.
    fn recognize(&self, weights: &StateDict) -> Result<Option<Arc<dyn Architecture>>, ModelError> {
        let _ = weights;
        Ok(None)
    }

    /// Returns the key tables of the method's published checkpoints.
    fn key_tables(&self) -> &'static [KeyTable] {
        &[]
    }

    /// Returns the section of an example model for benchmarking a machine; [`Method::configure`] receives it together
    /// with [`ExampleSize::tower`].
    ///
    /// A model of published size should take seconds on two cores. [`ExampleSize::section`] sets the keys of the image
    /// tower, for methods whose section names the tower.
    fn example(&self, size: ExampleSize) -> Section {
        let _ = size;
        Section::default()
    }

    /// Upgrades this method's keys in the experiment of a checkpoint of format 1.
    fn upgrade_experiment(&self, experiment: &mut serde_json::Value) {
        let _ = experiment;
    }
}

/// CLIP's image tower as found in weights, and the normalisation of its images.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainTower {
    /// The architecture, without prompts and region tokens.
    pub encoder: VisionConfig,
    /// Mean and standard deviation of pixels.
    pub normalization: Normalization,
}

/// The size of an example model for benchmarking a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExampleSize {
    /// A model that runs in milliseconds. None of its widths is a multiple of the vector length of SIMD instructions.
    Small,
    /// A ViT-B/16, as published.
    Published,
}

impl ExampleSize {
    /// Both sizes, the small one first.
    pub const ALL: [Self; 2] = [Self::Small, Self::Published];

    /// Returns the name used in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Published => "published",
        }
    }

    /// Returns the side in pixels of the images that a method trained on masks expects.
    const fn side(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Published => 512,
        }
    }

    /// Returns the configuration of CLIP's image tower in this size.
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

    /// Returns the keys `encoder` and `input-resolution` of a method's section, for a tower of this size.
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

/// A configured method: everything about a model except its parameters.
pub trait Architecture: Debug + Send + Sync {
    /// Returns the name of the method.
    fn method(&self) -> &'static str;

    /// Returns the name of the method to display.
    fn title(&self) -> &'static str;

    /// Builds the model from parameters, which may be fresh, frozen, trained, packed, or without values.
    ///
    /// - `params`: builder rooted at the top-level prefix
    /// - `apart`: builder with the same root, for the part of the model that no gradient passes
    ///
    /// # Errors
    /// Returns an error if a pre-trained tensor is missing from the weights, or a tensor has the wrong shape.
    fn assemble(
        &self,
        params: &ParamBuilder,
        apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError>;

    /// Builds the model from weights; trained parameters that the weights lack are initialised.
    ///
    /// # Errors
    /// Returns the errors of [`Architecture::assemble`].
    fn build(
        &self,
        weights: &StateDict,
        device: &Device,
        seed: u64,
    ) -> Result<(Box<dyn Model>, Provenance), ModelError> {
        self.build_frozen_in(weights, device, seed, Precision::Float)
    }

    /// Builds the model as [`Architecture::build`] does, for training with frozen layers of CLIP's blocks in this
    /// precision; everything that is trained has 32-bit floats.
    ///
    /// # Errors
    /// Returns an error as [`Architecture::build`] does, or if the device cannot train with this precision.
    fn build_frozen_in(
        &self,
        weights: &StateDict,
        device: &Device,
        seed: u64,
        frozen: Precision,
    ) -> Result<(Box<dyn Model>, Provenance), ModelError> {
        let trained = |key: &str| self.trains(key);
        let params = ParamBuilder::new(weights, device, seed, &trained).freezing_in(frozen)?;
        let apart = ParamBuilder::apart(weights, device, seed).freezing_in(frozen)?;
        let model = self.assemble(&params, &apart)?;
        Ok((model, params.provenance()))
    }

    /// Builds the model for inference only: on the CPU, linear layers hold packed weights. Every parameter that a
    /// checkpoint stores must be in the weights.
    ///
    /// # Errors
    /// Returns an error as [`Architecture::build`] does, or if the device cannot compute with this precision.
    fn build_packed(
        &self,
        weights: &StateDict,
        device: &Device,
        precision: Precision,
    ) -> Result<Box<dyn Model>, ModelError> {
        // What no checkpoint stores is a constant or has no effect.
        let unstored = |key: &str| !self.trains(key) && !self.keeps(key);
        let params = ParamBuilder::packed(weights, device, 0, precision)?.without(&unstored);
        self.assemble(&params, &params)
    }

    /// Returns the model without parameter values, for counting parameters.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent.
    fn blueprint(&self, device: &Device) -> Result<Box<dyn Model>, ModelError> {
        let weights = StateDict::default();
        let trained = |key: &str| self.trains(key);
        let params = ParamBuilder::blueprint(&weights, device, &trained);
        let apart = ParamBuilder::blueprint(&weights, device, &|_| false);
        self.assemble(&params, &apart)
    }

    /// Returns whether the parameter of this name is trained.
    fn trains(&self, key: &str) -> bool;

    /// Returns whether a checkpoint stores the parameter of this name although it is not trained.
    fn keeps(&self, key: &str) -> bool {
        let _ = key;
        false
    }

    /// Returns whether published checkpoints hold a tensor of this name that has no effect on the results.
    fn is_idle(&self, key: &str) -> bool {
        let _ = key;
        false
    }

    /// Returns the name under which weights hold the parameter `key` of the model, if the two names differ.
    fn weight_name(&self, key: &str) -> String {
        key.to_owned()
    }

    /// Returns whether the parameter of this name belongs to the method's own backbone, which is pre-trained in a file
    /// other than CLIP's.
    fn is_backbone(&self, key: &str) -> bool {
        let _ = key;
        false
    }

    /// Returns CLIP's image tower, which encodes images or crops of them; `None` if the method has none.
    fn encoder(&self) -> Option<&VisionConfig>;

    /// Returns the stride in pixels: the sides of an image must be multiples of it.
    fn stride(&self) -> usize;

    /// Returns the side in pixels of the images that the model is made for; its cost is computed at this size.
    fn resolution(&self) -> usize;

    /// Returns how the model's logits become scores.
    fn scoring(&self) -> Scoring;

    /// Returns whether the image encoder is CLIP's own and stays frozen in training; models with the same such encoder
    /// can share the encodings of images.
    fn has_frozen_encoder(&self) -> bool {
        false
    }

    /// Returns the architecture with an image tower that its own checkpoint lacks; `None` if the checkpoint lacks none.
    ///
    /// - `tower`: CLIP's image tower, from another file
    fn with_tower(&self, tower: &VisionConfig) -> Option<Arc<dyn Architecture>> {
        let _ = tower;
        None
    }

    /// Returns the name of the prompt templates that the method's published models were trained with, if they all have the
    /// same or the tensors tell them; `None` if nothing does.
    fn templates(&self) -> Option<&'static str> {
        None
    }

    /// Returns whether training may start from a checkpoint of `earlier`, another architecture that holds a part of the
    /// parameters: an earlier stage of the method. The others then start from initial values.
    fn follows(&self, earlier: &dyn Architecture) -> bool {
        let _ = earlier;
        false
    }

    /// Returns the default inference settings of this architecture.
    fn default_inference(&self) -> Inference {
        Inference::default()
    }

    /// Checks an image side in pixels against the method's own limits, beyond being a multiple of the stride.
    ///
    /// - `setting`: name of the setting in the experiment file
    ///
    /// # Errors
    /// Returns an error if the side is not possible; the message says which sides are.
    fn check_side(&self, setting: &str, pixels: usize) -> Result<(), ModelError> {
        let _ = (setting, pixels);
        Ok(())
    }

    /// Counts parameters, and multiply-accumulates for one square image of [`Architecture::resolution`].
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent.
    fn cost(&self, classes: usize) -> Result<Cost, ModelError>;
}

impl dyn Architecture + '_ {
    /// Lists the parameters that a checkpoint stores and the weights lack; a model without one of them is not whole, and
    /// inference refuses it.
    ///
    /// # Errors
    /// Returns the errors of [`Architecture::blueprint`].
    pub fn missing(&self, weights: &StateDict) -> Result<Vec<String>, ModelError> {
        let stored = |name: &String| self.trains(name) || self.keeps(name);
        let names = self.params()?.into_iter().map(|param| param.name);
        Ok(names
            .filter(stored)
            .filter(|name| !weights.contains(&self.weight_name(name)))
            .collect())
    }

    /// Lists the parameters of the blueprint and whether each is trained.
    ///
    /// # Errors
    /// Returns the errors of [`Architecture::blueprint`].
    pub fn params(&self) -> Result<Vec<crate::params::ParamInfo>, ModelError> {
        let blueprint = self.blueprint(&Device::flex())?;
        Ok(list_params(&*blueprint, |key| self.trains(key)))
    }
}
