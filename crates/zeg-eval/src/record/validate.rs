//! Validates records when they are read, written or merged.
//!
//! A file may come from anywhere. Inconsistent numbers are refused here, so that later code need not check them. File
//! names must stay within the folder of the record, because a report embeds the files.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use super::{Evaluation, FORMAT};
use crate::EvalError;

impl Evaluation {
    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// Returns [`EvalError::Format`], [`EvalError::Classes`], [`EvalError::ImageTwice`] or [`EvalError::Invalid`] for
    /// the first inconsistency.
    pub fn validate(&self) -> Result<(), EvalError> {
        if self.format != FORMAT {
            return Err(EvalError::Format {
                found: self.format,
                known: FORMAT,
            });
        }
        if self.classes.len() != self.confusion.classes() {
            return Err(EvalError::Classes {
                expected: self.confusion.classes(),
                found: self.classes.len(),
            });
        }
        self.validate_settings()?;
        self.validate_images()?;
        self.validate_gallery()
    }

    fn validate_settings(&self) -> Result<(), EvalError> {
        let scales = &self.scales;
        if scales.is_empty()
            || scales
                .iter()
                .any(|scale| !scale.is_finite() || *scale <= 0.0)
        {
            return Err(invalid(
                "scales",
                format!("{scales:?}"),
                "expected at least one, all above 0",
            ));
        }
        if let Some(shard) = self.shard
            && (shard.index == 0 || shard.index > shard.count)
        {
            return Err(invalid(
                "shard",
                format!("{}/{}", shard.index, shard.count),
                "expected 1 to the number of shards",
            ));
        }
        if self
            .reliability
            .as_ref()
            .is_some_and(|counts| !counts.is_valid())
        {
            let found = "more right pixels than pixels".to_owned();
            return Err(invalid(
                "reliability",
                found,
                "expected at most all pixels to be right",
            ));
        }
        let timing = &self.timing;
        for (field, seconds) in [
            ("timing.wall_s", timing.wall_s),
            ("timing.model_s", timing.model_s),
        ] {
            if !seconds.is_finite() || seconds < 0.0 {
                return Err(invalid(field, seconds, "expected seconds, 0 or more"));
            }
        }
        Ok(())
    }

    fn validate_images(&self) -> Result<(), EvalError> {
        if self.image_scores.is_empty() {
            return Ok(());
        }
        if u64::try_from(self.image_scores.len()) != Ok(self.images) {
            return Err(invalid(
                "images",
                self.images,
                format!("there are scores of {} images", self.image_scores.len()),
            ));
        }
        let mut ids = BTreeSet::new();
        let mut pixels = 0_u64;
        for image in &self.image_scores {
            if !ids.insert(image.id.as_str()) {
                return Err(EvalError::ImageTwice {
                    id: image.id.clone(),
                });
            }
            pixels = pixels.saturating_add(image.pixels);
            for (field, score) in [
                ("image_scores.pAcc", image.p_acc),
                ("image_scores.mIoU", image.miou),
                ("image_scores.mDice", image.mdice),
            ] {
                if let Some(score) = score {
                    check_fraction(field, score)?;
                }
            }
        }
        if pixels != self.confusion.total() {
            return Err(invalid(
                "image_scores.pixels",
                format!("{pixels} in all"),
                format!("the confusion counts {} pixels", self.confusion.total()),
            ));
        }
        Ok(())
    }

    fn validate_gallery(&self) -> Result<(), EvalError> {
        for entry in &self.gallery {
            check_fraction("gallery.score", entry.score)?;
            for share in &entry.classes {
                if share.class >= self.classes.len() {
                    return Err(invalid(
                        "gallery.classes",
                        share.class,
                        format!("there are {} classes", self.classes.len()),
                    ));
                }
                check_fraction("gallery.classes.truth", share.truth)?;
                check_fraction("gallery.classes.prediction", share.prediction)?;
            }
            for file in [&entry.image, &entry.truth, &entry.prediction, &entry.error] {
                if !stays_inside(file) {
                    return Err(invalid(
                        "gallery",
                        format!("{file:?}"),
                        "expected the name of a file in the folder of the evaluation",
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_fraction(field: &'static str, value: f64) -> Result<(), EvalError> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(invalid(field, value, "expected 0 to 1"))
    }
}

fn invalid(field: &'static str, value: impl ToString, expected: impl Into<String>) -> EvalError {
    EvalError::Invalid {
        field,
        value: value.to_string(),
        expected: expected.into(),
    }
}

/// Returns true if a relative path stays within its folder on every system.
fn stays_inside(name: &str) -> bool {
    let parts: Vec<Component<'_>> = Path::new(name).components().collect();
    let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
    !parts.is_empty() && parts.iter().all(normal) && !name.contains(['\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_gallery_are_in_its_folder() {
        for name in ["a.png", "gallery/a b.jpg", "ä.png"] {
            assert!(stays_inside(name), "{name}");
        }
        let outside = [
            "",
            ".",
            "..",
            "../a.png",
            "/etc/passwd",
            "a/../../b",
            "c:\\x.png",
            "..\\a",
            "a:b",
        ];
        for name in outside {
            assert!(!stays_inside(name), "{name}");
        }
    }
}
