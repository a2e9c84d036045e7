//! Key rules: how each family of checkpoints names its tensors.
//!
//! Inside `zeg` a tensor has the name that the reference checkpoints of ZegCLIP give it (`backbone.…`,
//! `decode_head.…`, `text_encoder.…`), in PyTorch's layouts. Every other family is a table of prefix rules.

/// How one family of files names its tensors.
#[derive(Debug, Clone, Copy)]
pub struct KeyRules {
    /// What the family is called in messages.
    pub family: &'static str,
    /// `(prefix in the file, prefix here)`; the first rule that matches is applied.
    pub prefixes: &'static [(&'static str, &'static str)],
    /// Keys that carry no weights.
    pub ignored: &'static [&'static str],
}

/// OpenAI's CLIP: `visual.*` is the image tower, everything else the text tower.
pub const OPENAI_CLIP: KeyRules = KeyRules {
    family: "OpenAI CLIP",
    prefixes: &[
        ("visual.", "backbone."),
        ("transformer.", "text_encoder.transformer."),
        ("token_embedding.", "text_encoder.token_embedding."),
        ("positional_embedding", "text_encoder.positional_embedding"),
        ("ln_final.", "text_encoder.ln_final."),
        ("text_projection", "text_encoder.text_projection"),
    ],
    ignored: &[
        "logit_scale",
        "input_resolution",
        "context_length",
        "vocab_size",
    ],
};

/// The reference checkpoints of ZegCLIP; also `zeg`'s own names.
pub const REFERENCE: KeyRules = KeyRules {
    family: "ZegCLIP",
    prefixes: &[],
    // A buffer of the loss, unused, with a size that differs between checkpoints of the same model.
    ignored: &["decode_head.loss_decode.criterion.empty_weight"],
};

impl KeyRules {
    /// The rules for a file, told from the names it holds.
    pub fn detect<'a>(mut keys: impl Iterator<Item = &'a str>) -> Self {
        if keys.any(|key| key.starts_with("visual.")) {
            OPENAI_CLIP
        } else {
            REFERENCE
        }
    }

    /// Name of a file's tensor inside `zeg`; `None` for keys that carry no weights.
    pub fn rename(&self, key: &str) -> Option<String> {
        if self.ignored.contains(&key) {
            return None;
        }
        let renamed = self
            .prefixes
            .iter()
            .find_map(|(from, to)| key.strip_prefix(from).map(|rest| format!("{to}{rest}")));
        Some(renamed.unwrap_or_else(|| key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_names_become_reference_names() {
        let rules = KeyRules::detect(["visual.proj", "text_projection"].into_iter());
        assert_eq!(rules.family, "OpenAI CLIP");
        assert_eq!(
            rules.rename("visual.proj").as_deref(),
            Some("backbone.proj")
        );
        assert_eq!(
            rules
                .rename("transformer.resblocks.0.ln_1.weight")
                .as_deref(),
            Some("text_encoder.transformer.resblocks.0.ln_1.weight")
        );
        assert_eq!(rules.rename("logit_scale"), None);
    }
}
