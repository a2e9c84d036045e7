//! Key rules: how each family of checkpoints names its tensors, and how it lays them out.
//!
//! Inside `zeg` a tensor has the name that the reference checkpoints of ZegCLIP give it (`backbone.…`,
//! `decode_head.…`, `text_encoder.…`), in PyTorch's layouts. Every other family is a table of rules.
//!
//! In the patterns `#` stands for a block's number, and `*` at the end for the rest of a name; both are carried over.

use std::collections::BTreeMap;

/// How the stored matrix becomes the one that `zeg` computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As it is.
    Same,
    /// Transposed: stored `[out, in]`, used as `x @ M`.
    Transposed,
}

/// One rule: tensors of a file that become one tensor here.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Patterns of names in the file. Several are put one after the other along their first dimension.
    pub from: &'static [&'static str],
    /// Name here.
    pub to: &'static str,
    /// What is done with the values.
    pub layout: Layout,
}

/// Tensors of a file that are left where they are.
#[derive(Debug, Clone, Copy)]
pub struct Ignored {
    /// Pattern of names in the file.
    pub pattern: &'static str,
    /// Why they are no weights.
    pub why: &'static str,
}

/// How one family of files names its tensors.
#[derive(Debug, Clone, Copy)]
pub struct KeyRules {
    /// What the family is called in messages.
    pub family: &'static str,
    /// A file is of this family if it holds a tensor of one of these names; none for the family of all other files.
    pub marks: &'static [&'static str],
    /// The first rule that fits a name is applied; a name that none fits stays as it is.
    pub rules: &'static [Rule],
    /// What carries no weights; looked at before the rules.
    pub ignored: &'static [Ignored],
}

/// A rule that only renames.
const fn rename(from: &'static [&'static str; 1], to: &'static str) -> Rule {
    Rule {
        from,
        to,
        layout: Layout::Same,
    }
}

/// A rule that transposes.
const fn transpose(from: &'static [&'static str; 1], to: &'static str) -> Rule {
    Rule {
        from,
        to,
        layout: Layout::Transposed,
    }
}

/// A rule that puts query, key and value projections one after the other.
const fn stack(from: &'static [&'static str; 3], to: &'static str) -> Rule {
    Rule {
        from,
        to,
        layout: Layout::Same,
    }
}

const LOGIT_SCALE: Ignored = Ignored {
    pattern: "logit_scale",
    why: "temperature of CLIP's contrastive loss",
};
const MASK: Ignored = Ignored {
    pattern: "attn_mask",
    why: "the causal mask, a constant",
};

/// OpenAI's CLIP and open_clip's models of the same form: `visual.*` is the image tower, everything else the text
/// tower. TorchScript's archives have the same names as the state dicts.
pub const OPENAI_CLIP: KeyRules = KeyRules {
    family: "OpenAI CLIP",
    marks: &["visual.*"],
    rules: &[
        rename(&["visual.*"], "backbone.*"),
        rename(&["transformer.*"], "text_encoder.transformer.*"),
        rename(&["token_embedding.*"], "text_encoder.token_embedding.*"),
        rename(
            &["positional_embedding"],
            "text_encoder.positional_embedding",
        ),
        rename(&["ln_final.*"], "text_encoder.ln_final.*"),
        rename(&["text_projection"], "text_encoder.text_projection"),
    ],
    ignored: &[
        LOGIT_SCALE,
        MASK,
        Ignored {
            pattern: "input_resolution",
            why: "a setting of the archive",
        },
        Ignored {
            pattern: "context_length",
            why: "a setting of the archive",
        },
        Ignored {
            pattern: "vocab_size",
            why: "a setting of the archive",
        },
    ],
};

/// open_clip's models with a text tower of their own class: `text.*` is the text tower.
pub const OPEN_CLIP_CUSTOM_TEXT: KeyRules = KeyRules {
    family: "open_clip",
    marks: &["text.transformer.*", "text.token_embedding.*"],
    rules: &[
        rename(&["visual.*"], "backbone.*"),
        transpose(
            &["text.text_projection.weight"],
            "text_encoder.text_projection",
        ),
        rename(&["text.*"], "text_encoder.*"),
    ],
    ignored: &[
        LOGIT_SCALE,
        MASK,
        Ignored {
            pattern: "text.attn_mask",
            why: "the causal mask, a constant",
        },
    ],
};

