//! Repairs mojibake: text that was written as UTF-8 and read in a single-byte encoding.
//!
//! Mojibake is detected and repaired by the crate [plsfix](https://github.com/kevinhu/plsfix), a port of
//! [ftfy](https://github.com/rspeer/python-ftfy) that follows an older version of its heuristic. `tests/tokenizer.rs`
//! counts the differences from ftfy 6.3.1.

use std::{ops::RangeInclusive, panic};

use plsfix::{TextFixerConfig, fix_and_explain};

use super::characters::windows_1252_byte;

/// Enables only the repairs of encodings. The crate decodes HTML in spite of this setting, hence [`STAND_INS`].
const REPAIRS: TextFixerConfig = TextFixerConfig {
    fix_encoding: true,
    restore_byte_a0: true,
    replace_lossy_sequences: true,
    decode_inconsistent_utf8: true,
    fix_c1_controls: true,
    unescape_html: Some(false),
    remove_terminal_escapes: false,
    fix_latin_ligatures: false,
    fix_character_width: false,
    uncurl_quotes: false,
    fix_line_breaks: false,
    remove_control_chars: false,
    normalization: None,
    max_decode_length: i32::MAX,
};

/// Largest number of bytes of a repaired line; longer lines are not changed. The crate panics when a regular expression
/// needs a million steps, of which each character takes a few, and it needs quadratic time for some lines.
const LONGEST_LINE: usize = 1 << 14;

/// Control characters, one of which replaces the ampersands of a line. They have no meaning to the crate, like an
/// ampersand, and are removed from the text later.
const STAND_INS: RangeInclusive<char> = '\u{1}'..='\u{8}';

/// Characters that occur inside a word only if they are a byte of another character.
const MARKS: &str = "°¡¿«‹“„‘‚";

/// Repairs one line, including C1 controls that are characters of Windows-1252. ASCII text needs no repair.
pub(super) fn fix_encoding(line: &str) -> String {
    if line.is_ascii() || line.len() > LONGEST_LINE {
        return line.to_owned();
    }
    let Some(stand_in) = STAND_INS.into_iter().find(|c| !line.contains(*c)) else {
        return line.to_owned();
    };
    let hidden = line.replace('&', stand_in.encode_utf8(&mut [0; 4]));
    match repair(hidden) {
        Some(fixed) => fixed.replace(stand_in, "&"),
        None => line.to_owned(),
    }
}

/// Repairs a line without ampersands; returns `None` if the crate panics, so that its panic never ends the program.
///
/// No line of at most [`LONGEST_LINE`] bytes is known to cause a panic. If there is one, the panic hook of the program
/// writes its message to stderr: the hook belongs to the program, and a library must not replace it.
fn repair(mut line: String) -> Option<String> {
    loop {
        let fixed = panic::catch_unwind(|| fix_and_explain(&line, false, Some(&REPAIRS)).text);
        let fixed = fixed.ok()?;
        // The loop ends because every repaired line is shorter than the one before.
        match reread_marked(&fixed) {
            Some(reread) => line = reread,
            None => return Some(fixed),
        }
    }
}

