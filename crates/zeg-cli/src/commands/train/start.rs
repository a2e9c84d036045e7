//! The weights that a run starts from.

use zeg::model::{
    method::Architecture, methods::Methods, section::ModelSection, weights::StateDict,
};
use zeg_train::{checkpoint::Checkpoint, experiment::Experiment};

use super::init::Init;
use crate::commands::run_files::differing;

/// The weights that a run starts from.
pub(super) enum Start {
    /// The frozen weights and random initial values.
    Fresh,
    /// A checkpoint of this run, with the optimiser's state.
    Resumed(Box<Checkpoint>),
    /// The weights of another run.
    Init(Box<Checkpoint>),
}

/// The error for a transductive run without a model to start from.
#[derive(Debug, thiserror::Error)]
#[error("the transductive setting starts from an inductively trained model; --init is missing")]
pub(crate) struct NothingToStartFrom;

impl Start {
    /// Returns the start of a fresh run, with the weights of another run if there are any.
    ///
    /// - `init`: the checkpoint of the other run
    pub(super) fn or_init(
        self,
        init: Option<&Init>,
        experiment: &Experiment,
        methods: &Methods,
    ) -> anyhow::Result<Self> {
        match (self, init) {
            (Self::Fresh, Some(Init { path, .. })) => {
                let checkpoint = Checkpoint::open(path, methods)?;
                let before = Experiment::of_checkpoint(&checkpoint)?;
                let (old, new) = (&before.model, &experiment.model);
                // Two files can spell one architecture differently, so the architectures are compared.
                let spelled_out = |section: &ModelSection| {
                    let architecture = section.architecture(methods)?;
                    anyhow::Ok(format!("{architecture:?}"))
                };
                let follows = || {
                    let earlier = old.architecture(methods)?;
                    anyhow::Ok(new.architecture(methods)?.follows(&*earlier))
                };
                anyhow::ensure!(
                    spelled_out(old)? == spelled_out(new)? || follows()?,
                    "{} holds another model: {}",
                    path.display(),
                    differing("model", old, new)
                );
                Ok(Self::Init(Box::new(checkpoint)))
            }
            (start, _) => Ok(start),
        }
    }

    /// Checks that the checkpoint has this architecture, or one that it follows, including the activation, which no
    /// experiment need state.
    ///
    /// # Errors
    /// Returns an error if the architectures differ.
    pub(super) fn check_architecture(
        &self,
        architecture: &dyn Architecture,
        methods: &Methods,
    ) -> anyhow::Result<()> {
        let (Self::Resumed(checkpoint) | Self::Init(checkpoint)) = self else {
            return Ok(());
        };
        let before = checkpoint.architecture(methods)?;
        anyhow::ensure!(
            format!("{before:?}") == format!("{architecture:?}") || architecture.follows(&*before),
            "{}: was trained with another activation of the image encoder than that of the weights; state it with \
             --activation",
            checkpoint.path().display()
        );
        Ok(())
    }

    /// Returns the weights together with those of the checkpoint, which hold what class embeddings follow from besides
    /// the text tower.
    pub(super) fn with_checkpoint(&self, weights: &StateDict) -> anyhow::Result<StateDict> {
        let mut weights = weights.clone();
        if let Self::Resumed(checkpoint) | Self::Init(checkpoint) = self {
            weights.add(checkpoint.path())?;
        }
        Ok(weights)
    }
}
