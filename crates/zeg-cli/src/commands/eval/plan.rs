//! The plan of an evaluation, from a plan file, the model's experiment and the command line, which has precedence.

use std::path::{Path, PathBuf};
use zeg::model::{checkpoint::trained_classes, method::StartingPoint, renamed::rename_all};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use zeg::{
    data::{
        OpenSet, SampleSource as _, Selection, data_config::add_usual_splits,
        is_compared_by_file_name, is_description, is_same_dataset, mini_world::DATASET,
    },
    eval::{NanRule, Protocol},
    loading::LoadedModel,
    model::inference::{Inference, TestTime},
    session::SessionSettings,
};
use zeg_base::{
    keys::{explain, first_not_finite},
    numbers::Legal,
};
use zeg_train::{
    experiment::{DataConfig, Experiment, Setting},
    supervision::PseudoLabels,
};

use crate::commands::shared::{InferenceChanges, TestTimeChanges};

/// A file that describes an evaluation (`--plan`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PlanFile {
    /// Protocol that the scores belong to.
    #[serde(default)]
    protocol: Option<Protocol>,
    /// Data set, split and classes.
    data: DataConfig,
    /// Settings of inference; `None` for the model's own.
    #[serde(default)]
    inference: Option<Inference>,
    /// Settings of test-time augmentation.
    #[serde(default)]
    test_time: TestTime,
    /// Rule for classes without pixels, which published means differ in.
    #[serde(default)]
    nan_rule: NanRule,
    /// Whether the file states prompt templates.
    #[serde(skip)]
    states_templates: bool,
}

/// Changes of the command line to plan and experiment; a field that is `None` changes nothing.
#[derive(Debug)]
pub(super) struct PlanChanges {
    pub(super) dataset: Option<String>,
    /// Class list.
    pub(super) classes: Option<String>,
    pub(super) unseen: Option<String>,
    pub(super) split: Option<String>,
    pub(super) templates: Option<String>,
    pub(super) protocol: Option<Protocol>,
    pub(super) inference: InferenceChanges,
    pub(super) test_time: TestTimeChanges,
}

impl PlanFile {
    /// Opens a plan file; prints a warning for each renamed key.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let fail = |reason: String| {
            anyhow::anyhow!("{}: {}", path.display(), explain(&text, &reason, &[]))
        };
        let mut table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| fail(error.to_string()))?;
        if let Some((key, value)) = first_not_finite(&table) {
            return Err(fail(format!("{key} = {value}: {}", Legal::Finite.text())));
        }
        if let Some(data) = table.get_mut("data").and_then(toml::Value::as_table_mut) {
            add_usual_splits(data);
        }
        let mut as_json = serde_json::to_value(&table)?;
        let renames = rename_all(&mut as_json);
        if let Some(setting) = renames.dropped.first() {
            anyhow::bail!(
                "{}: `{setting}` no longer exists; leave it out",
                path.display()
            );
        }
        let templates = as_json.get("data").and_then(|data| data.get("templates"));
        let states_templates = templates.is_some();
        let file: Self = if renames.notices.is_empty() {
            table
                .try_into()
                .map_err(|error: toml::de::Error| fail(error.to_string()))?
        } else {
            for notice in &renames.notices {
                print_notice!("warning: {}: {notice}", path.display());
            }
            serde_json::from_value(as_json).map_err(|error| fail(error.to_string()))?
        };
        if let Some(inference) = &file.inference {
            inference.check().map_err(|error| fail(error.to_string()))?;
        }
        Ok(Self {
            states_templates,
            ..file
        })
    }
}

/// The settings of an evaluation.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) data: DataConfig,
    /// Whether the prompt templates of `data` are others than those of the model, because the user asked for them.
    pub(super) asks_for_templates: bool,
    pub(super) protocol: Protocol,
    /// Settings of inference.
    pub(super) session: SessionSettings,
    /// Rule for classes without pixels.
    pub(super) nan_rule: NanRule,
}

