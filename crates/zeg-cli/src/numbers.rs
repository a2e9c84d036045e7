//! Numbers and other values on the command line: every option of a command parses them with these functions.
//!
//! A value that is out of range is refused by the parser of the command line, so the exit code is 2 before any file is
//! opened.

use std::{any::TypeId, thread};

use clap::Arg;
use zeg_base::numbers::Legal;

/// Largest number of threads or processes, as a multiple of the cores.
const MOST_PER_CORE: usize = 4;

/// An argument that is wrong whatever the files hold; the exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongArgument(pub(crate) String);

/// Parses a whole number of at least 1.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    at_least(text, 1)
}

/// Parses a whole number of at least 1, of 64 bits on every machine.
pub(crate) fn count_u64(text: &str) -> Result<u64, String> {
    count(text).map(|number| number as u64)
}

/// Parses a whole number of at least 2.
pub(crate) fn at_least_two(text: &str) -> Result<usize, String> {
    at_least(text, 2)
}

/// Parses a whole number; 0 is legal and has a meaning of its own.
pub(crate) fn count_or_zero(text: &str) -> Result<usize, String> {
    at_least(text, 0)
}

/// Parses a whole number of at least 0, of 64 bits on every machine.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    let number = text.trim().parse();
    number.map_err(|_| "must be a whole number of at least 0 and below 2^64".to_owned())
}

/// Parses a number of pixels; 0 is legal.
pub(crate) fn area(text: &str) -> Result<u64, String> {
    count_or_zero(text).map(|number| number as u64)
}

fn at_least(text: &str, least: usize) -> Result<usize, String> {
    match text.trim().parse::<u64>().map(usize::try_from) {
        Ok(Ok(number)) if number >= least => Ok(number),
        Ok(Err(_)) => Err("the number is too large".to_owned()),
        _ => Err(format!("must be a whole number of at least {least}")),
    }
}

/// Parses a finite number.
pub(crate) fn finite(text: &str) -> Result<f32, String> {
    single(text, Legal::Finite)
}

/// Parses a finite number above 0.
pub(crate) fn positive(text: &str) -> Result<f32, String> {
    single(text, Legal::Positive)
}

/// Parses a finite number above 0, of 64 bits.
pub(crate) fn positive_f64(text: &str) -> Result<f64, String> {
    double(text, Legal::Positive)
}

/// Parses a number from 0 to 1.
pub(crate) fn probability(text: &str) -> Result<f32, String> {
    single(text, Legal::Probability)
}

fn single(text: &str, legal: Legal) -> Result<f32, String> {
    // A number such as 1e39 is finite, but not with 32 bits.
    let number = double(text, legal)? as f32;
    if legal.accepts(f64::from(number)) {
        return Ok(number);
    }
    Err(legal.text().to_owned())
}

fn double(text: &str, legal: Legal) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if legal.accepts(number) => Ok(number),
        _ => Err(legal.text().to_owned()),
    }
}

/// Parses a change of a setting, such as `training.steps=100`; the key is looked up later.
pub(crate) fn change(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _))
            if !key.trim().is_empty() && !key.split('.').any(|part| part.trim().is_empty()) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("write key=value, such as training.steps=100".to_owned()),
    }
}

/// Returns a number of threads or processes, reduced to four times the cores; prints a warning if it is reduced.
///
/// More threads than that cost memory and time and gain nothing, and thousands of them stop the whole machine.
///
/// - `option`: the option, as the user writes it
pub(crate) fn capped(option: &str, wanted: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let most = MOST_PER_CORE * cores;
    if wanted > most {
        print_notice!(
            "warning: {option} {wanted}: {most} are used, {MOST_PER_CORE} for each of the {cores} cores; lower {option} to avoid this warning"
        );
    }
    wanted.min(most)
}

/// Lets every option that takes a number also take a negative one, such as `--seen-offset -0.1`.
///
/// Without this, `-0.1` would be read as options. A number that must not be negative is then refused with the range of
/// the option. An option whose value may be left out takes only plain negative numbers, so that another option can
/// follow it.
pub(crate) fn accept_negative_numbers(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            if !arg.get_action().takes_values() || !is_number(&arg) {
                return arg;
            }
            let needs_value = arg
                .get_num_args()
                .is_none_or(|range| range.min_values() > 0);
            if needs_value {
                arg.allow_hyphen_values(true)
            } else {
                arg.allow_negative_numbers(true)
            }
        })
        .mut_subcommands(accept_negative_numbers)
}

fn is_number(arg: &Arg) -> bool {
    let id = arg.get_value_parser().type_id();
    let numbers = [
        TypeId::of::<f32>(),
        TypeId::of::<f64>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
    ];
    numbers.iter().any(|number| id == *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused_where_they_enter() {
        assert_eq!(count("8"), Ok(8));
        assert_eq!(count_or_zero("0"), Ok(0));
        assert_eq!(count_u64(" 3 "), Ok(3));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(finite("-0.1"), Ok(-0.1));
        assert_eq!(probability("1"), Ok(1.0));
        assert_eq!(positive_f64("1e-3"), Ok(1e-3));
        for text in ["0", "-5", "1.5", "", "x", "99999999999999999999999", "NaN"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(at_least_two("1").is_err() && at_least_two("2").is_ok());
        for text in ["nan", "inf", "-inf", "1e39", "", "0,1"] {
            assert!(finite(text).is_err(), "{text}");
            assert!(positive(text).is_err(), "{text}");
            assert!(probability(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "1e-60"] {
            assert!(positive(text).is_err(), "{text}");
        }
        assert!(probability("1.01").is_err() && probability("-0.01").is_err());
    }

    #[test]
    fn a_change_has_a_key_and_a_value() {
        for text in ["training.steps=100", "a = b=c", "data.unseen="] {
            assert_eq!(change(text).as_deref(), Ok(text));
        }
        for text in ["", "training.steps", "=5", ".=5", "training..steps=5"] {
            assert!(change(text).is_err(), "{text}");
        }
    }

    #[test]
    fn threads_are_capped_at_a_multiple_of_the_cores() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(capped("--threads", 1), 1);
        assert_eq!(capped("--threads", 99_999_999), MOST_PER_CORE * cores);
    }
}
