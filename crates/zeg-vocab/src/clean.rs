//! Cleans a text as CLIP does before it is tokenized.
//!
//! CLIP was trained on captions from the web that were cleaned by the Python package ftfy, so the same repairs belong
//! to the tokenizer: repair mojibake, decode HTML, replace curly quotes and full-width letters, remove control
//! characters, and compose accents. They do not change ordinary class names. The steps follow `basic_clean` and
//! `whitespace_clean` of [openai/CLIP](https://github.com/openai/CLIP) and `fix_text` of
//! [ftfy](https://github.com/rspeer/python-ftfy) 6.3 with its default settings, in their order. Mojibake is repaired by
//! another crate, with the differences that `clean/mojibake.rs` names. Lone surrogates cannot occur, because a Rust
//! string cannot contain them.

mod characters;
mod html;
mod mojibake;

use regex::Regex;

use characters::{
    composed, single_spaces, split_ligatures, standard_width, straight_quotes, unix_line_breaks,
    without_controls,
};
use mojibake::fix_encoding;

/// Largest number of rounds of repairs, which repeat until nothing changes. Text needs two or three rounds; the bound
/// only prevents an endless cycle.
const MOST_ROUNDS: usize = 64;

/// Pattern of terminal escape sequences for colours and cursor movements.
const TERMINAL_ESCAPE: &str = r"\x1b\[[\d;]*[a-zA-Z]";

/// Cleans text as CLIP does. It compiles its patterns, so create it once and reuse it.
#[derive(Debug)]
pub struct Cleaner {
    terminal_escape: Regex,
}

impl Cleaner {
    /// Compiles the patterns of the repairs.
    ///
    /// # Errors
    /// Returns an error only if a built-in pattern does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            terminal_escape: Regex::new(TERMINAL_ESCAPE)?,
        })
    }

    /// Repairs the text, decodes HTML twice, replaces every run of white space by one space, and converts to lower
    /// case.
    pub fn clean(&self, text: &str) -> String {
        let text = self.fix_text(text);
        let text = html::unescape(&html::unescape(&text));
        single_spaces(&text).to_lowercase()
    }

    /// Repairs the text line by line.
    fn fix_text(&self, text: &str) -> String {
        // A literal < means that the text is HTML: from its line on, character references are not decoded here.
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
    fn character_references_are_kept_from_the_first_line_with_a_tag_on() {
        let cleaner = Cleaner::new().unwrap();
        assert_eq!(cleaner.fix_text("&lt;\n<\n&lt;\n"), "<\n<\n&lt;\n");
    }
}
