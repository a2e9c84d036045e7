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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipes;
    use zeg_model::methods::Methods;

    /// Eight of the 572 seen classes of ADE20K-Full have the class name of another class.
    #[test]
    fn training_classes_are_indices_and_not_first_matching_names() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../configs/ade20k-full/zegformer-r50.toml"
        );
        let file = crate::experiment::Experiment::open(
            path.as_ref(),
            &[],
            &Methods::default(),
            &Recipes::default(),
        );
        let training = file.unwrap().experiment.training;
        let classes = ClassSet::by_name("ade20k-full847").unwrap();
        let supervision = supervision(&training, &classes).unwrap();
        assert_eq!(supervision.classes(), classes.seen());
        let first = |name: &String| classes.index_of(name);
        let by_name: Vec<Option<usize>> = supervision.names().iter().map(first).collect();
        let pairs = by_name.iter().zip(classes.seen());
        let wrong = pairs.filter(|(found, class)| **found != Some(*class));
        assert_eq!(wrong.count(), 8);
    }
}