/// `CLIPModel` of Hugging Face's `transformers`, and its towers alone. Query, key and value projections stand apart,
/// and the two last projections are linear layers, so `[out, in]`.
pub const HUGGING_FACE_CLIP: KeyRules = KeyRules {
    family: "Hugging Face CLIP",
    marks: &["vision_model.*", "text_model.*"],
    rules: &[
        rename(
            &["vision_model.embeddings.class_embedding"],
            "backbone.class_embedding",
        ),
        rename(
            &["vision_model.embeddings.patch_embedding.weight"],
            "backbone.conv1.weight",
        ),
        rename(
            &["vision_model.embeddings.position_embedding.weight"],
            "backbone.positional_embedding",
        ),
        // The family's own spelling.
        rename(&["vision_model.pre_layrnorm.*"], "backbone.ln_pre.*"),
        rename(&["vision_model.post_layernorm.*"], "backbone.ln_post.*"),
        stack(
            &[
                "vision_model.encoder.layers.#.self_attn.q_proj.weight",
                "vision_model.encoder.layers.#.self_attn.k_proj.weight",
                "vision_model.encoder.layers.#.self_attn.v_proj.weight",
            ],
            "backbone.transformer.resblocks.#.attn.in_proj_weight",
        ),
        stack(
            &[
                "vision_model.encoder.layers.#.self_attn.q_proj.bias",
                "vision_model.encoder.layers.#.self_attn.k_proj.bias",
                "vision_model.encoder.layers.#.self_attn.v_proj.bias",
            ],
            "backbone.transformer.resblocks.#.attn.in_proj_bias",
        ),
        rename(
            &["vision_model.encoder.layers.#.self_attn.out_proj.*"],
            "backbone.transformer.resblocks.#.attn.out_proj.*",
        ),
        rename(
            &["vision_model.encoder.layers.#.layer_norm1.*"],
            "backbone.transformer.resblocks.#.ln_1.*",
        ),
        rename(
            &["vision_model.encoder.layers.#.layer_norm2.*"],
            "backbone.transformer.resblocks.#.ln_2.*",
        ),
        rename(
            &["vision_model.encoder.layers.#.mlp.fc1.*"],
            "backbone.transformer.resblocks.#.mlp.c_fc.*",
        ),
        rename(
            &["vision_model.encoder.layers.#.mlp.fc2.*"],
            "backbone.transformer.resblocks.#.mlp.c_proj.*",
        ),
        transpose(&["visual_projection.weight"], "backbone.proj"),
        rename(
            &["text_model.embeddings.token_embedding.weight"],
            "text_encoder.token_embedding.weight",
        ),
        rename(
            &["text_model.embeddings.position_embedding.weight"],
            "text_encoder.positional_embedding",
        ),
        rename(
            &["text_model.final_layer_norm.*"],
            "text_encoder.ln_final.*",
        ),
        stack(
            &[
                "text_model.encoder.layers.#.self_attn.q_proj.weight",
                "text_model.encoder.layers.#.self_attn.k_proj.weight",
                "text_model.encoder.layers.#.self_attn.v_proj.weight",
            ],
            "text_encoder.transformer.resblocks.#.attn.in_proj_weight",
        ),
        stack(
            &[
                "text_model.encoder.layers.#.self_attn.q_proj.bias",
                "text_model.encoder.layers.#.self_attn.k_proj.bias",
                "text_model.encoder.layers.#.self_attn.v_proj.bias",
            ],
            "text_encoder.transformer.resblocks.#.attn.in_proj_bias",
        ),
        rename(
            &["text_model.encoder.layers.#.self_attn.out_proj.*"],
            "text_encoder.transformer.resblocks.#.attn.out_proj.*",
        ),
        rename(
            &["text_model.encoder.layers.#.layer_norm1.*"],
            "text_encoder.transformer.resblocks.#.ln_1.*",
        ),
        rename(
            &["text_model.encoder.layers.#.layer_norm2.*"],
            "text_encoder.transformer.resblocks.#.ln_2.*",
        ),
        rename(
            &["text_model.encoder.layers.#.mlp.fc1.*"],
            "text_encoder.transformer.resblocks.#.mlp.c_fc.*",
        ),
        rename(
            &["text_model.encoder.layers.#.mlp.fc2.*"],
            "text_encoder.transformer.resblocks.#.mlp.c_proj.*",
        ),
        transpose(&["text_projection.weight"], "text_encoder.text_projection"),
    ],
    ignored: &[
        LOGIT_SCALE,
        Ignored {
            pattern: "vision_model.embeddings.position_ids",
            why: "the numbers 0, 1, 2, …",
        },
        Ignored {
            pattern: "text_model.embeddings.position_ids",
            why: "the numbers 0, 1, 2, …",
        },
    ],
};

