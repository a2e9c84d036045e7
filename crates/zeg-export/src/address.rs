//! Percent-encoding of paths for URLs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Characters that are not escaped: the unreserved characters of RFC 3986, and the separators.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Returns a path, with `/` between its components, as it is written in a URL.
pub(crate) fn address(path: &[u8]) -> String {
    percent_encode(path, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_slashes_and_lose_their_meanings() {
        let text = |path: &str| address(path.as_bytes());
        assert_eq!(text("a b/é&#?%.jpg"), "a%20b/%C3%A9%26%23%3F%25.jpg");
        assert_eq!(address(b"latin1_\xE9.jpg"), "latin1_%E9.jpg");
    }
}
