//! Reads the description of the folder, and weights under the names of the published checkpoints.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use safetensors::{Dtype, tensor::TensorView};
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    method::Architecture as _,
    methods::{
        maskclip_plus::{
            GuideConfig, MaskClipPlus, MaskClipPlusConfig, guide::Guide, keys::MASKCLIP_PLUS,
        },
        training_free::refinement::MaskClipRefinement,
    },
    weights::{KeyTable, ParamBuilder, StateDict},
};
use zeg_train::{
    labels::PartLabels,
    pseudo_labels::PseudoLabelRule,
    supervision::{PartlyLabelled, PseudoLabels, Supervision},
};

use super::IGNORED;
use crate::{
    ParityError,
    array::Array,
    check::Check,
    file::{Meta, VectorFile},
    planted::PlantedError,
};

/// Suffix of the description's file name.
const DESCRIPTION: &str = "_meta.json";
/// Prefix of weights in a file.
const STATE: &str = "state.";
/// Prefix of CLIP's tower in a MaskCLIP+ checkpoint.
const TOWER: &str = "decode_head.clip.";

/// One file of the folder, with the description that it shares with the others.
pub(crate) struct Case {
    /// Part of the numbers that the file contains, such as `v2_train`.
    pub(crate) part: String,
    folder: PathBuf,
    prefix: String,
    description: VectorFile,
    /// An error that a test plants.
    pub(crate) planted: Option<PlantedError>,
}

impl Case {
    /// Reads the description beside a file.
    pub(crate) fn open(check: &Check) -> Result<Self, ParityError> {
        let file = check.file();
        let part = file.meta().at("part")?.text()?.to_owned();
        let label = file.label();
        let prefix = label.strip_suffix(&format!("_{part}"));
        let prefix = prefix.ok_or_else(|| ParityError::Format {
            path: file.path.clone(),
            reason: format!("is not named like a_{part}.safetensors"),
        })?;
        let folder = file.path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self {
            description: VectorFile::open(&folder.join(format!("{prefix}{DESCRIPTION}")))?,
            prefix: prefix.to_owned(),
            part,
            folder,
            planted: check.planted(),
        })
    }

    /// Returns the description.
    pub(crate) fn meta(&self) -> Meta<'_> {
        self.description.meta()
    }

    /// Returns an entry of the configuration.
    pub(crate) fn config(&self, name: &str) -> Result<Meta<'_>, ParityError> {
        self.meta().at("config")?.at(name)
    }

    /// Opens another file of the folder.
    pub(crate) fn sibling(&self, part: &str) -> Result<VectorFile, ParityError> {
        let name = format!("{}_{part}.safetensors", self.prefix);
        VectorFile::open(&self.folder.join(name))
    }

    /// Returns the thresholds of the refinements by the name of the setting.
    ///
    /// - `tower`: `vit` or `rn`
    pub(crate) fn refinements(
        &self,
        tower: &str,
    ) -> Result<Vec<(String, MaskClipRefinement)>, ParityError> {
        let settings = self.meta().at(&format!("{tower}_thresholds"))?;
        let settings = settings.entries().into_iter();
        settings
            .map(|(name, setting)| {
                let refinement = MaskClipRefinement {
                    prompt_denoising: setting.at("pd_thresh")?.number()? as f32,
                    key_smoothing: setting.at("ks_thresh")?.number()? as f32,
                };
                Ok((name.to_owned(), refinement))
            })
            .collect()
    }

    /// Builds CLIP's tower from a file of MaskCLIP alone.
    pub(crate) fn guide(&self, file: &VectorFile, device: &Device) -> Result<Guide, ParityError> {
        // MaskCLIP stores the tower under `backbone.`, MaskCLIP+ in its head.
        let in_head = |name: &str| match name.strip_prefix("backbone.") {
            Some(rest) => format!("{TOWER}{rest}"),
            None => name.to_owned(),
        };
        let table = KeyTable {
            recognised_by: &["decode_head.clip.*"],
            ..MASKCLIP_PLUS
        };
        let mut weights = stored(file, in_head, table)?;
        let missing = || ParityError::Format {
            path: file.path.clone(),
            reason: "holds no image tower".into(),
        };
        let mut config = GuideConfig::from_weights(&weights, TOWER).ok_or_else(missing)?;
        let mut heads = 1;
        if let GuideConfig::Transformer(tower) = &mut config {
            heads = self.config("vit")?.at("heads")?.count()?;
            tower.heads = heads;
        }
        if let Some(error) = self.planted {
            error.alter_weights(&mut weights, heads)?;
        }
        let frozen = |_: &str| false;
        let params = ParamBuilder::new(&weights, device, 0, &frozen);
        Guide::open(&params, &config, true)?.ok_or_else(missing)
    }

    /// Returns the weights of a student with its guide, and the configuration that they determine.
    ///
    /// - `student`: `v2` or `v3p`
    pub(crate) fn student(
        &self,
        student: &str,
    ) -> Result<(StateDict, MaskClipPlusConfig), ParityError> {
        let file = self.sibling(&format!("{student}_state"))?;
        let mut weights = stored(&file, str::to_owned, MASKCLIP_PLUS)?;
        if let Some(error) = self.planted {
            error.alter_weights(&mut weights, 1)?;
        }
        let config = MaskClipPlusConfig::from_weights(&weights);
        let config = config.ok_or_else(|| ParityError::Format {
            path: file.path.clone(),
            reason: "is no MaskCLIP+".into(),
        })?;
        Ok((weights, config))
    }

    /// Builds a student for training.
    pub(crate) fn model(
        &self,
        student: &str,
        device: &Device,
    ) -> Result<MaskClipPlus, ParityError> {
        let (weights, config) = self.student(student)?;
        let (model, _) = config.build(&weights, &device.clone().autodiff(), 0)?;
        own(&*model)
    }

    /// Builds a student for inference.
    pub(crate) fn packed(
        &self,
        student: &str,
        device: &Device,
    ) -> Result<MaskClipPlus, ParityError> {
        let (weights, config) = self.student(student)?;
        let precision = zeg_model::Precision::Float;
        own(&*config.build_packed(&weights, device, precision)?)
    }
}

