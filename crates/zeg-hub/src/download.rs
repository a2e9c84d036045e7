//! Download of one file, with retries, resumption and verification.
//!
//! A dropped connection is resumed at the byte where it stopped, as long as the server still has the same version of
//! the file (RFC 9110: `Range`, `If-Range`, `ETag`). A server without range requests sends everything again. The file
//! gets its final name only after its length and SHA-256 are verified; without a published digest, its first bytes must
//! look like what its name says.

use std::{
    io::Read as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use ureq::{Agent, http::HeaderMap};
use url::Url;

use crate::{
    Event, HubError, Settings,
    cache::{FileRecord, Proof, part_path},
    part::{CHUNK, Part},
    registry::RemoteFile,
    request::{Answer, Failure, ask, text},
    retry::{pause, retry_after, sleep, status_may_pass},
};

/// The largest size of a file, in bytes; it matters only if the server does not announce the length.
const LONGEST_FILE: u64 = 1 << 40;

/// A file to download, with everything that the download needs.
pub(crate) struct Download<'a> {
    pub(crate) file: &'a RemoteFile,
    /// The model's folder.
    pub(crate) folder: &'a Path,
    /// Digest of the first download, for a file without a published digest.
    pub(crate) recorded: Option<&'a str>,
    pub(crate) agent: &'a Agent,
    pub(crate) settings: &'a Settings,
    pub(crate) cancel: &'a AtomicBool,
}

/// The result of a successful attempt.
struct Arrived {
    /// SHA-256 of the whole file, if the server announced it.
    announced: Option<String>,
}

/// The part of an answer's head that describes the content.
struct Content {
    /// Length of the whole file in bytes, if known.
    total: Option<u64>,
}

/// The failure of an attempt.
enum Attempt {
    /// The connection broke, or the server asked to try again later.
    Again {
        reason: String,
        pause: Option<Duration>,
    },
    /// Another attempt would fail in the same way.
    Failed(HubError),
}

impl From<HubError> for Attempt {
    fn from(error: HubError) -> Self {
        Self::Failed(error)
    }
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Passing(reason) => Self::again(reason),
            Failure::Lasting(error) => Self::Failed(error),
        }
    }
}

impl Attempt {
    fn again(reason: impl Into<String>) -> Self {
        Self::Again {
            reason: reason.into(),
            pause: None,
        }
    }
}

