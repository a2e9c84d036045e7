//! Hexadecimal notation of digests and colours, always written in lower case.

/// Returns `bytes` as lower-case hexadecimal digits, two per byte.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    ::hex::encode(bytes)
}

/// Returns an RGB colour in the notation of CSS and labelling tools: `#rrggbb`.
pub fn colour(rgb: [u8; 3]) -> String {
    format!("#{}", encode(rgb))
}

/// Parses an RGB colour from `#rrggbb`, with digits in either case.
///
/// Returns `None` if the text has any other form.
pub fn parse_colour(text: &str) -> Option<[u8; 3]> {
    let mut rgb = [0; 3];
    ::hex::decode_to_slice(text.strip_prefix('#')?, &mut rgb).ok()?;
    Some(rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_lower_case_and_keep_leading_zeros() {
        assert_eq!(encode([0x00, 0x0a, 0xff]), "000aff");
        assert_eq!(encode([]), "");
        assert_eq!(colour([0, 15, 255]), "#000fff");
    }

    #[test]
    fn colours_are_parsed_in_either_case_and_other_texts_are_refused() {
        assert_eq!(parse_colour("#000fff"), Some([0, 15, 255]));
        assert_eq!(parse_colour("#00A0fF"), Some([0, 160, 255]));
        let invalid = [
            "", "#", "000fff", "#00ff", "#0000fff", "#00000g", "#+00fff", "# 00fff", "#ééé",
            "#-1-1-1",
        ];
        for text in invalid {
            assert_eq!(parse_colour(text), None, "{text:?}");
        }
    }
}