fn own(model: &dyn zeg_model::method::Model) -> Result<MaskClipPlus, ParityError> {
    let model = model.as_any().downcast_ref::<MaskClipPlus>();
    model
        .cloned()
        .ok_or_else(|| ParityError::Backend("the model is no MaskCLIP+".into()))
}

/// Reads weights as from a published checkpoint: names are changed by a key table.
fn stored(
    file: &VectorFile,
    rename: impl Fn(&str) -> String,
    table: KeyTable,
) -> Result<StateDict, ParityError> {
    let state = file.tensors.iter();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = state
        .filter_map(|(name, array)| {
            let bytes = array.to_f32().into_iter().flat_map(f32::to_le_bytes);
            let name = rename(name.strip_prefix(STATE)?);
            Some((name, array.shape.clone(), bytes.collect()))
        })
        .collect();
    let broken = |error: safetensors::SafeTensorError| ParityError::Format {
        path: file.path.clone(),
        reason: error.to_string(),
    };
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)?;
        Ok((name.as_str(), view))
    });
    let views = views
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(broken)?;
    let bytes = safetensors::serialize(views, None::<HashMap<String, String>>).map_err(broken)?;
    Ok(StateDict::from_bytes("state", bytes, &[table])?)
}

/// Reads a tensor of a file as an input.
pub(crate) fn input<const D: usize>(
    check: &mut Check,
    name: &str,
    device: &Device,
) -> Result<Tensor<D>, ParityError> {
    let array = check.input(name)?;
    array.to_tensor(device).ok_or_else(|| {
        check.tensor_error(name, &format!("has shape {:?}, not {D} axes", array.shape))
    })
}

/// Reads images, altered if an error is planted.
pub(crate) fn images(
    check: &mut Check,
    name: &str,
    planted: Option<PlantedError>,
    device: &Device,
) -> Result<Tensor<4>, ParityError> {
    let stored = check.input(name)?;
    let altered = crate::planted::planted_images(planted, stored, 16);
    altered
        .to_tensor(device)
        .ok_or_else(|| check.tensor_error(name, "is not [batch, 3, height, width]"))
}

/// Labels of a batch, some of which wait for pseudo labels.
pub(crate) struct Unlabelled {
    values: Vec<u16>,
    supervision: Supervision,
    batch: usize,
    size: [usize; 2],
}

impl Unlabelled {
    /// Reads labels `[batch, 1, height, width]` in which −1 stands for an unseen class.
    ///
    /// - `classes`: number of classes
    /// - `unseen`: indices of the unseen ones
    pub(crate) fn read(
        check: &mut Check,
        name: &str,
        classes: usize,
        unseen: &[usize],
        planted: Option<PlantedError>,
    ) -> Result<Self, ParityError> {
        let stored = check.input(name)?;
        let [batch, 1, height, width] = stored.shape[..] else {
            return Err(check.tensor_error(name, "is not [batch, 1, height, width]"));
        };
        // A class beyond the others is seen, so that all others can be unseen.
        let listed = (0..=classes).map(|class| (class.to_string(), !unseen.contains(&class)));
        let (pixels, rule) = (PseudoLabels::default(), PseudoLabelRule::default());
        let supervision =
            Supervision::Transductive(PartlyLabelled::new(listed.collect(), pixels, rule)?);
        let first = unseen.first().copied().unwrap_or_default() as u16;
        let value = |value: &f64| match *value as i64 {
            label if label < 0 => first,
            label
                if label == i64::from(IGNORED) && planted == Some(PlantedError::WrongLabelMask) =>
            {
                0
            }
            label if label == i64::from(IGNORED) => IGNORE_LABEL,
            label => label as u16,
        };
        Ok(Self {
            values: stored.values.iter().map(value).collect(),
            supervision,
            batch,
            size: [height, width],
        })
    }

    /// Returns the labels, which [`PartLabels::ranked`] completes.
    pub(crate) fn labels(&self) -> Result<PartLabels<'_>, ParityError> {
        let values = self.values.clone();
        let labels = PartLabels::mapped(values, self.batch, self.size, &self.supervision)?;
        Ok(labels)
    }

    /// Returns whether the pixel at a position waits for its label.
    pub(crate) fn waits(&self, pixel: usize) -> bool {
        let mut label = [self.values[pixel]];
        self.supervision.map(&mut label);
        label == [zeg_train::supervision::WAITING]
    }

    /// Returns height and width.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Returns complete labels as they are stored: `[batch, 1, height, width]`
    pub(crate) fn stored(&self, labels: &[u16]) -> Array {
        let value = |label: &u16| match *label {
            IGNORE_LABEL => IGNORED,
            label => label as u8,
        };
        let values: Vec<u8> = labels.iter().map(value).collect();
        Array::from_values(&[self.batch, 1, self.size[0], self.size[1]], &values)
    }
}
