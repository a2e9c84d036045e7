//! The addresses of the server.

pub(crate) mod encodings;
pub(crate) mod facts;
pub(crate) mod health;
pub(crate) mod segment;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, Uri, header},
    middleware::from_fn_with_state,
    routing::{get, post},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    answers::NOTICE,
    assets, docs, edge, label_studio,
    problem::{Code, Problem},
    state::AppState,
};

/// Returns all routes, behind the checks that every request passes.
pub(crate) fn router(state: AppState) -> Router {
    let router = Router::new()
        .route("/", get(assets::index))
        .route("/assets/{*path}", get(assets::asset))
        .route("/docs", get(docs::page))
        .route("/docs/style.css", get(docs::style))
        .route("/openapi.json", get(docs::openapi))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/v1/status", get(health::status))
        .route("/v1/models", get(facts::models))
        .route("/v1/class-lists", get(facts::class_lists))
        .route("/v1/class-lists/{name}", get(facts::class_list))
        .route("/v1/segment", post(segment::segment))
        .route("/v1/encodings", post(encodings::create))
        .route(
            "/v1/encodings/{id}",
            get(encodings::show).delete(encodings::remove),
        )
        .route("/v1/encodings/{id}/segment", post(encodings::segment))
        .merge(label_studio::routes())
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method);
    let cors = cors(&state.config().allow_origins);
    let router = router.layer(from_fn_with_state(state.clone(), edge::edge));
    // A browser's question whether it may call carries no token, so it is answered in front of the checks.
    match cors {
        Some(cors) => router.layer(cors).with_state(state),
        None => router.with_state(state),
    }
}

async fn nothing(uri: Uri) -> Problem {
    assets::missing(uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let shown: String = uri.path().chars().take(100).collect();
    Problem::new(
        Code::MethodNotAllowed,
        format!("{shown} has no method {method}"),
    )
    .with_hint("/docs lists the methods of all addresses")
}

/// Returns the layer that tells browsers which pages may call, if there are any besides the server's own.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|it| HeaderValue::from_str(it).ok()),
        )
    };
    let sent: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];
    let shown: [HeaderName; 4] = [
        header::LOCATION,
        header::RETRY_AFTER,
        header::CONTENT_DISPOSITION,
        NOTICE,
    ];
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(sent)
            .expose_headers(shown),
    )
}
