//! Work without the interpreter's lock, which Ctrl-C interrupts and which a forked process refuses.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use pyo3::prelude::*;
use rayon::ThreadPool;

use crate::errors::{Kind, exception};

/// Time between two looks for Ctrl-C.
const PATIENCE: Duration = Duration::from_millis(50);

/// Number of the process whose threads compute; 0 before the first work.
///
/// Threads do not survive `fork`, so that a child would wait for them for ever.
static WORKING_PROCESS: AtomicU32 = AtomicU32::new(0);

/// Calls a function without the interpreter's lock, and returns its result.
///
/// On the interpreter's main thread, another thread does the work, and this one looks for Ctrl-C: it stores `true` in
/// the flag and waits for the work to end.
///
/// - `pool`: threads to compute with; `None` for those that all models of the process share
/// - `work`: gets the flag
///
/// # Errors
/// Returns `KeyboardInterrupt`, an exception if the process was forked, or one for a panic.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    pool: Option<&ThreadPool>,
    work: impl FnOnce(&AtomicBool) -> T + Send,
) -> PyResult<T> {
    check_process(py)?;
    let stop = AtomicBool::new(false);
    let guarded = || {
        catch_unwind(AssertUnwindSafe(|| match pool {
            Some(pool) => pool.install(|| work(&stop)),
            None => work(&stop),
        }))
    };
    let (done, interrupt) = if is_main_thread(py)? {
        py.detach(|| watched(&stop, guarded))
    } else {
        (py.detach(guarded), None)
    };
    if let Some(interrupt) = interrupt {
        return Err(interrupt);
    }
    done.map_err(|panic| of_panic(py, &*panic))
}

/// Does work on another thread, and looks for Ctrl-C meanwhile.
fn watched<T: Send>(
    stop: &AtomicBool,
    work: impl FnOnce() -> thread::Result<T> + Send,
) -> (thread::Result<T>, Option<PyErr>) {
    let mut interrupt = None;
    let done = thread::scope(|scope| {
        let (end, ended) = mpsc::channel::<()>();
        let worker = scope.spawn(move || {
            let _end = end; // dropped when the work has ended
            work()
        });
        while ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            if interrupt.is_none()
                && let Err(error) = Python::attach(|py| {
                    // A path to the method has one lifetime; the closure has to take any.
                    let py: Python<'_> = py;
                    py.check_signals()
                })
            {
                stop.store(true, Ordering::SeqCst);
                interrupt = Some(error);
            }
        }
        worker.join().unwrap_or_else(Err)
    });
    (done, interrupt)
}

/// Refuses to compute in a process that was forked from one that computes.
fn check_process(py: Python<'_>) -> PyResult<()> {
    let now = process::id();
    let first = WORKING_PROCESS.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
    match first {
        Err(other) if other != now => Err(exception(
            py,
            Kind::Forked,
            &format!(
                "process {now} was forked from process {other}, which had computed already, and its threads are not here"
            ),
            Some(
                "start processes with multiprocessing.get_context(\"spawn\"), or load the first model in the child",
            ),
        )),
        _ => Ok(()),
    }
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let now = threading.call_method0("get_ident")?;
    now.eq(threading.call_method0("main_thread")?.getattr("ident")?)
}

fn of_panic(py: Python<'_>, panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let message = format!(
        "this package failed in a way that it should not: {}",
        text.unwrap_or("no reason is known")
    );
    let hint = "please report this with the image and the call";
    exception(py, Kind::Internal, &message, Some(hint))
}