/// The reference checkpoints of ZegCLIP and CLIP-RC; also `zeg`'s own names.
pub const REFERENCE: KeyRules = KeyRules {
    family: "ZegCLIP",
    marks: &[],
    rules: &[],
    ignored: &[Ignored {
        // Its size differs between checkpoints of the same model.
        pattern: "decode_head.loss_decode.criterion.empty_weight",
        why: "a buffer of the loss, unused",
    }],
};

/// The reference checkpoints of ZegFormer. Those that were made for scoring bring CLIP, whose image tower keeps its place
/// (it is a part of the model), and whose text tower is the text tower.
pub const ZEGFORMER: KeyRules = KeyRules {
    family: "ZegFormer",
    marks: &["sem_seg_head.predictor.*"],
    rules: &[
        rename(
            &["sem_seg_head.predictor.clip_model.transformer.*"],
            "text_encoder.transformer.*",
        ),
        rename(
            &["sem_seg_head.predictor.clip_model.token_embedding.*"],
            "text_encoder.token_embedding.*",
        ),
        rename(
            &["sem_seg_head.predictor.clip_model.positional_embedding"],
            "text_encoder.positional_embedding",
        ),
        rename(
            &["sem_seg_head.predictor.clip_model.ln_final.*"],
            "text_encoder.ln_final.*",
        ),
        rename(
            &["sem_seg_head.predictor.clip_model.text_projection"],
            "text_encoder.text_projection",
        ),
    ],
    ignored: &[Ignored {
        // Its size differs between checkpoints of the same model.
        pattern: "criterion.empty_weight",
        why: "a buffer of the loss",
    }],
};

