//! Connections that have sent nothing yet: they make room for others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::TcpStream, sync::Notify, time::timeout};

/// Longest time in which a connection must send its first byte. Browsers open connections ahead of need, but open them
/// again.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// The connections that have sent nothing yet, the oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Silent(Arc<Mutex<VecDeque<Arc<Notify>>>>);

impl Silent {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection that was accepted; before anything else is awaited, so that it can be ended from then on.
    pub(crate) fn count(&self) -> Turn {
        let leave = Arc::new(Notify::new());
        self.waiting().push_back(Arc::clone(&leave));
        Turn {
            silent: self.clone(),
            leave,
        }
    }

    /// Lets all connections end that have sent nothing.
    pub(crate) fn end_all(&self) {
        let all = std::mem::take(&mut *self.waiting());
        for connection in all {
            connection.notify_one();
        }
    }

    /// Lets the oldest connection end that has sent nothing, if there is one.
    pub(crate) fn end_oldest(&self) {
        let oldest = self.waiting().pop_front();
        if let Some(oldest) = oldest {
            oldest.notify_one();
        }
    }
}

/// A connection that has sent nothing yet.
#[derive(Debug)]
pub(crate) struct Turn {
    silent: Silent,
    leave: Arc<Notify>,
}

impl Turn {
    /// Waits until the connection has sent something; returns whether it has, and is to be served.
    pub(crate) async fn has_spoken(self, stream: &TcpStream) -> bool {
        let mut first = [0];
        // Looked at and left there, as readiness alone may be a false alarm.
        tokio::select! {
            seen = timeout(FIRST_BYTE, stream.peek(&mut first)) => matches!(seen, Ok(Ok(1))),
            () = self.leave.notified() => false,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.silent.waiting();
        waiting.retain(|own| !Arc::ptr_eq(own, &self.leave));
    }
}
