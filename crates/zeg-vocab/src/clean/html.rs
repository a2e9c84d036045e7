//! Decodes HTML character references in the two ways that CLIP's cleaning uses.
//!
//! [`unescape`] does what a browser does with attribute-free text and what Python's `html.unescape` does: it decodes
//! `&amp` without a semicolon and finds names inside longer ones. [`unescape_unambiguous`] follows ftfy, which leaves
//! "this&not that" unchanged: only references with a semicolon are decoded.

use htmlize::ENTITIES;

use super::characters::c1_as_windows_1252;

/// Longest name that is looked up, in characters, without the semicolon.
const LONGEST_NAME: usize = 32;
/// Longest body of an unambiguous reference, in characters, without `&`, `#` and semicolon.
const LONGEST_UNAMBIGUOUS: usize = 24;

/// Decodes every character reference once.
pub(super) fn unescape(text: &str) -> String {
    replace_references(text, |reference| {
        numeric(reference).or_else(|| named(reference))
    })
}

/// Decodes the references that end in a semicolon and are unambiguous, and names of common characters in capitals
/// (`&EACUTE;` for É), which are not in the standard.
pub(super) fn unescape_unambiguous(text: &str) -> String {
    replace_references(text, |reference| {
        let reference = unambiguous(reference)?;
        let replacement = if let Some(character) = entity(reference) {
            character.to_owned()
        } else if reference.starts_with("&#") {
            let decoded = unescape(reference);
            // A remaining semicolon means that the reference was decoded only in part.
            if decoded.contains(';') {
                return None;
            }
            decoded
        } else {
            in_capitals(reference)?
        };
        Some((replacement, reference.len()))
    })
}

/// Replaces every reference that `decode` recognises. `decode` gets the text from an ampersand on and returns the
/// replacement and the number of replaced bytes.
fn replace_references(text: &str, decode: impl Fn(&str) -> Option<(String, usize)>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if let Some((replacement, length)) = decode(rest) {
            out.push_str(&replacement);
            length
        } else {
            out.push('&');
            1
        };
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

/// Returns the characters of a named reference such as `&copy;` or, where the standard allows it, `&copy`.
fn entity(reference: &str) -> Option<&'static str> {
    let bytes: &'static [u8] = ENTITIES.get(reference.as_bytes()).copied()?;
    std::str::from_utf8(bytes).ok()
}

/// Decodes a numeric reference: `&#65;`, `&#x41;`, with or without semicolon.
fn numeric(reference: &str) -> Option<(String, usize)> {
    let body = reference.strip_prefix("&#")?;
    let (digits, radix) = match body.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (body, 10),
    };
    let count = digits
        .bytes()
        .take_while(|b| char::from(*b).is_digit(radix))
        .count();
    if count == 0 {
        return None;
    }
    let mut length = reference.len() - digits.len() + count;
    if reference[length..].starts_with(';') {
        length += 1;
    }
    // A number too large for the type is beyond Unicode as well.
    let code = u32::from_str_radix(&digits[..count], radix).unwrap_or(u32::MAX);
    Some((code_point(code), length))
}

/// Returns the text of a code point: a character, nothing (for control characters and non-characters), or U+FFFD.
fn code_point(code: u32) -> String {
    match code {
        0x0d | 0x80..=0x9f => {}
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => return String::new(),
        0x00 => return char::REPLACEMENT_CHARACTER.to_string(),
        _ if code <= 0x10_ffff && code & 0xfffe == 0xfffe => return String::new(),
        _ => {}
    }
    char::from_u32(code)
        .map_or(char::REPLACEMENT_CHARACTER, c1_as_windows_1252)
        .to_string()
}

/// Decodes the longest name that the text after the ampersand starts with.
fn named(reference: &str) -> Option<(String, usize)> {
    let body = &reference[1..];
    let mut length = 1 + body
        .chars()
        .take(LONGEST_NAME)
        .take_while(|c| !"\t\n\u{c} <&#;".contains(*c))
        .map(char::len_utf8)
        .sum::<usize>();
    if length == 1 {
        return None;
    }
    if reference[length..].starts_with(';') {
        length += 1;
    }
    (3..=length)
        .rev()
        .filter(|end| reference.is_char_boundary(*end))
        .find_map(|end| Some((entity(&reference[..end])?.to_owned(), end)))
}

/// Returns the reference at the start of the text, with its semicolon, if it has the unambiguous form.
fn unambiguous(text: &str) -> Option<&str> {
    let start = if text.starts_with("&#") { 2 } else { 1 };
    let count = text[start..]
        .bytes()
        .take_while(u8::is_ascii_alphanumeric)
        .count();
    let end = start + count;
    let well_formed = (1..=LONGEST_UNAMBIGUOUS).contains(&count) && text[end..].starts_with(';');
    well_formed.then(|| &text[..=end])
}

/// Decodes a lower-case name that is written in capitals, unless it contains a shorter reference.
fn in_capitals(reference: &str) -> Option<String> {
    if reference.contains(|c: char| c.is_ascii_lowercase()) || unescape(reference) != reference {
        return None;
    }
    Some(entity(&reference.to_ascii_lowercase())?.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: Python 3.11 `html.unescape`.
    #[test]
    fn unescape_is_lenient() {
        for (text, expected) in [
            ("&amp;amp;", "&amp;"),
            ("&amp", "&"),
            ("&notanentity; &copy;", "¬anentity; ©"),
            ("&notit;", "¬it;"),
            ("&#65;&#x42;&#X43 &#68", "ABC D"),
            (
                "&#0;&#x110000;&#xd800;&#99999999999999999999;",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("[&#1;&#x7f;&#xfffe;&#x1ffff;]", "[]"),
            ("&#13;&#128;&#x81;", "\r€\u{81}"),
            ("&#; &#x; & &; &é;", "&#; &#x; & &; &é;"),
            ("&CounterClockwiseContourIntegral;", "∳"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    /// Expected values: `ftfy.fixes.unescape_html` 6.3.1.
    #[test]
    fn the_unambiguous_form_needs_semicolons() {
        for (text, expected) in [
            ("&lt;tag&gt;", "<tag>"),
            ("P&EACUTE;REZ", "PÉREZ"),
            ("BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"),
            ("&ntilde; &Ntilde; &NTILDE; &nTILDE;", "ñ Ñ Ñ &nTILDE;"),
            ("this&not that &amp", "this&not that &amp"),
            ("&#59; &#65; &#65a;", "&#59; A &#65a;"),
        ] {
            assert_eq!(unescape_unambiguous(text), expected, "{text}");
        }
    }
}
