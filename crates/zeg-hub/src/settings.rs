//! Download settings: servers, timeouts, retries and network access.

use std::{env, fmt, path::PathBuf, time::Duration};

use url::Url;

use crate::HubError;

/// The address of Hugging Face, unless `HF_ENDPOINT` sets another one.
const HUGGING_FACE: &str = "https://huggingface.co";

/// An access token for Hugging Face. Debug output does not show it.
#[derive(Clone)]
pub struct Token(pub(crate) String);

impl Token {
    /// Wraps the token as Hugging Face issued it.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Network access is allowed.
    Online,
    /// Network access is disabled: a missing file is an error.
    Offline,
}

/// Which proxy servers are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxies {
    /// Those that `ALL_PROXY`, `HTTPS_PROXY` and `HTTP_PROXY` name, except for the hosts in `NO_PROXY`.
    Environment,
    /// No proxy server.
    Direct,
}

/// Time limits for a server that does not respond.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Limit for establishing the connection, including TLS.
    pub connect: Duration,
    /// Limit from the request to the end of the answer's head.
    pub answer: Duration,
    /// Limit between two reads of the content.
    pub read: Duration,
}

/// The policy for repeating an attempt that failed for a temporary reason.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Number of consecutive failed attempts after which the download fails.
    pub attempts: u32,
    /// Pause after the first failure; it doubles each time, minus a random share of up to one half.
    pub first_pause: Duration,
    /// The longest pause; a server that asks for a longer one is an error.
    pub longest_pause: Duration,
    /// Number of new bytes from which on an attempt counts as progress, so that the count of failures starts again.
    pub progress: u64,
}

/// The settings of downloads.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether the network may be used.
    pub network: Network,
    /// Base URL that replaces the scheme and host of every address.
    pub base_url: Option<Url>,
    /// Base URL that replaces the scheme and host of Hugging Face's addresses.
    pub hugging_face: Url,
    /// Access token, sent to [`hugging_face`](Self::hugging_face) and to no other server.
    pub token: Option<Token>,
    /// File of certificates (PEM) to trust instead of the compiled-in ones.
    pub certificates: Option<PathBuf>,
    /// Which proxy servers are used.
    pub proxies: Proxies,
    /// Time limits for a server that does not respond.
    pub timeouts: Timeouts,
    /// The policy for repeating failed attempts.
    pub retries: Retries,
    /// The largest number of redirects that are followed from one address.
    pub redirects: u32,
}

impl Settings {
    /// Reads the settings from environment variables.
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `ZEG_OFFLINE`, `HF_HUB_OFFLINE` | `1`, `true`, `yes` or `on` disables network access |
    /// | `ZEG_BASE_URL` | replaces the scheme and host of every address |
    /// | `HF_ENDPOINT` | replaces `https://huggingface.co` |
    /// | `HF_TOKEN` | access token, sent to `HF_ENDPOINT` only |
    /// | `SSL_CERT_FILE` | file of certificates to trust instead of the compiled-in ones |
    /// | `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` | proxy servers |
    ///
    /// # Errors
    /// Returns [`HubError::Setting`] if the value of a variable is not a usable address.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_lookup(variable)
    }

    fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let is_on = |name: &str| get(name).is_some_and(|value| means_yes(&value));
        let offline = is_on("ZEG_OFFLINE") || is_on("HF_HUB_OFFLINE");
        let address = |name: &str| {
            let value = get(name);
            value.map(|value| parse_base(name, &value)).transpose()
        };
        let default = parse_base("HF_ENDPOINT", HUGGING_FACE)?;
        Ok(Self {
            network: if offline {
                Network::Offline
            } else {
                Network::Online
            },
            base_url: address("ZEG_BASE_URL")?,
            hugging_face: address("HF_ENDPOINT")?.unwrap_or(default),
            token: get("HF_TOKEN").map(Token::new),
            certificates: get("SSL_CERT_FILE").map(PathBuf::from),
            proxies: Proxies::Environment,
            timeouts: Timeouts {
                connect: Duration::from_secs(20),
                answer: Duration::from_mins(1),
                read: Duration::from_secs(30),
            },
            retries: Retries {
                attempts: 5,
                first_pause: Duration::from_secs(1),
                longest_pause: Duration::from_mins(2),
                progress: 1 << 20,
            },
            redirects: 10,
        })
    }

    /// Sets the base URL that replaces the scheme and host of every address.
    ///
    /// `name` is the option or variable that the value comes from, for error messages.
    ///
    /// # Errors
    /// Returns [`HubError::Setting`] if `value` is not a usable address.
    pub fn set_base_url(&mut self, name: &str, value: &str) -> Result<(), HubError> {
        self.base_url = Some(parse_base(name, value)?);
        Ok(())
    }

    /// Returns the address to request for a source of the list of models, after applying the base URLs.
    ///
    /// # Errors
    /// Returns [`HubError::Address`] if `source` is not an http or https address.
    pub fn resolve(&self, source: &str) -> Result<Url, HubError> {
        let invalid = |reason: String| HubError::Address {
            address: source.to_owned(),
            reason,
        };
        let address = Url::parse(source).map_err(|error| invalid(error.to_string()))?;
        if !matches!(address.scheme(), "http" | "https") {
            return Err(invalid("not an http or https address".into()));
        }
        let base = match &self.base_url {
            Some(base) => base,
            None if address.host_str() == Some("huggingface.co") => &self.hugging_face,
            None => return Ok(address),
        };
        let mut moved = base.clone();
        let path = format!("{}{}", base.path().trim_end_matches('/'), address.path());
        moved.set_path(&path);
        moved.set_query(address.query());
        moved.set_fragment(None);
        Ok(moved)
    }

    /// Returns the token if this address belongs to Hugging Face.
    pub(crate) fn token_for(&self, address: &Url) -> Option<&Token> {
        let is_hugging_face = address.origin() == self.hugging_face.origin();
        self.token.as_ref().filter(|_| is_hugging_face)
    }
}

