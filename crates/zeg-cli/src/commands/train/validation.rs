//! Validation during training: scores the model every few steps and finds the best one.

use std::path::Path;
use zeg::model::method::Architecture;

use anyhow::Context as _;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zeg::{
    data::{OpenSet, SampleSource as _},
    eval::{ConfusionMatrix, Report},
    evaluation::{EvaluationOptions, EvaluationSetup, Predictions, evaluate_on},
    model::{
        embeddings::ClassEmbeddings, inference::ClassQueries, stop::StopSign, text::ClassTexts,
        weights::StateDict,
    },
    session::{Confidence, Session, SessionSettings},
    text_sources::{Templates, TextSources, class_queries},
    vocab::templates::TemplateSet,
};
use zeg_base::{plural::counted, ranks::Ranks};
use zeg_train::{
    checkpoint::StoredClass,
    experiment::{Experiment, Validation},
    trainer::Trainer,
};

/// A line of `scores.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ValidationScore {
    /// Steps done.
    pub(super) step: u64,
    #[serde(rename = "pAcc")]
    p_acc: Option<f64>,
    #[serde(rename = "mIoU")]
    miou: Option<f64>,
    #[serde(rename = "mIoU_seen")]
    miou_seen: Option<f64>,
    #[serde(rename = "mIoU_unseen")]
    miou_unseen: Option<f64>,
    #[serde(rename = "hIoU")]
    hiou: Option<f64>,
    images: u64,
}

impl ValidationScore {
    /// Returns the score that models are compared by: hIoU, or mIoU if no class is unseen.
    pub(super) fn value(&self) -> f64 {
        self.hiou.or(self.miou).unwrap_or(0.0)
    }

    /// Formats the scores for the terminal, in percent.
    pub(super) fn line(&self) -> String {
        let percent = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{:.2}", 100.0 * value))
        };
        format!(
            "step {}: pAcc {}, mIoU {} (seen {}, unseen {}), hIoU {}, on {}",
            self.step,
            percent(self.p_acc),
            percent(self.miou),
            percent(self.miou_seen),
            percent(self.miou_unseen),
            percent(self.hiou),
            counted(self.images, "image")
        )
    }
}

/// Everything that a validator is built from.
pub(super) struct ValidatorInput<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) architecture: &'a dyn Architecture,
    /// The images of [`images`].
    pub(super) images: Option<OpenSet>,
    /// All classes, seen and unseen.
    pub(super) classes: &'a [StoredClass],
    pub(super) embeddings: &'a ClassEmbeddings,
    /// Texts of all classes, for a text tower that is trained.
    pub(super) texts: Option<ClassTexts>,
    /// Weights that may hold a text encoder.
    pub(super) weights: &'a StateDict,
    pub(super) device: &'a Device,
}

/// Opens the images that the model is scored on; returns `None` if the experiment asks for no validation.
///
/// - `root`: folder of the data set
pub(super) fn images(experiment: &Experiment, root: &Path) -> anyhow::Result<Option<OpenSet>> {
    let Some(settings) = &experiment.training.evaluation else {
        return Ok(None);
    };
    let data = &experiment.data;
    let split = settings.split.as_deref().unwrap_or(&data.eval_split);
    let mut images = data
        .open(root, split)
        .context("the images of training.evaluation")?;
    if let Some(limit) = settings.limit {
        images.retain(|position| position < limit);
    }
    Ok(Some(images))
}

/// Scorer of a model in training; it scores as `zeg eval` does afterwards.
pub(super) struct Validator {
    settings: Validation,
    dataset: OpenSet,
    queries: ClassQueries,
    /// Texts of the classes, which the text tower of the model embeds, if it is trained.
    texts: Option<ClassTexts>,
    session: SessionSettings,
    names: Vec<String>,
    unseen: Vec<bool>,
    device: Device,
}

impl Validator {
    /// Prepares the scoring; returns `None` if the experiment asks for no validation.
    ///
    /// This happens before the first step, so that a mistake in the configuration shows at once.
    pub(super) fn new(input: ValidatorInput) -> anyhow::Result<Option<Self>> {
        let ValidatorInput {
            experiment,
            architecture,
            images,
            classes,
            embeddings,
            texts,
            weights,
            device,
        } = input;
        let settings = experiment.training.evaluation.clone();
        let (Some(settings), Some(dataset)) = (settings, images) else {
            return Ok(None);
        };
        let data = &experiment.data;
        let device = device.clone().without_autodiff();
        let names = dataset.classes();
        let names: Vec<Vec<String>> = (0..names.len()).map(|c| names.names_of(c)).collect();
        let templates = TemplateSet::by_name(&data.templates)?;
        let sources = TextSources {
            table: None,
            stored: Some(embeddings),
            weights,
            templates: Templates::Usual(&templates),
            cache: None,
            progress: None,
            stop: StopSign::default(),
        };
        let seen = classes.iter().map(|class| class.seen).collect();
        let mut blueprint = architecture.blueprint(&device)?;
        blueprint.set_options(&experiment.inference.method)?;
        Ok(Some(Self {
            texts,
            queries: class_queries(&names, seen, &*blueprint, &sources, &device)?.embeddings,
            session: SessionSettings {
                inference: experiment.inference.clone(),
                test_time: settings.test_time.clone(),
            },
            names: dataset.classes().classes.clone(),
            unseen: dataset.classes().unseen_flags(),
            settings,
            dataset,
            device,
        }))
    }

    /// Whether the model is scored after a step.
    ///
    /// - `done`: number of steps done
    /// - `all`: number of steps of the run
    pub(super) fn is_due(&self, done: u64, all: u64) -> bool {
        done.is_multiple_of(self.settings.every) || done == all
    }

    /// Scores the current model, on all ranks together; returns `None` on all but the first.
    pub(super) fn score(
        &self,
        trainer: &Trainer,
        ranks: &Ranks,
    ) -> anyhow::Result<Option<ValidationScore>> {
        let mut model = trainer.inference_model();
        model.set_options(&self.session.inference.method)?;
        let mut queries = self.queries.clone();
        if let Some((texts, tower)) = self.texts.as_ref().zip(model.text_tower()) {
            queries.text = tower.embed_texts(texts);
        }
        let setup = EvaluationSetup {
            session: Session::new(&*model, &self.session, &self.device),
            classes: &queries,
            seen_offsets: &[],
            confidence: Confidence::Leave,
            left_out: &[],
        };
        let options = EvaluationOptions {
            threads: rayon::current_num_threads(),
            ..EvaluationOptions::default()
        };
        let predictions = Predictions::Dropped;
        let shared = evaluate_on(ranks, &[setup], &self.dataset, options, predictions, |_| {
            Ok(())
        })?;
        let Some(outcomes) = shared else {
            return Ok(None);
        };
        let confusion = outcomes
            .into_iter()
            .next()
            .map_or_else(|| ConfusionMatrix::new(self.names.len()), |o| o.confusion);
        let images = self.dataset.len() as u64;
        let report = Report::new(&confusion, &self.names, &self.unseen, images)?;
        Ok(Some(ValidationScore {
            step: trainer.step_number(),
            p_acc: report.p_acc,
            miou: report.miou,
            miou_seen: report.miou_seen,
            miou_unseen: report.miou_unseen,
            hiou: report.hiou,
            images,
        }))
    }
}
