//! The key table of CLIP-RC's published checkpoints.

use zeg_weights::{KeyTable, WeightsPart};

use crate::methods::zegclip::keys::ZEGCLIP;

/// The key table of CLIP-RC's reference checkpoints, which have the names of ZegCLIP's, with region tokens.
pub const CLIP_RC: KeyTable = KeyTable {
    recognised_by: &["backbone.region_level_bridge"],
    extras: &[(WeightsPart::ImageTower, "region_level_bridge")],
    ..ZEGCLIP
};
