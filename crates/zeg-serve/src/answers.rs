//! The JSON documents that the server answers with.

mod facts;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;
use zeg::export::{ClassSummary, LabelRuns};
use zeg_base::hex;

pub(crate) use self::facts::{
    EncodingsAnswer, FormatAnswer, HealthAnswer, LimitsAnswer, ListAnswer, ListClassAnswer,
    ListClassesAnswer, ListsAnswer, ModelAnswer, ModelsAnswer, QueueAnswer, StatusAnswer,
    TrainedAnswer,
};
use crate::{
    options::{AnswerForm, Output, SegmentOptions},
    outputs::{Annotations, OutputFile},
    points::PointAnswer,
    problem::Problem,
    work::{Segmented, Times},
};

/// A class of a request with what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ClassAnswer {
    /// Position in the list, from 0: the value in label maps.
    label: u16,
    /// Its name.
    name: String,
    /// Its other names.
    synonyms: Vec<String>,
    /// Whether its pixels stay unlabelled.
    background: bool,
    /// Its colour, `#rrggbb`.
    colour: String,
    /// Its own threshold, 0 to 1.
    threshold: Option<f32>,
}

/// Area of a class in an image.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct AreaAnswer {
    /// Name of the class.
    name: String,
    /// Its label.
    label: u16,
    /// Its colour, `#rrggbb`.
    colour: String,
    /// Number of its pixels.
    pixels: u64,
    /// Their share of all pixels, 0 to 1.
    share: f64,
    /// Their mean confidence, 0 to 1.
    confidence: Option<f64>,
    /// Number of regions connected by edges or corners.
    regions: usize,
}

/// A file in a JSON document.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct FileAnswer {
    /// Content type.
    media_type: String,
    /// Name to store it under.
    file_name: String,
    /// The content, in base64.
    base64: String,
}

/// A label map as runs of equal labels, in reading order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Runs)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct RunsSchema {
    /// Columns.
    width: usize,
    /// Rows.
    height: usize,
    /// Label and length in turn; the label 65535 is unlabelled.
    runs: Vec<u32>,
}

/// A large region with the classes that have the highest scores in it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct RegionAnswer {
    /// Class of the region; `null` for the unlabelled pixels.
    class: Option<String>,
    /// Share of the image's pixels, 0 to 1.
    share: f64,
    /// Left, top, width and height of the smallest rectangle around it, in pixels.
    bounding_box: [u32; 4],
    /// The classes with the highest mean scores, best first.
    candidates: Vec<CandidateAnswer>,
}

/// A class with its mean score over a region.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct CandidateAnswer {
    /// The class's name.
    class: String,
    /// Its mean score, 0 to 1.
    score: f64,
}

/// Times of a request, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[allow(
    clippy::struct_field_names,
    reason = "a unit in the name is read where the number is"
)]
pub(crate) struct TimeAnswer {
    /// Waiting in the queue.
    queued_ms: f64,
    /// Decoding the file.
    decode_ms: f64,
    /// Class embeddings.
    text_ms: f64,
    /// Resizing and encoding the image.
    encode_ms: f64,
    /// Scores and labels.
    score_ms: f64,
    /// Writing the results.
    write_ms: f64,
    /// All of them.
    total_ms: f64,
}

/// A segmented image.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SegmentAnswer {
    /// Name of the model.
    model: String,
    /// Name of its method.
    method: String,
    /// Name of the image.
    image: String,
    /// Columns.
    width: usize,
    /// Rows.
    height: usize,
    /// The classes of the request, by label.
    classes: Vec<ClassAnswer>,
    /// Share of unlabelled pixels, 0 to 1.
    unlabelled: f64,
    /// Mean confidence of the labelled pixels, 0 to 1.
    confidence: Option<f64>,
    /// The classes in the image, largest first.
    areas: Vec<AreaAnswer>,
    /// The files that were asked for, by the names of the results.
    outputs: BTreeMap<String, FileAnswer>,
    /// The label map as runs, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RunsSchema>, nullable = false)]
    runs: Option<LabelRuns>,
    /// Annotations, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    annotations: Option<Annotations>,
    /// The best classes of each large region, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    regions: Option<Vec<RegionAnswer>>,
    /// The best classes at the points, if there were any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    points: Vec<PointAnswer>,
    /// Times of the stages.
    time: TimeAnswer,
    /// What a user should know about the image or the classes.
    notices: Vec<String>,
}

impl From<ClassSummary> for AreaAnswer {
    fn from(class: ClassSummary) -> Self {
        Self {
            name: class.name,
            label: class.label,
            colour: class.colour,
            pixels: class.pixels,
            share: class.share,
            confidence: class.confidence,
            regions: class.regions,
        }
    }
}

impl From<OutputFile> for FileAnswer {
    fn from(file: OutputFile) -> Self {
        Self {
            media_type: file.media_type.to_owned(),
            file_name: file.file_name,
            base64: STANDARD.encode(&file.bytes),
        }
    }
}