/// Decodes the line as UTF-8 that was read as Windows-1252, if one of [`MARKS`] follows Ã, Ä or Å inside a word; these
/// are the first bytes of accented Latin letters. The crate does not recognise `Å¡uo` (šuo) and `Ä°stanbul` (İstanbul).
fn reread_marked(line: &str) -> Option<String> {
    let (second, third) = (line.chars().skip(1), line.chars().skip(2));
    let is_marked = line
        .chars()
        .zip(second)
        .zip(third)
        .any(|((lead, mark), next)| {
            ('Ã'..='Å').contains(&lead) && MARKS.contains(mark) && next.is_alphabetic()
        });
    if !is_marked {
        return None;
    }
    let bytes: Option<Vec<u8>> = line.chars().map(windows_1252_byte).collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Letters, marks and controls that are bytes of UTF-8 in some encoding, and some that are not.
    const LETTERS: &[char] = &[
        'a',
        'Z',
        '5',
        ' ',
        '?',
        '.',
        '×',
        'Ø',
        'Ã',
        'Â',
        'Å',
        'à',
        'â',
        'í',
        'ð',
        'ó',
        '€',
        '™',
        '¢',
        '°',
        '«',
        '“',
        '„',
        'œ',
        'Š',
        'š',
        'ž',
        'В',
        'Г',
        'Р',
        'С',
        'р',
        'Ђ',
        'Ρ',
        'β',
        'Γ',
        '√',
        '±',
        '≈',
        '‚',
        'Ä',
        'î',
        '\u{a0}',
        '\u{ad}',
        '\u{80}',
        '\u{81}',
        '\u{8d}',
        '\u{90}',
        '\u{9f}',
        '\u{1a}',
        '\u{fffd}',
        '─',
        '║',
        '日',
        '語',
        '\u{301}',
        '😀',
        '\u{10ffff}',
        '\u{ed}',
        'À',
        '³',
        '²',
        '´',
        '–',
        '\u{2029}',
    ];

    /// Expected values: `ftfy.fix_encoding` 6.3.1.
    #[test]
    fn encodings_are_repaired() {
        for (text, expected) in [
            ("schÃ¶n", "schön"),
            ("âœ” No problems", "✔ No problems"),
            ("voilÃ le travail", "voilà le travail"),
            ("Ã la mode", "à la mode"),
            ("â€œlike thisâ€�", "“like this�"),
            ("РїСЂРёРІРµС‚ РјРёСЂ", "привет мир"),
            ("ÃƒÂ¶", "ö"),
            ("schön, Ã¶ 日本", "schön, ö 日本"),
            ("100\u{80} \u{93}x\u{94}", "100€ “x”"),
            ("日本 \u{93}x\u{94}", "日本 “x”"),
            ("schön", "schön"),
            ("naïve café", "naïve café"),
            ("привет мир", "привет мир"),
            ("IL Y MARQUÉ…", "IL Y MARQUÉ…"),
            ("Å¡uo ir katÄ—", "šuo ir katė"),
            ("Ã…â€œuf", "œuf"),
        ] {
            assert_eq!(fix_encoding(text), expected, "{text}");
        }
    }

    #[test]
    fn html_is_not_decoded() {
        assert_eq!(fix_encoding("&lt;schÃ¶n&GT;"), "&lt;schön&GT;");
        assert_eq!(fix_encoding("\u{1}&lt;schÃ¶n"), "\u{1}&lt;schön");
        let all_stand_ins: String = STAND_INS.chain("&lt;schÃ¶n".chars()).collect();
        assert_eq!(fix_encoding(&all_stand_ins), all_stand_ins);
    }

    /// `fix_and_explain` panics on each of these lines.
    #[test]
    fn long_lines_do_not_panic() {
        for unit in ["a", "é", "Ã©", "日"] {
            let line = format!("日\u{80}{}", unit.repeat(300_000));
            assert_eq!(fix_encoding(&line), line);
        }
    }

    /// The limit on the length of a line avoids the known panics; an unknown one must not end the program.
    #[test]
    fn a_panic_of_the_crate_is_caught() {
        let line = format!("日\u{80}{}", "Ã©".repeat(300_000));
        let panics = || fix_and_explain(&line, false, Some(&REPAIRS));
        assert!(
            panic::catch_unwind(panics).is_err(),
            "it repairs such lines now"
        );
        assert_eq!(repair(line.clone()), None);
    }

    proptest! {
        /// Tests lines of characters that occur in mojibake, up to the largest length that is repaired.
        #[test]
        fn no_line_of_this_length_makes_the_crate_panic(
            letters in prop::collection::vec(prop::sample::select(LETTERS), 1..40),
            times in 1_usize..LONGEST_LINE,
        ) {
            let unit: String = letters.into_iter().collect();
            let times = times.min(LONGEST_LINE / unit.len()).max(1);
            prop_assert!(repair(unit.repeat(times)).is_some());
        }
    }

    #[test]
    fn the_longest_lines_are_repaired() {
        for unit in ["é", "Ã©", "日", "â€™x", "í\u{a0}\u{80}", "\u{80}"] {
            let line = format!("日\u{80}{}", unit.repeat((LONGEST_LINE - 5) / unit.len()));
            assert_ne!(fix_encoding(&line), line);
        }
    }
}