impl Plan {
    /// Combines the plan file, the model's experiment and the changes of the command line.
    ///
    /// - `checkpoint`: file of the model, for messages
    pub(super) fn new(
        changes: &PlanChanges,
        file: Option<&PlanFile>,
        checkpoint: &Path,
        loaded: &LoadedModel,
    ) -> anyhow::Result<Self> {
        let data = data(changes, file, checkpoint, loaded)?;
        let stated = changes.protocol.or(file.and_then(|file| file.protocol));
        let protocol = match stated {
            Some(protocol) => protocol,
            None => protocol(loaded, &data)?,
        };
        if let Some(trained) = &loaded.data {
            warn_of_dataset(
                &trained.dataset,
                &data,
                stated.is_none().then_some(protocol),
            );
        }
        let inference = file.and_then(|file| file.inference.as_ref());
        let mut session = SessionSettings {
            inference: inference.unwrap_or(&loaded.inference).clone(),
            test_time: file.map_or_else(TestTime::default, |file| file.test_time.clone()),
        };
        if inference.is_none() && is_released(loaded) {
            session.inference.seen_offset = if has_no_offset(protocol) {
                0.0
            } else {
                loaded.architecture.default_inference().seen_offset
            };
        }
        let model = &*loaded.model;
        changes.inference.check(model)?;
        changes.inference.apply(&mut session.inference)?;
        changes.test_time.apply(&mut session.test_time, model)?;
        let stated = file.filter(|file| file.states_templates);
        let trained = loaded.data.as_ref().map(|data| &data.templates);
        Ok(Self {
            asks_for_templates: changes.templates.is_some()
                || stated.is_some_and(|file| trained != Some(&file.data.templates)),
            data,
            protocol,
            session,
            nan_rule: file.map_or_else(NanRule::default, |file| file.nan_rule),
        })
    }

    /// Opens the images to score.
    pub(super) fn open_dataset(&self, root: &Path) -> anyhow::Result<OpenSet> {
        let unseen = self.data.unseen.as_deref();
        // The settings of a mini world alone decide which of its classes are unseen.
        let has_split = has_split(self.protocol) || self.data.dataset == DATASET;
        let selection = Selection {
            dataset: &self.data.dataset,
            root,
            split: &self.data.eval_split,
            classes: self.data.classes.as_deref(),
            unseen: unseen.or((!has_split).then_some("none")),
        };
        Ok(OpenSet::open(&selection, self.data.mini_world.as_ref())?)
    }

    /// Returns whether the seen offset lowers the scores of each class.
    ///
    /// `[classes]`. The offset corrects the bias of a model towards the classes whose masks it was trained on. A class
    /// that the model was not trained with counts as the data set's list says. Protocols without seen and unseen
    /// classes lower no score.
    pub(super) fn lowered(&self, dataset: &OpenSet, loaded: &LoadedModel) -> Vec<bool> {
        let trained = trained_classes(&loaded.trained_on, dataset.classes());
        let unseen = dataset.classes().unseen_flags();
        let pairs = trained.into_iter().zip(unseen);
        pairs
            .map(|(trained, unseen)| {
                has_split(self.protocol) && trained.map_or(!unseen, |class| class.seen)
            })
            .collect()
    }
}

/// Whether a protocol distinguishes seen from unseen classes.
fn has_split(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::CrossDataset | Protocol::OpenVocabulary)
}

/// The file that describes a model's data set is not where it was during training.
#[derive(Debug, thiserror::Error)]
#[error("{}: the file that describes its data set, {file}, does not exist", model.display())]
pub(crate) struct DescriptionMissing {
    model: PathBuf,
    /// Path of the file during training.
    file: String,
}

/// Whether a model is a released checkpoint, which has no experiment with settings of its inference.
fn is_released(loaded: &LoadedModel) -> bool {
    loaded.checkpoint.is_none() && loaded.starting_point == StartingPoint::Masks
}

/// Whether released models of a protocol are scored without a seen offset: their training knew pixels of all classes.
fn has_no_offset(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Transductive | Protocol::TransductiveUnseen | Protocol::FullySupervised
    )
}

