//! Helpers of the tests: golden files, and the key tables of the checkpoints among them.
#![allow(dead_code)] // each test file uses some of the helpers only
#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use std::path::{Path, PathBuf};

use zeg_weights::{
    IgnoredKeys, Inspection, KeyTable, Rename, StateDict, WeightsError, WeightsPart,
};

/// Key tables like those of methods: one without patterns, for files with `zeg`'s names, and one with a pattern.
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

/// Returns the path of a golden file.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Opens weights, with [`TABLES`].
pub(crate) fn open(path: &Path) -> Result<StateDict, WeightsError> {
    StateDict::open(path, TABLES)
}

/// Inspects a file, with [`TABLES`].
pub(crate) fn inspect(path: &Path) -> Result<Inspection, WeightsError> {
    Inspection::of(&open(path)?)
}