/// Returns an environment variable, or `None` if it is unset or empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn means_yes(value: &str) -> bool {
    matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

fn parse_base(name: &str, value: &str) -> Result<Url, HubError> {
    let invalid = |reason: String| HubError::Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    };
    let address = Url::parse(value).map_err(|error| invalid(error.to_string()))?;
    if !matches!(address.scheme(), "http" | "https") || !address.has_host() {
        return Err(invalid(
            "not an http or https address such as https://host.example".into(),
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::from_lookup(|name| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        })
    }

    const FILE: &str = "https://huggingface.co/openai/clip/resolve/main/config.json";

    #[test]
    fn without_variables_addresses_are_unchanged() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.network, Network::Online);
        assert_eq!(settings.resolve(FILE).unwrap().as_str(), FILE);
    }

    #[test]
    fn hf_endpoint_replaces_hugging_face_only() {
        let settings = settings(&[("HF_ENDPOINT", "http://mirror.test:81/hf/")]).unwrap();
        assert_eq!(
            settings.resolve(FILE).unwrap().as_str(),
            "http://mirror.test:81/hf/openai/clip/resolve/main/config.json"
        );
        let other = "https://openaipublic.azureedge.net/clip/a.pt";
        assert_eq!(settings.resolve(other).unwrap().as_str(), other);
    }

    #[test]
    fn the_base_url_replaces_every_host() {
        let mut settings = settings(&[("HF_ENDPOINT", "http://mirror.test")]).unwrap();
        settings
            .set_base_url("--base-url", "http://127.0.0.1:9000")
            .unwrap();
        assert_eq!(
            settings.resolve("https://a.test/b/c?d=e").unwrap().as_str(),
            "http://127.0.0.1:9000/b/c?d=e"
        );
        assert_eq!(settings.resolve(FILE).unwrap().port(), Some(9000));
    }

    #[test]
    fn the_token_goes_to_its_server_only_and_is_not_shown() {
        let settings = settings(&[("HF_TOKEN", "hf_secret")]).unwrap();
        let sent = |address: &str| settings.token_for(&Url::parse(address).unwrap()).is_some();
        assert!(sent(FILE));
        assert!(!sent("http://huggingface.co/openai"));
        assert!(!sent("https://huggingface.co:444/openai"));
        assert!(!sent("https://cdn-lfs.huggingface.co/openai"));
        assert!(!sent("https://huggingface.co.evil.test/openai"));
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn offline_has_many_spellings() {
        for value in ["1", "true", "YES", "On"] {
            let network = |name| settings(&[(name, value)]).unwrap().network;
            assert_eq!(network("ZEG_OFFLINE"), Network::Offline);
            assert_eq!(network("HF_HUB_OFFLINE"), Network::Offline);
        }
        let off = settings(&[("ZEG_OFFLINE", "0")]).unwrap();
        assert_eq!(off.network, Network::Online);
    }

    #[test]
    fn a_base_url_that_is_not_an_address_is_refused() {
        for value in ["mirror", "ftp://mirror.test", "file:///tmp", "http://"] {
            let error = settings(&[("ZEG_BASE_URL", value)]).unwrap_err();
            assert!(error.to_string().contains("ZEG_BASE_URL"), "{error}");
        }
    }
}
