//! The key table of ZegCLIP's published checkpoints.

use zeg_weights::{IgnoredKeys, KeyTable, WeightsPart};

/// What the reference code of ZegCLIP and of CLIP-RC stores beside weights; its size differs between checkpoints of the
/// same model.
const LOSS_BUFFER: IgnoredKeys = IgnoredKeys {
    pattern: "decode_head.loss_decode.criterion.empty_weight",
    why: "a buffer of the loss, unused",
};

/// The reference checkpoints of ZegCLIP. They have `zeg`'s own names, so that this is also the table of the files that
/// no other one recognises.
pub const ZEGCLIP: KeyTable = KeyTable {
    family: "ZegCLIP",
    recognised_by: &[],
    renames: &[],
    ignored: &[LOSS_BUFFER],
    extras: &[
        (WeightsPart::ImageTower, "prompt_embeddings"),
        (WeightsPart::ImageTower, "deep_prompt_embeddings"),
        (WeightsPart::ImageTower, "prompt_proj.*"),
        (WeightsPart::ImageTower, "prompt_norm.*"),
    ],
};