/// torchvision's residual networks; here detectron2's names, which ZegFormer's checkpoints have.
pub const TORCHVISION_RESNET: KeyRules = KeyRules {
    family: "torchvision ResNet",
    marks: &["layer1.0.conv1.weight"],
    rules: &[
        rename(&["conv1.weight"], "backbone.stem.conv1.weight"),
        rename(&["bn1.*"], "backbone.stem.conv1.norm.*"),
        rename(&["layer1.#.conv1.weight"], "backbone.res2.#.conv1.weight"),
        rename(&["layer1.#.conv2.weight"], "backbone.res2.#.conv2.weight"),
        rename(&["layer1.#.conv3.weight"], "backbone.res2.#.conv3.weight"),
        rename(&["layer1.#.bn1.*"], "backbone.res2.#.conv1.norm.*"),
        rename(&["layer1.#.bn2.*"], "backbone.res2.#.conv2.norm.*"),
        rename(&["layer1.#.bn3.*"], "backbone.res2.#.conv3.norm.*"),
        rename(
            &["layer1.#.downsample.0.weight"],
            "backbone.res2.#.shortcut.weight",
        ),
        rename(
            &["layer1.#.downsample.1.*"],
            "backbone.res2.#.shortcut.norm.*",
        ),
        rename(&["layer2.#.conv1.weight"], "backbone.res3.#.conv1.weight"),
        rename(&["layer2.#.conv2.weight"], "backbone.res3.#.conv2.weight"),
        rename(&["layer2.#.conv3.weight"], "backbone.res3.#.conv3.weight"),
        rename(&["layer2.#.bn1.*"], "backbone.res3.#.conv1.norm.*"),
        rename(&["layer2.#.bn2.*"], "backbone.res3.#.conv2.norm.*"),
        rename(&["layer2.#.bn3.*"], "backbone.res3.#.conv3.norm.*"),
        rename(
            &["layer2.#.downsample.0.weight"],
            "backbone.res3.#.shortcut.weight",
        ),
        rename(
            &["layer2.#.downsample.1.*"],
            "backbone.res3.#.shortcut.norm.*",
        ),
        rename(&["layer3.#.conv1.weight"], "backbone.res4.#.conv1.weight"),
        rename(&["layer3.#.conv2.weight"], "backbone.res4.#.conv2.weight"),
        rename(&["layer3.#.conv3.weight"], "backbone.res4.#.conv3.weight"),
        rename(&["layer3.#.bn1.*"], "backbone.res4.#.conv1.norm.*"),
        rename(&["layer3.#.bn2.*"], "backbone.res4.#.conv2.norm.*"),
        rename(&["layer3.#.bn3.*"], "backbone.res4.#.conv3.norm.*"),
        rename(
            &["layer3.#.downsample.0.weight"],
            "backbone.res4.#.shortcut.weight",
        ),
        rename(
            &["layer3.#.downsample.1.*"],
            "backbone.res4.#.shortcut.norm.*",
        ),
        rename(&["layer4.#.conv1.weight"], "backbone.res5.#.conv1.weight"),
        rename(&["layer4.#.conv2.weight"], "backbone.res5.#.conv2.weight"),
        rename(&["layer4.#.conv3.weight"], "backbone.res5.#.conv3.weight"),
        rename(&["layer4.#.bn1.*"], "backbone.res5.#.conv1.norm.*"),
        rename(&["layer4.#.bn2.*"], "backbone.res5.#.conv2.norm.*"),
        rename(&["layer4.#.bn3.*"], "backbone.res5.#.conv3.norm.*"),
        rename(
            &["layer4.#.downsample.0.weight"],
            "backbone.res5.#.shortcut.weight",
        ),
        rename(
            &["layer4.#.downsample.1.*"],
            "backbone.res5.#.shortcut.norm.*",
        ),
    ],
    ignored: &[Ignored {
        pattern: "fc.*",
        why: "the classifier of ImageNet",
    }],
};

/// detectron2's residual networks, as `convert-torchvision-to-d2.py` writes them.
pub const DETECTRON2_RESNET: KeyRules = KeyRules {
    family: "detectron2 ResNet",
    marks: &["res2.0.conv1.weight"],
    rules: &[
        rename(&["stem.*"], "backbone.stem.*"),
        rename(&["res2.*"], "backbone.res2.*"),
        rename(&["res3.*"], "backbone.res3.*"),
        rename(&["res4.*"], "backbone.res4.*"),
        rename(&["res5.*"], "backbone.res5.*"),
    ],
    ignored: &[
        Ignored {
            pattern: "stem.fc.*",
            why: "the classifier of ImageNet",
        },
        Ignored {
            pattern: "linear.*",
            why: "the classifier of ImageNet",
        },
        Ignored {
            pattern: "fc.*",
            why: "the classifier of ImageNet",
        },
    ],
};

