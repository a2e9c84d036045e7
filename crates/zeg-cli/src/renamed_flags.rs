//! Flags that were renamed: the old name still works, and a warning gives the new one.

use std::ffi::{OsStr, OsString};

/// A flag that was renamed.
struct RenamedFlag {
    old: &'static str,
    new: &'static str,
    /// Values that were renamed with the flag, as pairs of the old and the new name.
    values: &'static [(&'static str, &'static str)],
}

/// All renamed flags. No command has a flag with an old name, so they are replaced whatever the command is.
const RENAMED: [RenamedFlag; 3] = [
    RenamedFlag {
        old: "--word-list",
        new: "--class-list",
        values: &[],
    },
    RenamedFlag {
        old: "--view",
        new: "--mode",
        values: &[("windows", "slide")],
    },
    RenamedFlag {
        old: "--pictures",
        new: "--images",
        values: &[],
    },
];

/// Arguments with the current names of flags.
pub(crate) struct Modernized {
    pub(crate) arguments: Vec<OsString>,
    /// One sentence for each old name that was replaced.
    pub(crate) notices: Vec<String>,
}

/// Replaces the old names of flags and of their values; everything after `--` stays as it is.
pub(crate) fn modernize(arguments: impl Iterator<Item = OsString>) -> Modernized {
    let mut modern = Modernized {
        arguments: Vec::new(),
        notices: Vec::new(),
    };
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            modern.arguments.push(argument);
            modern.arguments.extend(arguments);
            break;
        }
        let (name, inline) = split(&argument);
        let Some(flag) = RENAMED.iter().find(|flag| name == Some(flag.old)) else {
            modern.arguments.push(argument);
            continue;
        };
        let value = inline.map(OsString::from).or_else(|| {
            // A separate value is only taken if it was renamed; otherwise it follows as an argument of its own.
            arguments.next_if(|next| flag.new_value(next).is_some())
        });
        let renamed_value = value.as_deref().and_then(|value| flag.new_value(value));
        let mut text = OsString::from(flag.new);
        let mut notice = format!("`{}` is now called `{}`", flag.old, flag.new);
        if let Some(value) = value {
            text.push("=");
            text.push(renamed_value.map_or(value.as_os_str(), OsStr::new));
            if let Some(new) = renamed_value {
                notice = format!(
                    "`{} {}` is now called `{} {new}`",
                    flag.old,
                    value.display(),
                    flag.new
                );
            }
        }
        modern.arguments.push(text);
        modern.notices.push(notice);
    }
    modern
}

impl RenamedFlag {
    /// Returns the new name of a value that was renamed with its flag.
    fn new_value(&self, value: &OsStr) -> Option<&'static str> {
        let renamed = self.values.iter().find(|(old, _)| value == *old);
        renamed.map(|(_, new)| *new)
    }
}

/// Splits `--name=value` into name and value; there is no name if the argument is not UTF-8.
fn split(argument: &OsStr) -> (Option<&str>, Option<&str>) {
    match argument.to_str().and_then(|text| text.split_once('=')) {
        Some((name, value)) => (Some(name), Some(value)),
        None => (argument.to_str(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modern(arguments: &[&str]) -> (Vec<String>, Vec<String>) {
        let modern = modernize(arguments.iter().map(OsString::from));
        let texts = modern.arguments.into_iter();
        let texts = texts.map(|text| text.into_string().unwrap()).collect();
        (texts, modern.notices)
    }

    #[test]
    fn old_flags_get_their_new_names_with_a_notice() {
        let (arguments, notices) =
            modern(&["zeg", "eval", "--word-list", "voc21", "--view=windows"]);
        assert_eq!(
            arguments,
            ["zeg", "eval", "--class-list", "voc21", "--mode=slide"]
        );
        assert_eq!(
            notices,
            [
                "`--word-list` is now called `--class-list`",
                "`--view windows` is now called `--mode slide`"
            ]
        );
        let (arguments, _) = modern(&["zeg", "segment", "--view", "windows", "--view", "whole"]);
        assert_eq!(
            arguments,
            ["zeg", "segment", "--mode=slide", "--mode", "whole"]
        );
    }

    #[test]
    fn other_arguments_stay_as_they_are() {
        let plain = [
            "zeg", "segment", "a=b.png", "--mode", "whole", "--", "--view",
        ];
        assert_eq!(modern(&plain), (plain.map(str::to_owned).into(), vec![]));
    }
}