impl From<Times> for TimeAnswer {
    fn from(times: Times) -> Self {
        // Microseconds are exact enough.
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let Times {
            queued,
            decode,
            text,
            encode,
            score,
            write,
        } = times;
        Self {
            queued_ms: ms(queued),
            decode_ms: ms(decode),
            text_ms: ms(text),
            encode_ms: ms(encode),
            score_ms: ms(score),
            write_ms: ms(write),
            total_ms: ms(queued + decode + text + encode + score + write),
        }
    }
}

impl SegmentAnswer {
    pub(crate) fn new(segmented: Segmented, options: &SegmentOptions) -> Self {
        let colour = |label: u16| hex::colour(segmented.classes.colour(label));
        let class = |(label, class): (u16, &zeg::vocab::classes::ClassQuery)| ClassAnswer {
            label,
            name: class.name.clone(),
            synonyms: class.synonyms.clone(),
            background: !class.role.is_foreground(),
            colour: colour(label),
            threshold: class.threshold,
        };
        let classes = (0..).zip(&segmented.queries).map(class).collect();
        let wants_annotations = options
            .outputs
            .iter()
            .any(|output| matches!(output, Output::Rle | Output::Polygons));
        let region = |region: zeg::explain::Explanation| RegionAnswer {
            class: region.class,
            share: region.share,
            bounding_box: region.bounding_box,
            candidates: region
                .candidates
                .into_iter()
                .map(|candidate| CandidateAnswer {
                    class: candidate.class,
                    score: candidate.score,
                })
                .collect(),
        };
        let files = segmented.files.into_iter();
        Self {
            classes,
            unlabelled: segmented.summary.unlabelled,
            confidence: segmented.summary.confidence,
            areas: segmented
                .summary
                .classes
                .into_iter()
                .map(Into::into)
                .collect(),
            outputs: files
                .map(|file| (file.output.to_owned(), file.into()))
                .collect(),
            runs: (options.outputs.contains(&Output::Runs))
                .then(|| LabelRuns::of(&segmented.labels)),
            annotations: wants_annotations.then_some(segmented.annotations),
            regions: segmented
                .regions
                .map(|regions| regions.into_iter().map(region).collect()),
            points: segmented.points,
            time: segmented.times.into(),
            notices: segmented.notices,
            model: segmented.model,
            method: segmented.method,
            image: segmented.image_name,
            width: segmented.width,
            height: segmented.height,
        }
    }
}

/// Answers with the only file, or with a document.
pub(crate) fn answer(
    mut segmented: Segmented,
    options: &SegmentOptions,
    form: AnswerForm,
) -> Result<Response, Problem> {
    if form == AnswerForm::File {
        let file = segmented.files.pop();
        let file = file.ok_or_else(|| Problem::internal("the file was not made"))?;
        let mut response = of_file(file);
        add_notices(&mut response, &segmented.notices);
        return Ok(response);
    }
    // Labels as runs and base64 of several files are long: the document is written where it does not hold up others.
    Ok(Json(SegmentAnswer::new(segmented, options)).into_response())
}

/// Characters of a file name that stand for themselves in a header (RFC 8187).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'~');

/// Header of a notice in an answer that is a file.
pub(crate) const NOTICE: HeaderName = HeaderName::from_static("zeg-notice");
/// Most notices and most characters of one in headers: clients take 8 KiB of headers and more.
const MOST_NOTICES: usize = 8;
const MOST_NOTICE: usize = 300;
/// Characters of a notice that stand for themselves in a header.
const READABLE: &AsciiSet = &CONTROLS.add(b'%');

/// Adds notices as headers, one each.
fn add_notices(response: &mut Response, notices: &[String]) {
    for notice in notices.iter().take(MOST_NOTICES) {
        let shown: String = notice.chars().take(MOST_NOTICE).collect();
        let encoded = utf8_percent_encode(&shown, READABLE).to_string();
        if let Ok(value) = HeaderValue::from_str(&encoded) {
            response.headers_mut().append(NOTICE, value);
        }
    }
}

/// Answers with a file, under the name that it is stored as.
fn of_file(file: OutputFile) -> Response {
    let ascii: String = file
        .file_name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".-_ ".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let encoded = utf8_percent_encode(&file.file_name, PLAIN);
    let disposition = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}");
    let mut response = file.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(file.media_type),
    );
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

/// An encoded image.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct EncodingAnswer {
    /// Its id, 32 hexadecimal digits.
    pub(crate) id: String,
    /// Name of the model.
    pub(crate) model: String,
    /// Name of the image.
    pub(crate) image: String,
    /// Columns.
    pub(crate) width: usize,
    /// Rows.
    pub(crate) height: usize,
    /// Memory that it takes, the file included.
    pub(crate) bytes: u64,
    /// Seconds until it is forgotten, if it is not used before; it may be forgotten earlier if memory is needed.
    pub(crate) expires_in_s: u64,
    /// The time when it is forgotten (RFC 3339).
    #[schema(format = DateTime)]
    pub(crate) expires_at: String,
    /// Times of the stages, where the image was encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) time: Option<TimeAnswer>,
    /// What a user should know about the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notices: Vec<String>,
}
