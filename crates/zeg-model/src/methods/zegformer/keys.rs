//! The key table of ZegFormer's published checkpoints.

use zeg_weights::{IgnoredKeys, KeyTable, Rename};

/// The key table of ZegFormer's reference checkpoints. Those made for evaluation include CLIP: its image tower keeps
/// its name (it is a part of the model), and its text tower is read as the text tower.
pub const ZEGFORMER: KeyTable = KeyTable {
    family: "ZegFormer",
    recognised_by: &["sem_seg_head.predictor.*"],
    renames: &[
        Rename::one(
            &["sem_seg_head.predictor.clip_model.transformer.*"],
            "text_encoder.transformer.*",
        ),
        Rename::one(
            &["sem_seg_head.predictor.clip_model.token_embedding.*"],
            "text_encoder.token_embedding.*",
        ),
        Rename::one(
            &["sem_seg_head.predictor.clip_model.positional_embedding"],
            "text_encoder.positional_embedding",
        ),
        Rename::one(
            &["sem_seg_head.predictor.clip_model.ln_final.*"],
            "text_encoder.ln_final.*",
        ),
        Rename::one(
            &["sem_seg_head.predictor.clip_model.text_projection"],
            "text_encoder.text_projection",
        ),
    ],
    ignored: &[IgnoredKeys {
        // The buffer's size differs between checkpoints of the same model.
        pattern: "criterion.empty_weight",
        why: "a buffer of the loss",
    }],
    extras: &[],
};
