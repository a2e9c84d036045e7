//! Errors of resolving, downloading and storing models.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Reason why a model could not be found, downloaded or verified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// No entry of the registry has this name.
    #[error("unknown model {name:?}")]
    UnknownModel {
        /// The requested name.
        name: String,
        /// The most similar known name, if one is similar enough.
        closest: Option<String>,
    },
    /// The model's owner offers it on a web page that a program cannot download from.
    #[error("{name} must be downloaded by hand from {page}")]
    Manual {
        /// The name of the model.
        name: String,
        /// The web page to open.
        page: String,
        /// What to do on the page, and afterwards.
        steps: String,
    },
    /// A list of models is invalid.
    #[error("{origin}: {reason}")]
    Registry {
        /// The file, or `built-in list`.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting from the environment or the command line has an invalid value.
    #[error("{name} has the invalid value {value:?}: {reason}")]
    Setting {
        /// The environment variable or option.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// The system reports neither a home folder nor a cache folder.
    #[error("no folder to store models in: the system reports no home folder")]
    NoFolder,
    /// The model is not downloaded yet, and network access is disabled.
    #[error("{name} is not downloaded, and network access is disabled")]
    Offline {
        /// The name of the model.
        name: String,
    },
    /// An address cannot be used.
    #[error("{address}: {reason}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The server answered with an error status.
    #[error("{address}: the server answered with HTTP status {status}")]
    Status {
        /// The requested address.
        address: String,
        /// HTTP status code.
        status: u16,
    },
    /// The server asks for a pause longer than [`Retries::longest_pause`](crate::Retries::longest_pause).
    #[error("{address}: the server asks to wait {seconds} seconds before the next request")]
    Busy {
        /// The requested address.
        address: String,
        /// The pause that the server asks for, in seconds.
        seconds: u64,
    },
    /// Every attempt to connect or to read the answer failed.
    #[error("{address}: {reason} (attempts: {attempts})")]
    Unreachable {
        /// The requested address.
        address: String,
        /// Number of consecutive attempts without progress.
        attempts: u32,
        /// The failure of the last attempt.
        reason: String,
    },
    /// The server redirects more often than [`Settings::redirects`](crate::Settings::redirects) allows.
    #[error("{address}: more than {limit} redirects")]
    Redirects {
        /// The first address.
        address: String,
        /// The number of redirects that are followed.
        limit: u32,
    },
    /// The server redirects from an encrypted address to an unencrypted one.
    #[error("{address}: refused the redirect to {target}, which is not encrypted")]
    Downgrade {
        /// The encrypted address.
        address: String,
        /// The target of the redirect.
        target: String,
    },
    /// The answer of the server is not usable as the file.
    #[error("{address}: {reason}")]
    Answer {
        /// The requested address.
        address: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The server sent something else than the file, with a status of success; the download has been deleted.
    #[error("{address}: the server sent {what} instead of {file}; the download was deleted")]
    Content {
        /// The address of the file.
        address: String,
        /// The name of the file.
        file: String,
        /// What the server sent.
        what: &'static str,
    },
    /// The length of the file is not the expected one.
    #[error("{address}: the file has {found} bytes, expected {expected}")]
    Length {
        /// The address of the file.
        address: String,
        /// The published or announced length, in bytes.
        expected: u64,
        /// The length that the server offers or has sent, in bytes.
        found: u64,
    },
    /// The content has the wrong digest; the download has been deleted.
    #[error(
        "{address}: the file has the SHA-256 {found}, expected {expected}; the download was deleted"
    )]
    Digest {
        /// The address of the file.
        address: String,
        /// The expected digest, 64 hexadecimal digits.
        expected: String,
        /// The digest of the downloaded content.
        found: String,
    },
    /// The server announces a digest other than the expected one; nothing was downloaded.
    #[error(
        "{address}: the server announces the SHA-256 {offered}, expected {expected}; nothing was downloaded"
    )]
    Changed {
        /// The address of the file.
        address: String,
        /// The published digest, or the digest of the first download.
        expected: String,
        /// The digest that the server announces.
        offered: String,
    },
    /// The disk is full.
    #[error("{path}: no space left on the disk; {missing} more bytes are needed")]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Number of bytes still missing, as far as known.
        missing: u64,
    },
    /// A local file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A local file or folder cannot be written.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The user cancelled the download; the part that has arrived stays in the cache.
    #[error(
        "download of {file} cancelled; {done} bytes are kept, and the next download continues from there"
    )]
    Cancelled {
        /// The name of the file.
        file: String,
        /// Number of bytes in the cache.
        done: u64,
    },
}

/// Returns a function that converts a failed write, with a full disk as a case of its own.
pub(crate) fn write_error(
    path: impl Into<PathBuf>,
    missing: u64,
) -> impl FnOnce(io::Error) -> HubError {
    let path = path.into();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            HubError::DiskFull { path, missing }
        }
        _ => HubError::Write { path, source },
    }
}
