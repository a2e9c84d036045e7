//! The scores of an image and what is read from them: labels, regions, points.

use std::time::Duration;

use zeg::{
    EncodedClasses,
    explain::{ExplainOptions, Explanation},
    export::Needs,
    image::{LabelMap, RgbImage},
    model::inference::TestTime,
    readings::{Read, ReadingOptions, Readings},
    session::{SessionError, SessionSettings, StripVisitor},
    spool::SpooledScores,
};
use zeg_base::memory::{amount, product};

use super::{ImageSource, of_session, stop_if_cancelled};
use crate::{
    models::ServedModel,
    options::{Output, SegmentOptions},
    points::{PointAnswer, Points},
    problem::{Code, Problem},
    queue::Running,
};

/// Most bytes of the scores of all classes that a request may store in a temporary file.
const MOST_SCORES: u64 = 1 << 30;

/// The labels of an image and what was read from its scores.
pub(super) struct Scored {
    pub(super) labels: LabelMap,
    pub(super) confidence: Vec<f32>,
    /// Whether all classes have the same score at every pixel.
    pub(super) tied: bool,
    pub(super) scores: Option<SpooledScores>,
    pub(super) regions: Option<Vec<Explanation>>,
    pub(super) points: Vec<PointAnswer>,
    pub(super) encode: Duration,
}

/// Why an image has no scores.
pub(super) enum ScoreFailure {
    Session(SessionError),
    Problem(Problem),
}

impl ScoreFailure {
    pub(super) fn problem(self, name: &str) -> Problem {
        match self {
            Self::Session(error) => of_session(error, name),
            Self::Problem(problem) => problem,
        }
    }
}

impl From<SessionError> for ScoreFailure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<Problem> for ScoreFailure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

pub(super) fn score(
    model: &ServedModel,
    source: &ImageSource,
    image: Option<&RgbImage>,
    classes: &EncodedClasses,
    options: &SegmentOptions,
    [height, width]: [usize; 2],
    running: &Running,
) -> Result<Scored, ScoreFailure> {
    let segmenter = model.segmenter();
    let wants = ReadingOptions {
        keeps_scores: options.outputs.iter().any(
            |output| matches!(output, Output::Export(format) if format.needs == Needs::Scores),
        ),
        explain: (options.outputs.contains(&Output::Regions)).then_some(ExplainOptions {
            candidates: options.candidates,
        }),
        absorbed_area: options.absorbed_area,
    };
    if wants.stores_scores() {
        let needed = product(&[classes.classes().len(), height, width, size_of::<f32>()]);
        if needed > MOST_SCORES {
            return Err(Problem::new(
                Code::BadValue,
                format!(
                    "the scores of {} classes on {width}×{height} pixels take {}; a request may take {}",
                    classes.classes().len(),
                    amount(needed),
                    amount(MOST_SCORES)
                ),
            )
            .with_hint("ask for fewer classes, or run `zeg segment` on a machine with the room")
            .into());
        }
    }
    let names = classes.names();
    let readings = Readings::new(&names, [height, width], wants);
    let mut readings = readings.map_err(Problem::internal)?;
    let mut points = (!options.points.is_empty())
        .then(|| Points::new(names, options.points.clone(), options.candidates));
    let mut visitors = readings.visitors();
    visitors.extend(
        points
            .as_mut()
            .map(|points| points as &mut dyn StripVisitor),
    );
    let question = classes.question();
    let answer = match (source, image) {
        (ImageSource::Encoded(stored), _) => {
            let settings = model.settings(options.threshold, stored.test_time.clone());
            let session = segmenter.session_with(&settings).stopped_by(running.flag());
            session.ask(&stored.encoded, &question, &mut visitors)?
        }
        (ImageSource::Upload(upload), Some(image)) => {
            let settings = model.settings(options.threshold, options.test_time.clone());
            let session = segmenter.session_with(&settings).stopped_by(running.flag());
            check_size(&settings, image, upload.max_pixels)?;
            session.segment(image, &question, &mut visitors)?
        }
        (ImageSource::Upload(_), None) => return Err(Problem::internal("the image is gone").into()),
    };
    let encode = match source {
        ImageSource::Upload(_) => answer.stages.prepare + answer.stages.model,
        ImageSource::Encoded(_) => Duration::ZERO,
    };
    let mut found = zeg::Segmentation::from(answer);
    let read = readings.finish(&mut found.labels, running.flag());
    stop_if_cancelled(running)?;
    let Read { scores, regions } =
        read.map_err(|error| Problem::internal(format_args!("{error:#}")))?;
    Ok(Scored {
        points: points.map_or_else(Vec::new, |points| points.finish(&found.labels)),
        labels: found.labels,
        confidence: found.confidence,
        tied: found.tied,
        scores,
        regions,
        encode,
    })
}

/// Checks that the scales and the mirror image make no more work than the largest image that the server takes.
///
/// Without this, a small request keeps a thread for minutes: an image at eight scales of 20 has as many pixels to encode
/// as 3200 images.
///
/// # Errors
/// Returns a problem with both numbers of pixels.
pub(super) fn check_size(
    settings: &SessionSettings,
    image: &RgbImage,
    max_pixels: u64,
) -> Result<(), Problem> {
    let TestTime { scales, flip } = &settings.test_time;
    let pixels = |scale: f64| {
        let scaled = TestTime::scaled(&settings.inference, image, scale);
        let (width, height) = scaled.resized(image.width() as usize, image.height() as usize);
        product(&[width, height])
    };
    let sum = scales
        .iter()
        .fold(0_u64, |sum, scale| sum.saturating_add(pixels(*scale)));
    let all = sum.saturating_mul(if *flip { 2 } else { 1 });
    // An image that is taken at all is taken at its usual size.
    let most = max_pixels.max(pixels(1.0));
    if all > most {
        return Err(Problem::new(
            Code::BadValue,
            format!(
                "`scales` and `flip` make {all} pixels of this image; this server encodes at most {most} (--max-pixels)"
            ),
        )
        .with_hint(
            "ask for fewer or smaller scales, leave `flip` out, or start the server with a larger --max-pixels",
        ));
    }
    Ok(())
}
