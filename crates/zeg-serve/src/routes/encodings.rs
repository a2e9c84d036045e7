//! `/v1/encodings`: an image is encoded once and asked for classes many times.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::{EncodingAnswer, SegmentAnswer, answer},
    encodings::{Encodings, StoredEncoding, new_id},
    fields::Fields,
    options::{ASK_FIELDS, Ask, IMAGE_FIELDS, read_test_time},
    problem::{Code, Problem, ProblemDocument},
    routes::segment::{AskBody, File},
    state::AppState,
    work::{self, ImageSource, Upload},
};

/// An image to encode, as a form.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct EncodingForm {
    /// The image's file (JPEG, PNG, WebP, BMP, TIFF, GIF, PNM or QOI).
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// Name of the image in results, in place of the file's.
    #[schema(nullable = false)]
    image_name: Option<String>,
    /// Name of the model.
    #[schema(nullable = false)]
    model: Option<String>,
    /// Factors of test-time augmentation, separated by commas.
    #[schema(nullable = false)]
    scales: Option<String>,
    /// Whether the mirror image is averaged in.
    #[schema(nullable = false)]
    flip: Option<bool>,
}

/// An image to encode, as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct EncodingBody {
    /// The image's file in base64, or a `data:` address.
    image: String,
    /// Name of the image in results.
    #[schema(nullable = false)]
    image_name: Option<String>,
    /// Name of the model.
    #[schema(nullable = false)]
    model: Option<String>,
    /// Factors of test-time augmentation.
    #[schema(nullable = false)]
    scales: Option<Vec<f64>>,
    /// Whether the mirror image is averaged in.
    #[schema(nullable = false)]
    flip: Option<bool>,
}

/// Classes for an encoded image, as a form.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct AskForm {
    /// Class names separated by commas, `|` between synonyms; the name of a built-in list; or a JSON array as in JSON.
    #[schema(example = "dog, sofa|couch")]
    classes: String,
    /// Class names of the background: they compete, but their pixels stay unlabelled.
    #[schema(nullable = false)]
    background: Option<String>,
    /// Confidence from 0 to 1 below which a pixel stays unlabelled; 0 labels every pixel.
    #[schema(nullable = false)]
    threshold: Option<f32>,
    /// Results, separated by commas; exactly one file is answered as it is.
    #[schema(nullable = false, example = "labels")]
    output: Option<String>,
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
    /// Pixels whose best classes are returned: `x,y; x,y`.
    #[schema(nullable = false)]
    points: Option<String>,
    /// `json` for a document even if exactly one file is asked for.
    #[schema(nullable = false)]
    response: Option<String>,
}

/// Encodes an image and keeps the encoding.
#[utoipa::path(
    post,
    path = "/v1/encodings",
    tag = "Encode once, ask many times",
    operation_id = "create_encoding",
    request_body(content(
        (EncodingForm = "multipart/form-data"),
        (EncodingBody = "application/json"),
    )),
    responses(
        (status = 201, description = "The encoded image", body = EncodingAnswer),
        (status = "4XX", description = "The request cannot be served", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "The server cannot serve it now", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&state, headers, body, IMAGE_FIELDS.to_vec()).await?;
    let model = Arc::clone(state.models()?.get(fields.text("model")?)?);
    let test_time = read_test_time(&fields)?;
    let (bytes, name) = fields.take_image()?;
    let upload = Upload {
        bytes,
        name,
        max_pixels: state.config().max_pixels,
    };
    let (new, model, upload, test_time) = state
        .run(move |running| {
            let new = work::encode(&model, &upload, &test_time, running)?;
            Ok((new, model, upload, test_time))
        })
        .await?;
    state.metrics().observe(&new.times);
    let stored = state.encodings().insert(StoredEncoding {
        id: new_id()?,
        bytes: new.bytes + upload.bytes.len() as u64,
        model,
        encoded: new.encoded,
        test_time,
        upload: upload.bytes,
        image_name: upload.name,
        width: new.width,
        height: new.height,
    })?;
    let mut document = describe(&stored, state.encodings());
    document.time = Some(new.times.into());
    document.notices = new.notices;
    let location = format!("/v1/encodings/{}", stored.id);
    let mut response = (StatusCode::CREATED, Json(document)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Describes an encoded image, and renews its time.
#[utoipa::path(
    get,
    path = "/v1/encodings/{id}",
    tag = "Encode once, ask many times",
    operation_id = "get_encoding",
    params(("id" = String, Path, description = "Id of the encoded image")),
    responses(
        (status = 200, description = "The encoded image", body = EncodingAnswer),
        (status = 404, description = "It is unknown or forgotten", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<EncodingAnswer>, Problem> {
    let stored = state.encodings().get(&id)?;
    Ok(Json(describe(&stored, state.encodings())))
}

/// Forgets an encoded image.
#[utoipa::path(
    delete,
    path = "/v1/encodings/{id}",
    tag = "Encode once, ask many times",
    operation_id = "delete_encoding",
    params(("id" = String, Path, description = "Id of the encoded image")),
    responses(
        (status = 204, description = "It is forgotten"),
        (status = 404, description = "It is unknown or forgotten", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    state.encodings().remove(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Segments an encoded image into classes.
///
/// Only the classes are new, so this takes a fraction of the time of encoding.
#[utoipa::path(
    post,
    path = "/v1/encodings/{id}/segment",
    tag = "Encode once, ask many times",
    operation_id = "segment_encoding",
    params(("id" = String, Path, description = "Id of the encoded image")),
    request_body(content(
        (AskBody = "application/json"),
        (AskForm = "multipart/form-data"),
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
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let fields = Fields::read(&state, headers, body, ASK_FIELDS.to_vec()).await?;
    if fields.has_image() {
        return Err(Problem::new(
            Code::BadRequest,
            "an encoded image is asked without an image",
        )
        .with_hint("send the image to /v1/segment, or leave it out"));
    }
    let test_time = state.encodings().get(&id)?.test_time.clone();
    let ask = Ask::read(&fields, test_time, state.config().max_classes)?;
    let encodings = Arc::clone(state.encodings());
    let (times, response) = state
        .run(move |running| {
            // Only now: what waits would keep the memory of encodings that are forgotten meanwhile.
            let stored = encodings.get(&id)?;
            let model = Arc::clone(&stored.model);
            let source = ImageSource::Encoded(stored);
            let found = work::segment(&model, &source, &ask.classes, &ask.options, running)?;
            Ok((found.times, answer(found, &ask.options, ask.form)?))
        })
        .await?;
    state.metrics().observe(&times);
    Ok(response)
}

fn describe(stored: &StoredEncoding, encodings: &Encodings) -> EncodingAnswer {
    let time = encodings.time();
    EncodingAnswer {
        id: stored.id.clone(),
        model: stored.model.name().to_owned(),
        image: stored.image_name.clone(),
        width: stored.width,
        height: stored.height,
        bytes: stored.bytes,
        expires_in_s: time.as_secs(),
        expires_at: humantime::format_rfc3339_seconds(SystemTime::now() + time).to_string(),
        time: None,
        notices: Vec::new(),
    }
}
