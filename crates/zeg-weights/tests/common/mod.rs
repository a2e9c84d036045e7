//! What the tests share: golden files, and the tables of the checkpoints among them.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::{Path, PathBuf};

use zeg_weights::{
    IgnoredKeys, Inspection, KeyTable, Rename, StateDict, WeightsError, WeightsPart,
};

/// Tables as methods hand them in: one without marks for what is in our names, one that is told by a name.
pub(crate) const TABLES: &[KeyTable] = &[
    KeyTable {
        family: "ZegCLIP",
        recognised_by: &[],
        renames: &[],
        ignored: &[IgnoredKeys {
            pattern: "decode_head.loss_decode.criterion.empty_weight",
            why: "a buffer of the loss, unused",
        }],
        extras: &[
            (WeightsPart::ImageTower, "prompt_embeddings"),
            (WeightsPart::ImageTower, "deep_prompt_embeddings"),
            (WeightsPart::ImageTower, "prompt_proj.*"),
            (WeightsPart::ImageTower, "prompt_norm.*"),
        ],
    },
    KeyTable {
        family: "ZegFormer",
        recognised_by: &["sem_seg_head.predictor.*"],
        renames: &[Rename::one(
            &["sem_seg_head.predictor.clip_model.token_embedding.*"],
            "text_encoder.token_embedding.*",
        )],
        ignored: &[IgnoredKeys {
            pattern: "criterion.empty_weight",
            why: "a buffer of the loss",
        }],
        extras: &[],
    },
];

/// A golden file.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Opens weights, with [`TABLES`].
pub(crate) fn open(path: &Path) -> Result<StateDict, WeightsError> {
    StateDict::open(path, TABLES)
}

/// What a file is, with [`TABLES`].
pub(crate) fn inspect(path: &Path) -> Result<Inspection, WeightsError> {
    Inspection::of(&open(path)?)
}
