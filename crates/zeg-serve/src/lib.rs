//! HTTP server: segments images for programs, for people in a browser, and for annotation tools.
//!
//! [`serve()`] runs it. A request passes the modules in this order: `server` accepts the connection, `edge` checks who
//! calls and receives the body within its limits, a module of `routes` reads the `fields`, and `state` puts the `work`
//! into the bounded `queue`, whose threads decode, encode and score the image and make the `outputs`. `encodings` keeps
//! encoded images, so that new class names are cheap. Every error is a [`Problem`].
//!
//! There is one path of inference: [`zeg::session::Session`], as in `zeg segment`.
//!
//! ```no_run
//! use zeg::Segmenter;
//! use zeg_serve::{Models, ServeConfig, ServedModel, Stop, serve};
//!
//! # fn main() -> anyhow::Result<()> {
//! let listener = std::net::TcpListener::bind("127.0.0.1:8000")?;
//! let load = || Ok(Models::new(vec![ServedModel::new("mini", Segmenter::load("mini".as_ref())?)])?);
//! serve(ServeConfig::default(), listener, load, |_, _| Ok(()), &Stop::default())?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
// A handler of a route is an asynchronous function, whatever it does.
#![allow(clippy::unused_async)]

mod answers;
mod assets;
mod classes;
mod config;
mod docs;
mod edge;
mod encodings;
mod fields;
mod json_body;
pub mod label_studio;
mod metrics;
mod models;
mod options;
mod outputs;
mod points;
mod problem;
mod queue;
mod routes;
mod scratch;
mod sending;
mod server;
mod silent;
mod state;
mod token;
mod work;

pub use config::{Hosts, ServeConfig};
pub use label_studio::LabelStudioSettings;
pub use models::{Models, ModelsError, ServedModel};
pub use options::{Output, SegmentOptions};
pub use outputs::{Annotation, Annotations, OutputFile, Segmentation};
pub use points::{PointAnswer, PointCandidate};
pub use problem::{Code, Problem};
pub use server::{Ending, Stop, serve};
pub use state::AppState;
pub use token::{Token, TokenError};
pub use work::{SegmentJob, Segmented, Times};

/// Removes what servers left behind that were killed: folders for exports.
pub fn remove_left_behind() {
    scratch::remove_left_behind();
}
