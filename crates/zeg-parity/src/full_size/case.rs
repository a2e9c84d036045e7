//! Reads the description of a model of published size, which is mainly the name of a configuration file.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    config::{HeadConfig, PromptConfig, PromptDepth, VisionConfig},
    params::list_params,
    resize::bilinear,
    trace::Trace,
    weights::StateDict,
};
use zeg_train::{methods::clip_rc::ClipRcLossWeights, targets::Targets};
use zeg_vocab::classes::ClassSet;

use crate::{
    ParityError,
    array::Array,
    check::Check,
    file::{Meta, integers_in},
    generator,
    limit::Limit,
    planted::{PlantedError, planted_encode, planted_images},
    training_part::{Pass, planted_labels, seen_classes},
    typed::{TypedConfig, TypedModel},
};

/// Limits that differ between files of this kind.
pub(super) struct Limits {
    pub(super) gradient: Limit,
    pub(super) after_step: Limit,
}

impl Limits {
    /// Limits of a model with region tokens.
    ///
    /// Its decoders have a ReLU whose input is within rounding of 0, and a value map whose gradient is 1.5e-5 of its
    /// tensor's RMS. A correct computation therefore deviates by 3.3e-3 in gradients and by 1.4e-4 in the loss after
    /// the step, even in double precision.
    const REGIONS: Self = Self {
        gradient: Limit::OfRms(5e-3),
        after_step: Limit::OfRms(5e-4),
    };
    const OTHERS: Self = Self {
        gradient: Limit::GRADIENT,
        after_step: Limit::ACTIVATION,
    };
}

/// The content of the description.
pub(super) struct Case {
    pub(super) config: TypedConfig,
    pub(super) limits: Limits,
    pub(super) planted: Option<PlantedError>,
    pub(super) loss: ClipRcLossWeights,
    /// Side of the image in pixels.
    pub(super) size: usize,
    pub(super) classes: ClassSet,
    /// File name of the class embeddings.
    pub(super) table: String,
    seed: u64,
    image: ImageRecipe,
    label: LabelRecipe,
}

/// The formula of the image: `a·gen("full.image") + b·gen("full.image.low")`, the latter in blocks of `factor` pixels.
struct ImageRecipe {
    fine: f32,
    coarse: f32,
    factor: usize,
}

/// The formula of the labels: `gen_int("full.label", [1, 1, side, side], below)` in blocks of `factor` pixels, where
/// one value becomes the ignore index.
struct LabelRecipe {
    side: usize,
    below: u32,
    ignored: u32,
    factor: usize,
}

impl Case {
    pub(super) fn read(check: &Check) -> Result<Self, ParityError> {
        let meta = check.file().meta();
        let config = meta.at("config_file")?;
        let name = config.text()?;
        let recipe = Recipe::of(name).ok_or_else(|| {
            config.error("is neither vpt_seg_zero_vit-b_… nor clip_rc_zero_vit-b_…")
        })?;
        let classes = if name.contains("coco") {
            "coco-stuff171"
        } else {
            "voc20"
        };
        let weights = meta.at("weights")?;
        let table = weights
            .text()?
            .split_whitespace()
            .find(|word| Path::new(word).extension().is_some_and(|e| e == "npy"));
        let encoder = VisionConfig {
            input_resolution: recipe.size,
            prompts: Some(PromptConfig {
                tokens: recipe.tokens,
                depth: PromptDepth::First(recipe.blocks),
                dropout: 0.0,
            }),
            regions: recipe.regions,
            ..VisionConfig::by_name("ViT-B/16")?
        };
        let head = HeadConfig {
            dropout: 0.0,
            ..HeadConfig::default()
        };
        Ok(Self {
            limits: match encoder.regions {
                Some(_) => Limits::REGIONS,
                None => Limits::OTHERS,
            },
            config: TypedConfig::new(encoder, head),
            planted: check.planted(),
            loss: recipe.loss,
            size: recipe.size,
            classes: ClassSet::by_name(classes)?,
            table: table
                .ok_or_else(|| weights.error("does not name a file of class embeddings"))?
                .to_owned(),
            seed: meta.at("seed")?.count()? as u64,
            image: ImageRecipe::read(&meta.at("image")?)?,
            label: LabelRecipe::read(&meta.at("label")?)?,
        })
    }

    /// Returns the generated weights.
    pub(super) fn weights(&self, device: &Device) -> Result<StateDict, ParityError> {
        let mut weights = StateDict::default();
        let blueprint = self.config.blueprint(device)?;
        for info in list_params(&blueprint, |_| false) {
            // The model itself initialises region tokens from the class token and its position.
            if info.name != "backbone.region_level_bridge" {
                let values = generator::parameter(&info.name, self.seed, &info.shape);
                weights.insert(info.name, values);
            }
        }
        if let Some(error) = self.planted {
            error.alter_weights(&mut weights, self.config.encoder().heads)?;
        }
        Ok(weights)
    }

