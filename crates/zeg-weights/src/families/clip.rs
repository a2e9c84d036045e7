//! Key tables of the published CLIP formats.

use crate::key_table::{IgnoredKeys, KeyTable, Rename};

const LOGIT_SCALE: IgnoredKeys = IgnoredKeys {
    pattern: "logit_scale",
    why: "temperature of CLIP's contrastive loss",
};
const MASK: IgnoredKeys = IgnoredKeys {
    pattern: "attn_mask",
    why: "the causal mask, a constant",
};

/// The key table of OpenAI's CLIP, and of open_clip's models of the same form.
///
/// `visual.*` is the image tower, everything else is the text tower. The TorchScript archives have the same names as
/// the state dicts.
pub(crate) const OPENAI_CLIP: KeyTable = KeyTable {
    family: "OpenAI CLIP",
    recognised_by: &["visual.*"],
    renames: &[
        Rename::one(&["visual.*"], "backbone.*"),
        Rename::one(&["transformer.*"], "text_encoder.transformer.*"),
        Rename::one(&["token_embedding.*"], "text_encoder.token_embedding.*"),
        Rename::one(
            &["positional_embedding"],
            "text_encoder.positional_embedding",
        ),
        Rename::one(&["ln_final.*"], "text_encoder.ln_final.*"),
        Rename::one(&["text_projection"], "text_encoder.text_projection"),
    ],
    ignored: &[
        LOGIT_SCALE,
        MASK,
        IgnoredKeys {
            pattern: "input_resolution",
            why: "a setting of the model, not a weight",
        },
        IgnoredKeys {
            pattern: "context_length",
            why: "a setting of the model, not a weight",
        },
        IgnoredKeys {
            pattern: "vocab_size",
            why: "a setting of the model, not a weight",
        },
    ],
    extras: &[],
};

/// The key table of open_clip's models with a separate class for the text tower: `text.*` is the text tower.
pub(crate) const OPEN_CLIP_CUSTOM_TEXT: KeyTable = KeyTable {
    family: "open_clip",
    recognised_by: &["text.transformer.*", "text.token_embedding.*"],
    renames: &[
        Rename::one(&["visual.*"], "backbone.*"),
        Rename::transposed(
            &["text.text_projection.weight"],
            "text_encoder.text_projection",
        ),
        Rename::one(&["text.*"], "text_encoder.*"),
    ],
    ignored: &[
        LOGIT_SCALE,
        MASK,
        IgnoredKeys {
            pattern: "text.attn_mask",
            why: "the causal mask, a constant",
        },
    ],
    extras: &[],
};

/// The key table of `CLIPModel` in Hugging Face's `transformers`, and of its single towers.
///
/// Query, key and value projections are separate tensors, and the two final projections are linear layers, stored as
/// `[out, in]`.
pub(crate) const HUGGING_FACE_CLIP: KeyTable = KeyTable {
    family: "Hugging Face CLIP",
    recognised_by: &["vision_model.*", "text_model.*"],
    renames: &[
        Rename::one(
            &["vision_model.embeddings.class_embedding"],
            "backbone.class_embedding",
        ),
        Rename::one(
            &["vision_model.embeddings.patch_embedding.weight"],
            "backbone.conv1.weight",
        ),
        Rename::one(
            &["vision_model.embeddings.position_embedding.weight"],
            "backbone.positional_embedding",
        ),
        // "layrnorm" is the family's spelling.
        Rename::one(&["vision_model.pre_layrnorm.*"], "backbone.ln_pre.*"),
        Rename::one(&["vision_model.post_layernorm.*"], "backbone.ln_post.*"),
        Rename::stacked(
            &[
                "vision_model.encoder.layers.#.self_attn.q_proj.weight",
                "vision_model.encoder.layers.#.self_attn.k_proj.weight",
                "vision_model.encoder.layers.#.self_attn.v_proj.weight",
            ],
            "backbone.transformer.resblocks.#.attn.in_proj_weight",
        ),
        Rename::stacked(
            &[
                "vision_model.encoder.layers.#.self_attn.q_proj.bias",
                "vision_model.encoder.layers.#.self_attn.k_proj.bias",
                "vision_model.encoder.layers.#.self_attn.v_proj.bias",
            ],
            "backbone.transformer.resblocks.#.attn.in_proj_bias",
        ),
        Rename::one(
            &["vision_model.encoder.layers.#.self_attn.out_proj.*"],
            "backbone.transformer.resblocks.#.attn.out_proj.*",
        ),
        Rename::one(
            &["vision_model.encoder.layers.#.layer_norm1.*"],
            "backbone.transformer.resblocks.#.ln_1.*",
        ),
        Rename::one(
            &["vision_model.encoder.layers.#.layer_norm2.*"],
            "backbone.transformer.resblocks.#.ln_2.*",
        ),
        Rename::one(
            &["vision_model.encoder.layers.#.mlp.fc1.*"],
            "backbone.transformer.resblocks.#.mlp.c_fc.*",
        ),
        Rename::one(
            &["vision_model.encoder.layers.#.mlp.fc2.*"],
            "backbone.transformer.resblocks.#.mlp.c_proj.*",
        ),
        Rename::transposed(&["visual_projection.weight"], "backbone.proj"),
        Rename::one(
            &["text_model.embeddings.token_embedding.weight"],
            "text_encoder.token_embedding.weight",
        ),
        Rename::one(
            &["text_model.embeddings.position_embedding.weight"],
            "text_encoder.positional_embedding",
        ),
        Rename::one(
            &["text_model.final_layer_norm.*"],
            "text_encoder.ln_final.*",
        ),
        Rename::stacked(
            &[
                "text_model.encoder.layers.#.self_attn.q_proj.weight",
                "text_model.encoder.layers.#.self_attn.k_proj.weight",
                "text_model.encoder.layers.#.self_attn.v_proj.weight",
            ],
            "text_encoder.transformer.resblocks.#.attn.in_proj_weight",
        ),
        Rename::stacked(
            &[
                "text_model.encoder.layers.#.self_attn.q_proj.bias",
                "text_model.encoder.layers.#.self_attn.k_proj.bias",
                "text_model.encoder.layers.#.self_attn.v_proj.bias",
            ],
            "text_encoder.transformer.resblocks.#.attn.in_proj_bias",
        ),
        Rename::one(
            &["text_model.encoder.layers.#.self_attn.out_proj.*"],
            "text_encoder.transformer.resblocks.#.attn.out_proj.*",
        ),
        Rename::one(
            &["text_model.encoder.layers.#.layer_norm1.*"],
            "text_encoder.transformer.resblocks.#.ln_1.*",
        ),
        Rename::one(
            &["text_model.encoder.layers.#.layer_norm2.*"],
            "text_encoder.transformer.resblocks.#.ln_2.*",
        ),
        Rename::one(
            &["text_model.encoder.layers.#.mlp.fc1.*"],
            "text_encoder.transformer.resblocks.#.mlp.c_fc.*",
        ),
        Rename::one(
            &["text_model.encoder.layers.#.mlp.fc2.*"],
            "text_encoder.transformer.resblocks.#.mlp.c_proj.*",
        ),
        Rename::transposed(&["text_projection.weight"], "text_encoder.text_projection"),
    ],
    ignored: &[
        LOGIT_SCALE,
        IgnoredKeys {
            pattern: "vision_model.embeddings.position_ids",
            why: "the position ids 0, 1, 2, …, a constant",
        },
        IgnoredKeys {
            pattern: "text_model.embeddings.position_ids",
            why: "the position ids 0, 1, 2, …, a constant",
        },
    ],
    extras: &[],
};
