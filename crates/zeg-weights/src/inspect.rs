//! Summarises a weight file for people and programs.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use crate::{
    Architecture, ContainerFormat, StateDict, WeightsError, WeightsPart,
    parts::{self, Place},
};

/// Metadata key of an imported file: the version of `zeg`'s own format.
pub(crate) const FORMAT_KEY: &str = "zeg.format";
/// Metadata key of an imported file: the family of the source file.
pub(crate) const FAMILY_KEY: &str = "zeg.family";
/// Metadata key of an imported file: the name of the source file.
pub const SOURCE_KEY: &str = "zeg.source";
/// Metadata key of an imported file: the SHA-256 of the source file.
pub(crate) const SOURCE_SHA256_KEY: &str = "zeg.source-sha256";

/// The size of one part of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PartSummary {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of parameters in these tensors.
    pub parameters: u64,
}

/// A tensor of a file that is ignored because it is not a weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IgnoredKey {
    /// Name in the file.
    pub key: String,
    /// Why it is not a weight.
    pub why: String,
}

/// A tensor of a file that does not belong to any model that `zeg` supports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeftOver {
    /// Name in the file.
    pub key: String,
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// The source of an imported file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImportedFrom {
    /// The name of the source file, without folders.
    pub file: String,
    /// The SHA-256 of the source file in hexadecimal digits.
    pub sha256: String,
}

/// The summary of a weight file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Inspection {
    /// The path of the file, as given.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub path: PathBuf,
    /// Size in bytes of the file, or of all files of an index.
    pub bytes: u64,
    /// The container format of the file.
    pub format: ContainerFormat,
    /// The family that uses these names of tensors, such as `OpenAI CLIP`.
    pub family: String,
    /// The sizes of the parts of the model that are in the file.
    pub parts: BTreeMap<WeightsPart, PartSummary>,
    /// Number of recognised tensors per stored type, such as `F16`.
    pub types: BTreeMap<String, usize>,
    /// The tensors that are not weights.
    pub ignored: Vec<IgnoredKey>,
    /// The tensors that do not belong to any supported model.
    pub left_over: Vec<LeftOver>,
    /// The names, in `zeg`'s form, of tensors that a tower needs and the file lacks.
    pub missing: Vec<String>,
    /// The architecture of the towers; `None` if there is no tower.
    pub architecture: Option<Architecture>,
    /// The source of an imported file.
    pub imported_from: Option<ImportedFrom>,
}

impl Inspection {
    /// Summarises opened weights; of several files, the tensors of all and the other properties of the last one.
    ///
    /// # Errors
    /// Returns the errors of [`Architecture::infer`].
    pub fn of(weights: &StateDict) -> Result<Self, WeightsError> {
        let mut parts: BTreeMap<WeightsPart, PartSummary> = BTreeMap::new();
        let mut types: BTreeMap<String, usize> = BTreeMap::new();
        let mut left_over = Vec::new();
        for key in weights.keys() {
            let shape = weights.shape(key).unwrap_or_default();
            match parts::place(key, weights.tables()) {
                Place::Known(part) => {
                    let summary = parts.entry(part).or_default();
                    summary.tensors += 1;
                    let values: u64 = shape.iter().map(|&size| size as u64).product();
                    summary.parameters = summary.parameters.saturating_add(values);
                    *types.entry(stored_type(weights, key)).or_default() += 1;
                }
                Place::Foreign(_) | Place::Nowhere => left_over.push(LeftOver {
                    key: name_in_file(weights, key),
                    shape,
                }),
            }
        }
        let has_tower = parts.keys().any(|part| *part != WeightsPart::DecodeHead);
        let architecture = has_tower
            .then(|| Architecture::infer(weights))
            .transpose()?
            .filter(|found| found.vision.is_some() || found.text.is_some());
        let ignored = weights.opened().iter().flat_map(|opened| &opened.ignored);
        let last = weights.opened().last();
        let metadata = |key: &str| weights.metadata().get(key).cloned();
        Ok(Self {
            path: last.map(|opened| opened.path.clone()).unwrap_or_default(),
            bytes: weights.file_bytes(),
            format: weights.format().unwrap_or(ContainerFormat::Safetensors),
            family: metadata(FAMILY_KEY).unwrap_or_else(|| weights.family().to_owned()),
            missing: missing(weights, architecture.as_ref()),
            parts,
            types,
            ignored: ignored
                .map(|(key, why)| IgnoredKey {
                    key: key.clone(),
                    why: (*why).to_owned(),
                })
                .collect(),
            left_over,
            architecture,
            imported_from: metadata(SOURCE_KEY)
                .zip(metadata(SOURCE_SHA256_KEY))
                .map(|(file, sha256)| ImportedFrom { file, sha256 }),
        })
    }

    /// Returns the size of one part, which is 0 if the file does not have it.
    pub fn part(&self, part: WeightsPart) -> PartSummary {
        self.parts.get(&part).copied().unwrap_or_default()
    }
}

/// Returns the names of tensors that the towers need and the file lacks.
fn missing(weights: &StateDict, architecture: Option<&Architecture>) -> Vec<String> {
    let vision = architecture.and_then(|found| found.vision.as_ref());
    let text = architecture.and_then(|found| found.text.as_ref());
    let towers = [
        (WeightsPart::ImageTower, vision.map(|tower| tower.layers)),
        (WeightsPart::TextTower, text.map(|tower| tower.layers)),
    ];
    towers
        .into_iter()
        .filter_map(|(part, layers)| Some(parts::expected(part, layers?)))
        .flatten()
        .filter(|key| !weights.contains(key) && !is_in_parts(weights, key))
        .collect()
}

/// Returns whether weights hold the joint projection of an attention as three matrices.
fn is_in_parts(weights: &StateDict, key: &str) -> bool {
    let Some(attention) = key.strip_suffix("in_proj_weight") else {
        return false;
    };
    let mut parts = ["q", "k", "v"].iter();
    parts.all(|part| weights.contains(&format!("{attention}{part}_proj_weight")))
}

/// Returns the name in the file of a tensor with this name in `zeg`.
fn name_in_file(weights: &StateDict, key: &str) -> String {
    weights
        .entry(key)
        .and_then(|entry| entry.pieces.first())
        .map_or_else(|| key.to_owned(), |piece| piece.name.clone())
}

/// Returns the name of the type that a tensor is stored as.
fn stored_type(weights: &StateDict, key: &str) -> String {
    match weights.entry(key).and_then(|entry| entry.pieces.first()) {
        Some(piece) if piece.scale.is_some() => "compact I8".to_owned(),
        Some(piece) => format!("{:?}", piece.stored.dtype),
        None => "F32".to_owned(),
    }
}
