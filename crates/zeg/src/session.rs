//! The inference session: the one way from an image and class embeddings to labels.
//!
//! `segment`, `eval`, the validation during training, `--explain`, the gallery, `bench` and other programs all come
//! through here, so that windows, test-time augmentation, calibration and thresholds mean the same everywhere.
//!
//! An image is either worked through directly ([`Session::segment`], whose memory follows the image's width), or encoded
//! once ([`Session::encode`]) and asked about any classes ([`Session::ask`]). Either way scores are computed once, a strip
//! of rows at a time; whoever needs more than labels looks at every strip as a [`StripVisitor`].

mod pass;

use std::io;

use burn::tensor::Device;
use zeg_image::{ImageError, LabelMap, RgbImage, flip_horizontal};
use zeg_model::{
    ModelError,
    inference::{ClassQueries, EncodedWindows, Inference, Source, Stages, TestTime},
    method::Model,
    scores::Labelling,
};

use self::pass::{Look, Pass};
pub use self::pass::{ScoredStrip, StripVisitor};

/// Images of more pixels than this are worked on one at a time.
pub const LARGE_IMAGE: usize = 8_000_000;

/// How images go through a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionSettings {
    /// Size, windows, calibration and threshold.
    pub inference: Inference,
    /// Scales and flip that scores are averaged over.
    pub test_time: TestTime,
}

/// A model with its settings, ready for images.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    model: &'a dyn Model,
    settings: &'a SessionSettings,
    device: &'a Device,
}

/// What is asked about an image.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The class embeddings.
    pub classes: &'a ClassQueries,
    /// Thresholds of single classes, and classes that are no answer. The threshold for all classes is the session's.
    pub rule: Labelling,
    /// Seen offsets to label the image with, a label map each, from the same scores; empty for the session's own.
    pub seen_offsets: &'a [f32],
    /// Whether the confidence of every pixel is wanted.
    pub confidence: Confidence,
}

impl<'a> Question<'a> {
    /// Asks for the labels alone, by the session's own threshold and seen offset.
    pub fn labels(classes: &'a ClassQueries) -> Self {
        Self {
            classes,
            rule: Labelling::default(),
            seen_offsets: &[],
            confidence: Confidence::Leave,
        }
    }
}

/// Whether the score of every pixel's best class is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confidence {
    /// Only labels are wanted.
    Leave,
    /// Scores from 0 to 1 are kept beside the labels.
    Keep,
}

/// What was found in an image.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Label maps at the image's own size: one for every seen offset that was asked for, or one.
    pub labels: Vec<LabelMap>,
    /// `[height, width]`: the best class's score from 0 to 1, of the first label map, where it was wanted.
    pub confidence: Option<Vec<f32>>,
    /// Where the time went.
    pub stages: Stages,
}

/// An image as an encoder sees it, in every scale and mirrored where test-time augmentation says so.
#[derive(Debug, Clone)]
pub struct EncodedImage {
    /// Height and width of the image.
    size: [usize; 2],
    looks: Vec<Look<EncodedWindows>>,
}

impl EncodedImage {
    /// Height and width of the image.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Where the time of encoding it went.
    pub fn stages(&self) -> Stages {
        let mut stages = Stages::default();
        for look in &self.looks {
            stages += look.content.stages();
        }
        stages
    }
}

