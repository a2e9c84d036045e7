//! Recognises the kind of a file of reference numbers from its description.

use super::{
    cat_seg::CatSegFile,
    file::{VectorFile, is_json},
    tokenizer, zsseg,
};

/// The kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A complete small model: activations, sliding windows, losses, gradients, one optimiser step.
    SmallModel,
    /// Image encoders in several configurations.
    Variants,
    /// A text encoder with class names and prompt templates.
    TextEncoder,
    /// Strings with their token ids.
    Tokenizer,
    /// Any of learning rates, metrics, losses, resizing and region masks.
    Misc,
    /// A model of published size with generated weights; sampled tensors.
    FullSize,
    /// A training run on real images.
    Trajectory,
    /// One part of the numbers of a small ZegFormer; the parts are in one folder, with one description.
    ZegFormer,
    /// One part of the numbers of a small zsseg; the parts are in one folder, with one description.
    Zsseg,
    /// Numbers of CAT-Seg.
    CatSeg(CatSegFile),
    /// One part of the numbers of a small MaskCLIP or MaskCLIP+; the parts are in one folder, with one description.
    MaskClipPlus,
    /// A file of a known kind for which there is no comparison.
    NotBuilt(&'static str),
}

impl Kind {
    /// Returns the kind of a file; `None` if it is unknown.
    pub(crate) fn of(file: &VectorFile) -> Option<Self> {
        if zsseg::is_of(file) {
            // The description of a folder is read with its files.
            return (!is_json(&file.path)).then_some(Self::Zsseg);
        }
        if is_json(&file.path) {
            if tokenizer::entries(&file.description).is_some() {
                return Some(Self::Tokenizer);
            }
            return has_misc(file).then_some(Self::Misc);
        }
        if file
            .header
            .get("source")
            .is_some_and(|s| s.contains("ZegFormer"))
        {
            return Some(Self::ZegFormer);
        }
        if let Some(kind) = CatSegFile::of(file) {
            return Some(Self::CatSeg(kind));
        }
        let meta = file.meta();
        let text = |name: &str| meta.find(name).and_then(|m| m.text().ok());
        if text("source").is_some_and(|source| source.contains("MaskCLIP")) {
            return Some(Self::MaskClipPlus);
        }
        if text("kind") == Some("trajectory") {
            return Some(match text("system") {
                Some("zegclip") => Self::Trajectory,
                Some("cliprc" | "clip-rc" | "clip_rc") => {
                    Self::NotBuilt("a training run of CLIP-RC")
                }
                _ => Self::NotBuilt("a training run of an unknown system"),
            });
        }
        if let Some(config) = meta.find("config") {
            return match config.find("repo").and_then(|m| m.text().ok()) {
                Some("zegclip" | "cliprc") => Some(Self::SmallModel),
                _ => None,
            };
        }
        if meta.find("configs").is_some() {
            return Some(Self::Variants);
        }
        if meta.find("names").is_some() && meta.find("templates").is_some() {
            return Some(Self::TextEncoder);
        }
        if text("config_file").is_some() {
            return Some(Self::FullSize);
        }
        has_misc(file).then_some(Self::Misc)
    }
}

fn has_misc(file: &VectorFile) -> bool {
    let tables = file.meta();
    let known = |name: &str| {
        ["lr_", "pipe_", "mask_"]
            .iter()
            .any(|p| name.starts_with(p))
            || matches!(
                name,
                "metric" | "prompt_init" | "test_resize_hw_in_out" | "train_resize_hw_ratio_out"
            )
    };
    tables.entries().iter().any(|(name, _)| known(name))
        || ["loss.", "mask.", "metric.", "pipe.", "posemb."]
            .iter()
            .any(|p| file.has_any(p))
}
