//! The key tables of MaskCLIP+'s published checkpoints, and of the network that its student starts from.

use zeg_weights::{IgnoredKeys, KeyTable, Rename, WeightsPart};

/// The key table of MaskCLIP+'s reference checkpoints.
///
/// The student's backbone has a name of its own in `zeg`, because `backbone` is CLIP's image tower. CLIP's tower, which
/// the checkpoints hold beside the student, gets CLIP's own names.
pub const MASKCLIP_PLUS: KeyTable = KeyTable {
    family: "MaskCLIP+",
    recognised_by: &["decode_head.decode_module.*"],
    renames: &[
        Rename::one(&["backbone.*"], "student.*"),
        // A residual tower: convolutions and norms of the stem, and shortcuts, whose pooling is no layer in CLIP.
        Rename::one(&["decode_head.clip.stem.0.*"], "decode_head.clip.conv1.*"),
        Rename::one(&["decode_head.clip.stem.1.*"], "decode_head.clip.bn1.*"),
        Rename::one(&["decode_head.clip.stem.3.*"], "decode_head.clip.conv2.*"),
        Rename::one(&["decode_head.clip.stem.4.*"], "decode_head.clip.bn2.*"),
        Rename::one(&["decode_head.clip.stem.6.*"], "decode_head.clip.conv3.*"),
        Rename::one(&["decode_head.clip.stem.7.*"], "decode_head.clip.bn3.*"),
        Rename::one(
            &["decode_head.clip.layer1.#.downsample.1.*"],
            "decode_head.clip.layer1.#.downsample.0.*",
        ),
        Rename::one(
            &["decode_head.clip.layer1.#.downsample.2.*"],
            "decode_head.clip.layer1.#.downsample.1.*",
        ),
        Rename::one(
            &["decode_head.clip.layer2.#.downsample.1.*"],
            "decode_head.clip.layer2.#.downsample.0.*",
        ),
        Rename::one(
            &["decode_head.clip.layer2.#.downsample.2.*"],
            "decode_head.clip.layer2.#.downsample.1.*",
        ),
        Rename::one(
            &["decode_head.clip.layer3.#.downsample.1.*"],
            "decode_head.clip.layer3.#.downsample.0.*",
        ),
        Rename::one(
            &["decode_head.clip.layer3.#.downsample.2.*"],
            "decode_head.clip.layer3.#.downsample.1.*",
        ),
        Rename::one(
            &["decode_head.clip.layer4.#.downsample.1.*"],
            "decode_head.clip.layer4.#.downsample.0.*",
        ),
        Rename::one(
            &["decode_head.clip.layer4.#.downsample.2.*"],
            "decode_head.clip.layer4.#.downsample.1.*",
        ),
        Rename::one(
            &["decode_head.q_proj.*"],
            "decode_head.clip.attnpool.q_proj.*",
        ),
        Rename::one(
            &["decode_head.k_proj.*"],
            "decode_head.clip.attnpool.k_proj.*",
        ),
        Rename::one(
            &["decode_head.v_proj.*"],
            "decode_head.clip.attnpool.v_proj.*",
        ),
        Rename::one(
            &["decode_head.c_proj.*"],
            "decode_head.clip.attnpool.c_proj.*",
        ),
        // A vision transformer.
        Rename::one(
            &["decode_head.clip.cls_token"],
            "decode_head.clip.class_embedding",
        ),
        Rename::one(
            &["decode_head.clip.pos_embed"],
            "decode_head.clip.positional_embedding",
        ),
        Rename::one(
            &["decode_head.clip.patch_embed.projection.*"],
            "decode_head.clip.conv1.*",
        ),
        Rename::one(&["decode_head.clip.ln0.*"], "decode_head.clip.ln_pre.*"),
        Rename::one(&["decode_head.clip.ln1.*"], "decode_head.clip.ln_post.*"),
        Rename::one(
            &["decode_head.clip.layers.#.ln1.*"],
            "decode_head.clip.transformer.resblocks.#.ln_1.*",
        ),
        Rename::one(
            &["decode_head.clip.layers.#.ln2.*"],
            "decode_head.clip.transformer.resblocks.#.ln_2.*",
        ),
        Rename::one(
            &["decode_head.clip.layers.#.attn.attn.*"],
            "decode_head.clip.transformer.resblocks.#.attn.*",
        ),
        Rename::one(
            &["decode_head.clip.layers.#.ffn.layers.0.0.*"],
            "decode_head.clip.transformer.resblocks.#.mlp.c_fc.*",
        ),
        Rename::one(
            &["decode_head.clip.layers.#.ffn.layers.1.*"],
            "decode_head.clip.transformer.resblocks.#.mlp.c_proj.*",
        ),
        Rename::one(&["decode_head.proj.weight"], "decode_head.clip.proj"),
    ],
    ignored: &[
        IgnoredKeys {
            pattern: "decode_head.text_embeddings",
            why: "class embeddings without the names of their classes",
        },
        IgnoredKeys {
            pattern: "decode_head._iter_counter",
            why: "the counter that ends the guided phase of training",
        },
        IgnoredKeys {
            pattern: "decode_head.unlabeled_cats",
            why: "the unseen classes, a setting of training",
        },
        IgnoredKeys {
            pattern: "decode_head.clip_unlabeled_cats",
            why: "the unseen classes, a setting of training",
        },
        IgnoredKeys {
            pattern: "decode_head.conv_seg.*",
            why: "a classifier that is never applied",
        },
    ],
    // CLIP's residual tower.
    extras: &[
        (WeightsPart::ImageTower, "conv2.weight"),
        (WeightsPart::ImageTower, "conv3.weight"),
        (WeightsPart::ImageTower, "bn#.*"),
        (WeightsPart::ImageTower, "layer#.*"),
        (WeightsPart::ImageTower, "attnpool.*"),
    ],
};

/// The key table of OpenMMLab's ResNet-V1c, from which the student starts.
pub const RESNET_V1C: KeyTable = KeyTable {
    family: "OpenMMLab ResNet-V1c",
    recognised_by: &["stem.0.weight"],
    renames: &[
        Rename::one(&["stem.*"], "student.stem.*"),
        Rename::one(&["layer1.*"], "student.layer1.*"),
        Rename::one(&["layer2.*"], "student.layer2.*"),
        Rename::one(&["layer3.*"], "student.layer3.*"),
        Rename::one(&["layer4.*"], "student.layer4.*"),
    ],
    ignored: &[IgnoredKeys {
        pattern: "fc.*",
        why: "the ImageNet classifier",
    }],
    extras: &[],
};
