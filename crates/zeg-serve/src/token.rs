//! The token of a server, and how requests carry it.

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// Shortest token; shorter ones can be guessed.
pub(crate) const LEAST_LENGTH: usize = 16;

/// A secret that requests must carry; only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    digest: [u8; 32],
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is too short.
    #[error("the token has {0} characters; it needs at least {LEAST_LENGTH}")]
    Short(usize),
    /// A header cannot hold the token.
    #[error("the token contains {0:?}; use letters, digits and signs without spaces")]
    Character(char),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Creates a token from the text of a file; white space around it does not count.
    ///
    /// # Errors
    /// Returns an error if the text is too short or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if let Some(character) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(TokenError::Character(character));
        }
        if text.len() < LEAST_LENGTH {
            return Err(TokenError::Short(text.len()));
        }
        Ok(Self {
            digest: Sha256::digest(text).into(),
        })
    }

    /// Whether a text is the token; the time says nothing about where they differ, since digests are compared.
    fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        given
            .iter()
            .zip(&self.digest)
            .fold(0, |all, (a, b)| all | (a ^ b))
            == 0
    }

    /// Whether the headers of a request carry the token: `Authorization: Bearer TOKEN`, or `Basic` with the token as the
    /// password of any user, as Label Studio sends it.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return false;
        };
        let Some((scheme, rest)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return false;
        };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(rest.as_bytes());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return false;
        }
        let Ok(decoded) = STANDARD.decode(rest) else {
            return false;
        };
        let colon = decoded.iter().position(|&byte| byte == b':');
        let password = colon.and_then(|colon| decoded.get(colon + 1..));
        password.is_some_and(|password| self.is(password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_token_is_carried_as_bearer_or_as_password() {
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        assert!(token.is_in(&with("Bearer 0123456789abcdef")));
        assert!(token.is_in(&with("bearer  0123456789abcdef ")));
        let basic = STANDARD.encode("label-studio:0123456789abcdef");
        assert!(token.is_in(&with(&format!("Basic {basic}"))));
        for wrong in [
            "Bearer 0123456789abcdeF",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Basic !!!",
            "Basic MDEyMzQ1Njc4OWFiY2RlZg==",
            "Digest 0123456789abcdef",
        ] {
            assert!(!token.is_in(&with(wrong)), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
    }

    #[test]
    fn short_and_illegal_tokens_are_refused() {
        assert_eq!(Token::new("secret"), Err(TokenError::Short(6)));
        let spaced = Token::new("0123456789 abcdef");
        assert_eq!(spaced, Err(TokenError::Character(' ')));
        assert_eq!(Token::new(""), Err(TokenError::Short(0)));
    }
}
