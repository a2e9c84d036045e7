//! Finds, downloads and verifies public weights.
//!
//! A name becomes a file in three steps. The [`registry`] describes the model `clip-vit-b-16` and the addresses of its
//! files. [`pull()`] downloads the files that are missing. From then on the [`Cache`] returns the local path
//! ([`Cache::locate`]), without the network and without the registry.
//!
//! Each downloaded file is verified against the first of these digests that exists:
//! 1. the SHA-256 in the list of models,
//! 2. the SHA-256 that Hugging Face announces with large files (`x-linked-etag`),
//! 3. the SHA-256 of the first download, which the cache records.
//!
//! The built-in list has encrypted addresses only, no redirect may leave encryption, and Hugging Face's revisions are
//! pinned. So even a file without a published digest cannot change silently.
//!
//! ```
//! let registry = zeg_hub::Registry::load().unwrap();
//! assert!(registry.find("clip-vit-b-16").is_ok());
//! ```

#![forbid(unsafe_code)]

pub mod cache;
pub mod error;
pub mod listing;
pub mod pull;
pub mod registry;
pub mod settings;

mod content;
mod download;
mod list;
mod part;
mod request;
mod retry;

pub use cache::{Cache, FileRecord, Manifest, Presence, Proof};
pub use error::HubError;
pub use listing::{Row, human_size, rows, table};
pub use pull::{Event, Missing, Pulled, missing, pull};
pub use registry::{Entry, Format, Manual, Obtain, Registry, RemoteFile};
pub use settings::{Network, Proxies, Retries, Settings, Timeouts, Token};
