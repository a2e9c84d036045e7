//! The options of inference and of test-time augmentation.

use clap::Args;
use zeg::model::{
    ModelError,
    inference::{Inference, InferenceMode, Refinement, TestTime},
    method::Model,
};
use zeg_base::calibration::Calibration;

use super::{calibration::calibration, heading};
use crate::numbers::{count, count_or_zero, finite, positive_f64};

/// Options that change the inference of a model.
#[derive(Debug, Args)]
pub(crate) struct InferenceArgs {
    /// Length that the short side of an image is resized to, in pixels; 0 keeps the size [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = count_or_zero, help_heading = heading::INFERENCE)]
    short_side: Option<usize>,
    /// Side of a window, in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = count, help_heading = heading::INFERENCE)]
    crop: Option<usize>,
    /// Distance between neighbouring windows, in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = count, help_heading = heading::INFERENCE)]
    stride: Option<usize>,
    /// Number that is subtracted from the scores of seen classes, such as 0.1 or -0.1 [default: the model's]
    #[arg(long, value_name = "SCORE", value_parser = finite, help_heading = heading::INFERENCE)]
    seen_offset: Option<f32>,
    /// Part of an image that the model gets at once [default: the model's]
    #[arg(long, value_enum, help_heading = heading::INFERENCE)]
    mode: Option<ModeArg>,
    /// Refinement of the scores by the colours of the image [default: the model's]
    #[arg(long, value_enum, help_heading = heading::INFERENCE)]
    refine: Option<RefineArg>,
    /// File with a calibration of the confidence, which `zeg eval --fit-calibration` writes; thresholds are then
    /// probabilities [default: the model's, or none]
    #[arg(long, value_name = "FILE", value_parser = calibration, help_heading = heading::INFERENCE)]
    calibration: Option<Calibration>,
}

/// A [`Refinement`] as a value of `--refine`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RefineArg {
    /// Scores stay as the model gives them
    None,
    /// Pixel-adaptive mask refinement: pixels take the scores of pixels of like colour around them
    Pamr,
    /// PAMR among the classes that are likely somewhere in the image
    PresentPamr,
}

/// An [`InferenceMode`] as a value of `--mode`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ModeArg {
    /// Overlapping square windows, whose scores are averaged
    Slide,
    /// The whole image; the position embeddings are resized to it
    Whole,
}

/// Changes to the inference of a model; a field that is `None` changes nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InferenceChanges {
    short_side: Option<usize>,
    crop: Option<usize>,
    stride: Option<usize>,
    seen_offset: Option<f32>,
    mode: Option<InferenceMode>,
    refine: Option<Refinement>,
    calibration: Option<Calibration>,
}

impl InferenceArgs {
    pub(crate) fn settings(self) -> InferenceChanges {
        InferenceChanges {
            short_side: self.short_side,
            crop: self.crop,
            stride: self.stride,
            seen_offset: self.seen_offset,
            mode: self.mode.map(|mode| match mode {
                ModeArg::Slide => InferenceMode::Slide,
                ModeArg::Whole => InferenceMode::Whole,
            }),
            refine: self.refine.map(|refine| match refine {
                RefineArg::None => Refinement::None,
                RefineArg::Pamr => Refinement::Pamr,
                RefineArg::PresentPamr => Refinement::PresentPamr,
            }),
            calibration: self.calibration,
        }
    }
}

impl InferenceChanges {
    /// Checks that the changes have an effect with a model.
    ///
    /// # Errors
    /// Returns [`ModelError::FixedSize`] for `--short-side` if the model sees all images at one size.
    pub(crate) fn check(&self, model: &dyn Model) -> Result<(), ModelError> {
        match self.short_side {
            Some(pixels) if !model.rescales() => Err(ModelError::FixedSize {
                setting: format!("--short-side {pixels}"),
            }),
            _ => Ok(()),
        }
    }

    /// Applies the changes and checks the result.
    pub(crate) fn apply(&self, inference: &mut Inference) -> anyhow::Result<()> {
        if let Some(short_side) = self.short_side {
            inference.short_side = short_side;
        }
        if let Some(crop) = self.crop {
            inference.crop = crop;
            inference.stride = inference.stride.min(crop);
        }
        if let Some(stride) = self.stride {
            inference.stride = stride;
        }
        if let Some(offset) = self.seen_offset {
            inference.seen_offset = offset;
        }
        if let Some(mode) = self.mode {
            inference.mode = mode;
        }
        if let Some(refine) = self.refine {
            inference.refine = refine;
        }
        if let Some(calibration) = self.calibration {
            inference.calibration = Some(calibration);
        }
        Ok(inference.check()?)
    }
}

/// Options for test-time augmentation.
#[derive(Debug, Args)]
pub(crate) struct TestTimeArgs {
    /// Test-time augmentation: average the scores over these scales of an image, separated by commas
    #[arg(long, value_name = "FACTORS", value_delimiter = ',', value_parser = positive_f64,
          help_heading = heading::INFERENCE)]
    scales: Vec<f64>,
    /// Test-time augmentation: average the scores over an image and its mirror image
    #[arg(long, help_heading = heading::INFERENCE)]
    flip: bool,
}

/// Changes to test-time augmentation.
#[derive(Debug, Clone)]
pub(crate) struct TestTimeChanges {
    /// Factors on the short side; the scales do not change if there are none.
    scales: Vec<f64>,
    /// Whether to add the flip; `false` does not remove it.
    flip: bool,
}

impl TestTimeArgs {
    pub(crate) fn settings(self) -> TestTimeChanges {
        TestTimeChanges {
            scales: self.scales,
            flip: self.flip,
        }
    }
}

impl TestTimeChanges {
    /// Applies the changes and checks the result.
    ///
    /// - `model`: the model that it is for
    pub(crate) fn apply(&self, test_time: &mut TestTime, model: &dyn Model) -> anyhow::Result<()> {
        if !self.scales.is_empty() {
            test_time.scales.clone_from(&self.scales);
        }
        test_time.flip |= self.flip;
        test_time.check()?;
        Ok(test_time.check_model(model)?)
    }
}
