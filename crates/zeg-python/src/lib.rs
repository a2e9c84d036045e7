//! The private module `zeg._zeg` of the Python package: models, images and results as Python objects.
//!
//! The package's own sources in `python/zeg` check what users pass, and call this module; nobody else should. Inference
//! is that of the library ([`zeg::Segmenter`]), and commands are those of the program ([`zeg_cli::host`]).

mod classes;
mod commands;
mod errors;
mod images;
mod segmentation;
mod segmenter;
mod work;

use pyo3::prelude::*;

/// Models, images and results; use the package `zeg` instead.
#[pymodule(gil_used = true)]
mod _zeg {
    #[pymodule_export]
    use super::{
        commands::{cache_folder, main, run_command},
        images::Image,
        segmentation::Segmentation,
        segmenter::{Encoding, Segmenter},
    };
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
        module.add("UNLABELLED", zeg::image::IGNORE_LABEL)
    }
}
