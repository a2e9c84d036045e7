//! What a weight file is, in facts that a person or a program can read.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use crate::{
    Architecture, ContainerFormat, StateDict, WeightsError, WeightsPart,
    parts::{self, Place},
};

/// Metadata key of an imported file: which format of ours it has.
pub(crate) const FORMAT_KEY: &str = "zeg.format";
/// Metadata key of an imported file: the family of the file it was made of.
pub(crate) const FAMILY_KEY: &str = "zeg.family";
/// Metadata key of an imported file: the name of the file it was made of.
pub(crate) const SOURCE_KEY: &str = "zeg.source";
/// Metadata key of an imported file: the SHA-256 of the file it was made of.
pub(crate) const SOURCE_SHA256_KEY: &str = "zeg.source-sha256";

/// What one part of a model has in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PartSummary {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values in them.
    pub parameters: u64,
}

/// A tensor of a file that is left where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoredKey {
    /// Name in the file.
    pub key: String,
    /// Why it is no weight.
    pub why: String,
}

/// A tensor of a file that has no place in the models that `zeg` computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOver {
    /// Name in the file.
    pub key: String,
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
}

/// The file that an imported file was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedFrom {
    /// Its name, without folders.
    pub file: String,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// What a weight file is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Bytes of the file, or of all files of an index.
    pub bytes: u64,
    /// How the file holds its tensors.
    pub format: ContainerFormat,
    /// The family that names its tensors so, such as `OpenAI CLIP`.
    pub family: String,
    /// The recognised tensors by part of the model; only the parts that are there.
    pub parts: BTreeMap<WeightsPart, PartSummary>,
    /// Number of recognised tensors by stored type, such as `F16`.
    pub types: BTreeMap<String, usize>,
    /// What carries no weights.
    pub ignored: Vec<IgnoredKey>,
    /// What has no place in the models.
    pub left_over: Vec<LeftOver>,
    /// Names (ours) that a tower needs and the file lacks.
    pub missing: Vec<String>,
    /// The architecture of the towers; `None` where there is no tower.
    pub architecture: Option<Architecture>,
    /// For imported files, what they were made of.
    pub imported_from: Option<ImportedFrom>,
}

impl Inspection {
    /// What opened weights are; of several files, the tensors of all and the facts of the last one.
    ///
    /// # Errors
    /// As [`Architecture::infer`].
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

    /// The tensors of one part; none where it is not there.
    pub fn part(&self, part: WeightsPart) -> PartSummary {
        self.parts.get(&part).copied().unwrap_or_default()
    }
}

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
        .filter(|key| !weights.contains(key))
        .collect()
}

/// What the file calls a tensor of ours.
fn name_in_file(weights: &StateDict, key: &str) -> String {
    weights
        .entry(key)
        .and_then(|entry| entry.pieces.first())
        .map_or_else(|| key.to_owned(), |piece| piece.name.clone())
}

/// The type that a tensor is stored as.
fn stored_type(weights: &StateDict, key: &str) -> String {
    match weights.entry(key).and_then(|entry| entry.pieces.first()) {
        Some(piece) if piece.scale.is_some() => "compact I8".to_owned(),
        Some(piece) => format!("{:?}", piece.stored.dtype),
        None => "F32".to_owned(),
    }
}
