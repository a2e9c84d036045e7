//! Percent-encoding of paths for URLs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters that are not escaped: the unreserved characters of RFC 3986, and the separators.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Returns a path, with `/` between its components, as it is written in a URL.
pub(crate) fn address(path: &str) -> String {
    utf8_percent_encode(path, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_slashes_and_lose_their_meanings() {
        assert_eq!(address("a b/é&#?%.jpg"), "a%20b/%C3%A9%26%23%3F%25.jpg");
    }
}
