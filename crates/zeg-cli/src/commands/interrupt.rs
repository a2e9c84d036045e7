//! The end of a command on request: Ctrl-C, TERM, HUP, and the end of the process that started this one.
//!
//! The first request lets a command finish its step, the second ends the program at once. Signals belong to the
//! process, so their state is the one global of this crate. On Unix they are blocked in every thread, and one thread
//! waits for them: only so is it known which signal came, and with it the exit code.

use std::{
    io,
    path::PathBuf,
    process::{self, ExitCode},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use zeg_base::file::remove_temporaries;

use crate::host;

/// Environment variable of a process that ends with the process that started it.
///
/// Its standard input is then a pipe that nothing is written into. The pipe ends when the other process closes it, or
/// when that process ends, by whatever cause.
pub(super) const ENDS_WITH_INPUT: &str = "ZEG_ENDS_WITH_INPUT";
/// Number that shells add to that of a signal.
const SIGNALLED: u8 = 128;
/// Number of the signal of Ctrl-C.
const INT: u8 = 2;
/// Number of the signal of a request to terminate.
const TERM: u8 = 15;
/// The signals that end the program: hangup, Ctrl-C, termination.
const NUMBERS: [u8; 3] = [1, INT, TERM];
/// The same signal within this time is the same request: `timeout` sends one to the process and one to its group.
const SAME_REQUEST: Duration = Duration::from_millis(100);

/// A function that is called on the first request.
type Hook = Box<dyn FnMut() + Send>;

/// State of the requests to end this process.
struct Requests {
    /// Is set by the first request.
    flag: Arc<AtomicBool>,
    /// Number of the signal of the last request.
    signal: AtomicU8,
    /// Functions that are called on the first request; without one, it ends the program at once.
    hooks: Mutex<Vec<Hook>>,
    /// Folders whose temporary files are removed before the program ends at once.
    folders: Mutex<Vec<PathBuf>>,
}

static REQUESTS: LazyLock<Requests> = LazyLock::new(|| Requests {
    flag: Arc::new(AtomicBool::new(false)),
    signal: AtomicU8::new(INT),
    hooks: Mutex::new(Vec::new()),
    folders: Mutex::new(Vec::new()),
});

/// Starts to wait for requests; the program calls it before it starts any other thread.
pub(crate) fn begin() {
    static BEGUN: LazyLock<()> = LazyLock::new(|| {
        platform::begin();
        end_with_input();
    });
    LazyLock::force(&BEGUN);
}

/// Calls a function when the user or the system asks the program to end; a second request ends it at once.
///
/// Nothing is called in a command that another program has called, which stops it by a flag.
pub(super) fn on_request(first: impl FnMut() + Send + 'static) {
    if host::is_called() {
        return;
    }
    let mut hooks = REQUESTS
        .hooks
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    hooks.push(Box::new(first));
}

/// Returns a flag that is set by the first request, or by the program that has called the command.
pub(super) fn flag() -> Arc<AtomicBool> {
    host::stop().unwrap_or_else(|| Arc::clone(&REQUESTS.flag))
}

/// Names folders into which this process writes: no temporary file stays in them if the program ends at once.
pub(super) fn clean_up(folders: impl IntoIterator<Item = PathBuf>) {
    if host::is_called() {
        return; // signals are the calling program's
    }
    let list = REQUESTS.folders.lock();
    list.unwrap_or_else(PoisonError::into_inner).extend(folders);
}

/// Returns the exit code of a command that was stopped on request: 128 and the number of the signal.
pub(super) fn exit_code() -> ExitCode {
    ExitCode::from(code())
}

/// Returns the number of [`exit_code`].
pub(super) fn code() -> u8 {
    SIGNALLED + REQUESTS.signal.load(Ordering::SeqCst)
}

/// Whether the exit code of a process of this program says that it was stopped on request.
pub(super) fn is_stop(code: i32) -> bool {
    NUMBERS
        .iter()
        .any(|number| code == i32::from(SIGNALLED + number))
}

/// Acts on a signal.
///
/// - `before`: number and time of the last signal
fn receive(signal: u8, before: &mut Option<(u8, Instant)>) {
    let is_same =
        before.is_some_and(|(number, time)| number == signal && time.elapsed() < SAME_REQUEST);
    if is_same {
        return;
    }
    *before = Some((signal, Instant::now()));
    if !request(signal) {
        end_at_once(signal);
    }
}

/// Asks the command to end after its step; returns false if it was asked before, or cannot be asked.
fn request(signal: u8) -> bool {
    let mut hooks = REQUESTS
        .hooks
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    REQUESTS.signal.store(signal, Ordering::SeqCst);
    if hooks.is_empty() || REQUESTS.flag.swap(true, Ordering::SeqCst) {
        return false;
    }
    // A hook may print, and a reader that has stopped reading must not keep this thread from the second request.
    let mut hooks = std::mem::take(&mut *hooks);
    thread::spawn(move || {
        for hook in &mut hooks {
            hook();
        }
    });
    true
}

/// Removes the temporary files of this process from the folders that it writes into.
pub(crate) fn remove_temporary_files() {
    let folders = REQUESTS.folders.lock();
    for folder in folders.unwrap_or_else(PoisonError::into_inner).iter() {
        remove_temporaries(folder, &[process::id()]);
    }
}

fn end_at_once(signal: u8) -> ! {
    remove_temporary_files();
    process::exit(i32::from(SIGNALLED + signal))
}

/// Asks the command to end when standard input ends, if the process that started this one wants that.
fn end_with_input() {
    if std::env::var_os(ENDS_WITH_INPUT).is_none() {
        return;
    }
    // Without the thread the process ends when its work is done.
    let _ = thread::Builder::new().name("input".into()).spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        // After a signal, this is the same request once more.
        let is_asked = REQUESTS.flag.load(Ordering::SeqCst);
        if !is_asked && !request(TERM) && !REQUESTS.flag.load(Ordering::SeqCst) {
            end_at_once(TERM);
        }
    });
}

