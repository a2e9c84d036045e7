//! Reads the description of a small zsseg, and the weights beside it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use safetensors::{Dtype, tensor::TensorView};
use zeg_model::{
    config::VisionConfig,
    mask_transformer::MaskTransformerConfig,
    methods::{
        Methods,
        zsseg::{Stage, Zsseg, ZssegConfig},
    },
    weights::{HostTensor, StateDict, StatedHeads},
};
use zeg_vocab::tokenizer::VOCABULARY_SIZE;

pub(super) use crate::zegformer::case::{batch, image, images, padded_size, tensor};
use crate::{
    ParityError,
    check::Check,
    file::{Meta, VectorFile},
    planted::PlantedError,
    small_model::stored_weights,
};

/// Suffix of the description's file name.
const DESCRIPTION: &str = "_meta.json";
/// Prefix of CLIP in a published checkpoint.
const CLIP: &str = "clip_adapter.clip_model.";

/// One file of the folder, with the description that it shares with the others.
pub(super) struct Case {
    /// Part of the numbers that the file contains, such as `train`.
    pub(super) part: String,
    folder: PathBuf,
    prefix: String,
    description: VectorFile,
    /// Class names.
    pub(super) classes: Vec<String>,
    /// Whether each class is seen, `[classes]`.
    pub(super) seen: Vec<bool>,
    /// An error that a test plants.
    pub(super) planted: Option<PlantedError>,
}

impl Case {
    /// Reads the description beside a file.
    pub(super) fn open(
        file: &VectorFile,
        planted: Option<PlantedError>,
    ) -> Result<Self, ParityError> {
        let label = file.label();
        let (prefix, part) = label.rsplit_once('_').ok_or_else(|| ParityError::Format {
            path: file.path.clone(),
            reason: "is not named like a_train.safetensors".to_owned(),
        })?;
        let folder = file.path.parent().unwrap_or(Path::new("")).to_owned();
        let description = VectorFile::open(&folder.join(format!("{prefix}{DESCRIPTION}")))?;
        let meta = description.meta();
        let classes = meta.at("config")?.at("classes")?.texts()?;
        let flags = meta.at("seen_flags")?.counts()?;
        Ok(Self {
            part: part.to_owned(),
            prefix: prefix.to_owned(),
            folder,
            seen: flags.iter().map(|flag| *flag > 0).collect(),
            classes,
            description,
            planted,
        })
    }

