//! Answers on their way to the clients: within a bound of memory, and within a time.
//!
//! A client that asks and does not read would otherwise keep its answer in memory, and many would keep many.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, timeout_at},
};

use crate::{problem::Problem, state::AppState};

/// Longest answer that takes no memory from the others, in bytes: whoever is told to wait must be told so.
const SMALL: u64 = 64 << 10;

/// The answer that a connection is sending, if it is sending one; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Sending(Arc<watch::Sender<Option<Instant>>>);

impl Default for Sending {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Sending {
    /// Waits until an answer has been on its way for this time.
    pub(crate) async fn is_overdue(&self, longest: Duration) {
        let mut watched = self.0.subscribe();
        loop {
            let began = *watched.borrow_and_update();
            // The sender is in `self`, so waiting does not fail.
            match began {
                None => drop(watched.changed().await),
                Some(began) => {
                    let changed = timeout_at(began + longest, watched.changed()).await;
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn begin(&self) -> Instant {
        let now = Instant::now();
        self.0.send_replace(Some(now));
        now
    }

    /// Ends the sending that began then; the next one may have begun already.
    fn end(&self, began: Instant) {
        self.0.send_if_modified(|current| {
            let is_own = *current == Some(began);
            if is_own {
                *current = None;
            }
            is_own
        });
    }
}

/// The bytes of an answer, which hold its memory until the last of them is sent.
struct Held {
    bytes: Bytes,
    sending: Option<(Sending, Instant)>,
    /// Is given back when it is dropped.
    _memory: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((sending, began)) = self.sending.take() {
            sending.end(began);
        }
    }
}

/// Returns an answer that holds its memory until it is sent, or the problem that there is none.
pub(crate) async fn held(
    state: &AppState,
    response: Response,
    sending: Option<Sending>,
) -> Response {
    let length = response.body().size_hint().exact();
    let memory = match length {
        None | Some(0) => return response,
        Some(..=SMALL) => None,
        Some(length) => match state.answer_room(usize::try_from(length).unwrap_or(usize::MAX)) {
            Ok(memory) => Some(memory),
            Err(problem) => return problem.into_response(),
        },
    };
    let (parts, body) = response.into_parts();
    // The body is in memory as a whole, so nothing is copied.
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return Problem::internal(error).into_response(),
    };
    let sending = sending.map(|sending| {
        let began = sending.begin();
        (sending, began)
    });
    let bytes = Bytes::from_owner(Held {
        bytes,
        sending,
        _memory: memory,
    });
    Response::from_parts(parts, Body::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_that_of_the_last_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(async {
            let sending = Sending::default();
            let longest = Duration::from_millis(50);
            let is_overdue =
                || tokio::time::timeout(Duration::from_millis(200), sending.is_overdue(longest));
            assert!(is_overdue().await.is_err());
            let first = sending.begin();
            tokio::time::sleep(Duration::from_millis(1)).await;
            let second = sending.begin();
            sending.end(first);
            assert!(is_overdue().await.is_ok());
            sending.end(second);
            assert!(is_overdue().await.is_err());
        });
    }
}
