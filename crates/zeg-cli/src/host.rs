//! Runs commands inside another program, such as a Python interpreter.
//!
//! A command of the program `zeg` owns its process: signals end it, results go to standard output, an error ends in an
//! exit code. A command that another program calls owns nothing but its thread. While [`run`] works, this module stands
//! in on that thread: the caller's flag stops the command, and the JSON document and the warnings go to the caller.
//!
//! Commands that start processes of the program (`ablate`, `quickstart`, `bench` of a table) or wait for signals
//! (`serve`) belong into a process of their own.
//!
//! ```
//! use zeg_cli::{Program, host};
//!
//! let outcome = host::run(&Program::default(), ["info", "no-such-file"], host::Host::default());
//! assert_eq!(outcome.exit_code, 1);
//! assert!(outcome.document.is_some_and(|document| document["error"]["message"].is_string()));
//! ```

use std::{
    cell::RefCell,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use serde_json::Value;
use zeg::{Segmenter, text_sources::TextNotice};

use crate::{Program, allocator, commands::model_file, hints};

/// Beginning of the notices that are warnings.
const WARNING: &str = "warning: ";

/// What the calling program has to do with a command while it runs.
#[derive(Default)]
pub struct Host {
    /// The command ends after its step once this is `true`, as after Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// Is called with the numbers of every training step, as the log of the run has them.
    pub on_step: Option<OnStep>,
}

/// A function that is called with the numbers of every training step.
pub type OnStep = Box<dyn FnMut(&Value) + Send>;

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The exit code that the program would have had.
    pub exit_code: u8,
    /// The JSON document; that of a command that failed has the key `error`. `None` if the command has none.
    pub document: Option<Value>,
    /// The warnings, without the word itself.
    pub warnings: Vec<String>,
}

/// State of a call.
struct Call {
    host: Host,
    document: Option<Value>,
    warnings: Vec<String>,
}

thread_local! {
    /// The call on this thread; `None` where the program owns its process.
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Takes the place of the process while a function works; returns what it left.
fn within<T>(host: Host, work: impl FnOnce() -> T) -> (T, Vec<String>, Option<Value>) {
    /// Restores the call around this one, even after a panic.
    struct Restore(Option<Call>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CALL.set(self.0.take());
        }
    }
    let outer = CALL.replace(Some(Call {
        host,
        document: None,
        warnings: Vec::new(),
    }));
    let restore = Restore(outer);
    let done = work();
    let call = CALL.take();
    drop(restore);
    let (warnings, document) = call.map_or_else(Default::default, |it| (it.warnings, it.document));
    (done, warnings, document)
}

/// Runs a command, and returns its JSON document in place of printing anything.
///
/// - `program`: the methods and recipes that the program knows
/// - `arguments`: those of the command line, without the name of the program and without `--json`
///
/// Progress and notices go to standard error as usual; `--quiet` silences them.
pub fn run<I, T>(program: &Program, arguments: I, host: Host) -> Outcome
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let mut line = vec![OsString::from("zeg")];
    line.extend(arguments.into_iter().map(Into::into));
    // Before `--`, which ends the options.
    let end = line.iter().position(|argument| argument == "--");
    line.insert(end.unwrap_or(line.len()), "--json=-".into());
    let (code, warnings, document) = within(host, || crate::main_with(program, line));
    Outcome {
        exit_code: number(code),
        document,
        warnings,
    }
}

/// Runs the program as the owner of this process, and returns its exit code.
///
/// - `start`: how another process of the program is started, such as `python -m zeg`; the running file alone is not it
/// - `arguments`: the first one is the name of the program
pub fn run_as_program<I, T>(program: &Program, start: Vec<OsString>, arguments: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let _ = START.set(start);
    allocator::keep_memory();
    number(crate::main_with(program, arguments))
}

/// How another process of the program is started, if its file alone is not the program.
static START: OnceLock<Vec<OsString>> = OnceLock::new();

/// Returns another process of this program, without arguments.
///
/// # Errors
/// Returns the system's error if the file of the program is not known.
pub(crate) fn this_program() -> std::io::Result<Command> {
    if let Some([file, arguments @ ..]) = START.get().map(Vec::as_slice) {
        let mut command = Command::new(file);
        command.args(arguments);
        return Ok(command);
    }
    Ok(Command::new(std::env::current_exe()?))
}

