//! What is scored and how: from a plan file, the model's experiment, and the command line, the last word being the
//! command line's.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use zeg::{
    data::{OpenSet, SampleSource as _, Selection, mini_world::WorldData},
    eval::Protocol,
    loading::LoadedModel,
    model::inference::{Inference, TestTime},
};
use zeg_train::{experiment::Setting, supervision::PseudoLabels};

use super::EvalArgs;
use crate::commands::change_inference;

/// A file that describes an evaluation (`--plan`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PlanFile {
    /// What the scores are to be compared with.
    #[serde(default)]
    protocol: Option<Protocol>,
    /// The pictures.
    data: PlanData,
    /// How pictures go through the model; without, as the model has it.
    #[serde(default)]
    inference: Option<Inference>,
    /// How often each is looked at.
    #[serde(default)]
    test_time: TestTime,
}

/// See [`zeg_train::experiment::DataConfig`], whose words these are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PlanData {
    pub(crate) dataset: String,
    #[serde(default)]
    pub(crate) mini_world: Option<WorldData>,
    #[serde(default)]
    pub(crate) classes: Option<String>,
    #[serde(default)]
    pub(crate) unseen: Option<String>,
    #[serde(default = "single")]
    pub(crate) templates: String,
    #[serde(default)]
    pub(crate) crop_templates: Option<String>,
    #[serde(default = "val")]
    pub(crate) eval_split: String,
}

fn single() -> String {
    "single".to_owned()
}
fn val() -> String {
    "val".to_owned()
}

impl PlanFile {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// An evaluation, decided.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) data: PlanData,
    pub(crate) protocol: Protocol,
    pub(crate) settings: Inference,
    pub(crate) test_time: TestTime,
}

impl Plan {
    /// Puts together what the file, the model and the command line say.
    pub(crate) fn new(
        args: &EvalArgs,
        file: Option<&PlanFile>,
        (checkpoint, loaded): (&Path, &LoadedModel),
    ) -> anyhow::Result<Self> {
        let data = data(args, file, (checkpoint, loaded))?;
        let protocol = args
            .protocol
            .map(Into::into)
            .or(file.and_then(|file| file.protocol))
            .unwrap_or_else(|| protocol(loaded, &data));
        let mut settings = file
            .and_then(|file| file.inference)
            .unwrap_or(loaded.inference);
        change_inference(&mut settings, &args.inference)?;
        let mut test_time = file.map_or_else(TestTime::default, |file| file.test_time.clone());
        if !args.scales.is_empty() {
            test_time.scales.clone_from(&args.scales);
        }
        test_time.flip |= args.flip;
        test_time.check()?;
        Ok(Self {
            data,
            protocol,
            settings,
            test_time,
        })
    }

    /// The pictures to score.
    pub(crate) fn open_dataset(&self, root: &Path) -> anyhow::Result<OpenSet> {
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
    pub(crate) fn lowered(&self, dataset: &OpenSet, loaded: &LoadedModel) -> Vec<bool> {
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

/// The pictures: those of the plan or the experiment, changed by the command line.
fn data(
    args: &EvalArgs,
    file: Option<&PlanFile>,
    (checkpoint, loaded): (&Path, &LoadedModel),
) -> anyhow::Result<PlanData> {
    let of_experiment = loaded.experiment.as_ref().map(|experiment| PlanData {
        dataset: experiment.data.dataset.clone(),
        mini_world: experiment.data.mini_world.clone(),
        classes: experiment.data.classes.clone(),
        unseen: experiment.data.unseen.clone(),
        templates: experiment.data.templates.clone(),
        crop_templates: experiment.data.crop_templates.clone(),
        eval_split: experiment.data.eval_split.clone(),
    });
    let mut data = match (file, of_experiment, &args.dataset) {
        (Some(file), _, _) => file.data.clone(),
        (None, Some(data), None) => data,
        (None, Some(data), Some(dataset)) if data.dataset == *dataset => data,
        // Another data set: its own classes and splits, the sentences that the model was trained with.
        (None, of_experiment, Some(dataset)) => PlanData {
            dataset: dataset.clone(),
            mini_world: None,
            classes: None,
            unseen: None,
            crop_templates: loaded.crop_templates().map(str::to_owned),
            templates: of_experiment.map_or_else(single, |data| data.templates),
            eval_split: val(),
        },
        (None, None, None) => {
            anyhow::bail!(
                "{} brings no experiment that names its data set; give --dataset",
                checkpoint.display()
            )
        }
    };
    if let Some(dataset) = &args.dataset {
        data.dataset.clone_from(dataset);
    }
    if args.word_list.is_some() {
        data.classes.clone_from(&args.word_list);
    }
    if args.unseen.is_some() {
        data.unseen.clone_from(&args.unseen);
    }
    if let Some(split) = &args.split {
        data.eval_split.clone_from(split);
    }
    if let Some(templates) = &args.templates {
        data.templates.clone_from(templates);
    }
    Ok(data)
}

/// What the scores are to be compared with, as far as model and data tell.
fn protocol(loaded: &LoadedModel, data: &PlanData) -> Protocol {
    match &loaded.experiment {
        None if loaded.method.starts_with("training-free") => Protocol::TrainingFree,
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
    }
}