/// The residual networks of MSRA as Caffe2 names them, such as detectron2's `R-101.pkl`: scales and terms stand for whole
/// normalisations.
pub const CAFFE2_RESNET: KeyRules = KeyRules {
    family: "Caffe2 ResNet",
    marks: &["res2_0_branch2a_w"],
    rules: &[
        rename(&["conv1_w"], "backbone.stem.conv1.weight"),
        rename(&["res_conv1_bn_s"], "backbone.stem.conv1.norm.weight"),
        rename(&["res_conv1_bn_b"], "backbone.stem.conv1.norm.bias"),
        rename(&["res2_#_branch2a_w"], "backbone.res2.#.conv1.weight"),
        rename(
            &["res2_#_branch2a_bn_s"],
            "backbone.res2.#.conv1.norm.weight",
        ),
        rename(&["res2_#_branch2a_bn_b"], "backbone.res2.#.conv1.norm.bias"),
        rename(&["res2_#_branch2b_w"], "backbone.res2.#.conv2.weight"),
        rename(
            &["res2_#_branch2b_bn_s"],
            "backbone.res2.#.conv2.norm.weight",
        ),
        rename(&["res2_#_branch2b_bn_b"], "backbone.res2.#.conv2.norm.bias"),
        rename(&["res2_#_branch2c_w"], "backbone.res2.#.conv3.weight"),
        rename(
            &["res2_#_branch2c_bn_s"],
            "backbone.res2.#.conv3.norm.weight",
        ),
        rename(&["res2_#_branch2c_bn_b"], "backbone.res2.#.conv3.norm.bias"),
        rename(&["res2_#_branch1_w"], "backbone.res2.#.shortcut.weight"),
        rename(
            &["res2_#_branch1_bn_s"],
            "backbone.res2.#.shortcut.norm.weight",
        ),
        rename(
            &["res2_#_branch1_bn_b"],
            "backbone.res2.#.shortcut.norm.bias",
        ),
        rename(&["res3_#_branch2a_w"], "backbone.res3.#.conv1.weight"),
        rename(
            &["res3_#_branch2a_bn_s"],
            "backbone.res3.#.conv1.norm.weight",
        ),
        rename(&["res3_#_branch2a_bn_b"], "backbone.res3.#.conv1.norm.bias"),
        rename(&["res3_#_branch2b_w"], "backbone.res3.#.conv2.weight"),
        rename(
            &["res3_#_branch2b_bn_s"],
            "backbone.res3.#.conv2.norm.weight",
        ),
        rename(&["res3_#_branch2b_bn_b"], "backbone.res3.#.conv2.norm.bias"),
        rename(&["res3_#_branch2c_w"], "backbone.res3.#.conv3.weight"),
        rename(
            &["res3_#_branch2c_bn_s"],
            "backbone.res3.#.conv3.norm.weight",
        ),
        rename(&["res3_#_branch2c_bn_b"], "backbone.res3.#.conv3.norm.bias"),
        rename(&["res3_#_branch1_w"], "backbone.res3.#.shortcut.weight"),
        rename(
            &["res3_#_branch1_bn_s"],
            "backbone.res3.#.shortcut.norm.weight",
        ),
        rename(
            &["res3_#_branch1_bn_b"],
            "backbone.res3.#.shortcut.norm.bias",
        ),
        rename(&["res4_#_branch2a_w"], "backbone.res4.#.conv1.weight"),
        rename(
            &["res4_#_branch2a_bn_s"],
            "backbone.res4.#.conv1.norm.weight",
        ),
        rename(&["res4_#_branch2a_bn_b"], "backbone.res4.#.conv1.norm.bias"),
        rename(&["res4_#_branch2b_w"], "backbone.res4.#.conv2.weight"),
        rename(
            &["res4_#_branch2b_bn_s"],
            "backbone.res4.#.conv2.norm.weight",
        ),
        rename(&["res4_#_branch2b_bn_b"], "backbone.res4.#.conv2.norm.bias"),
        rename(&["res4_#_branch2c_w"], "backbone.res4.#.conv3.weight"),
        rename(
            &["res4_#_branch2c_bn_s"],
            "backbone.res4.#.conv3.norm.weight",
        ),
        rename(&["res4_#_branch2c_bn_b"], "backbone.res4.#.conv3.norm.bias"),
        rename(&["res4_#_branch1_w"], "backbone.res4.#.shortcut.weight"),
        rename(
            &["res4_#_branch1_bn_s"],
            "backbone.res4.#.shortcut.norm.weight",
        ),
        rename(
            &["res4_#_branch1_bn_b"],
            "backbone.res4.#.shortcut.norm.bias",
        ),
        rename(&["res5_#_branch2a_w"], "backbone.res5.#.conv1.weight"),
        rename(
            &["res5_#_branch2a_bn_s"],
            "backbone.res5.#.conv1.norm.weight",
        ),
        rename(&["res5_#_branch2a_bn_b"], "backbone.res5.#.conv1.norm.bias"),
        rename(&["res5_#_branch2b_w"], "backbone.res5.#.conv2.weight"),
        rename(
            &["res5_#_branch2b_bn_s"],
            "backbone.res5.#.conv2.norm.weight",
        ),
        rename(&["res5_#_branch2b_bn_b"], "backbone.res5.#.conv2.norm.bias"),
        rename(&["res5_#_branch2c_w"], "backbone.res5.#.conv3.weight"),
        rename(
            &["res5_#_branch2c_bn_s"],
            "backbone.res5.#.conv3.norm.weight",
        ),
        rename(&["res5_#_branch2c_bn_b"], "backbone.res5.#.conv3.norm.bias"),
        rename(&["res5_#_branch1_w"], "backbone.res5.#.shortcut.weight"),
        rename(
            &["res5_#_branch1_bn_s"],
            "backbone.res5.#.shortcut.norm.weight",
        ),
        rename(
            &["res5_#_branch1_bn_b"],
            "backbone.res5.#.shortcut.norm.bias",
        ),
    ],
    ignored: &[
        Ignored {
            pattern: "conv1_b",
            why: "zeros: the normalisation behind it has a term",
        },
        Ignored {
            pattern: "fc1000_*",
            why: "the classifier of ImageNet",
        },
        Ignored {
            pattern: "pred_*",
            why: "the classifier of ImageNet",
        },
    ],
};

