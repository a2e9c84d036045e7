//! Reads the description of a small ZegFormer, and the weights beside it.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::{RgbImage, normalize::Normalization};
use zeg_model::{
    config::{Activation, VisionConfig},
    methods::zegformer::{
        ZegFormer, ZegFormerConfig,
        classifier::CropClassifier,
        config::STRIDE,
        crops::{ClipImage, CropStyle},
        fusion::Fusion,
    },
    weights::{ParamBuilder, StateDict},
};

use super::DESCRIPTION;
use crate::{
    ParityError,
    array::Array,
    check::Check,
    file::{Meta, VectorFile},
    planted::PlantedError,
    small_model::stored_weights,
};

/// Number of attention heads of the transformer decoder, unless the description changes it.
const HEADS: usize = 8;

/// One file of the folder, with the description that it shares with the others.
pub(crate) struct Case {
    /// Part of the numbers that the file contains, such as `train`.
    pub(crate) part: String,
    folder: PathBuf,
    prefix: String,
    description: VectorFile,
    /// Class names in test order; synonyms are separated by commas.
    pub(crate) classes: Vec<String>,
    /// Names of the seen classes in training order.
    pub(crate) seen_names: Vec<String>,
    /// Whether each class is seen, `[classes]`.
    pub(crate) seen: Vec<bool>,
    /// An error that a test plants.
    pub(crate) planted: Option<PlantedError>,
}

/// Options that determine the class scores and the segmentation map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Switches {
    pub(crate) fusion: Fusion,
    pub(crate) style: CropStyle,
    /// Offset that is subtracted from the scores of seen classes; 0 for none.
    pub(crate) offset: f32,
}

impl Case {
    /// Reads the description beside a file.
    pub(crate) fn open(
        file: &VectorFile,
        planted: Option<PlantedError>,
    ) -> Result<Self, ParityError> {
        let label = file.label();
        let format = |reason: &str| ParityError::Format {
            path: file.path.clone(),
            reason: reason.to_owned(),
        };
        let (prefix, part) = label
            .rsplit_once('_')
            .ok_or_else(|| format("is not named like a_train.safetensors"))?;
        let folder = file.path.parent().unwrap_or(Path::new("")).to_owned();
        let description = VectorFile::open(&folder.join(format!("{prefix}{DESCRIPTION}")))?;
        let meta = description.meta();
        let classes = meta.at("test_class_order")?.texts()?;
        let seen_indexes = meta.at("seen_indexes")?.counts()?;
        let seen = (0..classes.len()).map(|class| seen_indexes.contains(&class));
        Ok(Self {
            part: part.to_owned(),
            prefix: prefix.to_owned(),
            folder,
            seen: seen.collect(),
            seen_names: meta.at("seen")?.texts()?,
            classes,
            description,
            planted,
        })
    }

    /// Returns the description.
    pub(crate) fn meta(&self) -> Meta<'_> {
        self.description.meta()
    }

    /// Returns a setting that the description changes; `None` if it has the released value.
    pub(crate) fn changed(&self, name: &str) -> Option<Meta<'_>> {
        self.meta().find("overrides")?.find(name)
    }

    /// Opens another file of the folder.
    pub(crate) fn sibling(&self, part: &str) -> Result<VectorFile, ParityError> {
        let name = format!("{}_{part}.safetensors", self.prefix);
        VectorFile::open(&self.folder.join(name))
    }

    /// Builds the first stage, which predicts masks.
    pub(crate) fn model(&self, device: &Device) -> Result<ZegFormer, ParityError> {
        let mut weights = stored_weights(&self.sibling("state")?, "");
        let heads = match self.changed("MODEL.MASK_FORMER.NHEADS") {
            Some(heads) => heads.count()?,
            None => HEADS,
        };
        if let Some(error) = self.planted {
            error.alter_mask_queries(&mut weights)?;
            error.alter_weights(&mut weights, heads)?;
        }
        let config = ZegFormerConfig {
            dropout: 0.0,
            ..ZegFormerConfig::from_weights(&weights, heads)?
        };
        Ok(ZegFormer::build(&weights, &config, device, 0)?.0)
    }

    /// Builds the second stage, CLIP's image tower.
    pub(crate) fn classifier(&self, device: &Device) -> Result<CropClassifier, ParityError> {
        let mut weights = stored_weights(&self.sibling("clipvisual")?, "");
        let clip = self.meta().at("clip")?;
        let count = |name: &str| clip.at(name)?.count();
        if let Some(error) = self.planted {
            error.alter_class_token(&mut weights)?;
            error.alter_weights(&mut weights, count("heads")?)?;
        }
        let patch = count("patch")?;
        let rows = tensor_shape(&weights, "visual.positional_embedding")?[0];
        let config = VisionConfig {
            patch,
            width: count("width")?,
            layers: count("layers")?,
            heads: count("heads")?,
            embed_dim: tensor_shape(&weights, "visual.proj")?[1],
            input_resolution: (rows - 1).isqrt() * patch,
            double_class_embedding: false,
            activation: Activation::default(),
            prompts: None,
            regions: None,
        };
        let frozen = |_: &str| false;
        let params = ParamBuilder::new(&weights, device, 0, &frozen);
        let scale = weights.read("logit_scale")?;
        let scale = scale.and_then(|scale| scale.values.first().copied());
        Ok(CropClassifier::build(&params.at("visual"), &config, scale)?)
    }

    /// Returns the options of the file's main results.
    pub(crate) fn switches(&self) -> Result<Switches, ParityError> {
        let meta = self.meta();
        let flag = |name: &str| meta.find(name).map_or(Ok(false), |m| m.flag());
        let fusion = if flag("ensembling_all_cls")? {
            Fusion::AllClasses
        } else if flag("ensembling")? {
            Fusion::SeenUnseen
        } else {
            Fusion::ClipAlone
        };
        let style = meta.at("clip_cls_style")?;
        let style = match style.text()? {
            "cropmask" => CropStyle::MaskedCrop,
            "crop" => CropStyle::Crop,
            "mask" => CropStyle::Mask,
            _ => {
                return Err(
                    style.error("is not a known style; known styles are cropmask, crop and mask")
                );
            }
        };
        Ok(Switches {
            fusion,
            style,
            offset: self.offset()?,
        })
    }

    /// Returns the offset that is subtracted from seen classes; values that are not positive mean none.
    pub(crate) fn offset(&self) -> Result<f32, ParityError> {
        let offset = self.meta().at("gzero_calibrate")?.number()?;
        Ok(offset.max(0.0) as f32)
    }
}

