//! Text on standard output and standard error, whatever became of its reader.
//!
//! `println!` and `eprintln!` panic if the output is full or its reader is gone, which ends a training with its model
//! unwritten. This program prints through this module instead, and clippy forbids the two macros. Standard error holds
//! notices, and a notice that cannot be shown is dropped: the work goes on. Standard output holds results: a closed
//! pipe needs no more of them, and every other failure is an error.

use std::{
    fmt,
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::host;

/// Whether this process prints nothing, because it is one of several ranks and another one prints.
static MUTE: AtomicBool = AtomicBool::new(false);

/// Results could not be written to standard output.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
pub(crate) struct StdoutError(#[from] io::Error);

/// Prints a line of results to standard output, with the arguments of `println!`.
///
/// The value is that of [`result_line`].
macro_rules! print_result {
    ($($argument:tt)*) => { $crate::say::result_line(format_args!($($argument)*)) };
}

/// Prints a line to standard error, with the arguments of `eprintln!`; a line that cannot be shown is dropped.
macro_rules! print_notice {
    ($($argument:tt)*) => { $crate::say::notice_line(format_args!($($argument)*)) };
}

/// Drops everything that is printed from now on; the first of several ranks prints for all.
pub(crate) fn mute() {
    MUTE.store(true, Ordering::SeqCst);
}

/// Prints again, for an error of this rank.
pub(crate) fn unmute() {
    MUTE.store(false, Ordering::SeqCst);
}

/// Returns whether everything that is printed is dropped.
pub(crate) fn is_mute() -> bool {
    MUTE.load(Ordering::SeqCst)
}

/// Prints a line of results to standard output; a closed pipe is no error.
///
/// # Errors
/// Returns an error if standard output cannot be written, for instance because a disk is full.
pub(crate) fn result_line(text: fmt::Arguments<'_>) -> Result<(), StdoutError> {
    if is_mute() {
        return Ok(());
    }
    line(&mut io::stdout().lock(), text)
}

/// Prints text that ends its last line itself to standard output; a closed pipe is no error.
///
/// # Errors
/// As for [`result_line`].
pub(crate) fn result_text(text: &[u8]) -> Result<(), StdoutError> {
    if is_mute() {
        return Ok(());
    }
    whole(&mut io::stdout().lock(), text)
}

/// Prints a line to standard error, or drops it; a program that has called the command gets the warnings.
pub(crate) fn notice_line(text: fmt::Arguments<'_>) {
    if is_mute() || host::is_called() && host::take_warning(&text.to_string()) {
        return;
    }
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn line(output: &mut impl io::Write, text: fmt::Arguments<'_>) -> Result<(), StdoutError> {
    // One write per line: two processes that share the output do not mix their lines.
    whole(output, format!("{text}\n").as_bytes())
}

fn whole(output: &mut impl io::Write, text: &[u8]) -> Result<(), StdoutError> {
    let written = output.write_all(text).and_then(|()| output.flush());
    Ok(unless_closed(written)?)
}

/// Ignores the error of a pipe whose reader is gone.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that fails with an error of one kind.
    struct Failing(io::ErrorKind);

    impl io::Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_an_error() {
        let print = |kind| line(&mut Failing(kind), format_args!("{}", 1));
        assert!(print(io::ErrorKind::BrokenPipe).is_ok());
        let error = print(io::ErrorKind::StorageFull).unwrap_err().to_string();
        assert!(error.starts_with("standard output"), "{error}");
    }

    #[test]
    fn a_line_arrives_with_its_end() {
        let mut output = Vec::new();
        line(&mut output, format_args!("{} of {}", 1, 2)).unwrap();
        assert_eq!(output, b"1 of 2\n");
    }
}
