//! What Label Studio sends: bodies of `/setup`, `/predict` and `/webhook`, read within bounds of memory.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::Connection;
use super::images::{ImageError, Place, place_of};
use crate::json_body::{self, FirstEntries, member};
use crate::problem::{Code, Problem};
use crate::state::AppState;

/// Most tasks of a request that are predicted together. Label Studio sends a whole selection at once, however large.
pub(super) const MOST_TASKS: usize = 1000;
/// Longest labelling configuration, in bytes.
const LONGEST_CONFIG: usize = 1 << 20;
/// Longest name of a project or a task, in characters.
const LONGEST_NAME: usize = 200;

/// A question about a project: body of `/setup`.
#[derive(Deserialize)]
pub(super) struct SetupRequest<'a> {
    /// `ID.TIME`, or a number.
    #[serde(borrow, default)]
    pub(super) project: Option<&'a RawValue>,
    /// The labelling configuration.
    #[serde(default)]
    pub(super) schema: Option<String>,
    /// Address of Label Studio.
    #[serde(default)]
    pub(super) hostname: Option<String>,
    /// Token of the project's owner.
    #[serde(default)]
    pub(super) access_token: Option<String>,
}

/// An event in Label Studio: body of `/webhook`.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    /// What happened.
    #[serde(borrow, default)]
    pub(super) action: Option<&'a RawValue>,
}

/// Tasks to predict as they come: body of `/predict`.
#[derive(Deserialize)]
struct PredictBody<'a> {
    #[serde(borrow)]
    tasks: FirstEntries<'a, MOST_TASKS>,
    #[serde(borrow, default)]
    project: Option<&'a RawValue>,
    #[serde(borrow, default)]
    label_config: Option<&'a RawValue>,
    #[serde(default)]
    params: Option<PredictParams>,
}

#[derive(Deserialize)]
struct PredictParams {
    /// Address of Label Studio, which newer versions repeat.
    #[serde(default)]
    hostname: Option<String>,
}

/// Tasks to predict.
pub(super) struct PredictRequest {
    /// The tasks as pieces of the body, each an object; at most [`MOST_TASKS`].
    pub(super) tasks: Vec<Bytes>,
    /// Number of tasks that were sent.
    pub(super) task_count: usize,
    /// Name of the project.
    pub(super) project: String,
    /// The labelling configuration.
    pub(super) label_config: String,
    /// Address that Label Studio calls itself.
    pub(super) hostname: Option<Url>,
}

impl PredictRequest {
    /// Finds the tasks in a body, which may hold images and be long; nothing of it is copied.
    pub(super) async fn read(
        state: &AppState,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Self, Problem> {
        let room = state.parsing_room(body.len()).await;
        let work = move || {
            let found = Self::of(&headers, &body);
            drop(room);
            found
        };
        let found = tokio::task::spawn_blocking(work).await;
        found.map_err(Problem::internal)?
    }

    fn of(headers: &HeaderMap, body: &Bytes) -> Result<Self, Problem> {
        let request: PredictBody<'_> = json_body::read(headers, body)?;
        let config = request.label_config.filter(|raw| raw.get() != "null");
        if let Some(raw) = config
            && raw.get().len() > LONGEST_CONFIG
        {
            let detail = format!(
                "the labelling configuration has {} bytes; at most {LONGEST_CONFIG} are read",
                raw.get().len()
            );
            return Err(Problem::new(Code::PayloadTooLarge, detail)
                .with_hint("give the project fewer labels"));
        }
        let label_config = config.and_then(json_body::text).map(Cow::into_owned);
        let hostname = request.params.and_then(|params| params.hostname);
        let tasks = request.tasks.kept.iter();
        Ok(Self {
            task_count: request.tasks.count,
            tasks: tasks
                .map(|task| body.slice_ref(task.get().as_bytes()))
                .collect(),
            project: key(request.project),
            label_config: label_config.unwrap_or_default(),
            hostname: Connection::new(hostname.as_deref(), None).host,
        })
    }
}

/// A task.
pub(super) struct Task {
    /// Its id, or its position in the request.
    pub(super) name: String,
    /// Where its image is.
    pub(super) place: Result<Place, ImageError>,
}

impl Task {
    /// Reads a task when its turn comes, so that one image at a time is decoded from base64.
    ///
    /// - `field`: the field that holds the image
    pub(super) async fn read(text: Bytes, field: &str, position: usize) -> Result<Self, Problem> {
        let field = field.to_owned();
        let work = move || Self::of(&text, &field, position);
        let read = tokio::task::spawn_blocking(work).await;
        read.map_err(Problem::internal)?
    }

    fn of(text: &[u8], field: &str, position: usize) -> Result<Self, Problem> {
        let malformed = |error: serde_json::Error| {
            Problem::new(
                Code::BadRequest,
                format!("task number {position} cannot be read: {error}"),
            )
            .with_hint("send tasks as Label Studio does: {\"id\": 1, \"data\": {…}}")
        };
        let task: &RawValue = serde_json::from_slice(text).map_err(malformed)?;
        let id = member(task, "id").map_err(malformed)?;
        let data = member(task, "data").map_err(malformed)?;
        let data = data.filter(|data| data.get() != "null");
        let image = data.map(|data| member(data, field)).transpose();
        let image = image.map_err(malformed)?.flatten();
        let image = image.and_then(json_body::text);
        let id = id.filter(|id| id.get() != "null");
        Ok(Self {
            name: id.map_or_else(|| position.to_string(), |id| key(Some(id))),
            place: place_of(image.as_deref(), field),
        })
    }
}

/// Returns the text of an id, which is a number or a string.
pub(super) fn key(id: Option<&RawValue>) -> String {
    let Some(id) = id else {
        return String::new();
    };
    let text = json_body::text(id).unwrap_or(Cow::Borrowed(id.get()));
    text.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    #[test]
    fn bodies_must_be_json_by_type_and_content() {
        let with = |kind: &'static str, body: &'static str| {
            let headers = [(header::CONTENT_TYPE, kind.parse().unwrap())];
            let body = Bytes::from_static(body.as_bytes());
            PredictRequest::of(&headers.into_iter().collect(), &body)
        };
        let full = r#"{"tasks": [{"id": 3, "data": {"image": "\/a.jpg"}, "predictions": []}], "project": "1.17",
            "label_config": "<View/>", "params": {"login": null, "context": null}, "model_version": null}"#;
        let read = with("application/json; charset=utf-8", full).ok().unwrap();
        assert_eq!((&*read.project, &*read.label_config), ("1.17", "<View/>"));
        let task = Task::of(&read.tasks[0], "image", 1).ok().unwrap();
        assert_eq!(task.name, "3");
        assert_eq!(task.place.unwrap(), Place::Path("/a.jpg".into()));
        assert_eq!(
            with("text/plain", full).err().unwrap().code(),
            Code::UnsupportedMediaType
        );
        for bad in ["", "{", "[]", "{}", r#"{"tasks": 3}"#] {
            assert_eq!(
                with("application/json", bad).err().unwrap().code(),
                Code::BadRequest,
                "{bad}"
            );
        }
        for bad in ["3", "[]", r#"{"data": 3}"#] {
            assert!(Task::of(bad.as_bytes(), "image", 1).is_err(), "{bad}");
        }
    }
}
