//! What Label Studio said of its projects when it connected.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use url::Url;

/// Number of projects that are remembered; the one that was connected first is forgotten first.
const MOST: usize = 1000;
/// Longest name of a project, address and token that is remembered, in bytes.
const LONGEST: usize = 4096;

/// What Label Studio said when it connected a project.
#[derive(Clone, Default)]
pub(super) struct Connection {
    /// Address that it calls itself, for messages: nothing is fetched from there.
    pub(super) host: Option<Url>,
    /// Token that images are asked for with, at the address that the server was started with.
    pub(super) token: Option<String>,
}

impl Connection {
    /// Returns the connection with what is given; overlong values count as missing.
    pub(super) fn new(host: Option<&str>, token: Option<&str>) -> Self {
        let usable = |text: &&str| !text.is_empty() && text.len() <= LONGEST;
        let host = host.filter(usable).and_then(|text| Url::parse(text).ok());
        Self {
            host: host.filter(|url| matches!(url.scheme(), "http" | "https")),
            token: token.filter(usable).map(str::to_owned),
        }
    }
}

/// The connections by project, the oldest first.
#[derive(Default)]
pub(super) struct Connections(Mutex<VecDeque<(String, Connection)>>);

impl Connections {
    /// Remembers a project's connection.
    pub(super) fn put(&self, project: &str, connection: Connection) {
        if project.len() > LONGEST {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(name, _)| name != project);
        all.push_back((project.to_owned(), connection));
        if all.len() > MOST {
            all.pop_front();
        }
    }

    /// Returns a project's connection; an empty one if the project is unknown.
    pub(super) fn get(&self, project: &str) -> Connection {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|(name, _)| name == project);
        found.map(|(_, it)| it.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_and_replaced() {
        let all = Connections::default();
        for number in 0..=MOST {
            let address = format!("http://localhost:{}", number % 60_000 + 1);
            all.put(
                &number.to_string(),
                Connection::new(Some(&address), Some("t")),
            );
        }
        assert!(all.get("0").host.is_none());
        assert_eq!(all.get("1").host.unwrap().port(), Some(2));
        all.put("1", Connection::new(Some("file:///etc"), None));
        assert!(all.get("1").host.is_none() && all.get("1").token.is_none());
        let long = "x".repeat(LONGEST + 1);
        all.put(
            &long,
            Connection::new(Some("http://localhost"), Some(&long)),
        );
        assert!(all.get(&long).host.is_none());
    }
}