/// Why an image could not be labelled.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The settings do not fit the image, or the device could not be read.
    #[error("{0}")]
    Model(#[source] ModelError),
    /// A label map of the image's size cannot be made.
    #[error("{0}")]
    Labels(#[source] ImageError),
    /// What looked at the scores failed.
    #[error("keeping scores: {0}")]
    Visitor(#[source] io::Error),
}

impl From<ModelError> for SessionError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl<'a> Session<'a> {
    /// Joins a model and its settings.
    pub fn new(model: &'a dyn Model, settings: &'a SessionSettings, device: &'a Device) -> Self {
        Self {
            model,
            settings,
            device,
        }
    }

    /// Returns the settings.
    pub fn settings(&self) -> &'a SessionSettings {
        self.settings
    }

    /// Labels an image at its own size. Windows are encoded on the way and forgotten.
    ///
    /// - `visitors`: shown every strip of scores, from top to bottom, of the first label map
    ///
    /// # Errors
    /// The settings do not fit the image, the device could not be read, or a visitor failed.
    pub fn segment(
        &self,
        image: &RgbImage,
        question: &Question,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Answer, SessionError> {
        let mirrored = self.settings.test_time.flip.then(|| flip_horizontal(image));
        let looks = self.looks(image, mirrored.as_ref(), |image, _| Ok(image))?;
        let pass = Pass::new(
            looks.iter().map(|look| {
                let source = Source::Image(look.content, self.device);
                (look, source)
            }),
            self.model,
            question,
        )?;
        self.answer(pass, size_of_image(image), question, visitors)
    }

    /// Encodes an image, for [`Session::ask`].
    ///
    /// # Errors
    /// The settings do not fit the image.
    pub fn encode(&self, image: &RgbImage) -> Result<EncodedImage, SessionError> {
        let mirrored = self.settings.test_time.flip.then(|| flip_horizontal(image));
        let looks = self.looks(image, mirrored.as_ref(), |image, inference| {
            EncodedWindows::new(self.model, image, inference, self.device)
        })?;
        Ok(EncodedImage {
            size: size_of_image(image),
            looks,
        })
    }

    /// Labels an encoded image at its own size.
    ///
    /// - `visitors`: as those of [`Session::segment`]
    ///
    /// # Errors
    /// The device could not be read, or a visitor failed.
    pub fn ask(
        &self,
        image: &EncodedImage,
        question: &Question,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Answer, SessionError> {
        let pass = Pass::new(
            image.looks.iter().map(|look| {
                let source = Source::Encoded(&look.content);
                (look, source)
            }),
            self.model,
            question,
        )?;
        self.answer(pass, image.size, question, visitors)
    }

    /// Makes something of the image in every scale, straight and mirrored.
    fn looks<'i, T>(
        &self,
        image: &'i RgbImage,
        mirrored: Option<&'i RgbImage>,
        content: impl Fn(&'i RgbImage, &Inference) -> Result<T, ModelError>,
    ) -> Result<Vec<Look<T>>, ModelError> {
        let SessionSettings {
            inference,
            test_time,
        } = self.settings;
        test_time.check()?;
        let mut looks = Vec::new();
        for &scale in &test_time.scales {
            for (is_mirrored, image) in [(false, Some(image)), (true, mirrored)] {
                if let Some(image) = image {
                    let inference = TestTime::scaled(inference, image, scale);
                    looks.push(Look {
                        mirrored: is_mirrored,
                        content: content(image, &inference)?,
                        inference,
                    });
                }
            }
        }
        Ok(looks)
    }

    /// Goes down the scores once: labels for every seen offset, confidence, visitors.
    fn answer(
        &self,
        mut pass: Pass,
        [height, width]: [usize; 2],
        question: &Question,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Answer, SessionError> {
        let rule = Labelling {
            threshold: self.settings.inference.threshold,
            ..question.rule.clone()
        };
        let maps = question.seen_offsets.len().max(1);
        let mut maps = vec![vec![0_u16; height * width]; maps];
        let mut confidence = match question.confidence {
            Confidence::Keep => Some(vec![0.0_f32; height * width]),
            Confidence::Leave => None,
        };
        for rows in pass.strips() {
            let mean = pass.strip(rows.clone())?;
            let pixels = rows.start * width..rows.end * width;
            for (number, map) in maps.iter_mut().enumerate() {
                let offset = question.seen_offsets.get(number);
                let lowered = offset.map(|&by| mean.lowered(&question.classes.seen, by));
                let strip = lowered.as_ref().unwrap_or(&mean);
                let labels = &mut map[pixels.clone()];
                // Confidence and visitors belong to the first map.
                if number > 0 {
                    strip.label(&rule, labels, None);
                    continue;
                }
                let confidence = confidence.as_mut().map(|all| &mut all[pixels.clone()]);
                strip.label(&rule, labels, confidence);
                if !visitors.is_empty() {
                    let scored = ScoredStrip::new(strip, labels);
                    for visitor in visitors.iter_mut() {
                        visitor.visit(&scored).map_err(SessionError::Visitor)?;
                    }
                }
            }
        }
        let map = |labels| LabelMap::new(width, height, labels).map_err(SessionError::Labels);
        Ok(Answer {
            labels: maps.into_iter().map(map).collect::<Result<_, _>>()?,
            confidence,
            stages: pass.stages(),
        })
    }
}

/// Height and width.
fn size_of_image(image: &RgbImage) -> [usize; 2] {
    [image.height() as usize, image.width() as usize]
}
