//! The end of a command on request: Ctrl-C, TERM, HUP, and the end of the process that started this one.

use std::{
    io, process, thread,
    time::{Duration, Instant},
};

/// Exit code of a command that was stopped on request.
pub(crate) const INTERRUPTED: u8 = 130;
/// Environment variable of a process that ends with the process that started it.
///
/// Its standard input is then a pipe that nothing is written into. The pipe ends when the other process closes it, or
/// when that process ends, by whatever cause.
pub(super) const ENDS_WITH_INPUT: &str = "ZEG_ENDS_WITH_INPUT";
/// Requests within this time of the first one are the same request: a terminal, a shell and a parent process may each
/// pass it on.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Calls a function when the user or the system asks the program to end; a later second request ends it at once.
pub(super) fn on_request(mut first: impl FnMut() + Send + 'static) {
    let mut before: Option<Instant> = None;
    // Without a handler a request ends the program at once, which loses work but damages nothing.
    let _ = ctrlc::set_handler(move || match before {
        None => {
            before = Some(Instant::now());
            first();
        }
        Some(before) if before.elapsed() < SAME_REQUEST => {}
        Some(_) => process::exit(INTERRUPTED.into()),
    });
}

/// Ends this process as TERM does when its standard input ends, if the process that started it asks for that.
pub(crate) fn end_with_input() {
    if std::env::var_os(ENDS_WITH_INPUT).is_none() {
        return;
    }
    // Without the thread the process ends when its work is done.
    let _ = thread::Builder::new().name("input".into()).spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        terminate();
    });
}

#[cfg(unix)]
fn terminate() {
    if nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).is_err() {
        process::exit(INTERRUPTED.into());
    }
}

#[cfg(not(unix))]
fn terminate() {
    process::exit(INTERRUPTED.into());
}
