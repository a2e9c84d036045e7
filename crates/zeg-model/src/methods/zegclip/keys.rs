//! The key table of ZegCLIP's published checkpoints.

use zeg_weights::{IgnoredKeys, KeyTable, WeightsPart};

/// A buffer that the reference code of ZegCLIP and of CLIP-RC stores with the weights; its size differs between
/// checkpoints of the same model.
const LOSS_BUFFER: IgnoredKeys = IgnoredKeys {
    pattern: "decode_head.loss_decode.criterion.empty_weight",
    why: "a buffer of the loss, unused",
};

/// The key table of ZegCLIP's reference checkpoints. They use `zeg`'s own names, so this is also the table of files
/// that no other table recognises.
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
