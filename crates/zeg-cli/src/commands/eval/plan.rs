//! What is scored and how: from a plan file, the model's experiment, and the command line, the last word being the
//! command line's.

use std::path::Path;
use zeg::model::{method::StartingPoint, renamed::rename_all};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use zeg::{
    data::{OpenSet, SampleSource as _, Selection},
    eval::Protocol,
    loading::LoadedModel,
    model::inference::{Inference, TestTime},
    session::SessionSettings,
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
    /// What the scores are to be compared with.
    #[serde(default)]
    protocol: Option<Protocol>,
    /// The images.
    data: DataConfig,
    /// How images go through the model; without, as the model has it.
    #[serde(default)]
    inference: Option<Inference>,
    /// How often each is looked at.
    #[serde(default)]
    test_time: TestTime,
}

/// What the command line says against plan and experiment; what is `None` stays.
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
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = || path.display().to_string();
        let table: toml::Table = toml::from_str(&text).with_context(name)?;
        let mut as_json = serde_json::to_value(&table)?;
        let renames = rename_all(&mut as_json);
        if let Some(setting) = renames.dropped.first() {
            anyhow::bail!(
                "{}: `{setting}` no longer exists; leave it out",
                path.display()
            );
        }
        if renames.notices.is_empty() {
            return table.try_into().with_context(name);
        }
        for notice in &renames.notices {
            eprintln!("warning: {}: {notice}", path.display());
        }
        serde_json::from_value(as_json).with_context(name)
    }
}

/// An evaluation, decided.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) data: DataConfig,
    pub(super) protocol: Protocol,
    /// How images go through the model.
    pub(super) session: SessionSettings,
}

impl Plan {
    /// Puts together what the file, the model and the command line say.
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
        let inference = file.and_then(|file| file.inference.as_ref());
        let mut session = SessionSettings {
            inference: inference.unwrap_or(&loaded.inference).clone(),
            test_time: file.map_or_else(TestTime::default, |file| file.test_time.clone()),
        };
        changes.inference.apply(&mut session.inference)?;
        changes.test_time.apply(&mut session.test_time)?;
        Ok(Self {
            data,
            protocol,
            session,
        })
    }

    /// The images to score.
    pub(super) fn open_dataset(&self, root: &Path) -> anyhow::Result<OpenSet> {
        let unseen = self.data.unseen.as_deref();
        let selection = Selection {
            dataset: &self.data.dataset,
            root,
            split: &self.data.eval_split,
            classes: self.data.classes.as_deref(),
            unseen: unseen.or((!has_split(self.protocol)).then_some("none")),
        };
        Ok(OpenSet::open(&selection, self.data.mini_world.as_ref())?)
    }

    /// `[classes]`: those whose scores the seen offset lowers.
    ///
    /// Only a model that met the very classes of this list in training, some with and some without labels, favours
    /// those with.
    pub(super) fn lowered(&self, dataset: &OpenSet, loaded: &LoadedModel) -> Vec<bool> {
        let trained = |name: &String| loaded.trained_on.iter().find(|class| class.name == *name);
        let unseen = dataset.classes().unseen_flags();
        let pairs = dataset.classes().classes.iter().zip(unseen);
        pairs
            .map(|(name, unseen)| {
                has_split(self.protocol) && trained(name).map_or(!unseen, |class| class.seen)
            })
            .collect()
    }
}

/// Whether a protocol tells seen and unseen classes apart.
fn has_split(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::CrossDataset | Protocol::OpenVocabulary)
}

/// The images: those of the plan or the experiment, changed by the command line.
fn data(
    changes: &PlanChanges,
    file: Option<&PlanFile>,
    checkpoint: &Path,
    loaded: &LoadedModel,
) -> anyhow::Result<DataConfig> {
    let of_experiment = loaded.data.as_ref();
    let mut data = match (file, of_experiment, &changes.dataset) {
        (Some(file), _, _) => file.data.clone(),
        (None, Some(data), None) => data.clone(),
        (None, Some(data), Some(dataset)) if data.dataset == *dataset => data.clone(),
        // Another data set: its own classes and splits, the templates that the model was trained with.
        (None, of_experiment, Some(dataset)) => {
            let mut data = DataConfig::new(dataset);
            if let Some(trained) = of_experiment {
                data.templates.clone_from(&trained.templates);
            }
            data
        }
        (None, None, None) => {
            anyhow::bail!(
                "{} brings no experiment that names its data set; give --dataset",
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

/// What the scores are to be compared with, as far as model and data tell.
fn protocol(loaded: &LoadedModel, data: &DataConfig) -> anyhow::Result<Protocol> {
    let experiment = loaded.checkpoint.as_ref().map(Experiment::of_checkpoint);
    Ok(match &experiment.transpose()? {
        None if loaded.starting_point == StartingPoint::PlainClip => Protocol::TrainingFree,
        // A released checkpoint does not say what it was trained on.
        None => Protocol::Inductive,
        Some(experiment) if experiment.data.dataset != data.dataset => Protocol::CrossDataset,
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