/// All families, in the order in which a file's names are tried.
const FAMILIES: [KeyRules; 7] = [
    ZEGFORMER,
    HUGGING_FACE_CLIP,
    OPEN_CLIP_CUSTOM_TEXT,
    OPENAI_CLIP,
    TORCHVISION_RESNET,
    DETECTRON2_RESNET,
    CAFFE2_RESNET,
];

/// How one tensor here is made of tensors in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Names in the file, in the order in which they are put one after the other.
    pub(crate) parts: Vec<String>,
    pub(crate) layout: Layout,
}

/// What a family's rules make of a file's names.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By name here.
    pub(crate) recipes: BTreeMap<String, Recipe>,
    /// Names in the file with the reason why they are left.
    pub(crate) ignored: Vec<(String, &'static str)>,
    /// Names in the file that lack companions, with the name here that they belong to.
    pub(crate) incomplete: Vec<(String, String)>,
}

impl KeyRules {
    /// The rules for a file, told from the names it holds.
    pub fn detect<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let keys: Vec<&str> = keys.collect();
        let holds = |mark: &&str| keys.iter().any(|key| captures(mark, key).is_some());
        FAMILIES
            .into_iter()
            .find(|family| family.marks.iter().any(holds))
            .unwrap_or(REFERENCE)
    }

    /// How the tensors here are made of those of these names.
    pub(crate) fn plan<'a>(&self, names: impl Iterator<Item = &'a str>) -> Plan {
        let mut plan = Plan::default();
        // Stacked tensors by name here, with a place for each part.
        let mut stacked: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
        for name in names {
            if let Some(ignored) = self
                .ignored
                .iter()
                .find(|ignored| captures(ignored.pattern, name).is_some())
            {
                plan.ignored.push((name.to_owned(), ignored.why));
                continue;
            }
            let fit = self.rules.iter().find_map(|rule| {
                rule.from
                    .iter()
                    .enumerate()
                    .find_map(|(part, pattern)| Some((rule, part, captures(pattern, name)?)))
            });
            let (to, layout, part, of) = match fit {
                Some((rule, part, found)) => {
                    (found.fill(rule.to), rule.layout, part, rule.from.len())
                }
                None => (name.to_owned(), Layout::Same, 0, 1),
            };
            if of > 1 {
                let parts = stacked.entry(to).or_insert_with(|| vec![None; of]);
                if let Some(place) = parts.get_mut(part) {
                    *place = Some(name.to_owned());
                }
                continue;
            }
            let parts = vec![name.to_owned()];
            plan.recipes.insert(to, Recipe { parts, layout });
        }
        for (to, parts) in stacked {
            let found: Vec<String> = parts.iter().flatten().cloned().collect();
            if found.len() == parts.len() {
                let layout = Layout::Same;
                plan.recipes.insert(
                    to,
                    Recipe {
                        parts: found,
                        layout,
                    },
                );
            } else {
                plan.incomplete
                    .extend(found.into_iter().map(|name| (name, to.clone())));
            }
        }
        plan
    }
}

