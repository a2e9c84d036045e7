//! The version of a model that Label Studio stores with every prediction.
//!
//! Label Studio retrieves no prediction again for a task that has one of the present version. So the version changes with
//! everything that changes predictions: the settings of the model and the labelling configuration.

use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeg_base::hex;

use super::labelling::Labelling;
use crate::models::ServedModel;

/// Number of hexadecimal digits of the digest in a version.
const DIGITS: usize = 8;

/// Returns the name of a model with a digest of its settings and of a labelling configuration, such as `mini-0f3c9a71`.
///
/// What does not change predictions, such as colours and the order of attributes, is not part of a [`Labelling`].
pub(super) fn version(model: &ServedModel, labelling: Option<&Labelling>) -> String {
    let segmenter = model.segmenter();
    let loaded = segmenter.model();
    let facts = json!({
        "method": loaded.method,
        "architecture": format!("{:?}", loaded.architecture),
        "base": loaded.base_sha256,
        "precision": model.precision(),
        "threshold": segmenter.default_threshold(),
        "inference": segmenter.inference(),
        "templates": segmenter.templates(),
        "table": segmenter.table(),
        "labelling": labelling,
    });
    let digits = hex::encode(Sha256::digest(facts.to_string()));
    format!("{}-{digits:.DIGITS$}", model.name())
}
