//! Commands of the program, inside the interpreter.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pyo3::prelude::*;
use zeg_cli::{
    Program,
    host::{self, Host},
};

use crate::work;

/// Time between two looks for Ctrl-C.
const PATIENCE: Duration = Duration::from_millis(20);

/// Runs the program with arguments, as its own process would, and returns the exit code.
///
/// - `start`: how another process of the program is started, such as `["python", "-m", "zeg"]`
/// - `arguments`: without the name of the program
#[pyfunction]
pub(crate) fn main(py: Python<'_>, start: Vec<OsString>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| {
        let arguments = std::iter::once(OsString::from("zeg")).chain(arguments);
        host::run_as_program(&Program::default(), start, arguments)
    })
}

/// Returns the folder in which the program keeps class embeddings, if there is one.
#[pyfunction]
pub(crate) fn cache_folder() -> Option<PathBuf> {
    host::cache_folder()
}

/// Runs a command; returns its exit code, its JSON document as text, and its warnings.
///
/// - `arguments`: without the name of the program, and without `--json`
/// - `on_step`: is called with the JSON of every step of a training
///
/// # Errors
/// Returns the exception of `on_step`, which stops the command, or `KeyboardInterrupt`.
#[pyfunction]
pub(crate) fn run_command(
    py: Python<'_>,
    arguments: Vec<OsString>,
    on_step: Option<Py<PyAny>>,
) -> PyResult<(u8, Option<String>, Vec<String>)> {
    let failure = Arc::new(Mutex::new(None));
    let stop = Arc::new(AtomicBool::new(false));
    let host = Host {
        stop: Arc::clone(&stop),
        on_step: on_step.map(|callback| on_step_of(callback, &stop, &failure)),
    };
    let outcome = work::run(py, None, |interrupted| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // Hands Ctrl-C on to the command, which ends after its step.
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    if interrupted.load(Ordering::SeqCst) {
                        stop.store(true, Ordering::SeqCst);
                        break;
                    }
                    thread::sleep(PATIENCE);
                }
            });
            let _end = SetAtEnd(&done);
            host::run(&Program::default(), arguments, host)
        })
    })?;
    let failure = failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(error) = failure {
        return Err(error);
    }
    let document = outcome.document.map(|document| document.to_string());
    Ok((outcome.exit_code, document, outcome.warnings))
}

/// Sets a flag when it is dropped, even by a panic.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Returns the function that calls a callback of Python; an exception of it stops the command.
fn on_step_of(
    callback: Py<PyAny>,
    stop: &Arc<AtomicBool>,
    failure: &Arc<Mutex<Option<PyErr>>>,
) -> Box<dyn FnMut(&serde_json::Value) + Send> {
    let (stop, failure) = (Arc::clone(stop), Arc::clone(failure));
    Box::new(move |step| {
        let called = Python::attach(|py| {
            let json = py.import("json")?;
            let step = json.call_method1("loads", (step.to_string(),))?;
            callback.call1(py, (step,))
        });
        if let Err(error) = called {
            stop.store(true, Ordering::SeqCst);
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
        }
    })
}