    /// Returns the image, `[1, 3, size, size]`.
    pub(super) fn images(&self) -> Array {
        let ImageRecipe {
            fine,
            coarse,
            factor,
        } = self.image;
        let (size, side) = (self.size, self.size / factor);
        let noise = generator::uniform("full.image", self.seed, 3 * size * size);
        let blocks: Vec<f32> =
            generator::uniform("full.image.low", self.seed, 3 * side * side).collect();
        let values = noise.enumerate().map(|(i, v)| {
            let (plane, y, x) = (i / (size * size), i / size % size, i % size);
            let block = blocks[(plane * side + y / factor) * side + x / factor];
            v * fine + block * coarse
        });
        let image = Array::from_values(&[1, 3, size, size], &values.collect::<Vec<f32>>());
        planted_images(self.planted, &image, self.config.encoder().patch)
    }

    /// Returns the image's labels as indices of the seen classes.
    pub(super) fn targets(&self) -> Result<Targets, ParityError> {
        let LabelRecipe {
            side,
            below,
            ignored,
            factor,
        } = self.label;
        let blocks = generator::integers("full.label", self.seed, side * side, below);
        let size = side * factor;
        let mut labels: Vec<u16> = (0..size * size)
            .map(
                |i| match blocks[i / size / factor * side + i % size / factor] {
                    label if label == ignored => IGNORE_LABEL,
                    label => label as u16,
                },
            )
            .collect();
        planted_labels(self.planted, &mut labels);
        let seen = self.classes.seen();
        seen_classes(&seen, self.classes.len())?.map(&mut labels);
        Ok(Targets::new(labels, 1, [size; 2], seen.len())?)
    }

    /// Computes a forward pass in training mode.
    pub(super) fn pass(
        &self,
        model: &TypedModel,
        images: Tensor<4>,
        text: Tensor<2>,
        targets: &Targets,
    ) -> Pass {
        let trace = &mut Trace::off();
        let encoded = planted_encode(self.planted, model, images, trace);
        let (grid, recovery) = model.decode(encoded, text, trace);
        Pass {
            masks: bilinear(grid, [self.size; 2]),
            targets: targets.clone(),
            recovery,
            planted: self.planted,
        }
    }
}

/// Settings that follow from the name of a configuration file or are common to all files of its kind.
struct Recipe {
    size: usize,
    tokens: usize,
    blocks: usize,
    regions: Option<usize>,
    loss: ClipRcLossWeights,
}

impl Recipe {
    fn of(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.trim_end_matches(".py").split(['/', '_']).collect();
        let size = words.iter().find_map(|word| {
            let (height, width) = word.split_once('x')?;
            height.parse().ok().filter(|_| height == width)
        })?;
        let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
        if !words.contains(&"vit-b") || !words.contains(&"zero") {
            return None;
        }
        match numbers[..] {
            // clip_rc_zero_vit-b_512x512_40k_voc_10_16: number of prompts, of regions; prompts in all blocks
            [tokens, regions] if name.contains("clip_rc") => Some(Self {
                size,
                tokens,
                blocks: 12,
                regions: Some(regions),
                loss: if name.contains("coco") {
                    weights(200.0, 3.0, 50.0)
                } else {
                    weights(100.0, 1.0, 2.0)
                },
            }),
            // vpt_seg_zero_vit-b_512x512_20k_12_10: number of blocks with prompts, of prompts
            [blocks, tokens] if name.contains("vpt_seg") => Some(Self {
                size,
                tokens,
                blocks,
                regions: None,
                loss: ClipRcLossWeights::default(),
            }),
            _ => None,
        }
    }
}

/// Returns the released loss weights of CLIP-RC (section 13.4 of the reference's specification).
fn weights(focal: f64, dice: f64, recovery: f64) -> ClipRcLossWeights {
    ClipRcLossWeights {
        focal,
        dice,
        recovery,
    }
}

impl ImageRecipe {
    fn read(meta: &Meta) -> Result<Self, ParityError> {
        let text = meta.text()?;
        let known = text.contains(r#"*gen("full.image") + "#)
            && text.contains(r#"*gen("full.image.low") "#)
            && text.contains(" nearest x");
        let factors: Vec<f32> = text
            .split_whitespace()
            .filter_map(|word| word.split_once("*gen")?.0.parse().ok())
            .collect();
        match (known, &factors[..], integers_in(text).last()) {
            (true, &[fine, coarse], Some(&factor)) if factor > 0 => Ok(Self {
                fine,
                coarse,
                factor,
            }),
            _ => Err(meta.error("is not a known formula")),
        }
    }
}

impl LabelRecipe {
    fn read(meta: &Meta) -> Result<Self, ParityError> {
        let text = meta.text()?;
        let known =
            text.starts_with(r#"gen_int("full.label",[1,1,"#) && text.contains("->255, nearest x");
        match (known, &integers_in(text)[..]) {
            (true, &[1, 1, side, _, below, ignored, 255, factor]) => Ok(Self {
                side,
                below: below as u32,
                ignored: ignored as u32,
                factor,
            }),
            _ => Err(meta.error("is not a known formula")),
        }
    }
}
