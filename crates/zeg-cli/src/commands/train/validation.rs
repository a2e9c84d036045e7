//! Scores on the way: whether a run is worth going on with, and which of its models is the best.

use std::path::Path;

use anyhow::Context as _;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zeg::{
    data::{OpenSet, SampleSource as _},
    eval::{ConfusionMatrix, Report},
    evaluation::{Setup, evaluate},
    model::{
        embeddings::ClassEmbeddings,
        inference::{ClassQueries, Inference, TestTime},
    },
};
use zeg_train::{
    checkpoint::StoredClass,
    experiment::{Experiment, Validation},
    trainer::Trainer,
};

/// A line of `scores.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Score {
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

impl Score {
    /// What models are chosen by: hIoU, or mIoU where no class is unseen.
    pub(super) fn value(&self) -> f64 {
        self.hiou.or(self.miou).unwrap_or(0.0)
    }

    /// For people, in percent.
    pub(super) fn line(&self) -> String {
        let percent = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{:.2}", 100.0 * value))
        };
        format!(
            "step {}: pAcc {}, mIoU {} (seen {}, unseen {}), hIoU {}, on {} pictures",
            self.step,
            percent(self.p_acc),
            percent(self.miou),
            percent(self.miou_seen),
            percent(self.miou_unseen),
            percent(self.hiou),
            self.images
        )
    }
}

/// Scores a model in training.
pub(super) struct Validator {
    settings: Validation,
    dataset: OpenSet,
    queries: ClassQueries,
    inference: Inference,
    names: Vec<String>,
    unseen: Vec<bool>,
    device: Device,
}

impl Validator {
    /// Opens the pictures, so that a mistake in the configuration shows before the first step.
    pub(super) fn new(
        experiment: &Experiment,
        root: &Path,
        (classes, embeddings): (&[StoredClass], &ClassEmbeddings),
        device: &Device,
    ) -> anyhow::Result<Option<Self>> {
        let Some(settings) = experiment.training.evaluation.clone() else {
            return Ok(None);
        };
        let data = &experiment.data;
        let split = settings.split.as_deref().unwrap_or(&data.eval_split);
        let mut dataset = data
            .open(root, split)
            .context("the pictures of training.evaluation")?;
        if let Some(limit) = settings.limit {
            dataset.retain(|position| position < limit);
        }
        let device = device.clone().without_autodiff();
        Ok(Some(Self {
            queries: ClassQueries {
                text: embeddings.to_tensor(&device),
                crop_text: None, // scores on the way make do with training's own sentences
                seen: classes.iter().map(|class| class.seen).collect(),
            },
            inference: experiment.inference,
            names: dataset.classes().classes.clone(),
            unseen: dataset.classes().unseen_flags(),
            settings,
            dataset,
            device,
        }))
    }

    /// Whether to score after so many steps.
    pub(super) fn is_due(&self, done: u64, all: u64) -> bool {
        done.is_multiple_of(self.settings.every) || done == all
    }

    pub(super) fn score(&self, trainer: &Trainer) -> anyhow::Result<Score> {
        let model = trainer.inference_model();
        let setup = Setup {
            model: &model,
            queries: &self.queries,
            settings: &self.inference,
            test_time: &TestTime::default(),
            offsets: &[],
            device: &self.device,
            threads: rayon::current_num_threads(),
        };
        let outcomes = evaluate(&[setup], &self.dataset, |_| Ok(()))?;
        let confusion = outcomes
            .into_iter()
            .next()
            .map_or_else(|| ConfusionMatrix::new(self.names.len()), |o| o.confusion);
        let images = self.dataset.len() as u64;
        let report = Report::new(&confusion, &self.names, &self.unseen, images)?;
        Ok(Score {
            step: trainer.step_number(),
            p_acc: report.p_acc,
            miou: report.miou,
            miou_seen: report.miou_seen,
            miou_unseen: report.miou_unseen,
            hiou: report.hiou,
            images,
        })
    }
}
