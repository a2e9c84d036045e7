//! Judges the tensors of a trained model's file that the model does not read.
//!
//! A tensor inside one of the model's layers or stacks of blocks changes what they compute, so the file is refused.
//! Tensors beside them, such as a second head, are named in a notice.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use zeg_base::plural::counted;
use zeg_model::{
    checkpoint::Checkpoint,
    method::Architecture,
    weights::{StateDict, WeightsError, is_adapter, is_harmless},
};

/// Prefixes of CLIP's towers and of a backbone, whose tensors are judged when the file is opened.
const TOWERS: [&str; 2] = ["backbone.", "text_encoder."];
/// Number of names in the notice.
const MOST_NAMES: usize = 3;

/// Tensors of a released checkpoint that its model does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: the model does not read {} of the file, so it may be another model than the file's: {}",
    path.display(),
    counted(names.len(), "tensor"),
    shown(names)
)]
pub struct UnreadTensors {
    /// The checkpoint.
    pub path: PathBuf,
    /// Names of the tensors, sorted.
    pub names: Vec<String>,
}

/// Returns the first names, and the number of the others.
fn shown(names: &[String]) -> String {
    let first = names.get(..MOST_NAMES).unwrap_or(names).join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => first,
        rest => format!("{first} and {rest} more"),
    }
}

/// The names of a model's tensors.
struct ModelNames {
    all: BTreeSet<String>,
    /// The names of layers, without a final dot.
    layers: BTreeSet<String>,
    /// Beginnings of the names of numbered blocks, up to the number.
    stacks: BTreeSet<String>,
}

impl ModelNames {
    fn of(architecture: &dyn Architecture) -> anyhow::Result<Self> {
        let params = architecture.params()?.into_iter();
        let all: BTreeSet<String> = params
            .map(|param| architecture.weight_name(&param.name))
            .collect();
        let layers = all.iter().filter_map(|name| name.strip_suffix(".weight"));
        let layers = layers.map(str::to_owned).collect();
        let stacks = all.iter().flat_map(|name| stacks_of(name));
        let stacks = stacks.map(str::to_owned).collect();
        Ok(Self {
            all,
            layers,
            stacks,
        })
    }

    fn contains(&self, key: &str) -> bool {
        self.all.contains(key)
    }

    /// Whether a name is that of a tensor inside a layer.
    fn is_in_a_layer(&self, key: &str) -> bool {
        // The parts of a name that end before a dot: `a` and `a.b` of `a.b.c`.
        let mut ends = key.match_indices('.').map(|(end, _)| end);
        ends.any(|end| self.layers.contains(&key[..end]))
    }

    /// Whether a name is that of a tensor inside a numbered block, which the model may have or not.
    fn is_in_a_stack(&self, key: &str) -> bool {
        stacks_of(key).any(|stack| self.stacks.contains(stack))
    }
}

/// Returns the beginnings of a name that end before a number: `a.` and `a.0.b.` of `a.0.b.1.c`.
fn stacks_of(name: &str) -> impl Iterator<Item = &str> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let ends = name.match_indices('.').map(|(dot, _)| dot + 1);
    ends.filter_map(move |end| {
        let (stack, rest) = name.split_at_checked(end)?;
        let number = rest.split('.').next()?;
        is_number(number).then_some(stack)
    })
}

/// Checks that a checkpoint has no tensors inside the model's layers that the model does not read, such as adapters.
///
/// # Errors
/// Returns [`WeightsError::UnknownTensor`] for the first such tensor.
pub(super) fn check_tensors(
    checkpoint: &Checkpoint,
    architecture: &dyn Architecture,
) -> anyhow::Result<()> {
    let names = ModelNames::of(architecture)?;
    let mut keys = checkpoint.weights.keys();
    match keys.find(|key| !names.contains(key) && names.is_in_a_layer(key)) {
        Some(key) => Err(unknown(checkpoint.path(), key).into()),
        None => Ok(()),
    }
}

