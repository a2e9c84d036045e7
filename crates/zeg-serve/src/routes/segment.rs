//! `POST /v1/segment`: an image and classes in, labels out.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::{SegmentAnswer, answer},
    fields::Fields,
    options::{ASK_FIELDS, Ask, IMAGE_FIELDS, read_test_time},
    problem::{Problem, ProblemDocument},
    routes::encodings::{AskForm, EncodingBody, EncodingForm},
    state::AppState,
    work::{self, ImageSource, Upload},
};

/// A file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct File(Vec<u8>);

/// An image and classes, as a form.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct SegmentForm {
    #[serde(flatten)]
    image: EncodingForm,
    #[serde(flatten)]
    ask: AskForm,
}

/// A class with its settings.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct ClassObject {
    /// Its name.
    name: String,
    /// Its other names.
    #[schema(nullable = false)]
    synonyms: Option<Vec<String>>,
    /// Whether its pixels stay unlabelled.
    #[schema(nullable = false)]
    background: Option<bool>,
    /// Its own threshold, 0 to 1.
    #[schema(nullable = false)]
    threshold: Option<f32>,
    /// Its colour, `#rrggbb`.
    #[schema(nullable = false)]
    colour: Option<String>,
}

/// Classes, as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum ClassList {
    /// Names separated by commas, `|` between synonyms, or the name of a built-in list.
    Text(String),
    /// One entry for each class.
    Entries(Vec<ClassEntry>),
}

/// A class, as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum ClassEntry {
    /// A name with its synonyms behind `|`.
    Name(String),
    /// A class with its settings.
    Object(ClassObject),
}

/// An image and classes, as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct SegmentBody {
    #[serde(flatten)]
    image: EncodingBody,
    #[serde(flatten)]
    ask: AskBody,
}

/// Classes and what is wanted of them, as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct AskBody {
    /// Names, each with its synonyms behind `|`, or objects; text as in the form is read as well.
    classes: ClassList,
    /// Names of the background, in the same forms.
    #[schema(nullable = false)]
    background: Option<ClassList>,
    /// Confidence from 0 to 1 below which a pixel stays unlabelled; 0 labels every pixel.
    #[schema(nullable = false)]
    threshold: Option<f32>,
    /// Results.
    #[schema(nullable = false)]
    output: Option<Vec<String>>,
    /// Opacity of the colours in overlays, 0 to 1.
    #[schema(nullable = false)]
    opacity: Option<f32>,
    /// Smallest region in pixels; smaller ones take the label of a neighbour. Without it, annotations leave out regions
    /// of fewer than 16 pixels, and label maps keep them.
    #[schema(nullable = false)]
    min_area: Option<u64>,
    /// Number of classes that are listed for a region or a point.
    #[schema(nullable = false)]
    candidates: Option<u64>,
    /// Pixels whose best classes are returned, `[x, y]` each.
    #[schema(nullable = false)]
    points: Option<Vec<Vec<u32>>>,
    /// `json` for a document even if exactly one file is asked for.
    #[schema(nullable = false)]
    response: Option<String>,
}

/// Segments an image.
///
/// Answers with the file if `output` names exactly one, and with a document otherwise.
#[utoipa::path(
    post,
    path = "/v1/segment",
    tag = "Segment",
    operation_id = "segment",
    request_body(content(
        (SegmentForm = "multipart/form-data"),
        (SegmentBody = "application/json"),
    )),
    responses(
        (status = 200, description = "The results", content(
            (SegmentAnswer = "application/json"),
            (File = "image/png"),
            (File = "application/zip"),
        ), headers(
            ("zeg-notice" = String, description = "Of a file: a notice, percent-encoded UTF-8; one header for each"),
        )),
        (status = "4XX", description = "The request cannot be served", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "The server cannot serve it now", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn segment(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let known = [&ASK_FIELDS[..], &IMAGE_FIELDS[..]].concat();
    let mut fields = Fields::read(&state, headers, body, known).await?;
    let config = state.config();
    let model = Arc::clone(state.models()?.get(fields.text("model")?)?);
    let ask = Ask::read(&fields, read_test_time(&fields)?, config.max_classes)?;
    let (bytes, name) = fields.take_image()?;
    let upload = Upload {
        bytes,
        name,
        max_pixels: config.max_pixels,
    };
    let (times, response) = state
        .run(move |running| {
            let source = ImageSource::Upload(upload);
            let found = work::segment(&model, &source, &ask.classes, &ask.options, running)?;
            // The document is written here, where it does not hold up other requests.
            Ok((found.times, answer(found, &ask.options, ask.form)?))
        })
        .await?;
    state.metrics().observe(&times);
    Ok(response)
}
