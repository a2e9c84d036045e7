//! Recomputes numbers of the reference implementations (ZegCLIP, CLIP-RC, ZegFormer, zsseg, CAT-Seg, MaskCLIP+) and
//! compares them.
//!
//! It is a tool for developers, behind the program `zeg-parity`. A file of reference numbers (`file`) describes itself:
//! its metadata hold the whole configuration, so any file of a known kind (`Kind`) can be checked, whatever its sizes
//! and seeds. Each kind has a module that feeds the file's inputs to the program's own models, losses and optimiser and
//! compares tensor by tensor (`check`); no arithmetic of a model is implemented again here. The results of a first
//! computation are compared with the reference; a second computation must give the same bits. A tensor that is not
//! recomputed must be an input or a weight, which is listed but not counted; any other tensor without a result fails.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use zeg_parity::{Options, run};
//!
//! # fn main() -> Result<(), zeg_parity::ParityError> {
//! let options = Options { device: Device::flex(), assets: None, planted: None };
//! let summary = run(&["crates/zeg-parity/tests/golden".into()], &options, &mut std::io::stdout())?;
//! println!("{} of {} tensors deviate", summary.failed, summary.tensors);
//! assert!(summary.passed());
//! # Ok(())
//! # }
//! ```
//!
//! The `README.md` beside the vectors lists the files and the tolerances.

mod array;
mod assets;
mod cat_seg;
mod check;
mod error;
mod file;
mod full_size;
#[cfg(test)]
mod generator_tests;
mod images;
mod kind;
mod limit;
mod maskclip_plus;
mod misc;
mod planted;
mod report;
#[cfg(test)]
mod result_tests;
mod set_pass;
mod small_model;
mod summary;
mod text;
mod tokenizer;
mod training_part;
mod trajectory;
mod typed;
mod variants;
mod zegformer;
mod zsseg;

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use burn::tensor::Device;

pub use error::ParityError;
pub use planted::PlantedError;
pub use summary::{Summary, Worst};

pub(crate) use zeg_model::generated as generator;

use check::{Check, Computed, Findings, judge};
use file::VectorFile;
use kind::Kind;

/// Time after which a file's duration is reported.
const LONG: Duration = Duration::from_secs(5);

/// The device to compute on, and the folder of the assets that files name.
#[derive(Debug, Clone)]
pub struct Options {
    /// A device without autodiff.
    pub device: Device,
    /// Folder that contains the `weights/` and `text/` that files name; `None`: the folders above each file are
    /// searched.
    pub assets: Option<PathBuf>,
    /// An error that tests plant into the computation, to see that the comparison finds it.
    pub planted: Option<PlantedError>,
}

/// Compares files of reference numbers, or folders of them, and writes a report.
///
/// - `out`: receives the report, one line for each group of similar tensors
///
/// If a file cannot be read or recognised, the comparison fails, but the other files are still compared.
///
/// # Errors
/// Returns an error if the report cannot be written.
pub fn run(
    paths: &[PathBuf],
    options: &Options,
    out: &mut dyn Write,
) -> Result<Summary, ParityError> {
    let mut summary = Summary::default();
    for path in paths {
        let files = match vector_files(path) {
            Ok(files) => files,
            Err(error) => {
                summary.unreadable += 1;
                writeln!(out, "FAIL {error}")?;
                continue;
            }
        };
        for file in files {
            let start = Instant::now();
            match compare_guarded(&file, options) {
                Ok((label, findings)) => {
                    report::write_file(out, &label, &findings)?;
                    summary.add(&label, &findings);
                }
                Err(error) => {
                    summary.unreadable += 1;
                    let name = file.file_stem().unwrap_or_default().to_string_lossy();
                    writeln!(out, "{name}: FAIL {error}")?;
                }
            }
            out.flush()?;
            if start.elapsed() > LONG {
                progress(&file, &format!("{:.0} s", start.elapsed().as_secs_f64()));
            }
        }
    }
    report::write_summary(out, &summary)?;
    Ok(summary)
}

/// Compares one file as [`compare_file`] does, and turns a panic of the tensor library into an error of this file.
fn compare_guarded(path: &Path, options: &Options) -> Result<(String, Findings), ParityError> {
    let result = catch_unwind(AssertUnwindSafe(|| compare_file(path, options)));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(ParityError::Panic {
            path: path.to_owned(),
            reason: text.unwrap_or("no message").to_owned(),
        })
    })
}

/// Reads, recognises and compares one file.
fn compare_file(path: &Path, options: &Options) -> Result<(String, Findings), ParityError> {
    let file = VectorFile::open(path)?;
    let first = compute(&file, options)?;
    let again = match options.planted {
        // A planted error is in every computation, so one computation is enough to find it.
        Some(_) => None,
        None => Some(compute(&file, options)?),
    };
    Ok((file.label(), judge(first, again.as_ref())))
}

/// Computes the results of a file once.
fn compute(file: &VectorFile, options: &Options) -> Result<Computed, ParityError> {
    let unknown = |reason: String| ParityError::Format {
        path: file.path.clone(),
        reason,
    };
    let kind =
        Kind::of(file).ok_or_else(|| unknown("is not a known file of reference numbers".into()))?;
    let check = Check::new(file, options.planted);
    match kind {
        Kind::SmallModel => small_model::compare(check, &options.device),
        Kind::Variants => variants::compare(check, &options.device),
        Kind::TextEncoder => text::compare(check, &options.device),
        Kind::Tokenizer => tokenizer::compare(check),
        Kind::Misc => misc::compare(check, &options.device),
        Kind::FullSize => full_size::compare(check, options),
        Kind::Trajectory => trajectory::compare(check, options),
        Kind::ZegFormer => zegformer::compare(check, &options.device),
        Kind::Zsseg => zsseg::compare(check, &options.device),
        Kind::CatSeg(file) => cat_seg::compare(check, file, options),
        Kind::MaskClipPlus => maskclip_plus::compare(check, &options.device),
        Kind::NotBuilt(what) => Err(unknown(format!(
            "contains {what}, for which there is no comparison"
        ))),
    }
}

/// Returns the file itself, or the files of a folder in the order of their names.
fn vector_files(path: &Path) -> Result<Vec<PathBuf>, ParityError> {
    let read = |source| ParityError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(zegformer::parts_of(path).unwrap_or_else(|| vec![path.to_owned()]));
    }
    let entries = std::fs::read_dir(path).map_err(read)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(read)?;
    paths.sort();
    let is_vector_file = |path: &PathBuf| {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "safetensors" => true,
            // A JSON file beside a safetensors file of the same name repeats that file's description.
            "json" => !path.with_extension("safetensors").exists() && holds_vectors(path),
            _ => false,
        }
    };
    paths.retain(is_vector_file);
    if paths.is_empty() {
        return Err(ParityError::Format {
            path: path.to_owned(),
            reason: "contains no file of reference numbers (*.safetensors, tokenizer *.json)"
                .into(),
        });
    }
    Ok(paths)
}

/// Returns whether a JSON file is to be compared: its kind is known, or it is damaged and must be reported.
fn holds_vectors(path: &Path) -> bool {
    VectorFile::open(path).map_or(true, |file| Kind::of(&file).is_some())
}

/// Writes a line of progress about a slow file to standard error.
fn progress(path: &Path, text: &str) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    eprintln!("parity: {name}: {text}");
}
