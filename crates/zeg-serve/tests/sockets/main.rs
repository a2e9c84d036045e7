//! Drives the server over real sockets: every route, every limit, and clients that mean no good.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in tests

mod access;
mod bounds;
mod client;
mod encodings;
mod hostile;
mod images;
mod limits;
mod routes;
mod segment;
mod stopping;
