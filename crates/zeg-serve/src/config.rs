//! Settings of the server.

use std::time::Duration;

use crate::{label_studio::LabelStudioSettings, token::Token};

/// Limits, times and permissions of a server.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Most pixels of an image; larger ones are refused before they are decoded.
    pub max_pixels: u64,
    /// Most bytes of a request with an image.
    pub max_body: usize,
    /// Most bytes of all requests that are being received or wait for their turn.
    pub upload_memory: usize,
    /// Most bytes of all answers that are being sent; small ones do not count.
    pub answer_memory: usize,
    /// Most requests that wait for a worker.
    pub queue: usize,
    /// Number of threads that each work on one image.
    pub workers: usize,
    /// Most bytes of the encoded images that are kept.
    pub cache_memory: u64,
    /// Time after its last use when an encoded image is forgotten.
    pub encoding_time: Duration,
    /// Most classes of a request.
    pub max_classes: usize,
    /// Longest time that a request waits for a worker and is worked on, counted from when it has arrived and is parsed.
    pub request_time: Duration,
    /// Longest time in which a connection sends the headers of its next request.
    pub header_time: Duration,
    /// Longest pause of a sender within the body of a request, and of a receiver within an answer.
    pub pause: Duration,
    /// Longest time in which the body of a request arrives.
    pub body_time: Duration,
    /// Longest time in which an answer is sent.
    pub answer_time: Duration,
    /// Longest time that requests in progress get when the server stops.
    pub stop_time: Duration,
    /// Most connections at the same time; others wait to be accepted.
    pub connections: usize,
    /// Origins of web pages that may call the server besides its own, such as `https://example.org`; `*` for all.
    pub allow_origins: Vec<String>,
    /// The token that requests must carry; `None` if anybody may call.
    pub token: Option<Token>,
    /// Which hosts a request may name.
    pub hosts: Hosts,
    /// Names that a request may name as its host besides those of [`ServeConfig::hosts`], without a port.
    pub allow_hosts: Vec<String>,
    /// Where images of Label Studio are fetched from.
    pub label_studio: LabelStudioSettings,
}

/// Which hosts a request may name.
///
/// A page of a stranger can give its own name the address of this machine (DNS rebinding). The browser then takes the
/// server for the page's own, but sends that name as the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Names and addresses of this machine that no other machine has, for a server that listens for itself alone.
    Local,
    /// The same and any address, for a server that others call without a token: an address cannot be rebound.
    Addresses,
    /// Any, for a server with a token: a page of a stranger does not have it.
    Any,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_pixels: 50_000_000,
            max_body: 64 << 20,
            upload_memory: 256 << 20,
            answer_memory: 256 << 20,
            queue: 64,
            // Not the number of rayon's threads: asking for it would start them before `--threads` is known.
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            cache_memory: 1 << 30,
            encoding_time: Duration::from_mins(15),
            max_classes: 1000,
            request_time: Duration::from_mins(2),
            header_time: Duration::from_secs(10),
            pause: Duration::from_secs(15),
            body_time: Duration::from_mins(1),
            answer_time: Duration::from_mins(5),
            stop_time: Duration::from_secs(30),
            connections: 512,
            allow_origins: Vec::new(),
            token: None,
            hosts: Hosts::Local,
            allow_hosts: Vec::new(),
            label_studio: LabelStudioSettings::default(),
        }
    }
}
