//! Derives from an experiment's setting and a data set's classes which names and labels training may use.

use crate::{
    TrainError,
    experiment::{Setting, TrainingConfig},
    supervision::{AllClasses, PartlyLabelled, Supervision},
    targets::SeenClasses,
};
use zeg_vocab::classes::ClassSet;

/// Returns the supervision of an experiment: the names and labels that training may use.
///
/// # Errors
/// Returns an error if there are no seen classes, or if they are not classes of the data set.
pub fn supervision(
    training: &TrainingConfig,
    classes: &ClassSet,
) -> Result<Supervision, TrainError> {
    let all = || classes.classes.iter().cloned();
    Ok(match training.setting {
        Setting::Inductive => {
            let seen = classes.seen().into_iter();
            let seen: Vec<_> = seen.map(|c| (c, classes.classes[c].clone())).collect();
            Supervision::Inductive(SeenClasses::new(classes.len(), &seen)?)
        }
        Setting::Transductive => {
            let unseen = classes.unseen_flags();
            let classes = all().zip(unseen.into_iter().map(|unseen| !unseen));
            Supervision::Transductive(PartlyLabelled::new(
                classes.collect(),
                training.pseudo_labels,
                training.self_training,
            )?)
        }
        Setting::FullySupervised => Supervision::FullySupervised(AllClasses::new(all().collect())),
    })
}
