//! The key table of CAT-Seg's published checkpoints.

use zeg_weights::{IgnoredKeys, KeyTable, Rename, WeightsPart};

/// Prefix of CLIP in a published checkpoint.
const CLIP: &str = "sem_seg_head.predictor.clip_model.";

/// The key table of CAT-Seg's reference checkpoints, which hold both of CLIP's towers.
///
/// The projections of queries, keys and values keep their three tensors. Names of parts that begin with a capital letter
/// are not those of parameters here, so `MLP` becomes `mlp`.
pub const CAT_SEG: KeyTable = KeyTable {
    family: "CAT-Seg",
    recognised_by: &["sem_seg_head.predictor.transformer.conv1.*"],
    renames: &[
        Rename::one(
            &["sem_seg_head.predictor.clip_model.visual.*"],
            "backbone.*",
        ),
        Rename::one(&["sem_seg_head.predictor.clip_model.*"], "text_encoder.*"),
        Rename::one(
            &["sem_seg_head.predictor.transformer.layers.#.attention.MLP.*"],
            "sem_seg_head.predictor.transformer.layers.#.attention.mlp.*",
        ),
    ],
    ignored: &[
        IgnoredKeys {
            pattern: "sem_seg_head.predictor.clip_model.logit_scale",
            why: "temperature of CLIP's contrastive loss",
        },
        IgnoredKeys {
            pattern: "sem_seg_head.predictor.transformer.layers.#.swin_block.block_2.attn_mask",
            why: "the mask of shifted windows, a constant",
        },
    ],
    extras: &[
        (
            WeightsPart::ImageTower,
            "transformer.resblocks.#.attn.q_proj_weight",
        ),
        (
            WeightsPart::ImageTower,
            "transformer.resblocks.#.attn.k_proj_weight",
        ),
        (
            WeightsPart::ImageTower,
            "transformer.resblocks.#.attn.v_proj_weight",
        ),
        (
            WeightsPart::TextTower,
            "transformer.resblocks.#.attn.q_proj_weight",
        ),
        (
            WeightsPart::TextTower,
            "transformer.resblocks.#.attn.k_proj_weight",
        ),
        (
            WeightsPart::TextTower,
            "transformer.resblocks.#.attn.v_proj_weight",
        ),
    ],
};

/// Returns the name of a parameter in the published checkpoints.
pub fn published_name(key: &str) -> String {
    if let Some(rest) = key.strip_prefix("backbone.") {
        return format!("{CLIP}visual.{rest}");
    }
    if let Some(rest) = key.strip_prefix("text_encoder.") {
        return format!("{CLIP}{rest}");
    }
    key.replace(".attention.mlp.", ".attention.MLP.")
}
