//! The backend that Label Studio connects to: predictions for its tasks.
//!
//! The routes are those of label-studio-ml 1.0: `/health`, `/setup`, `/predict`, `/webhook`, and `/versions`. A project's
//! labelling configuration says what to look for (`labelling`); a task's image comes from the task or from Label Studio
//! (`images`); every image goes through the same queue as those of all other requests; and the regions go back as brush
//! masks, polygons or boxes (`results`).

mod connections;
mod images;
mod labelling;
mod requests;
mod results;
mod version;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use url::Url;

use self::connections::{Connection, Connections};
use self::images::Fetcher;
use self::labelling::Labelling;
use self::requests::{Event, MOST_TASKS, PredictRequest, SetupRequest, Task, key};
use self::results::{Found, Prediction};
use self::version::version;
use crate::json_body;
use crate::options::SegmentOptions;
use crate::problem::{Code, Problem};
use crate::state::AppState;
use crate::work::SegmentJob;

/// Where images of Label Studio are fetched from.
#[derive(Clone, Default)]
pub struct LabelStudioSettings {
    /// Address of Label Studio, the only one that images are fetched from and that tokens are sent to; `None`: none, so
    /// that tasks must hold their images.
    pub address: Option<Url>,
    /// Access token of Label Studio for this address; `None`: the one that it sends itself.
    pub key: Option<String>,
}

/// The token is left out.
impl fmt::Debug for LabelStudioSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("LabelStudioSettings");
        shown.field("address", &self.address.as_ref().map(Url::as_str));
        shown.field("key", &self.key.as_ref().map(|_| "…")).finish()
    }
}

/// Longest time that a request with several tasks may take, in which Label Studio surely still waits: it gives up after
/// 100 seconds (its `ML_TIMEOUT_PREDICT`), keeps nothing then, and shows success.
const BATCH_TIME: Duration = Duration::from_mins(1);
/// Longest reason of an answer, in characters.
const LONGEST_REASON: usize = 500;

/// A problem as Label Studio shows it: of a failed call it reads the status and its reason, and not the body.
struct Told(Problem);

impl From<Problem> for Told {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let hint = self.0.hint().map(|hint| format!("; {hint}"));
        let text = format!("{}{}", self.0.detail(), hint.unwrap_or_default());
        let reason = text.chars().filter(|c| !c.is_control());
        let reason: String = reason.take(LONGEST_REASON).collect();
        let mut response = self.0.into_response();
        if let Ok(reason) = ReasonPhrase::try_from(reason) {
            response.extensions_mut().insert(reason);
        }
        response
    }
}

/// What the routes share.
struct Shared {
    connections: Connections,
    fetcher: Fetcher,
}

/// Returns the routes that Label Studio calls.
pub(crate) fn routes() -> Router<AppState> {
    let shared = Shared {
        connections: Connections::default(),
        fetcher: Fetcher::new(),
    };
    Router::new()
        .route("/health", get(health))
        .route("/versions", get(versions))
        .route("/setup", post(setup))
        .route("/predict", post(predict))
        .route("/webhook", post(webhook))
        .layer(Extension(Arc::new(shared)))
}

/// Answers whether the backend is up, as label-studio-ml does.
async fn health(State(state): State<AppState>) -> Result<Json<Value>, Told> {
    let model = state.models()?.get(None)?.name().to_owned();
    Ok(Json(
        json!({ "status": "UP", "model_class": "zeg", "model_version": model }),
    ))
}

/// Lists the models; Label Studio offers them as versions.
async fn versions(State(state): State<AppState>) -> Result<Json<Value>, Told> {
    let models = state.models()?;
    let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
    Ok(Json(json!({ "versions": names })))
}

