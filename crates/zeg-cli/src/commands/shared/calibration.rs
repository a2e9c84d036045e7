//! The file of a calibration of the confidence, which `zeg eval` writes and other commands read.

use std::{fs::File, io::Read as _};

use serde::{Deserialize, Serialize};
use zeg_base::calibration::Calibration;

/// Most bytes of the file; it has a few hundred.
const MOST_BYTES: u64 = 1 << 16;

/// The file of a calibration.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct CalibrationFile {
    pub(crate) calibration: Calibration,
    /// What the calibration was fitted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fitted: Option<FittedOn>,
}

/// What a calibration was fitted on; it suits other models, class lists and images less.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FittedOn {
    /// Name of the method.
    pub(crate) method: String,
    /// SHA-256 of the model.
    pub(crate) model: String,
    pub(crate) dataset: String,
    pub(crate) class_list: String,
    pub(crate) split: String,
    pub(crate) images: u64,
    /// Expected calibration error on these images, 0 to 1, before and after.
    pub(crate) error_before: f64,
    pub(crate) error_after: f64,
}

/// Reads the calibration of a file, as the value of an option.
pub(super) fn calibration(path: &str) -> Result<Calibration, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
    read.map_err(|error| error.to_string())?;
    let file: CalibrationFile = toml::from_str(&text).map_err(|error| error.to_string())?;
    let found = file.calibration;
    if found.is_legal() {
        return Ok(found);
    }
    Err(format!(
        "slope {}, shift {}: the slope must be above 0, and both must be finite",
        found.slope, found.shift
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_read_and_a_wrong_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            calibration(path.to_str().unwrap())
        };
        let written = CalibrationFile {
            calibration: Calibration {
                slope: 0.5,
                shift: -0.25,
            },
            fitted: None,
        };
        let text = toml::to_string(&written).unwrap();
        assert_eq!(read(&text), Ok(written.calibration));
        assert!(
            read("[calibration]\nslope = 0\nshift = 1")
                .unwrap_err()
                .contains("above 0")
        );
        assert!(read("slope = 1").is_err());
        assert!(calibration("missing.toml").is_err());
    }
}
