//! Repairs of single characters or of a few adjacent ones.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// Characters of the bytes `0x80..=0x9F` in Windows-1252; undefined bytes are the control character of the same number,
/// as in the [WHATWG index](https://encoding.spec.whatwg.org/index-windows-1252.txt).
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Returns the Windows-1252 character of a C1 control character; any other character is returned unchanged.
pub(super) fn c1_as_windows_1252(c: char) -> char {
    match c {
        '\u{80}'..='\u{9f}' => WINDOWS_1252[c as usize - 0x80],
        _ => c,
    }
}

/// Returns the byte that encodes this character in Windows-1252.
pub(super) fn windows_1252_byte(c: char) -> Option<u8> {
    match c {
        '\0'..='\u{7f}' | '\u{a0}'..='\u{ff}' => u8::try_from(c).ok(),
        _ => (0x80..)
            .zip(WINDOWS_1252)
            .find_map(|(byte, meaning)| (c == meaning).then_some(byte)),
    }
}

/// Splits ligatures and digraphs of Latin letters (ﬁ → fi), which come from typesetting or old code pages.
pub(super) fn split_ligatures(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let mut buffer = [0; 4];
        out.push_str(match c {
            'Ĳ' => "IJ",
            'ĳ' => "ij",
            'ŉ' => "ʼn",
            'Ǳ' => "DZ",
            'ǲ' => "Dz",
            'ǳ' => "dz",
            'Ǆ' => "DŽ",
            'ǅ' => "Dž",
            'ǆ' => "dž",
            'Ǉ' => "LJ",
            'ǈ' => "Lj",
            'ǉ' => "lj",
            'Ǌ' => "NJ",
            'ǋ' => "Nj",
            'ǌ' => "nj",
            'ﬀ' => "ff",
            'ﬁ' => "fi",
            'ﬂ' => "fl",
            'ﬃ' => "ffi",
            'ﬄ' => "ffl",
            'ﬅ' => "ſt",
            'ﬆ' => "st",
            other => other.encode_utf8(&mut buffer),
        });
    }
    out
}

/// Replaces full-width Latin and half-width Katakana and Hangul by their usual forms, and U+3000 by a space.
pub(super) fn standard_width(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{3000}' => out.push(' '),
            '\u{ff01}'..='\u{ffef}' => out.extend(std::iter::once(c).nfkc()),
            _ => out.push(c),
        }
    }
    out
}

/// Replaces curly quotation marks, and the modifier apostrophe, by straight ones.
pub(super) fn straight_quotes(text: &str) -> String {
    let straight = |c| match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        other => other,
    };
    text.chars().map(straight).collect()
}

/// Writes every line break as `\n`.
pub(super) fn unix_line_breaks(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n")
}

/// Removes control characters that have no effect on the text or do not belong in it. Characters that shape glyphs or
/// separate words are kept.
pub(super) fn without_controls(text: &str) -> String {
    let dropped = |c: &char| {
        matches!(c,
            '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}'
            | '\u{206a}'..='\u{206f}' // deprecated Arabic forms
            | '\u{feff}' // byte order mark
            | '\u{fff9}'..='\u{fffc}') // annotations and the object replacement character
    };
    text.chars().filter(|c| !dropped(c)).collect()
}

/// Applies canonical composition (NFC).
pub(super) fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// Trims the text and replaces every run of white space by one space.
pub(super) fn single_spaces(text: &str) -> Cow<'_, str> {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else {
        return Cow::Borrowed("");
    };
    let Some(second) = words.next() else {
        return Cow::Borrowed(first);
    };
    let mut out = format!("{first} {second}");
    for word in words {
        out.push(' ');
        out.push_str(word);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_1252_is_read_and_written() {
        assert_eq!(c1_as_windows_1252('\u{85}'), '…');
        assert_eq!(c1_as_windows_1252('\u{81}'), '\u{81}');
        assert_eq!(c1_as_windows_1252('é'), 'é');
        for byte in 0..=255 {
            let read = c1_as_windows_1252(char::from(byte));
            assert_eq!(windows_1252_byte(read), Some(byte));
        }
        assert_eq!(windows_1252_byte('\u{80}'), None);
        assert_eq!(windows_1252_byte('日'), None);
    }

    #[test]
    fn characters_are_replaced() {
        assert_eq!(split_ligatures("ﬂuﬃeﬆ ĳ"), "fluffiest ij");
        assert_eq!(standard_width("ＬＯＵＤ　Ｕﾀｰﾝ￣"), "LOUD Uターン \u{304}");
        assert_eq!(straight_quotes("“it’s” ʼn ‛‟"), "\"it's\" 'n '\"");
        assert_eq!(
            unix_line_breaks("a\r\nb\rc\u{2028}d\u{2029}e\u{85}f\n"),
            "a\nb\nc\nd\ne\nf\n"
        );
        assert_eq!(
            without_controls("\0a\t\u{b}b\n\u{feff}\u{200d}\u{7f}"),
            "a\tb\n\u{200d}"
        );
        assert_eq!(composed("e\u{301}"), "é");
        assert_eq!(single_spaces(" \ta \u{a0}\n b c "), "a b c");
        assert_eq!(single_spaces("\n"), "");
    }
}
