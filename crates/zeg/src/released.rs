//! Tells how a released checkpoint was trained, which neither its tensors nor its format say.
//!
//! The released ZegCLIP and CLIP-RC are scored with a seen offset, except after self-training and fully supervised
//! training (`self_training` and the class lists of the reference's configurations). Scored with the offset, a
//! self-trained model loses seen classes to unseen ones without a sign of it.

use std::{fmt, path::Path};

use zeg_eval::Protocol;
use zeg_model::weights::{SELF_TRAINING_KEY, SOURCE_KEY, StateDict};

/// How a released checkpoint was trained, if something says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedTraining {
    /// The protocol that its scores belong to; models of it are scored without a seen offset.
    pub protocol: Protocol,
    /// What says so.
    pub evidence: Evidence,
}

/// What says how a released checkpoint was trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// The configuration in the checkpoint.
    Configuration,
    /// The name of its file, or of the file that it was imported from.
    FileName(String),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("the configuration in the file"),
            Self::FileName(name) => write!(f, "the file name {name:?}"),
        }
    }
}

/// Returns how a released checkpoint was trained; `None` for inductive training, and if nothing says it.
///
/// - `path`: the file of the checkpoint
pub(crate) fn training_of(path: &Path, weights: &StateDict) -> Option<ReleasedTraining> {
    let metadata = |key: &str| weights.metadata().get(key).map(String::as_str);
    if metadata(SELF_TRAINING_KEY) == Some("true") {
        return Some(ReleasedTraining {
            protocol: Protocol::TransductiveUnseen,
            evidence: Evidence::Configuration,
        });
    }
    let own = path.file_name().map(|name| name.to_string_lossy());
    let names = [own.as_deref(), metadata(SOURCE_KEY)];
    names.into_iter().flatten().find_map(|name| {
        let protocol = protocol_in(name)?;
        let contradicted = protocol == Protocol::TransductiveUnseen
            && metadata(SELF_TRAINING_KEY) == Some("false");
        (!contradicted).then(|| ReleasedTraining {
            protocol,
            evidence: Evidence::FileName(name.to_owned()),
        })
    })
}

/// Returns the protocol that a file name speaks of, as in `voc_self_train.pth`, `coco_st_20k.pth`, `voc-trans.pth` and
/// `voc_fully.pth`.
fn protocol_in(name: &str) -> Option<Protocol> {
    let name = name.to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let is_self_training = |word: &&str| {
        matches!(*word, "st" | "trans" | "transductive") || word.starts_with("selftrain")
    };
    let in_two_words = words
        .windows(2)
        .any(|pair| pair[0] == "self" && pair[1].starts_with("train"));
    if in_two_words || words.iter().any(is_self_training) {
        Some(Protocol::TransductiveUnseen)
    } else if words.iter().any(|word| word.starts_with("fully")) {
        Some(Protocol::FullySupervised)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_follows_the_checkpoint() {
        let (trained_itself, fully) = (Protocol::TransductiveUnseen, Protocol::FullySupervised);
        for (name, expected) in [
            ("zegclip_voc_self_train_20k.pth", Some(trained_itself)),
            ("COCO_ST_iter_80000.pth", Some(trained_itself)),
            ("voc-trans.pth", Some(trained_itself)),
            ("clip_rc_transductive.safetensors", Some(trained_itself)),
            ("selftraining.pth", Some(trained_itself)),
            ("voc_fully.pth", Some(fully)),
            ("fully-supervised.pth", Some(fully)),
            ("best.pth", None),
            ("transformer.pth", None),
            ("latest.pth", None),
            ("voc_zero_shot.pth", None),
            ("iter_20000.pth", None),
        ] {
            let weights = StateDict::default();
            let found = training_of(Path::new(name), &weights);
            assert_eq!(found.map(|found| found.protocol), expected, "{name}");
        }
    }

    #[test]
    fn the_evidence_is_named() {
        let found = training_of(Path::new("runs/voc_st.pth"), &StateDict::default()).unwrap();
        assert_eq!(found.evidence.to_string(), "the file name \"voc_st.pth\"");
    }
}