/// What `#` and `*` of a pattern stand for in a name.
#[derive(Debug, PartialEq)]
pub(crate) struct Captures<'n> {
    number: &'n str,
    rest: &'n str,
}

impl Captures<'_> {
    /// A pattern with its places filled.
    fn fill(&self, pattern: &str) -> String {
        pattern.replace('#', self.number).replace('*', self.rest)
    }
}

/// Whether a name fits a pattern, and what the places stand for.
pub(crate) fn captures<'n>(pattern: &str, name: &'n str) -> Option<Captures<'n>> {
    let (mut number, mut left) = ("", name);
    let mut pattern = pattern;
    if let Some((before, after)) = pattern.split_once('#') {
        let rest = left.strip_prefix(before)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (found, behind) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
        (number, left, pattern) = (found, behind, after);
    }
    match pattern.strip_suffix('*') {
        Some(before) => left
            .strip_prefix(before)
            .map(|rest| Captures { number, rest }),
        None => (left == pattern).then_some(Captures { number, rest: "" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_names_become_reference_names() {
        let names = [
            "visual.proj",
            "text_projection",
            "transformer.resblocks.0.ln_1.weight",
            "logit_scale",
        ];
        let rules = KeyRules::detect(names.into_iter());
        assert_eq!(rules.family, "OpenAI CLIP");
        let plan = rules.plan(names.into_iter());
        let here: Vec<&str> = plan.recipes.keys().map(String::as_str).collect();
        assert_eq!(
            here,
            [
                "backbone.proj",
                "text_encoder.text_projection",
                "text_encoder.transformer.resblocks.0.ln_1.weight"
            ]
        );
        assert_eq!(plan.ignored[0].0, "logit_scale");
    }

    #[test]
    fn query_key_and_value_are_stacked_in_this_order_whatever_the_order_of_names() {
        let of =
            |which: &str| format!("vision_model.encoder.layers.11.self_attn.{which}_proj.bias");
        let names = [of("k"), of("q"), of("v")];
        let rules = KeyRules::detect(names.iter().map(String::as_str));
        assert_eq!(rules.family, "Hugging Face CLIP");
        let plan = rules.plan(names.iter().map(String::as_str));
        let recipe = &plan.recipes["backbone.transformer.resblocks.11.attn.in_proj_bias"];
        assert_eq!(recipe.parts, [of("q"), of("k"), of("v")]);
        let plan = rules.plan(names[..2].iter().map(String::as_str));
        assert_eq!(plan.recipes.len(), 0);
        assert_eq!(plan.incomplete.len(), 2);
    }

    #[test]
    fn patterns_fit_whole_names_alone() {
        assert!(captures("a.#.b", "a.10.b").is_some());
        assert_eq!(captures("a.#.b", "a..b"), None);
        assert_eq!(captures("a.#.b", "a.1x.b"), None);
        assert_eq!(captures("logit_scale", "logit_scale.x"), None);
        let found = captures("a.#.*", "a.3.c.weight").unwrap();
        assert_eq!(found.fill("x.#.y.*"), "x.3.y.c.weight");
    }

    #[test]
    fn every_rule_carries_over_what_it_captures() {
        for family in FAMILIES {
            for rule in family.rules {
                for place in ['#', '*'] {
                    for from in rule.from {
                        assert_eq!(from.contains(place), rule.to.contains(place), "{from}");
                    }
                }
            }
        }
    }
}
