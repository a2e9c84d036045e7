//! Tests what stands around the API: the page in a browser, the backend of Label Studio, and the files in `deploy/`.
//!
//! The tests of the page need Chromium; without it they print a message and pass. With `ZEG_LOOK=FOLDER` they keep
//! images of the page in this folder.

#![cfg(unix)]
// the configured exception for tests does not reach their helper functions
#![allow(clippy::unwrap_used)]

#[path = "browser/backend.rs"]
mod backend;
#[path = "browser/batches.rs"]
mod batches;
#[path = "browser/configuration.rs"]
mod configuration;
#[path = "browser/deploy.rs"]
mod deploy;
#[path = "browser/devtools.rs"]
mod devtools;
#[path = "browser/examples.rs"]
mod examples;
#[path = "browser/page.rs"]
mod page;
#[path = "browser/probe.rs"]
mod probe;
#[path = "browser/served.rs"]
mod served;
