//! Processes of this program that a command starts, and that stop when the command does.
//!
//! Each has a pipe as its standard input ([`super::interrupt`]). On a request to stop, the command closes the pipes and
//! waits: the processes finish their step, write their checkpoints and end. If the command itself is killed, the system
//! closes the pipes.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use zeg_base::{
    file,
    lock::{Lock, LockError},
};

use super::interrupt::{ENDS_WITH_INPUT, is_stop, on_request};

/// Time that a process of a killed command has to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// Time between two looks at a folder in use.
const PAUSE: Duration = Duration::from_millis(50);

/// The running processes of a command.
pub(super) struct Children(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_stopping: bool,
    /// The pipes that the processes end with, by the number of the process.
    pipes: BTreeMap<u32, ChildStdin>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    /// On request; the command ends, too.
    Stopped,
    /// With an error, which the text describes: `ended with exit code 1`.
    Badly(String),
}

impl Children {
    /// Returns a command without processes, which from now on stops them on request.
    pub(super) fn new() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        on_request(move || {
            print_notice!("\nstopping after this step; press Ctrl-C again to stop at once");
            let mut state = lock(&shared);
            state.is_stopping = true;
            state.pipes.clear();
        });
        Self(state)
    }

    /// Starts a process of this program and waits for its end; after a request to stop, no process starts.
    pub(super) fn run(&self, mut command: Command) -> anyhow::Result<Ended> {
        command.env(ENDS_WITH_INPUT, "1").stdin(Stdio::piped());
        let mut child = {
            let mut state = lock(&self.0);
            if state.is_stopping {
                return Ok(Ended::Stopped);
            }
            let mut child = command
                .spawn()
                .context("starting a process of this program")?;
            let pipe = child.stdin.take(); // waiting for the process would close it
            state.pipes.extend(pipe.map(|pipe| (child.id(), pipe)));
            child
        };
        let status = child.wait();
        let mut state = lock(&self.0);
        state.pipes.remove(&child.id());
        let status = status.context("waiting for a process of this program")?;
        Ok(match ended(status) {
            Ended::Badly(_) if state.is_stopping => Ended::Stopped,
            other => other,
        })
    }

    /// Waits until no process uses a folder: after a command was killed, its processes need a step to end.
    ///
    /// Their lock and their temporary files are removed.
    ///
    /// # Errors
    /// Returns an error if a process does not leave the folder.
    pub(super) fn wait_for_folder(&self, folder: &Path) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut is_said = false;
        while folder.is_dir() && !lock(&self.0).is_stopping {
            match Lock::of_folder(folder) {
                Ok(_lock) => {
                    file::remove_leftovers(folder);
                    break;
                }
                Err(error @ LockError::InUse { .. }) if started.elapsed() < PATIENCE => {
                    if !is_said {
                        print_notice!("waiting: {error}");
                        is_said = true;
                    }
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended(status: ExitStatus) -> Ended {
    match status.code() {
        Some(0) => Ended::Well,
        Some(code) if is_stop(code) => Ended::Stopped,
        Some(code) => Ended::Badly(format!("ended with exit code {code}")),
        None => by_signal(status),
    }
}

#[cfg(unix)]
fn by_signal(status: ExitStatus) -> Ended {
    use nix::sys::signal::Signal;
    use std::os::unix::process::ExitStatusExt as _;
    let signal = status.signal().map(Signal::try_from);
    match signal {
        // Before its handler is set, a request ends a process at once.
        Some(Ok(Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP)) => Ended::Stopped,
        Some(Ok(Signal::SIGKILL)) => {
            Ended::Badly("was killed, as a system does that runs out of memory".into())
        }
        Some(Ok(signal)) => Ended::Badly(format!("was ended by the signal {signal}")),
        _ => Ended::Badly("was ended by a signal".into()),
    }
}

#[cfg(not(unix))]
fn by_signal(_: ExitStatus) -> Ended {
    Ended::Stopped
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn processes_end_when_their_command_is_asked_to_end() {
        let children = Children(Arc::default());
        thread::scope(|scope| {
            // `cat` ends with its input, and the shell then says that it was stopped.
            let mut command = Command::new("sh");
            command.args(["-c", "cat; exit 130"]);
            let waiting = scope.spawn(|| children.run(command).unwrap());
            while lock(&children.0).pipes.is_empty() {
                thread::sleep(PAUSE);
            }
            let mut state = lock(&children.0);
            state.is_stopping = true;
            state.pipes.clear();
            drop(state);
            assert_eq!(waiting.join().unwrap(), Ended::Stopped);
        });
        assert_eq!(children.run(Command::new("false")).unwrap(), Ended::Stopped);
    }

    #[test]
    fn a_killed_process_is_an_error_and_a_stopped_one_is_not() {
        let children = Children(Arc::default());
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            children.run(command).unwrap()
        };
        assert_eq!(shell("exit 0"), Ended::Well);
        assert_eq!(shell("kill -TERM $$"), Ended::Stopped);
        assert_eq!(
            shell("exit 3"),
            Ended::Badly("ended with exit code 3".into())
        );
        assert!(matches!(shell("kill -KILL $$"), Ended::Badly(text) if text.contains("memory")));
    }
}
