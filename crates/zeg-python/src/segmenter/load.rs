//! Settings that a model is loaded with.

use std::{path::PathBuf, thread};

use anyhow::Context as _;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use zeg::{
    DeviceChoice, LoadOptions,
    loading::MethodChoice,
    model::{
        ModelError, Precision,
        inference::Inference,
        section::Section,
        weights::{StatedActivation, StatedHeads},
    },
    vocab::{classes::parse_classes_argument, templates::TemplateSet},
};
use zeg_cli::host;

use crate::errors::{Kind, exception};

/// Most threads for each core, as for `--threads`.
const MOST_THREADS: usize = 4;

/// Settings that a model is loaded with, as Python passes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct LoadSettings {
    /// A path, or a name of weights.
    model: PathBuf,
    text: Option<PathBuf>,
    text_classes: Option<String>,
    weights: Option<PathBuf>,
    method: Option<String>,
    templates: Option<String>,
    precision: String,
    activation: Option<String>,
    heads: Option<(usize, Option<usize>)>,
    /// Changes to the inference settings as a JSON object.
    inference: String,
    threads: Option<usize>,
    /// Folder of the class embeddings; `None` keeps none.
    cache: Option<PathBuf>,
    device: String,
}

impl LoadSettings {
    /// Returns threads for this model alone, if their number is set.
    pub(super) fn pool(&self, py: Python<'_>) -> PyResult<Option<ThreadPool>> {
        let Some(threads) = self.threads else {
            return Ok(None);
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        if !(1..=MOST_THREADS * cores).contains(&threads) {
            let message = format!("threads={threads}, but the machine has {cores} cores");
            let hint = format!("give a number from 1 to {}, or None", MOST_THREADS * cores);
            return Err(exception(py, Kind::Settings, &message, Some(&hint)));
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map(Some).map_err(|error| {
            let message = format!("{threads} threads cannot be started: {error}");
            exception(py, Kind::Other, &message, Some("give fewer threads"))
        })
    }

    /// Loads the model; returns it with what is assumed about its files.
    pub(super) fn load(self) -> anyhow::Result<(zeg::Segmenter, Vec<String>)> {
        let method = self.method.map(|name| MethodChoice {
            name,
            options: Section::default(),
        });
        let table_classes = self.text_classes.as_deref().map(parse_classes_argument);
        let templates = self.templates.as_deref().map(TemplateSet::by_name_or_file);
        let weights = self.weights.as_deref().map(host::resolve_model);
        let heads = self.heads.map(|(image, text)| StatedHeads {
            image: Some(image),
            text,
        });
        let options = LoadOptions {
            base: weights.transpose()?,
            method,
            device: self
                .device
                .parse::<DeviceChoice>()
                .map_err(settings_error)?,
            precision: precision(&self.precision)?,
            cache: self.cache,
            table: self.text,
            table_classes: table_classes.transpose().context("text_classes")?,
            templates: templates.transpose()?,
            activation: self.activation.as_deref().map(activation).transpose()?,
            heads: heads.unwrap_or_default(),
            ..LoadOptions::default()
        };
        let mut model = zeg::Segmenter::load_with(&host::resolve_model(&self.model)?, options)?;
        let notices = host::model_warnings(&model)?;
        change_inference(&mut model, &self.inference)?;
        Ok((model, notices))
    }
}

fn settings_error(reason: String) -> anyhow::Error {
    ModelError::Config(reason).into()
}

fn precision(name: &str) -> anyhow::Result<Precision> {
    match name {
        "f32" => Ok(Precision::Float),
        "bf16" => Ok(Precision::Bf16),
        "int8" => Ok(Precision::Int8),
        "auto" => Ok(Precision::automatic()),
        _ => Err(settings_error(format!(
            "precision={name:?}; known are \"f32\", \"bf16\", \"int8\" and \"auto\""
        ))),
    }
}

fn activation(name: &str) -> anyhow::Result<StatedActivation> {
    serde_json::from_value(name.into()).map_err(|_| {
        settings_error(format!(
            "activation={name:?}; known are \"quick-gelu\" and \"gelu\""
        ))
    })
}

/// Changes the inference settings of a model.
///
/// - `changes`: a JSON object of some of the settings of [`Inference`]
fn change_inference(model: &mut zeg::Segmenter, changes: &str) -> anyhow::Result<()> {
    let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_str(changes)?;
    if changes.is_empty() {
        return Ok(());
    }
    if let Some(pixels) = changes.get("short-side")
        && !model.model().model.rescales()
    {
        return Err(ModelError::FixedSize {
            setting: format!("short_side={pixels}"),
        }
        .into());
    }
    let has_stride = changes.contains_key("stride");
    model.change_inference(|inference| {
        let mut fields = serde_json::to_value(&*inference)?;
        if let Some(fields) = fields.as_object_mut() {
            fields.extend(changes);
        }
        let changed: Inference = serde_json::from_value(fields)
            .map_err(|error| settings_error(format!("inference: {error}")))?;
        *inference = changed;
        if !has_stride {
            inference.stride = inference.stride.min(inference.crop);
        }
        anyhow::Ok(())
    })
}