impl Download<'_> {
    /// Downloads the file from the first of its sources that succeeds.
    pub(crate) fn run(&self, report: &mut dyn FnMut(&Event<'_>)) -> Result<FileRecord, HubError> {
        let mut first = None;
        for source in &self.file.sources {
            match self.fetch(source, report) {
                Ok(record) => return Ok(record),
                Err(error) if is_local(&error) => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| HubError::Address {
            address: self.file.name.clone(),
            reason: "the file has no source".into(),
        }))
    }

    fn fetch(
        &self,
        source: &str,
        report: &mut dyn FnMut(&Event<'_>),
    ) -> Result<FileRecord, HubError> {
        let address = self.settings.resolve(source)?;
        let path = part_path(self.folder, self.file);
        let mut part = Part::open(path, address.as_str(), self.digest().is_some(), self.cancel)?;
        report(&Event::Started {
            file: &self.file.name,
            address: address.as_str(),
            done: part.len(),
            total: self.file.size,
        });
        loop {
            let arrived = self.attempts(&address, &mut part, report)?;
            let found = part.sha256();
            let (expected, proof) = self.expected(arrived.announced.as_deref());
            match expected {
                Some(expected) if expected != found => {
                    // The part from an earlier download may be damaged, so the file is downloaded once more in full.
                    if part.is_inherited() {
                        part.restart()?;
                        continue;
                    }
                    let expected = expected.to_owned();
                    part.remove()?;
                    return Err(HubError::Digest {
                        address: address.into(),
                        expected,
                        found,
                    });
                }
                _ => {
                    if matches!(proof, Proof::FirstUse | Proof::None)
                        && let Some(what) = part.foreign(&self.file.name)?
                    {
                        part.remove()?;
                        return Err(HubError::Content {
                            address: address.into(),
                            file: self.file.name.clone(),
                            what,
                        });
                    }
                    let record = self.record(&part, found, proof, address.as_str());
                    part.finish(&self.folder.join(&self.file.name))?;
                    report(&Event::Finished { record: &record });
                    return Ok(record);
                }
            }
        }
    }

    /// Repeats attempts until the file is complete or too many attempts in a row made no progress.
    fn attempts(
        &self,
        address: &Url,
        part: &mut Part,
        report: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Arrived, HubError> {
        let retries = &self.settings.retries;
        let mut failures = 0_u32;
        let mut furthest = part.len();
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(self.cancelled(part));
            }
            let (reason, asked) = match self.attempt(address, part, report) {
                Ok(arrived) => return Ok(arrived),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again { reason, pause }) => (reason, pause),
            };
            if part.len() >= furthest.saturating_add(retries.progress) {
                failures = 0;
            }
            furthest = furthest.max(part.len());
            failures = failures.saturating_add(1);
            if failures >= retries.attempts {
                return Err(HubError::Unreachable {
                    address: address.to_string(),
                    attempts: failures,
                    reason,
                });
            }
            let pause = asked.unwrap_or_else(|| pause(retries, failures));
            if pause > retries.longest_pause {
                return Err(HubError::Busy {
                    address: address.to_string(),
                    seconds: pause.as_secs(),
                });
            }
            report(&Event::Retrying {
                file: &self.file.name,
                reason: &reason,
                pause,
            });
            if !sleep(pause, self.cancel) {
                return Err(self.cancelled(part));
            }
        }
    }

    /// Sends one request and appends the content of its answer to the part.
    fn attempt(
        &self,
        address: &Url,
        part: &mut Part,
        report: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Arrived, Attempt> {
        let Answer {
            response,
            announced,
        } = ask(self.agent, self.settings, address, part.len(), part.etag())?;
        self.check_announced(address, announced.as_deref())?;
        let status = response.status().as_u16();
        let content = self.head(address, part, status, response.headers())?;
        self.body(address, part, content, response.into_body(), report)?;
        Ok(Arrived { announced })
    }

    /// Returns an error before the download starts if the server announces another digest than the expected one.
    fn check_announced(&self, address: &Url, announced: Option<&str>) -> Result<(), HubError> {
        match (self.digest(), announced) {
            (Some(expected), Some(offered)) if expected != offered => Err(HubError::Changed {
                address: address.to_string(),
                expected: expected.to_owned(),
                offered: offered.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Checks an answer's head and truncates the part to the position where the answer's content begins.
    fn head(
        &self,
        address: &Url,
        part: &mut Part,
        status: u16,
        headers: &HeaderMap,
    ) -> Result<Content, Attempt> {
        let unusable = |reason: String| HubError::Answer {
            address: address.to_string(),
            reason,
        };
        let etag = text(headers, "etag").filter(|etag| is_strong(etag));
        let length = text(headers, "content-length").and_then(|length| length.parse().ok());
        let total = match status {
            200 => {
                part.restart()?;
                length
            }
            206 => {
                let range = text(headers, "content-range").and_then(parse_range);
                let continues = range.is_some_and(|(from, _)| from == part.len());
                let is_same = part.etag().is_none() || etag.is_none() || part.etag() == etag;
                if part.len() == 0 || !continues || !is_same {
                    part.restart()?;
                    return Err(Attempt::again(
                        "the server sent another range of the file than requested",
                    ));
                }
                range.and_then(|(_, total)| total)
            }
            // Either the part is the whole file already, or it is longer than the file.
            416 if part.len() > 0 => {
                let whole = text(headers, "content-range").and_then(parse_unsatisfied);
                if whole == Some(part.len()) && self.digest().is_some() {
                    return Ok(Content { total: whole });
                }
                part.restart()?;
                return Err(Attempt::again(
                    "the partial download does not fit the server's file",
                ));
            }
            status if status_may_pass(status) => {
                let asked = text(headers, "retry-after");
                return Err(Attempt::Again {
                    reason: format!("the server answered with HTTP status {status}"),
                    pause: asked.and_then(|value| retry_after(value, SystemTime::now())),
                });
            }
            status => {
                let address = address.to_string();
                return Err(Attempt::Failed(HubError::Status { address, status }));
            }
        };
        let encoding = text(headers, "content-encoding").unwrap_or("identity");
        if !encoding.eq_ignore_ascii_case("identity") {
            let reason =
                format!("the content is compressed as {encoding}, although identity was requested");
            return Err(unusable(reason).into());
        }
        // A chunked body marks its own end, so that a dropped connection is noticed without a length.
        let marks_end = text(headers, "transfer-encoding").is_some();
        if total.is_none() && self.file.size.is_none() && self.digest().is_none() && !marks_end {
            return Err(
                unusable("the server does not announce the length of the file".into()).into(),
            );
        }
        match (self.file.size, total) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(Attempt::Failed(HubError::Length {
                    address: address.to_string(),
                    expected,
                    found,
                }));
            }
            _ => {}
        }
        part.set_etag(etag)?;
        Ok(Content {
            total: total.or(self.file.size),
        })
    }

    /// Appends the content of an answer to the part until the content ends.
    fn body(
        &self,
        address: &Url,
        part: &mut Part,
        content: Content,
        body: ureq::Body,
        report: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), Attempt> {
        let limit = content.total.unwrap_or(LONGEST_FILE);
        let mut reader = body.into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Attempt::Failed(self.cancelled(part)));
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(Attempt::again(broken(&error))),
            };
            let missing = limit.saturating_sub(part.len());
            if count as u64 > missing {
                return Err(Attempt::Failed(HubError::Length {
                    address: address.to_string(),
                    expected: limit,
                    found: part.len().saturating_add(count as u64),
                }));
            }
            let known = content.total.map_or(0, |_| missing);
            part.push(buffer.get(..count).unwrap_or_default(), known)?;
            report(&Event::Progress {
                file: &self.file.name,
                done: part.len(),
                total: content.total,
            });
        }
        match content.total {
            Some(total) if part.len() < total => Err(Attempt::again(
                "the connection ended before the file was complete",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the digest that the file must have, if it is known before the download.
    fn digest(&self) -> Option<&str> {
        self.file.sha256.as_deref().or(self.recorded)
    }

    /// Returns the digest that the file must have, and where that digest comes from.
    fn expected<'a>(&'a self, announced: Option<&'a str>) -> (Option<&'a str>, Proof) {
        if let Some(published) = &self.file.sha256 {
            (Some(published), Proof::Published)
        } else if let Some(announced) = announced {
            (Some(announced), Proof::Server)
        } else if let Some(recorded) = self.recorded {
            (Some(recorded), Proof::FirstUse)
        } else {
            (None, Proof::None)
        }
    }

    fn record(&self, part: &Part, sha256: String, proof: Proof, source: &str) -> FileRecord {
        FileRecord {
            name: self.file.name.clone(),
            size: part.len(),
            sha256,
            proof,
            source: source.to_owned(),
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }

    fn cancelled(&self, part: &Part) -> HubError {
        HubError::Cancelled {
            file: self.file.name.clone(),
            done: part.len(),
        }
    }
}

/// Returns whether another source would fail in the same way.
fn is_local(error: &HubError) -> bool {
    matches!(
        error,
        HubError::Cancelled { .. }
            | HubError::DiskFull { .. }
            | HubError::Read { .. }
            | HubError::Write { .. }
    )
}

/// Returns whether an `ETag` is a strong validator; a weak one does not guarantee the same bytes.
fn is_strong(etag: &str) -> bool {
    etag.len() <= 1000 && etag.starts_with('"')
}

/// Parses a `Content-Range` such as `bytes 5-9/10` into the first byte and, if present, the length of the file.
fn parse_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Parses the length of the file from the `Content-Range` of an answer 416, such as `bytes */10`.
fn parse_unsatisfied(value: &str) -> Option<u64> {
    value.trim().strip_prefix("bytes */")?.trim().parse().ok()
}

/// Describes why the content of an answer could not be read to its end.
fn broken(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(ureq::Error::Timeout(_)) => "the server stopped sending data".into(),
        _ => format!("the connection broke: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_parsed() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(parse_range("bytes */10"), None);
        assert_eq!(parse_range("items 5-9/10"), None);
        assert_eq!(parse_range("bytes 18446744073709551616-9/10"), None);
        assert_eq!(parse_unsatisfied("bytes */10"), Some(10));
        assert_eq!(parse_unsatisfied("bytes 5-9/10"), None);
    }

    #[test]
    fn only_strong_validators_are_used() {
        assert!(is_strong("\"abc\""));
        assert!(!is_strong("W/\"abc\""));
        assert!(!is_strong(""));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_the_parsers_panic(value in ".{0,40}") {
            let _ = (parse_range(&value), parse_unsatisfied(&value));
        }
    }
}
