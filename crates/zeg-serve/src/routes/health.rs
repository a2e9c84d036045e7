//! `/healthz`, `/readyz`, `/metrics` and `/v1/status`: how the server is.

use axum::{Json, extract::State, response::IntoResponse};

use crate::{
    answers::{EncodingsAnswer, HealthAnswer, QueueAnswer, StatusAnswer},
    problem::{Code, Problem, ProblemDocument},
    queue::Depth,
    state::AppState,
};

/// Says that the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "How the server is",
    operation_id = "get_health",
    responses((status = 200, description = "The process lives", body = HealthAnswer)),
)]
pub(crate) async fn healthz() -> Json<HealthAnswer> {
    Json(HealthAnswer { status: "alive" })
}

/// Says whether the models are loaded and the queue has room.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "How the server is",
    operation_id = "get_readiness",
    responses(
        (status = 200, description = "Requests are served", body = HealthAnswer),
        (status = 503, description = "They are not, for now", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<Json<HealthAnswer>, Problem> {
    if state.is_stopping() {
        return Err(Problem::new(Code::Stopping, "the server is stopping"));
    }
    state.models()?;
    if let Some(reason) = refusal(&state, state.queue().depth()) {
        return Err(Problem::new(Code::NotReady, reason)
            .with_hint("send requests again when this address answers with 200"));
    }
    Ok(Json(HealthAnswer { status: "ready" }))
}

/// Returns why the server takes no more requests now, if so.
fn refusal(state: &AppState, depth: Depth) -> Option<String> {
    let full =
        |has_room: bool, what: &str| (!has_room).then(|| format!("the {what} fill their memory"));
    depth
        .refusal()
        .or_else(|| {
            let what = "requests that are being received or wait";
            full(state.has_upload_room(), what)
        })
        .or_else(|| full(state.has_answer_room(), "answers that are being sent"))
}

/// Says what the server is doing.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "How the server is",
    operation_id = "get_status",
    responses((status = 200, description = "Queue and encoded images", body = StatusAnswer)),
)]
pub(crate) async fn status(State(state): State<AppState>) -> Json<StatusAnswer> {
    let depth = state.queue().depth();
    let usage = state.encodings().usage();
    Json(StatusAnswer {
        ready: refusal(&state, depth).is_none() && state.models().is_ok() && !state.is_stopping(),
        queue: QueueAnswer {
            waiting: depth.waiting,
            running: depth.running,
            limit: depth.limit,
        },
        encodings: EncodingsAnswer {
            count: usage.count,
            bytes: usage.bytes,
            limit: usage.limit,
        },
    })
}

/// Returns numbers for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "How the server is",
    operation_id = "get_metrics",
    responses((status = 200, description = "Numbers in Prometheus's text format", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let (queue, encodings) = (state.queue().depth(), state.encodings().usage());
    state.metrics().text(queue, encodings, state.upload_bytes())
}
