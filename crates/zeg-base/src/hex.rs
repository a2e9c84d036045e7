//! Hexadecimal digits, always lower-case: digests and colours.

/// Writes bytes as hexadecimal digits, two a byte.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    ::hex::encode(bytes)
}

/// Writes an RGB colour as CSS and labelling tools do: `#rrggbb`.
pub fn colour(rgb: [u8; 3]) -> String {
    format!("#{}", encode(rgb))
}

/// Reads an RGB colour from `#rrggbb`, in digits of either case.
///
/// Returns `None` for everything else.
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
    fn colours_are_read_in_either_case_and_nothing_else_is() {
        assert_eq!(parse_colour("#000fff"), Some([0, 15, 255]));
        assert_eq!(parse_colour("#00A0fF"), Some([0, 160, 255]));
        let strange = [
            "", "#", "000fff", "#00ff", "#0000fff", "#00000g", "#+00fff", "# 00fff", "#ééé",
            "#-1-1-1",
        ];
        for text in strange {
            assert_eq!(parse_colour(text), None, "{text:?}");
        }
    }
}
