//! Progress and notices on standard error: a bar on a terminal, a line now and then elsewhere, nothing with `--quiet`.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two lines of progress where standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How much the program says on standard error beside errors and warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Normal,
    /// Neither progress nor notices.
    Quiet,
    /// Progress, notices and details.
    Verbose,
}

impl Verbosity {
    /// Returns what `--quiet` and `--verbose` mean.
    pub(crate) fn of_flags(quiet: bool, verbose: bool) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Verbose,
            (false, false) => Self::Normal,
        }
    }

    /// Returns the flag that gives a process of this program the same verbosity; none for the usual one.
    pub(crate) fn flag(self) -> Option<&'static str> {
        match self {
            Self::Normal => None,
            Self::Quiet => Some("--quiet"),
            Self::Verbose => Some("--verbose"),
        }
    }

    /// Prints a line that is neither an error nor a warning, unless the program is quiet.
    pub(crate) fn notice(self, text: impl Display) {
        if self != Self::Quiet {
            print_notice!("{text}");
        }
    }

    /// Prints a line that is only of interest where something is looked into, if the program is verbose.
    pub(crate) fn detail(self, text: impl Display) {
        if self == Self::Verbose {
            print_notice!("{text}");
        }
    }

    /// Starts the progress of a known number of steps.
    ///
    /// - `what`: what is being done, such as "scoring"
    /// - `unit`: what is counted, such as "images"
    pub(crate) fn progress(self, what: &'static str, unit: &'static str, length: u64) -> Progress {
        let progress = Progress::new(self, what, Unit::Items(unit));
        progress.set_length(length);
        progress
    }

    /// Starts the progress of a number of bytes, which need not be known yet.
    pub(crate) fn byte_progress(self, what: &'static str) -> Progress {
        Progress::new(self, what, Unit::Bytes)
    }
}

/// What progress is counted in.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Items(&'static str),
    Bytes,
}

impl Unit {
    /// Returns the template of the bar, or of a count if the length is not known.
    fn template(self, is_length_known: bool) -> &'static str {
        match (self, is_length_known) {
            (Self::Items(_), _) => {
                "{prefix:>10} [{bar:30}] {pos}/{len}  {per_sec}  {eta} left  {msg}"
            }
            (Self::Bytes, true) => {
                "{prefix:>10} [{bar:30}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left"
            }
            (Self::Bytes, false) => {
                "{prefix:>10} {decimal_bytes}  {decimal_bytes_per_sec}  {elapsed}"
            }
        }
    }

    fn style(self, is_length_known: bool) -> ProgressStyle {
        let style = ProgressStyle::with_template(self.template(is_length_known));
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ")
    }
}

/// Progress of one piece of work; it may be shared between threads.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    unit: Unit,
    /// Time of the last line, where lines take the place of the bar.
    last_line: Option<Mutex<Instant>>,
}

impl Progress {
    fn new(verbosity: Verbosity, what: &'static str, unit: Unit) -> Self {
        let bar = match verbosity {
            Verbosity::Normal | Verbosity::Verbose => {
                ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            }
            Verbosity::Quiet => ProgressBar::hidden(),
        };
        bar.set_style(unit.style(false));
        bar.set_prefix(what);
        let has_lines = verbosity != Verbosity::Quiet && bar.is_hidden();
        Self {
            bar,
            what,
            unit,
            last_line: has_lines.then(|| Mutex::new(Instant::now())),
        }
    }

    /// Starts anew at a position, for the next of several files.
    pub(crate) fn restart(&self, position: u64, length: Option<u64>) {
        if let Some(length) = length {
            self.set_length(length);
        } else {
            self.bar.unset_length();
            self.bar.set_style(self.unit.style(false));
        }
        self.bar.reset();
        self.set_position(position);
        self.bar.reset_eta(); // the rate counts what arrives from now on
        if !self.bar.is_hidden() {
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
    }

    pub(crate) fn set_length(&self, length: u64) {
        if self.bar.length() != Some(length) {
            self.bar.set_length(length);
            self.bar.set_style(self.unit.style(true));
        }
    }

    pub(crate) fn set_position(&self, position: u64) {
        self.bar.set_position(position);
        self.print_line_if_due();
    }

    pub(crate) fn inc(&self) {
        self.bar.inc(1);
        self.print_line_if_due();
    }

    /// Sets the text behind the numbers.
    pub(crate) fn set_message(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Prints something without disturbing the bar.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn print_line_if_due(&self) {
        let Some(last) = &self.last_line else {
            return;
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(*last, Instant::now()) {
            *last = Instant::now();
            print_notice!("{}", self.line());
        }
    }

    /// Returns the state as a line, such as `segmenting: 12 of 40 images`.
    fn line(&self) -> String {
        let (position, length) = (self.bar.position(), self.bar.length());
        let mut line = match (self.unit, length) {
            (Unit::Items(unit), Some(length)) => {
                format!("{}: {position} of {length} {unit}", self.what)
            }
            (Unit::Items(unit), None) => format!("{}: {position} {unit}", self.what),
            (Unit::Bytes, Some(length)) => format!(
                "{}: {} of {}",
                self.what,
                DecimalBytes(position),
                DecimalBytes(length)
            ),
            (Unit::Bytes, None) => format!("{}: {}", self.what, DecimalBytes(position)),
        };
        let message = self.bar.message();
        if !message.is_empty() {
            line.push_str(", ");
            line.push_str(&message);
        }
        line
    }
}

/// Whether a line follows one that was printed at `last`.
fn is_due(last: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last) >= LINE_INTERVAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_the_work_and_what_is_counted() {
        let progress = Verbosity::Quiet.progress("segmenting", "images", 40);
        (0..12).for_each(|_| progress.inc());
        assert_eq!(progress.line(), "segmenting: 12 of 40 images");
        progress.set_message("loss 0.5".to_owned());
        assert_eq!(progress.line(), "segmenting: 12 of 40 images, loss 0.5");

        let progress = Verbosity::Quiet.byte_progress("pulling");
        progress.restart(1_500_000, None);
        assert_eq!(progress.line(), "pulling: 1.50 MB");
        progress.restart(0, Some(3_000_000));
        assert_eq!(progress.line(), "pulling: 0 B of 3.00 MB");
    }

    #[test]
    fn a_line_follows_another_after_the_interval() {
        let start = Instant::now();
        assert!(!is_due(start, start));
        assert!(!is_due(start, start + LINE_INTERVAL / 2));
        assert!(is_due(start, start + LINE_INTERVAL));
    }

    #[test]
    fn all_templates_are_valid() {
        for unit in [Unit::Items("images"), Unit::Bytes] {
            for is_length_known in [false, true] {
                assert!(ProgressStyle::with_template(unit.template(is_length_known)).is_ok());
            }
        }
    }
}
