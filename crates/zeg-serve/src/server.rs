//! Accepts connections and answers requests until it is asked to stop.
//!
//! Connections are served by hyper directly, because the times and sizes of headers cannot be limited otherwise.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::{
    config::ServeConfig, models::Models, routes, sending::Sending, silent::Silent, state::AppState,
};

/// Most headers of a request.
const MOST_HEADERS: usize = 100;
/// Most bytes of the headers of a request.
const HEADER_BYTES: usize = 32 << 10;
/// Threads that receive and send; the model has its own.
const THREADS: usize = 2;
/// Time before the next connection is accepted after one could not be, for instance because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time between two looks for encoded images whose time is over.
const FORGET: Duration = Duration::from_secs(20);

/// A request to stop the server; clones request the same.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// Asks the server to stop: it accepts no more connections and finishes the requests in progress.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Whether the server was asked to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    async fn wait(&self) {
        // The sender is in `self`, so waiting does not fail.
        let _ = self.0.subscribe().wait_for(|stop| *stop).await;
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All requests in progress were answered.
    Finished,
    /// This many connections were still open after [`ServeConfig::stop_time`].
    CutOff(usize),
}

/// Serves until it is asked to stop; blocks the thread.
///
/// The server answers from the beginning, and says that it is not ready until the models are loaded.
///
/// - `load`: loads the models, on a thread of its own
/// - `ready`: is called with the address when they are loaded
///
/// # Errors
/// Returns the error of `load` or `ready`, or the system's error if threads or the socket cannot be used.
pub fn serve(
    config: ServeConfig,
    listener: StdListener,
    load: impl FnOnce() -> anyhow::Result<Models> + Send + 'static,
    ready: impl FnOnce(SocketAddr, &Models) -> anyhow::Result<()> + Send + 'static,
    stop: &Stop,
) -> anyhow::Result<Ending> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("http")
        .enable_all()
        .build()?;
    let state = AppState::new(config)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let failure = Arc::new(Mutex::new(None));
    {
        let (state, stop, failure) = (state.clone(), stop.clone(), Arc::clone(&failure));
        let thread = std::thread::Builder::new().name("loading".into());
        thread.spawn(move || {
            let loading = || {
                state.set_models(load()?);
                ready(address, state.models()?)
            };
            // A panic must not leave a server that is never ready.
            let loaded = catch_unwind(AssertUnwindSafe(loading))
                .unwrap_or_else(|_| Err(anyhow::anyhow!("loading the models panicked")));
            if let Err(error) = loaded {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                stop.request();
            }
        })?;
    }
    let ending = runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        anyhow::Ok(accept(&state, listener, stop).await)
    });
    // Answers that nobody reads must not keep the process.
    runtime.shutdown_background();
    let failure = failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    failure.map_or(ending, Err)
}

/// Accepts connections until the server is asked to stop, and waits for the requests in progress.
async fn accept(state: &AppState, listener: TcpListener, stop: &Stop) -> Ending {
    let config = state.config();
    let router = routes::router(state.clone());
    let places = Arc::new(Semaphore::new(config.connections.max(1)));
    let silent = Silent::default();
    let connections = GracefulShutdown::new();
    let http = protocol(config);
    // Encoded images whose time is over go even if nobody calls.
    let forgetting = tokio::spawn({
        let state = state.clone();
        async move {
            loop {
                sleep(FORGET).await;
                state.encodings().usage();
            }
        }
    });
    let stopped = stop.wait();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if places.available_permits() == 0 {
            silent.end_oldest();
        }
        // The semaphore is never closed.
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place.ok(),
            () = &mut stopped => break,
        };
        let (http, router, turn) = (http.clone(), router.clone(), silent.count());
        let watcher = connections.watcher();
        let (pause, answer_time) = (config.pause, config.answer_time);
        tokio::spawn(async move {
            // Small answers leave at once; without this, they wait for the acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
            if !turn.has_spoken(&stream).await {
                return;
            }
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(pause));
            let sending = Sending::default();
            let of_connection = sending.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(of_connection.clone());
                router.clone().oneshot(request)
            });
            let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
            // A client that goes away in the middle is no concern of the server.
            let connection = watcher.watch(connection);
            tokio::select! {
                _ = connection => {}
                () = sending.is_overdue(answer_time) => {}
            }
            drop(place);
        });
    }
    forgetting.abort();
    state.begin_stop();
    drop(listener);
    silent.end_all();
    let places_taken = || config.connections.max(1) - places.available_permits();
    match timeout(config.stop_time, connections.shutdown()).await {
        Ok(()) => Ending::Finished,
        Err(_) => Ending::CutOff(places_taken()),
    }
}

/// Returns the protocol with its limits.
fn protocol(config: &ServeConfig) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_time)
        .max_headers(MOST_HEADERS)
        .max_header_size(HEADER_BYTES);
    http
}