fn tensor_shape(weights: &StateDict, key: &str) -> Result<Vec<usize>, ParityError> {
    let shape = weights.shape(key).filter(|shape| shape.len() == 2);
    shape.ok_or_else(|| {
        ParityError::Model(zeg_model::ModelError::MissingTensor {
            key: key.to_owned(),
            origin: weights.origin(),
        })
    })
}

/// Reads the images of a file from `[3, height, width]` bytes.
pub(crate) fn images(check: &mut Check, prefix: &str) -> Result<Vec<RgbImage>, ParityError> {
    let mut images = Vec::new();
    while check.has(&format!("{prefix}{}", images.len())) {
        let name = format!("{prefix}{}", images.len());
        images.push(image(check, &name)?);
    }
    if images.is_empty() {
        return Err(check.tensor_error(&format!("{prefix}0"), "is missing"));
    }
    Ok(images)
}

/// Reads an image from `[3, height, width]` bytes.
pub(crate) fn image(check: &mut Check, name: &str) -> Result<RgbImage, ParityError> {
    let stored = check.input(name)?;
    let [3, height, width] = stored.shape[..] else {
        return Err(check.tensor_error(name, "is not [3, height, width]"));
    };
    let planes = stored.to_u8();
    let pixels = height * width;
    let bytes = (0..pixels).flat_map(|pixel| [0, 1, 2].map(|c| planes[c * pixels + pixel]));
    RgbImage::from_raw(width as u32, height as u32, bytes.collect())
        .ok_or_else(|| check.tensor_error(name, "is not an image"))
}

/// Returns the height and width that a batch is padded to.
pub(crate) fn padded_size(images: &[RgbImage]) -> [usize; 2] {
    let most = |side: fn(&RgbImage) -> u32| images.iter().map(side).max().unwrap_or(1);
    [most(RgbImage::height), most(RgbImage::width)]
        .map(|side| (side as usize).next_multiple_of(STRIDE))
}

/// Returns a padded batch as input of the first stage: `[batch, 3, height, width]`.
pub(crate) fn batch(
    images: &[RgbImage],
    [height, width]: [usize; 2],
    device: &Device,
) -> Tensor<4> {
    let padded = images
        .iter()
        .flat_map(|p| Normalization::IMAGENET.to_chw_padded(p, width, height));
    let shape = [images.len(), 3, height, width];
    Tensor::from_data(TensorData::new(padded.collect::<Vec<f32>>(), shape), device)
}

/// Returns a padded image with CLIP's normalisation.
pub(crate) fn clip_image(image: &RgbImage, size: [usize; 2]) -> ClipImage {
    ClipImage {
        values: Normalization::CLIP.to_chw_padded(image, size[1], size[0]),
        size,
    }
}

/// Reads class embeddings `[classes, dim]` from a file.
pub(crate) fn embeddings(check: &mut Check, name: &str) -> Result<Array, ParityError> {
    let rows = check.input(name)?;
    if rows.shape.len() == 2 {
        Ok(rows.clone())
    } else {
        Err(check.tensor_error(name, "is not [classes, dim]"))
    }
}

/// Returns an array as a tensor with `D` axes.
pub(crate) fn tensor<const D: usize>(
    check: &Check,
    name: &str,
    array: &Array,
    device: &Device,
) -> Result<Tensor<D>, ParityError> {
    array.to_tensor(device).ok_or_else(|| {
        check.tensor_error(name, &format!("has shape {:?}, not {D} axes", array.shape))
    })
}