/// Returns the tensors of a released checkpoint that its model does not read, unless they have no effect there either.
///
/// # Errors
/// Returns [`WeightsError::UnknownTensor`] for the first tensor that changes what the model computes: one inside a layer
/// or a stack of blocks of the model, such as a further block, or an adapter.
pub(super) fn unread_tensors(
    path: &Path,
    weights: &StateDict,
    architecture: &dyn Architecture,
) -> anyhow::Result<Option<UnreadTensors>> {
    let known = ModelNames::of(architecture)?;
    let is_of_tower = |key: &str| TOWERS.iter().any(|tower| key.starts_with(tower));
    let mut names = Vec::new();
    for key in weights.keys() {
        if known.contains(key) || is_of_tower(key) || is_harmless(key) {
            continue;
        }
        let is_idle = architecture.is_idle(key);
        if is_adapter(key) || (!is_idle && (known.is_in_a_layer(key) || known.is_in_a_stack(key))) {
            return Err(unknown(path, key).into());
        }
        if !is_idle {
            names.push(key.to_owned());
        }
    }
    Ok((!names.is_empty()).then(|| UnreadTensors {
        path: path.to_owned(),
        names,
    }))
}

fn unknown(path: &Path, key: &str) -> WeightsError {
    WeightsError::UnknownTensor {
        path: path.to_owned(),
        key: key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeg_model::{generated, method::ExampleSize, methods::Methods, weights::HostTensor};

    use super::*;

    fn small(method: &str) -> Arc<dyn Architecture> {
        let method = Methods::default().by_name(method).unwrap();
        let size = ExampleSize::Small;
        let section = method.example(size);
        method.configure(&section, Some(&size.tower())).unwrap()
    }

    /// Returns the judgement of the weights of a model with one more tensor.
    fn judged(architecture: &dyn Architecture, name: &str) -> anyhow::Result<Vec<String>> {
        let mut weights = generated::weights(architecture, 0).unwrap();
        let tensor = HostTensor {
            shape: vec![1],
            values: vec![1.0],
        };
        weights.insert(name.to_owned(), tensor);
        let unread = unread_tensors(Path::new("released.pth"), &weights, architecture)?;
        Ok(unread.map_or_else(Vec::new, |unread| unread.names))
    }

    #[test]
    fn unknown_tensors_of_a_released_head_are_named() {
        for (method, decoder) in [("zegclip", "decoder_1"), ("clip-rc", "decoder_q")] {
            let architecture = small(method);
            let judge = |name: &str| judged(&*architecture, name);
            for silent in [
                format!("decode_head.{decoder}.layers.0.self_attn.in_proj_weight"),
                format!("decode_head.{decoder}.layers.0.norm1.bias"),
                "decode_head.loss_decode.criterion.empty_weight".into(),
                "decode_head.q_proj.weight".into(),
                "backbone.fpn1.0.weight".into(),
                "logit_scale".into(),
            ] {
                let unread = judge(&silent).unwrap();
                assert!(unread.is_empty(), "{method}: {unread:?}");
            }
            for beside in ["decode_head.conv_seg.weight", "auxiliary_head.0.weight"] {
                assert_eq!(judge(beside).unwrap(), [beside], "{method}");
            }
            for inside in [
                format!("decode_head.{decoder}.layers.7.linear1.weight"),
                format!("decode_head.{decoder}.layers.0.adapter.weight"),
                "decode_head.q_proj.adapter".into(),
                "decode_head.extra.lora_B.weight".into(),
            ] {
                let error = judge(&inside).unwrap_err();
                let error = error.downcast_ref::<WeightsError>();
                assert!(
                    matches!(error, Some(WeightsError::UnknownTensor { key, .. }) if *key == inside),
                    "{method}: {inside}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn unknown_tensors_of_a_two_stage_model_are_named() {
        let architecture = small("zegformer");
        let judge = |name: &str| judged(&*architecture, name);
        for silent in [
            "sem_seg_head.predictor.logit_scale",
            "sem_seg_head.predictor.clip_model.visual.conv1.weight",
            "backbone.stem.conv1.norm.num_batches_tracked",
        ] {
            assert!(judge(silent).unwrap().is_empty(), "{silent}");
        }
        let beside = "sem_seg_head.depth.weight";
        assert_eq!(judge(beside).unwrap(), [beside]);
        let inside = "sem_seg_head.predictor.transformer.decoder.layers.9.norm1.weight";
        assert!(judge(inside).is_err());
    }

    #[test]
    fn many_unread_tensors_are_counted() {
        let unread = UnreadTensors {
            path: "released.pth".into(),
            names: ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(),
        };
        let text = unread.to_string();
        assert!(text.contains("5 tensors"), "{text}");
        assert!(text.ends_with("a, b, c and 2 more"), "{text}");
    }

    #[test]
    fn stacks_end_before_a_number() {
        let of = |name| stacks_of(name).collect::<Vec<_>>();
        assert_eq!(of("a.0.b.12.c"), ["a.", "a.0.b."]);
        assert_eq!(of("a.x1.b"), Vec::<&str>::new());
    }
}