/// Checks a project's labelling configuration, and remembers where Label Studio is.
async fn setup(
    State(state): State<AppState>,
    Extension(shared): Extension<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Told> {
    let request: SetupRequest = json_body::read(&headers, &body)?;
    let labelling = request
        .schema
        .as_deref()
        .filter(|xml| !xml.trim().is_empty());
    let most = state.config().max_classes;
    let labelling = labelling.map(|xml| parse(xml, most)).transpose()?;
    let wanted = labelling.as_ref().and_then(|found| found.model.as_deref());
    let version = version(state.models()?.get(wanted)?, labelling.as_ref());
    let connection = Connection::new(request.hostname.as_deref(), request.access_token.as_deref());
    shared.connections.put(&key(request.project), connection);
    Ok(Json(json!({ "model_version": version })))
}

/// Predicts the regions of tasks.
///
/// Label Studio sends all tasks of a selection at once, and loses every prediction if the answer comes too late or is a
/// problem. If all of them together cannot be answered in time, it is asked to send them one by one.
async fn predict(
    State(state): State<AppState>,
    Extension(shared): Extension<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Told> {
    let start = Instant::now();
    let request = PredictRequest::read(&state, headers, body).await?;
    let labelling = Arc::new(parse(&request.label_config, state.config().max_classes)?);
    let model = state.models()?.get(labelling.model.as_deref())?;
    let version = version(model, Some(&labelling));
    let mut connection = shared.connections.get(&request.project);
    if let Some(host) = request.hostname {
        connection.host = Some(host);
    }
    let count = request.task_count;
    if count > MOST_TASKS {
        let detail = format!("{count} tasks; at most {MOST_TASKS} are predicted together");
        return Ok(one_by_one(&version, json!({ "detail": detail })));
    }
    let several = count > 1;
    let time = batch_time(state.config().request_time, several);
    let mut results = Vec::with_capacity(count);
    for (position, task) in (1_usize..).zip(request.tasks) {
        let task = Task::read(task, &labelling.field, position).await?;
        let name = task.name.clone();
        let predicting = predict_task(&state, &shared, &labelling, &connection, task, &version);
        let predicted = timeout_at(start + time, predicting).await;
        match predicted.unwrap_or_else(|_| Err(over_time(time, position))) {
            Ok(prediction) => results.push(prediction),
            // The others then get their predictions, and the failure of this one is told where it belongs.
            Err(problem) if several && is_of_task(&problem) => {
                let failed =
                    json!({ "task": name, "detail": problem.detail(), "hint": problem.hint() });
                return Ok(one_by_one(&version, failed));
            }
            Err(problem) => return Err(problem.into()),
        }
        let expected = start.elapsed().mul_f64(count as f64 / position as f64);
        if position < count && expected > time {
            let detail = format!(
                "{count} tasks would take about {} s, more than {} s",
                expected.as_secs(),
                time.as_secs()
            );
            return Ok(one_by_one(&version, json!({ "detail": detail })));
        }
    }
    Ok(Json(
        json!({ "results": results, "model_version": version }),
    ))
}

/// Returns the longest time that a request may take.
///
/// - `several`: whether it has several tasks, which can still be asked for one by one
fn batch_time(request_time: Duration, several: bool) -> Duration {
    if several {
        BATCH_TIME.min(request_time / 2)
    } else {
        request_time
    }
}

/// Returns the answer to several tasks upon which Label Studio asks for them one by one: a single result.
///
/// - `failed`: the reason, which Label Studio does not read
fn one_by_one(version: &str, failed: Value) -> Json<Value> {
    let nothing = Prediction::empty(version);
    Json(json!({ "results": [nothing], "model_version": version, "failed": failed }))
}

/// Returns the problem of tasks that take too long.
fn over_time(time: Duration, position: usize) -> Problem {
    Problem::new(
        Code::Timeout,
        format!(
            "the tasks took longer than {} s, and number {position} was not finished",
            time.as_secs()
        ),
    )
    .with_hint("start the server with a larger --timeout")
}

/// Returns whether another task could still be predicted, or this one if it is asked for alone.
fn is_of_task(problem: &Problem) -> bool {
    matches!(
        problem.code(),
        Code::UnreadableImage | Code::ImageTooLarge | Code::BadValue | Code::Timeout
    )
}

/// Predicts the regions of one task.
async fn predict_task(
    state: &AppState,
    shared: &Shared,
    labelling: &Arc<Labelling>,
    connection: &Connection,
    task: Task,
    version: &str,
) -> Result<Prediction, Problem> {
    let config = state.config();
    let limit = config.max_body as u64;
    let name = task.name;
    let fetched = match task.place {
        Ok(place) => {
            let fetcher = &shared.fetcher;
            fetcher
                .fetch(place, connection, &config.label_studio, limit)
                .await
        }
        Err(error) => Err(error),
    };
    let image = fetched.map_err(|error| {
        Problem::new(Code::UnreadableImage, format!("task {name}: {error}")).with_hint(error.hint())
    })?;
    let job = SegmentJob {
        model: labelling.model.clone(),
        image: image.bytes.into(),
        image_name: image.name,
        classes: labelling.classes.clone(),
        options: SegmentOptions {
            absorbed_area: labelling.min_area,
            ..SegmentOptions::default()
        },
    };
    let segmented = state.segment(job).await;
    drop(image.place);
    let segmented = segmented.map_err(|problem| problem.within(&format!("task {name}")))?;
    let (labelling, version) = (labelling.clone(), version.to_owned());
    let work = move || {
        let found = Found {
            labels: &segmented.labels,
            confidence: &segmented.confidence,
            version: &version,
        };
        found.prediction(&labelling, &name)
    };
    let prediction = tokio::task::spawn_blocking(work).await;
    let prediction = prediction.map_err(Problem::internal)?;
    prediction.map_err(|error| {
        Problem::new(Code::BadValue, error.to_string())
            .with_hint("set zeg_min_area=\"100\" in the labelling configuration")
    })
}

/// Takes notice of an event in Label Studio. Nothing is trained, which is said where training is asked for.
async fn webhook(headers: HeaderMap, body: Bytes) -> Result<Response, Told> {
    let event: Event<'_> = json_body::read(&headers, &body)?;
    let action = event.action.and_then(json_body::text);
    if action.as_deref() == Some("START_TRAINING") {
        let problem = Problem::new(Code::BadRequest, "this backend predicts and does not train");
        return Err(problem
            .with_hint("export the annotations as COCO and train with `zeg train`")
            .into());
    }
    Ok((StatusCode::CREATED, Json(json!({ "status": "ignored" }))).into_response())
}

/// Parses a labelling configuration.
///
/// - `most`: most classes
fn parse(xml: &str, most: usize) -> Result<Labelling, Problem> {
    let hint =
        "change the labelling configuration under Settings → Labeling Interface in Label Studio";
    let labelling = Labelling::parse(xml)
        .map_err(|error| Problem::new(Code::BadClasses, error.to_string()).with_hint(hint))?;
    if labelling.classes.len() > most {
        let detail = format!(
            "the labelling configuration has {} classes; a request takes at most {most}",
            labelling.classes.len()
        );
        return Err(Problem::new(Code::BadClasses, detail).with_hint(hint));
    }
    Ok(labelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_not_shown() {
        let settings = LabelStudioSettings {
            address: Url::parse("http://localhost:8080").ok(),
            key: Some("geheim".into()),
        };
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("localhost") && !shown.contains("geheim"),
            "{shown}"
        );
    }
}
