//! The key table of zsseg's published checkpoints, which include CLIP.

use zeg_weights::{IgnoredKeys, KeyTable, Rename};

/// Why the second copy of CLIP is not read.
const COPY: &str = "a copy of the CLIP in clip_adapter";
/// Why the embeddings of single tokens are not read.
const TOKEN: &str = "a row of the token table";

/// The key table of zsseg's reference checkpoints, of the prompts alone and of the segmenter.
///
/// A model whose prompts serve for regions alone has a second adapter, with a copy of CLIP and the prompts; one of the
/// tensors of its prompts marks it.
pub const ZSSEG: KeyTable = KeyTable {
    family: "zsseg",
    recognised_by: &["clip_adapter.*", "_region_clip_adapter.*"],
    renames: &[
        Rename::one(&["clip_adapter.clip_model.visual.*"], "backbone.*"),
        Rename::one(
            &["clip_adapter.clip_model.transformer.*"],
            "text_encoder.transformer.*",
        ),
        Rename::one(
            &["clip_adapter.clip_model.token_embedding.*"],
            "text_encoder.token_embedding.*",
        ),
        Rename::one(
            &["clip_adapter.clip_model.positional_embedding"],
            "text_encoder.positional_embedding",
        ),
        Rename::one(
            &["clip_adapter.clip_model.ln_final.*"],
            "text_encoder.ln_final.*",
        ),
        Rename::one(
            &["clip_adapter.clip_model.text_projection"],
            "text_encoder.text_projection",
        ),
        Rename::one(
            &["clip_adapter.prompt_learner.prefix_prompt"],
            "prompt_learner.prefix_prompt",
        ),
        Rename::one(
            &["_region_clip_adapter.prompt_learner.prefix_prompt"],
            "prompt_learner.prefix_prompt",
        ),
        Rename::one(
            &["_region_clip_adapter.prompt_learner.end_signal"],
            "prompt_learner.for_regions",
        ),
    ],
    ignored: &[
        IgnoredKeys {
            pattern: "criterion.empty_weight",
            why: "a buffer of the loss",
        },
        IgnoredKeys {
            pattern: "clip_adapter.clip_model.logit_scale",
            why: "the scale of cosine similarities is the constant 100",
        },
        IgnoredKeys {
            pattern: "clip_adapter.pixel_*",
            why: "constants of the normalisation",
        },
        IgnoredKeys {
            pattern: "clip_adapter.prompt_learner.start_signal",
            why: TOKEN,
        },
        IgnoredKeys {
            pattern: "clip_adapter.prompt_learner.dot_signal",
            why: TOKEN,
        },
        IgnoredKeys {
            pattern: "clip_adapter.prompt_learner.end_signal",
            why: TOKEN,
        },
        IgnoredKeys {
            pattern: "clip_adapter.prompt_learner.pad_signal",
            why: TOKEN,
        },
        IgnoredKeys {
            pattern: "_region_clip_adapter.clip_model.*",
            why: COPY,
        },
        IgnoredKeys {
            pattern: "_region_clip_adapter.pixel_*",
            why: "constants of the normalisation",
        },
        IgnoredKeys {
            pattern: "_region_clip_adapter.non_object_embedding",
            why: "crops are not compared with \"no object\"",
        },
        IgnoredKeys {
            pattern: "_region_clip_adapter.prompt_learner.start_signal",
            why: TOKEN,
        },
        IgnoredKeys {
            pattern: "_region_clip_adapter.prompt_learner.dot_signal",
            why: TOKEN,
        },
        IgnoredKeys {
            pattern: "_region_clip_adapter.prompt_learner.pad_signal",
            why: TOKEN,
        },
    ],
    extras: &[],
};