/// Returns the number of an exit code, which the type does not tell.
fn number(code: ExitCode) -> u8 {
    let is_it = |number: &u8| ExitCode::from(*number) == code;
    (0..=u8::MAX).find(is_it).unwrap_or(1)
}

/// Returns the file that a path or the name of downloaded weights stands for, as `--model` takes it.
///
/// # Errors
/// Returns an error if the value is the name of weights that are not downloaded, or a misspelt name.
pub fn resolve_model(model: &Path) -> anyhow::Result<PathBuf> {
    model_file::resolve_model(model)
}

/// Returns the folder in which the program keeps class embeddings, if the system has one for caches.
pub fn cache_folder() -> Option<PathBuf> {
    model_file::cache_folder()
}

/// Returns what the program warns of when it opens a model: what is assumed because no file states it.
///
/// # Errors
/// Returns an error if a configuration file beside the weights cannot be read.
pub fn model_warnings(segmenter: &Segmenter) -> anyhow::Result<Vec<String>> {
    let model = segmenter.model();
    let (done, warnings, _) = within(Host::default(), || {
        model_file::warn_of_assumptions(model);
        model_file::warn_of_architecture(model)
    });
    done.map(|()| warnings)
}

/// Returns what the program warns of about class embeddings.
pub fn text_warnings(notices: &[TextNotice]) -> Vec<String> {
    let ((), warnings, _) = within(Host::default(), || model_file::warn_of_text(notices));
    warnings
}

/// Returns the action to take after an error, as the program prints it.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    hints::hint(error)
}

/// Returns an error with its causes, as the program prints it.
pub fn describe(error: &anyhow::Error) -> String {
    hints::describe(error)
}

/// Whether another program has called the command on this thread.
pub(crate) fn is_called() -> bool {
    CALL.with_borrow(Option::is_some)
}

/// Returns the flag that stops the command that another program has called.
pub(crate) fn stop() -> Option<Arc<AtomicBool>> {
    CALL.with_borrow(|call| call.as_ref().map(|call| Arc::clone(&call.host.stop)))
}

/// Hands the JSON document to the program that has called the command; there is one document a run.
pub(crate) fn take_document(document: Value) {
    CALL.with_borrow_mut(|call| {
        if let Some(call) = call {
            call.document = Some(document);
        }
    });
}

/// Hands a warning to the program that has called the command; returns false if none has, or it is no warning.
pub(crate) fn take_warning(text: &str) -> bool {
    let Some(warning) = text.trim_start().strip_prefix(WARNING) else {
        return false;
    };
    CALL.with_borrow_mut(|call| {
        if let Some(call) = call {
            call.warnings.push(warning.to_owned());
        }
        call.is_some()
    })
}

/// Tells the program that has called the command of a training step.
pub(crate) fn tell_step(step: &Value) {
    let take = |call: &mut Option<Call>| call.as_mut()?.host.on_step.take();
    // The function may call a command itself.
    if let Some(mut on_step) = CALL.with_borrow_mut(take) {
        on_step(step);
        CALL.with_borrow_mut(|call| {
            if let Some(call) = call {
                call.host.on_step = Some(on_step);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_have_their_numbers() {
        for code in [0, 1, 2, 130, 255] {
            assert_eq!(number(ExitCode::from(code)), code);
        }
    }

    #[test]
    fn a_command_hands_over_its_document_and_prints_nothing() {
        let run = |arguments: &[&str]| run(&Program::default(), arguments, Host::default());
        let outcome = run(&["models"]);
        let document = outcome.document.unwrap();
        assert_eq!(
            (outcome.exit_code, &document["command"]),
            (0, &"models".into())
        );
        let wrong = run(&["info", "x.toml", "--sett", "a=1"]);
        assert_eq!(wrong.exit_code, 2);
        let message = wrong.document.unwrap()["error"]["message"].to_string();
        assert!(message.contains("--sett"), "{message}");
        assert!(!is_called());
    }

    #[test]
    fn a_call_within_a_call_leaves_the_outer_one_as_it_was() {
        let ((), warnings, _) = within(Host::default(), || {
            assert!(take_warning("warning: outer"));
            let ((), inner, _) = within(Host::default(), || {
                assert!(take_warning("warning: inner"));
                assert!(!take_warning("a notice"));
            });
            assert_eq!(inner, ["inner"]);
            assert!(take_warning("\nwarning: again"));
        });
        assert_eq!(warnings, ["outer", "again"]);
        assert!(!take_warning("warning: nobody listens"));
    }
}
