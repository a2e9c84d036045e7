//! Errors as the server answers them: problem details (RFC 9457) with a hint.

use std::{fmt, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Kinds of errors; each has a section of its own at `/docs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the titles say what they are")]
pub enum Code {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    PayloadTooLarge,
    ImageTooLarge,
    EncodingTooLarge,
    UnsupportedMediaType,
    UnreadableImage,
    BadClasses,
    BadValue,
    UnknownModel,
    UnknownEncoding,
    QueueFull,
    Internal,
    NotReady,
    Timeout,
    Stopping,
}

impl Code {
    /// All kinds, for the documentation.
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::PayloadTooLarge,
        Self::ImageTooLarge,
        Self::EncodingTooLarge,
        Self::UnsupportedMediaType,
        Self::UnreadableImage,
        Self::BadClasses,
        Self::BadValue,
        Self::UnknownModel,
        Self::UnknownEncoding,
        Self::QueueFull,
        Self::Internal,
        Self::NotReady,
        Self::Timeout,
        Self::Stopping,
    ];

    /// Returns the status of the answer, the code in it and its title.
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn facts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (
                StatusCode::BAD_REQUEST,
                "bad-request",
                "The request is malformed",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "The token is missing or wrong",
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "The request comes from a place that is not allowed",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "There is nothing at this address",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The address has no such method",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "The request arrived too slowly",
            ),
            Self::PayloadTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload-too-large",
                "The request is too long",
            ),
            Self::ImageTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "image-too-large",
                "The image has too many pixels",
            ),
            Self::EncodingTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "encoding-too-large",
                "The encoded image does not fit into the memory for encodings",
            ),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The request has a content type or coding that is not read",
            ),
            Self::UnreadableImage => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "unreadable-image",
                "The image cannot be read",
            ),
            Self::BadClasses => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad-classes",
                "The class names cannot be used",
            ),
            Self::BadValue => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad-value",
                "A value of the request cannot be used",
            ),
            Self::UnknownModel => (
                StatusCode::NOT_FOUND,
                "unknown-model",
                "There is no model of this name",
            ),
            Self::UnknownEncoding => (
                StatusCode::NOT_FOUND,
                "unknown-encoding",
                "The encoded image is unknown or forgotten",
            ),
            Self::QueueFull => (
                StatusCode::TOO_MANY_REQUESTS,
                "queue-full",
                "The queue is full",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The server failed",
            ),
            Self::NotReady => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not-ready",
                "The server is not ready",
            ),
            Self::Timeout => (
                StatusCode::SERVICE_UNAVAILABLE,
                "timeout",
                "The request took too long",
            ),
            Self::Stopping => (
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "The server is stopping",
            ),
        }
    }

    /// Returns the status of the answer.
    pub fn status(self) -> StatusCode {
        self.facts().0
    }

    /// Returns the code in the answer, such as `queue-full`.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// Returns the title, one line for people.
    pub fn title(self) -> &'static str {
        self.facts().2
    }
}

/// An error that a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: String,
    hint: Option<String>,
    retry_after: Option<u64>,
}

/// A problem as JSON (`application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument {
    /// Address of the description of this kind of error.
    r#type: String,
    /// Title of this kind of error.
    title: &'static str,
    /// Status of the answer.
    status: u16,
    /// What is wrong with this request, with the value.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
    /// Name of this kind of error, for programs.
    code: &'static str,
}

impl Problem {
    /// Creates a problem.
    ///
    /// - `detail`: one sentence with the offending value
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            hint: None,
            retry_after: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Adds the time after which the same request may succeed; whole seconds, at least 1.
    #[must_use]
    pub fn with_retry_after(self, time: Duration) -> Self {
        Self {
            retry_after: Some(time.as_secs_f64().ceil().max(1.0) as u64),
            ..self
        }
    }

    /// Names what the problem belongs to in front of its sentence.
    #[must_use]
    pub(crate) fn within(self, what: &str) -> Self {
        Self {
            detail: format!("{what}: {}", self.detail),
            ..self
        }
    }

    /// Returns the problem of a failure inside of the server.
    pub(crate) fn internal(detail: impl fmt::Display) -> Self {
        Self::new(Code::Internal, detail.to_string())
            .with_hint("the server goes on; if the same request fails again, report it")
    }

    /// Returns the kind of error.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns the sentence with the offending value.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            r#type: format!("/docs#{}", self.code.name()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: self.detail,
            hint: self.hint,
            code: self.code.name(),
        };
        // Strings and a number always serialise.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let kind = (header::CONTENT_TYPE, "application/problem+json");
        let mut response = (self.code.status(), [kind], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer realm=\"zeg\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_of_their_own_and_error_statuses() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn a_time_to_wait_is_at_least_a_second() {
        let problem = Problem::new(Code::QueueFull, "64 requests are waiting");
        let response = problem
            .with_retry_after(Duration::from_millis(3))
            .into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