/// Returns the data of the plan or of the model's experiment, with the changes of the command line.
fn data(
    changes: &PlanChanges,
    file: Option<&PlanFile>,
    checkpoint: &Path,
    loaded: &LoadedModel,
) -> anyhow::Result<DataConfig> {
    let of_experiment = loaded.data.as_ref();
    let mut data = match (file, of_experiment, &changes.dataset) {
        (Some(file), _, asked) => {
            let other = asked
                .as_ref()
                .filter(|asked| !is_same_dataset(asked, &file.data.dataset));
            let mut data = match other {
                // Class list and splits of the plan are those of its data set.
                Some(dataset) => DataConfig {
                    templates: file.data.templates.clone(),
                    ..DataConfig::new(dataset)
                },
                None => file.data.clone(),
            };
            if let (Some(trained), false) = (loaded.templates(), file.states_templates) {
                trained.clone_into(&mut data.templates);
            }
            data
        }
        (None, Some(data), None) => {
            if is_description(&data.dataset) && !Path::new(&data.dataset).is_file() {
                return Err(DescriptionMissing {
                    model: checkpoint.to_owned(),
                    file: data.dataset.clone(),
                }
                .into());
            }
            data.clone()
        }
        (None, Some(data), Some(dataset)) if is_same_dataset(&data.dataset, dataset) => {
            data.clone()
        }
        // Another data set has its own classes and splits; the prompt templates stay those of the training.
        (None, _, Some(dataset)) => {
            let mut data = DataConfig::new(dataset);
            if let Some(trained) = loaded.templates() {
                trained.clone_into(&mut data.templates);
            }
            data
        }
        (None, None, None) => {
            anyhow::bail!(
                "{} has no experiment that names a data set; name one with --dataset",
                checkpoint.display()
            )
        }
    };
    if let Some(dataset) = &changes.dataset {
        data.dataset.clone_from(dataset);
    }
    if changes.classes.is_some() {
        data.classes.clone_from(&changes.classes);
    }
    if changes.unseen.is_some() {
        data.unseen.clone_from(&changes.unseen);
    }
    if let Some(split) = &changes.split {
        data.eval_split.clone_from(split);
    }
    if let Some(templates) = &changes.templates {
        data.templates.clone_from(templates);
    }
    Ok(data)
}

/// Says when a file decides whether model and scores are of one data set, because protocol and split follow from it.
///
/// - `trained`: the data set of the training
/// - `protocol`: the protocol, unless the user states it
fn warn_of_dataset(trained: &str, data: &DataConfig, protocol: Option<Protocol>) {
    let now = data.dataset.as_str();
    let by_file_name = is_compared_by_file_name(trained, now);
    match (is_same_dataset(trained, now), protocol) {
        (true, _) if by_file_name => print_notice!(
            "warning: {now} is taken for the data set that the model was trained on, because {trained} cannot be read and \
             has the same file name"
        ),
        (false, Some(protocol)) if is_description(trained) && is_description(now) => {
            let reason = if by_file_name {
                "the file cannot be read and has another file name"
            } else {
                "`name` or `classes` differ"
            };
            print_notice!(
                "warning: {now} is taken for another data set than {trained}, which the model was trained on ({reason}), so \
                 the protocol is {} and the split {}; --protocol and --split override them",
                protocol.title(),
                data.eval_split
            );
        }
        _ => {}
    }
}

/// Returns the protocol that the scores belong to, as far as model and data tell.
fn protocol(loaded: &LoadedModel, data: &DataConfig) -> anyhow::Result<Protocol> {
    let experiment = loaded.checkpoint.as_ref().map(Experiment::of_checkpoint);
    Ok(match &experiment.transpose()? {
        None if loaded.starting_point == StartingPoint::PlainClip => Protocol::TrainingFree,
        // Most released checkpoints are inductive, and do not say so.
        None => (loaded.released.as_ref()).map_or(Protocol::Inductive, |found| found.protocol),
        Some(experiment) if !is_same_dataset(&experiment.data.dataset, &data.dataset) => {
            Protocol::CrossDataset
        }
        Some(experiment) => match experiment.training.setting {
            Setting::Inductive => Protocol::Inductive,
            Setting::Transductive => match experiment.training.pseudo_labels {
                PseudoLabels::UnseenPixels => Protocol::TransductiveUnseen,
                PseudoLabels::UnlabelledPixels => Protocol::Transductive,
            },
            Setting::FullySupervised => Protocol::FullySupervised,
        },
    })
}
