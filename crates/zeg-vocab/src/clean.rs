//! The cleaning that CLIP gives a text before it is cut into tokens.
//!
//! CLIP was trained on captions from the web that went through the Python package ftfy, so the same repairs belong to
//! the tokenizer: undo mojibake, decode HTML, replace curly quotes and full-width letters, drop control characters,
//! compose accents. They change nothing in ordinary class names. Follows `basic_clean` and `whitespace_clean` of
//! [openai/CLIP](https://github.com/openai/CLIP) and `fix_text` of
//! [ftfy](https://github.com/rspeer/python-ftfy) 6.3 with its default settings, in their order; the repair of mojibake is
//! another crate's, with the differences that `clean/mojibake.rs` names. Lone surrogates cannot occur here: a Rust string
//! cannot hold them.

mod characters;
mod html;
mod mojibake;

use regex::Regex;

use characters::{
    composed, single_spaces, split_ligatures, standard_width, straight_quotes, unix_line_breaks,
    without_controls,
};
use mojibake::fix_encoding;

/// Bound on repairs that repeat until nothing changes. Text needs two or three; the bound only guards against a cycle.
const MOST_ROUNDS: usize = 64;

/// Colours and cursor movements for a terminal.
const TERMINAL_ESCAPE: &str = r"\x1b\[[\d;]*[a-zA-Z]";

/// Cleans text the way CLIP does; build it once, it compiles its patterns.
#[derive(Debug)]
pub struct Cleaner {
    terminal_escape: Regex,
}

impl Cleaner {
    /// Builds the tables and patterns of the repairs.
    ///
    /// # Errors
    /// Only if a built-in pattern does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            terminal_escape: Regex::new(TERMINAL_ESCAPE)?,
        })
    }

    /// Repairs the text, decodes HTML twice, makes every run of white space one space, and lowers the case.
    pub fn clean(&self, text: &str) -> String {
        let text = self.fix_text(text);
        let text = html::unescape(&html::unescape(&text));
        single_spaces(&text).to_lowercase()
    }

    /// Repairs the text line by line.
    fn fix_text(&self, text: &str) -> String {
        // A literal < means that this is HTML, whose references are meant; from its line on they stay.
        let mut is_html = false;
        text.split_inclusive('\n')
            .map(|line| {
                is_html |= line.contains('<');
                self.fix_line(line, is_html)
            })
            .collect()
    }

    fn fix_line(&self, line: &str, is_html: bool) -> String {
        let mut line = line.to_owned();
        for _ in 0..MOST_ROUNDS {
            let fixed = self.fix_line_once(&line, is_html);
            if fixed == line {
                break;
            }
            line = fixed;
        }
        line
    }

    fn fix_line_once(&self, line: &str, is_html: bool) -> String {
        let line = if is_html {
            line.to_owned()
        } else {
            html::unescape_unambiguous(line)
        };
        let line = fix_encoding(&line);
        let line = split_ligatures(&line);
        let line = standard_width(&line);
        let line = straight_quotes(&line);
        let line = unix_line_breaks(&line);
        let line = self.terminal_escape.replace_all(&line, "");
        let line = without_controls(&line);
        composed(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_follows_clip() {
        let cleaner = Cleaner::new().unwrap();
        for (text, expected) in [
            ("a photo of a cat", "a photo of a cat"),
            ("  TWO\twords\n", "two words"),
            ("&amp;amp; double", "& double"),
            ("<b>&eacute;</b>", "<b>é</b>"),
            ("\u{1b}[36;44mblue\u{1b}[0m", "blue"),
            ("x\0y", "xy"),
            ("ΑΣ", "ας"),
            ("İ", "i\u{307}"),
            ("", ""),
        ] {
            assert_eq!(cleaner.clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn html_stays_html_from_its_line_on() {
        let cleaner = Cleaner::new().unwrap();
        assert_eq!(cleaner.fix_text("&lt;\n<\n&lt;\n"), "<\n<\n&lt;\n");
    }
}