#[cfg(unix)]
mod platform {
    use nix::sys::signal::{SigSet, Signal};

    pub(super) fn begin() {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            signals.add(signal);
        }
        if !ignores_hangup() {
            signals.add(Signal::SIGHUP);
        }
        let mut blocked = signals;
        // A file beyond the size limit of the process is then an error of writing, which is reported.
        blocked.add(Signal::SIGXFSZ);
        // Without this, a signal ends the program at once, which loses work but damages nothing.
        if blocked.thread_block().is_err() {
            return;
        }
        let watcher = std::thread::Builder::new().name("signals".into());
        let started = watcher.spawn(move || {
            let mut before = None;
            while let Ok(signal) = signals.wait() {
                super::receive(signal as u8, &mut before);
            }
        });
        if started.is_err() {
            let _ = signals.thread_unblock();
        }
    }

    /// Whether the process was started with hangups ignored, as `nohup` does.
    fn ignores_hangup() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        ignored(&status).is_some_and(|mask| mask & 1 == 1)
    }

    /// Returns the ignored signals of a process's status in `/proc`: bit 0 for signal 1.
    pub(super) fn ignored(status: &str) -> Option<u64> {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    }
}

#[cfg(not(unix))]
mod platform {
    pub(super) fn begin() {
        let mut before = None;
        let _ = ctrlc::set_handler(move || super::receive(super::INT, &mut before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        for code in [129, 130, 143] {
            assert!(is_stop(code));
        }
        for code in [0, 1, 2, 101, 128, 137] {
            assert!(!is_stop(code));
        }
    }

    #[cfg(unix)]
    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tzeg\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n";
        assert_eq!(platform::ignored(status), Some(0x1001));
        assert_eq!(platform::ignored("Name:\tzeg\n"), None);
    }
}
