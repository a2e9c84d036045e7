//! Signals that end the program: the first lets a command finish its step, the second ends the program at once.
//!
//! Signals belong to the process, so their state is the one global of this crate. On Unix they are blocked in every
//! thread, and one thread waits for them: only so is it known which signal came, and with it the exit code.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use zeg_base::file::remove_temporaries;

/// Number that shells add to that of a signal.
const SIGNALLED: u8 = 128;
/// The signals that end the program: hangup, Ctrl-C, termination.
const NUMBERS: [u8; 3] = [1, 2, 15];

/// State of the signals of this process.
#[derive(Debug)]
struct Stop {
    /// Is set by the first signal.
    flag: Arc<AtomicBool>,
    /// Whether a command looks at the flag; otherwise the first signal ends the program at once.
    watched: AtomicBool,
    /// Number of the last signal.
    signal: AtomicU8,
    /// Folders whose temporary files are removed before the program ends at once.
    folders: Mutex<Vec<PathBuf>>,
}

static STOP: LazyLock<Stop> = LazyLock::new(|| Stop {
    flag: Arc::new(AtomicBool::new(false)),
    watched: AtomicBool::new(false),
    signal: AtomicU8::new(2),
    folders: Mutex::new(Vec::new()),
});

/// Starts to wait for signals; the program calls it before it starts any other thread.
pub(crate) fn begin() {
    static BEGUN: LazyLock<()> = LazyLock::new(platform::begin);
    LazyLock::force(&BEGUN);
}

/// Returns a flag that is set by the first signal; a second one ends the program at once.
pub(crate) fn flag() -> Arc<AtomicBool> {
    STOP.watched.store(true, Ordering::SeqCst);
    Arc::clone(&STOP.flag)
}

/// Names folders into which this process writes: no temporary file stays in them if a second signal ends the program.
pub(crate) fn clean_up(folders: impl IntoIterator<Item = PathBuf>) {
    let mut list = STOP.folders.lock().unwrap_or_else(PoisonError::into_inner);
    list.extend(folders);
}

/// Returns the exit code of a program that a signal stopped: 128 and the number of the signal.
pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(SIGNALLED + STOP.signal.load(Ordering::SeqCst))
}

/// Whether the exit code of a process of this program says that a signal stopped it.
pub(crate) fn is_stop(code: i32) -> bool {
    NUMBERS
        .iter()
        .any(|number| code == i32::from(SIGNALLED + number))
}

/// Acts on a signal.
fn receive(signal: u8) {
    STOP.signal.store(signal, Ordering::SeqCst);
    if !STOP.watched.load(Ordering::SeqCst) || STOP.flag.swap(true, Ordering::SeqCst) {
        let folders = STOP.folders.lock().unwrap_or_else(PoisonError::into_inner);
        for folder in folders.iter() {
            remove_temporaries(folder, &[std::process::id()]);
        }
        std::process::exit(i32::from(SIGNALLED + signal));
    }
    // A reader that has stopped reading must not keep this thread from the second signal.
    std::thread::spawn(|| {
        print_notice!("\nstopping after this step; press Ctrl-C again to stop at once");
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
            while let Ok(signal) = signals.wait() {
                super::receive(signal as u8);
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
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    }
}

#[cfg(not(unix))]
mod platform {
    pub(super) fn begin() {
        let _ = ctrlc::set_handler(|| super::receive(2));
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
