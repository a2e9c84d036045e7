//! Runs inference: the session is the single code path from an image and class embeddings to labels.
//!
//! `segment`, `eval`, validation during training, `--explain`, the gallery, `bench` and other programs all use it, so
//! that windows, test-time augmentation, calibration and thresholds mean the same everywhere.
//!
//! An image is either segmented directly ([`Session::segment`], whose memory grows with the image's width), or encoded
//! once ([`Session::encode`]) and then scored for any classes ([`Session::ask`]). Either way scores are computed once,
//! a strip of rows at a time; code that needs more than labels implements [`StripVisitor`] and is called with every
//! strip.

mod pass;

use std::{io, sync::atomic::AtomicBool};

use burn::tensor::Device;
use zeg_base::memory;
use zeg_image::{IGNORE_LABEL, ImageError, LabelMap, RgbImage, flip_horizontal};
use zeg_model::{
    ModelError,
    inference::{ClassQueries, EncodedWindows, Inference, Source, Stages, TestTime},
    method::{Model, Scoring},
    scores::{Found, LabelTask, Labelling},
    stop::StopSign,
};

use self::pass::{Pass, TestTimeInput};
pub use self::pass::{ScoredStrip, StripVisitor};

/// Number of pixels above which images are processed one at a time.
pub const LARGE_IMAGE: usize = 8_000_000;

/// Settings of how a session processes images.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionSettings {
    /// Size, windows, calibration and threshold.
    pub inference: Inference,
    /// Test-time augmentation: scales and flip that scores are averaged over.
    pub test_time: TestTime,
}

/// A model with its settings, ready to segment images.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    model: &'a dyn Model,
    settings: &'a SessionSettings,
    device: &'a Device,
    stop: StopSign<'a>,
}

/// The classes to score on an image, and which results are wanted.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The class embeddings.
    pub classes: &'a ClassQueries,
    /// Thresholds of single classes, and which classes are background. The threshold for all classes comes from the
    /// session's settings.
    pub rule: Labelling,
    /// Seen offsets to label the image with, one label map each, all from the same scores; empty: the offset of the
    /// session's settings.
    pub seen_offsets: &'a [f32],
    /// Whether to return the confidence of every pixel.
    pub confidence: Confidence,
}

impl<'a> Question<'a> {
    /// Asks for the labels only, with the threshold and the seen offset of the session's settings.
    pub fn labels(classes: &'a ClassQueries) -> Self {
        Self {
            classes,
            rule: Labelling::default(),
            seen_offsets: &[],
            confidence: Confidence::Leave,
        }
    }
}

/// Whether to return the score of the best class at every pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confidence {
    /// Return only labels.
    Leave,
    /// Return scores from 0 to 1 beside the labels.
    Keep,
}

/// The result of a question about an image.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Label maps at the image's own size: one for every seen offset of the question; one if it gives none.
    pub labels: Vec<LabelMap>,
    /// Score of the best class in the first label map, `[height, width]`, 0 to 1; `None` if the question leaves it out.
    pub confidence: Option<Vec<f32>>,
    /// Whether all classes have the same score at every pixel, before seen offsets, so that the labels mean nothing.
    /// `false` if no pixel is labelled by scores that say whether a class is present ([`Scoring::Sigmoid`]).
    pub tied: bool,
    /// Times of the stages.
    pub stages: Stages,
}

/// An encoded image, at every scale and mirrored if test-time augmentation includes the flip.
#[derive(Debug, Clone)]
pub struct EncodedImage {
    /// Height and width of the image in pixels.
    size: [usize; 2],
    inputs: Vec<TestTimeInput<EncodedWindows>>,
}

impl EncodedImage {
    /// Returns height and width of the image in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Returns the memory that the encoded image takes, in bytes.
    ///
    /// - `model`: the model that encoded it
    ///
    /// # Errors
    /// Returns an error if a model of another method encoded it.
    pub fn bytes(&self, model: &dyn Model) -> Result<u64, ModelError> {
        let mut inputs = self.inputs.iter();
        inputs.try_fold(0, |sum, input| Ok(sum + input.content.bytes(model)?))
    }

    /// Returns the times of the stages of encoding.
    pub fn stages(&self) -> Stages {
        let mut stages = Stages::default();
        for input in &self.inputs {
            stages += input.content.stages();
        }
        stages
    }
}