    /// Returns the description.
    pub(super) fn meta(&self) -> Meta<'_> {
        self.description.meta()
    }

    /// Returns an entry of the configuration.
    pub(super) fn config(&self, name: &str) -> Result<Meta<'_>, ParityError> {
        self.meta().at("config")?.at(name)
    }

    /// Returns an entry of CLIP's configuration.
    fn clip(&self, name: &str) -> Result<usize, ParityError> {
        self.config("clip")?.at(name)?.count()
    }

    /// Returns the names of the seen classes.
    pub(super) fn seen_names(&self) -> Vec<String> {
        let pairs = self.classes.iter().zip(&self.seen);
        pairs
            .filter(|(_, seen)| **seen)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Opens another file of the folder.
    pub(super) fn sibling(&self, part: &str) -> Result<VectorFile, ParityError> {
        let name = format!("{}_{part}.safetensors", self.prefix);
        VectorFile::open(&self.folder.join(name))
    }

    /// Returns the weights in the published layout, read with the published key table.
    ///
    /// - `prompts`: weights of learned vectors that replace those of the segmenter
    pub(super) fn weights(&self, prompts: Option<HostTensor>) -> Result<StateDict, ParityError> {
        let mut segmenter = stored_weights(&self.sibling("state")?, "state.");
        let [visual, text] = self.clip_weights()?;
        if let Some(error) = self.planted {
            error.alter_mask_queries(&mut segmenter)?;
            error.alter_weights(&mut segmenter, self.config("heads")?.count()?)?;
        }
        let mut published = Vec::new();
        for key in sorted_keys(&segmenter) {
            published.push((key.clone(), read(&segmenter, &key)?));
        }
        for weights in [&visual, &text] {
            for key in sorted_keys(weights) {
                published.push((format!("{CLIP}{key}"), read(weights, &key)?));
            }
        }
        if let Some(prompts) = prompts {
            let learned = |name: &str| name.ends_with("prompt_learner.prefix_prompt");
            for (_, tensor) in published.iter_mut().filter(|(name, _)| learned(name)) {
                *tensor = prompts.clone();
            }
        }
        let mut weights = published_file(&published)?;
        weights.state_heads(StatedHeads {
            image: Some(self.clip("v_heads")?),
            text: Some(self.clip("t_heads")?),
        });
        Ok(weights)
    }

    /// Returns CLIP's image and text tower under CLIP's names.
    fn clip_weights(&self) -> Result<[StateDict; 2], ParityError> {
        let stored = stored_weights(&self.sibling("clip")?, "weight.");
        let (mut visual, mut text) = (StateDict::default(), StateDict::default());
        for key in sorted_keys(&stored) {
            let tensor = read(&stored, &key)?;
            if key.starts_with("visual.") {
                visual.insert(key, tensor);
            } else {
                text.insert(key, tensor);
            }
        }
        text.insert("token_embedding.weight".into(), self.token_table()?);
        if let Some(error) = self.planted {
            error.alter_class_token(&mut visual)?;
            error.alter_weights(&mut visual, self.clip("v_heads")?)?;
            let start = crate::text::start_token(&zeg_vocab::tokenizer::Tokenizer::new()?)?;
            error.alter_text_weights(&mut text, "", start, self.clip("t_heads")?)?;
        }
        Ok([visual, text])
    }

    /// Returns the token table with the rows that the file `text` stores.
    pub(super) fn token_table(&self) -> Result<HostTensor, ParityError> {
        let file = self.sibling("text")?;
        let mut check = Check::new(&file, None);
        let ids = check.input("used_token_ids")?.to_u32();
        let rows = check.input("token_embedding.rows")?;
        let width = rows.shape.last().copied().unwrap_or(0);
        let mut values = vec![0.0_f32; VOCABULARY_SIZE * width];
        for (id, row) in ids.iter().zip(rows.to_f32().chunks_exact(width.max(1))) {
            let start = *id as usize * width;
            if let Some(place) = values.get_mut(start..start + width) {
                place.copy_from_slice(row);
            }
        }
        Ok(HostTensor {
            shape: vec![VOCABULARY_SIZE, width],
            values,
        })
    }

    /// Returns the configuration that the weights and the description determine.
    fn architecture(&self, weights: &StateDict) -> Result<ZssegConfig, ParityError> {
        let found = ZssegConfig::from_weights(weights)?
            .ok_or_else(|| self.meta().error("belongs to weights that are no zsseg's"))?;
        let tower = found.classifier.map(|tower| VisionConfig {
            input_resolution: found.crop_side,
            ..tower
        });
        Ok(ZssegConfig {
            first: MaskTransformerConfig {
                heads: self.config("heads")?.count()?,
                dropout: 0.0,
                ..found.first
            },
            classifier: tower,
            ..found
        })
    }

    /// Builds the segmenter.
    pub(super) fn model(&self, device: &Device) -> Result<Zsseg, ParityError> {
        let weights = self.weights(None)?;
        let config = self.architecture(&weights)?;
        Ok(Zsseg::build(&weights, &config, device, 0)?.0)
    }

    /// Builds the model of the prompt stage.
    pub(super) fn prompt_model(
        &self,
        prompts: HostTensor,
        region_size: [usize; 2],
        device: &Device,
    ) -> Result<Zsseg, ParityError> {
        let weights = self.weights(Some(prompts))?;
        let config = ZssegConfig {
            stage: Stage::Prompts,
            region_size,
            ..self.architecture(&weights)?
        };
        Ok(Zsseg::build(&weights, &config, device, 0)?.0)
    }
}

fn sorted_keys(weights: &StateDict) -> Vec<String> {
    let mut keys: Vec<String> = weights.keys().map(str::to_owned).collect();
    keys.sort();
    keys
}

/// Reads a tensor that is known to exist.
fn read(weights: &StateDict, key: &str) -> Result<HostTensor, ParityError> {
    let tensor = weights.read(key).map_err(zeg_model::ModelError::from)?;
    tensor.ok_or_else(|| {
        ParityError::Model(zeg_model::ModelError::MissingTensor {
            key: key.to_owned(),
            origin: weights.origin(),
        })
    })
}

/// Returns the weights of a file with these tensors, read with the key tables of all methods.
fn published_file(tensors: &[(String, HostTensor)]) -> Result<StateDict, ParityError> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, tensor)| tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let invalid = |error: safetensors::SafeTensorError| ParityError::Backend(error.to_string());
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(invalid)?;
        views.push((name.as_str(), view));
    }
    let file = safetensors::serialize(views, None::<HashMap<String, String>>).map_err(invalid)?;
    let tables = Methods::default().key_tables();
    let weights = StateDict::from_bytes("published.safetensors", file, &tables);
    Ok(weights.map_err(zeg_model::ModelError::from)?)
}
