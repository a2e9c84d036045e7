//! The attention heads of published CLIP models, for weights that come without a configuration.
//!
//! No shape tells the number of heads. In almost every published tower of CLIP's form a head has 64 channels; the
//! exception is open_clip's ViT-H, whose 16 heads have 80 (`head_width` in `model_configs/ViT-H-14.json`). open_clip's
//! larger towers (g, bigG, e) have other MLPs than CLIP and are refused before their heads are asked for.

/// Number of channels of a head in almost every published CLIP.
pub(crate) const HEAD_WIDTH: usize = 64;

/// A published image tower.
struct PublishedTower {
    name: &'static str,
    width: usize,
    layers: usize,
    heads: usize,
}

/// The published image towers: those of openai/CLIP (B, L), and of open_clip's `model_configs` (the others).
const IMAGE_TOWERS: [PublishedTower; 6] = [
    tower("ViT-S", 384, 12, 6),
    tower("ViT-M", 512, 12, 8),
    tower("ViT-B", 768, 12, 12),
    tower("ViT-B-plus", 896, 12, 14),
    tower("ViT-L", 1024, 24, 16),
    tower("ViT-H", 1280, 32, 16),
];

const fn tower(name: &'static str, width: usize, layers: usize, heads: usize) -> PublishedTower {
    PublishedTower {
        name,
        width,
        layers,
        heads,
    }
}

/// Returns the number of heads to assume for an image tower: that of the published tower of this width, or one head for
/// every 64 channels; `None` if the width is not a multiple of 64.
pub fn assumed_image_heads(width: usize) -> Option<usize> {
    let mut towers = IMAGE_TOWERS.iter();
    match towers.find(|tower| tower.width == width) {
        Some(tower) => Some(tower.heads),
        None => assumed_text_heads(width),
    }
}

/// Returns the number of heads to assume for a text tower: one for every 64 channels; `None` if the width is not a
/// multiple of 64.
pub(crate) fn assumed_text_heads(width: usize) -> Option<usize> {
    (width > 0 && width.is_multiple_of(HEAD_WIDTH)).then_some(width / HEAD_WIDTH)
}

/// Returns the name of the published image tower of these sizes, such as `ViT-B/16`; `None` if there is none.
///
/// - `patch`: side of a patch in pixels
pub fn published_name(width: usize, layers: usize, heads: usize, patch: usize) -> Option<String> {
    let mut towers = IMAGE_TOWERS.iter();
    let sizes = |tower: &&PublishedTower| (tower.width, tower.layers, tower.heads);
    let tower = towers.find(|tower| sizes(tower) == (width, layers, heads))?;
    Some(format!("{}/{patch}", tower.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_64_channels_except_in_vit_h() {
        for (width, heads) in [
            (768, Some(12)),
            (1024, Some(16)),
            (1280, Some(16)),
            (1408, Some(22)),
            (64, Some(1)),
            (96, None),
            (32, None),
            (0, None),
        ] {
            assert_eq!(assumed_image_heads(width), heads, "{width}");
        }
        assert_eq!(assumed_text_heads(1280), Some(20));
        let name = published_name(1280, 32, 16, 14);
        assert_eq!(name.as_deref(), Some("ViT-H/14"));
        assert_eq!(published_name(1280, 32, 20, 14), None);
        assert_eq!(published_name(1280, 2, 16, 14), None);
    }
}