/// The reason why an image could not be labelled.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The settings do not fit the image, or the device could not be read.
    #[error("{0}")]
    Model(#[source] ModelError),
    /// A label map of the image's size cannot be created.
    #[error("{0}")]
    Labels(#[source] ImageError),
    /// The labels of an image, and the scores of a strip of it, cannot be held in memory.
    #[error("labels of an image of {width}×{height} pixels: {source}")]
    Memory {
        /// Number of columns of the image.
        width: usize,
        /// Number of rows of the image.
        height: usize,
        /// The estimate and the limit.
        source: memory::TooMuchMemory,
    },
    /// A visitor of the scores failed.
    #[error("storing scores: {0}")]
    Visitor(#[source] io::Error),
}

impl From<ModelError> for SessionError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl<'a> Session<'a> {
    /// Creates a session from a model, its settings and the device that the model is on.
    pub fn new(model: &'a dyn Model, settings: &'a SessionSettings, device: &'a Device) -> Self {
        Self {
            model,
            settings,
            device,
            stop: StopSign::default(),
        }
    }

    /// Returns the session with a flag that stops it: once another thread has stored `true`, what is being computed
    /// ends between two windows or strips with [`ModelError::Stopped`].
    #[must_use]
    pub fn stopped_by(self, flag: &'a AtomicBool) -> Self {
        Self {
            stop: StopSign::new(flag),
            ..self
        }
    }

    /// Returns the settings.
    pub fn settings(&self) -> &'a SessionSettings {
        self.settings
    }

    /// Labels an image at its own size; windows are encoded one after another and not stored.
    ///
    /// - `visitors`: are called with every strip of scores of the first label map, from top to bottom
    ///
    /// # Errors
    /// Returns an error if the settings do not fit the image, if the device cannot be read, or if a visitor fails.
    pub fn segment(
        &self,
        image: &RgbImage,
        question: &Question,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Answer, SessionError> {
        let mirrored = self.settings.test_time.flip.then(|| flip_horizontal(image));
        let inputs = self.inputs(image, mirrored.as_ref(), |image, _| Ok(image))?;
        let pass = Pass::new(
            inputs.iter().map(|input| {
                let source = Source::Image(input.content, self.device);
                (input, source)
            }),
            self.model,
            question,
            self.stop,
        )?;
        self.answer(pass, size_of_image(image), question, visitors)
    }

    /// Encodes an image for [`Session::ask`].
    ///
    /// # Errors
    /// Returns an error if the settings do not fit the image.
    pub fn encode(&self, image: &RgbImage) -> Result<EncodedImage, SessionError> {
        let mirrored = self.settings.test_time.flip.then(|| flip_horizontal(image));
        let inputs = self.inputs(image, mirrored.as_ref(), |image, inference| {
            EncodedWindows::unless_stopped(self.model, image, inference, self.device, self.stop)
        })?;
        Ok(EncodedImage {
            size: size_of_image(image),
            inputs,
        })
    }

    /// Labels an encoded image at its own size.
    ///
    /// - `visitors`: as in [`Session::segment`]
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, or if a visitor fails.
    pub fn ask(
        &self,
        image: &EncodedImage,
        question: &Question,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Answer, SessionError> {
        let pass = Pass::new(
            image.inputs.iter().map(|input| {
                let source = Source::Encoded(&input.content);
                (input, source)
            }),
            self.model,
            question,
            self.stop,
        )?;
        self.answer(pass, image.size, question, visitors)
    }

    /// Returns one input per scale, unmirrored and mirrored, with what `content` makes of it.
    fn inputs<'i, T>(
        &self,
        image: &'i RgbImage,
        mirrored: Option<&'i RgbImage>,
        content: impl Fn(&'i RgbImage, &Inference) -> Result<T, ModelError>,
    ) -> Result<Vec<TestTimeInput<T>>, ModelError> {
        let SessionSettings {
            inference,
            test_time,
        } = self.settings;
        test_time.check()?;
        test_time.check_model(self.model)?;
        let mut inputs = Vec::new();
        for &scale in &test_time.scales {
            for (is_mirrored, image) in [(false, Some(image)), (true, mirrored)] {
                if let Some(image) = image {
                    let inference = TestTime::scaled(inference, image, scale);
                    inputs.push(TestTimeInput {
                        mirrored: is_mirrored,
                        content: content(image, &inference)?,
                        inference,
                    });
                }
            }
        }
        Ok(inputs)
    }

    /// Returns what the strips of a pass have lower than the model's scores: `[classes]`.
    fn offsets(&self, question: &Question) -> Vec<f32> {
        // Several offsets are subtracted from the strips afterwards.
        if !question.seen_offsets.is_empty() {
            return Vec::new();
        }
        let by = self.settings.inference.seen_offset;
        let seen = question.classes.seen.iter();
        seen.map(|&seen| if seen { by } else { 0.0 }).collect()
    }

    /// Passes over the scores once, from top to bottom: labels for every seen offset, confidence, visitors.
    fn answer(
        &self,
        mut pass: Pass,
        [height, width]: [usize; 2],
        question: &Question,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Answer, SessionError> {
        let rule = Labelling {
            threshold: self.settings.inference.threshold,
            calibration: self.settings.inference.calibration,
            ..question.rule.clone()
        };
        let lowered = lowered(question);
        let offsets = self.offsets(question);
        let task = LabelTask {
            rule: &rule,
            lowered: &lowered,
            offsets: &offsets,
        };
        let count = lowered.len().max(1);
        let needs_strips = !visitors.is_empty();
        let of_strip = if needs_strips { pass.strip_bytes() } else { 0 };
        check_memory([height, width], count, question.confidence, of_strip)?;
        let mut maps = vec![vec![0_u16; height * width]; count];
        let mut confidence = match question.confidence {
            Confidence::Keep => Some(vec![0.0_f32; height * width]),
            Confidence::Leave => None,
        };
        let strips = if needs_strips {
            pass.strips()
        } else {
            pass.label_strips()
        };
        let (mut tied, mut scores) = (true, Vec::new());
        let classes = question.classes.len();
        for rows in strips {
            self.stop.check()?;
            let pixels = rows.start * width..rows.end * width;
            let of_rows = maps.iter_mut().map(|map| &mut map[pixels.clone()]);
            if needs_strips {
                scores.resize(rows.len() * classes * width, 0.0);
            }
            let found = Found {
                maps: of_rows.collect(),
                confidence: confidence.as_mut().map(|all| &mut all[pixels.clone()]),
                scores: needs_strips.then_some(&mut scores[..]),
            };
            tied = pass.read(&rows, |mean| mean.label(rows.clone(), &task, found, tied))?;
            if needs_strips {
                let strip = ScoredStrip {
                    first_row: rows.start,
                    classes,
                    width,
                    labels: maps.first().map_or(&[], |map| &map[pixels]),
                    scores,
                };
                for visitor in visitors.iter_mut() {
                    visitor.visit(&strip).map_err(SessionError::Visitor)?;
                }
                scores = strip.scores;
            }
        }
        // An image without any of the classes has no label and a score of 0 for all of them.
        let is_labelled = |map: &Vec<u16>| map.iter().any(|&label| label != IGNORE_LABEL);
        let means_something =
            self.model.scoring() == Scoring::Sigmoid && !maps.first().is_some_and(is_labelled);
        let map = |labels| LabelMap::new(width, height, labels).map_err(SessionError::Labels);
        Ok(Answer {
            tied: tied && !means_something,
            labels: maps.into_iter().map(map).collect::<Result<_, _>>()?,
            confidence,
            stages: pass.stages(),
        })
    }
}

/// Returns what is subtracted from the scores for each label map: `[classes]`; nothing if the question gives no offsets.
fn lowered(question: &Question) -> Vec<Vec<f32>> {
    let offsets = question.seen_offsets.iter();
    let of_classes = |&by: &f32| {
        let seen = question.classes.seen.iter();
        seen.map(|&seen| if seen { by } else { 0.0 }).collect()
    };
    offsets.map(of_classes).collect()
}

/// Checks that label maps, confidence and a strip of scores of an image can be held in memory, before they are
/// allocated.
///
/// - `strip`: bytes of the scores of a strip
fn check_memory(
    [height, width]: [usize; 2],
    maps: usize,
    confidence: Confidence,
    strip: u64,
) -> Result<(), SessionError> {
    let confidence = match confidence {
        Confidence::Keep => size_of::<f32>(),
        Confidence::Leave => 0,
    };
    let bytes_a_pixel = maps.saturating_mul(size_of::<u16>()) + confidence;
    let needed = memory::product(&[height, width, bytes_a_pixel]);
    memory::check(needed.saturating_add(strip)).map_err(|source| SessionError::Memory {
        width,
        height,
        source,
    })
}

/// Returns height and width in pixels.
fn size_of_image(image: &RgbImage) -> [usize; 2] {
    [image.height() as usize, image.width() as usize]
}
