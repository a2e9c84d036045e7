//! Converts weights of any format and family to one safetensors file with `zeg`'s names.
//!
//! Tensors are read, converted and written one at a time, so that memory does not grow with the file. The result is
//! written to a temporary file, read back, compared with what was written, and only then renamed. The output is
//! therefore either complete, or the previous file is unchanged.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

use half::{bf16, f16, slice::HalfFloatSliceExt as _};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use zeg_base::{
    file::{NewFile, Overwrite},
    hex,
};

use crate::{
    ARCHITECTURE_KEY, Inspection, KeyTable, SELF_TRAINING_KEY, StateDict, WeightsError, convert,
    digest::hash_file,
    inspect::{FAMILY_KEY, FORMAT_KEY, SOURCE_KEY, SOURCE_SHA256_KEY},
    parts::{self, Place},
    state_dict::{Entry, OWN_METADATA},
    values::{ValueDefect, value_defect},
};

/// Value of [`FORMAT_KEY`].
const FORMAT: &str = "clip-weights-1";
/// The largest ratio of output size to source size; the output may be larger, because tensors may share storage and
/// values may become wider.
const MOST_GROWTH: u64 = 8;
/// Number of bytes that may be written in addition, whatever the size of the source.
const FREE_BYTES: u64 = 64 << 20;
/// The header length is a multiple of this number of bytes, so that tensors are aligned.
const ALIGNMENT: usize = 8;

/// The types of the tensors in an imported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportPrecision {
    /// Each tensor keeps its type `f32`, `f16` or `bf16`; `f64` becomes `f32`, and compact `int8` becomes `f16`.
    Same,
    /// All tensors are stored as `f32`.
    F32,
    /// All tensors are stored as `f16`.
    F16,
}

/// One tensor of the output.
struct Planned<'a> {
    key: &'a str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: u64,
}

/// Converts weights of any format to a safetensors file with `zeg`'s names.
///
/// - `tables`: as in [`StateDict::open`]
/// - `output`: the new file; an existing one is replaced once the new one is complete
/// - `progress`: called with `(bytes done, bytes in total)`, where reading and verifying count as well
///
/// Returns a summary of the new file.
///
/// # Errors
/// Returns the errors of [`StateDict::open`] and [`import_opened`].
pub fn import(
    path: &Path,
    tables: &[KeyTable],
    output: &Path,
    precision: ImportPrecision,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Inspection, WeightsError> {
    import_opened(&StateDict::open(path, tables)?, output, precision, progress)
}

/// Converts opened weights as [`import`] does. What [`StateDict::state_activation`] and [`StateDict::state_heads`] stated
/// stands in the new file as stated; what is assumed stands there as assumed.
///
/// # Errors
/// Returns the errors of [`Inspection::of`]. Also returns an error if the weights are a model that `zeg train` wrote, if
/// a tower lacks tensors or has tensors that CLIP does not have, if a value is not finite or does not fit into `f16`, if a
/// matrix holds nothing but zeros, if the output is the source or cannot be written, or if the written file reads back
/// differently.
pub fn import_opened(
    weights: &StateDict,
    output: &Path,
    precision: ImportPrecision,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Inspection, WeightsError> {
    let inspection = Inspection::of(weights)?;
    let path = &inspection.path;
    if weights.metadata().contains_key(OWN_METADATA) {
        return Err(WeightsError::OwnCheckpoint { path: path.clone() });
    }
    check(path, weights, &inspection)?;
    if weights.paths().any(|source| same_file(source, output)) {
        return Err(write_error(
            output,
            io::Error::other("the output is the file to be imported; choose another name"),
        ));
    }
    let plan = plan(path, weights, precision)?;
    let data_bytes: u64 = plan.iter().map(|tensor| tensor.bytes).sum();
    let source_bytes = weights.file_bytes();
    let total = source_bytes.saturating_add(data_bytes.saturating_mul(2));
    let mut done = 0_u64;
    let mut advance = |bytes: u64| {
        done = done.saturating_add(bytes);
        progress(done.min(total), total);
    };
    advance(0);

    let mut hasher = Sha256::new();
    for file in weights.paths() {
        hash_file(file, &mut hasher, &mut advance)?;
    }
    let header = header(
        &plan,
        &metadata(weights, &inspection, hex::encode(hasher.finalize()))?,
    )
    .map_err(|error| write_error(output, error))?;

    let write = |error| write_error(output, error);
    let mut temporary = NewFile::create(output, Overwrite::Replace).map_err(write)?;
    let written = {
        let mut digest = Sha256::new();
        temporary
            .write_all(&(header.len() as u64).to_le_bytes())
            .map_err(write)?;
        temporary.write_all(&header).map_err(write)?;
        for tensor in &plan {
            let bytes = encoded(weights, tensor)?;
            digest.update(&bytes);
            temporary.write_all(&bytes).map_err(write)?;
            advance(tensor.bytes);
        }
        digest
    };
    let again = temporary.written().map_err(write)?;
    verify(again, output, &plan, written, &mut advance)?;
    temporary.finish().map_err(write)?;
    Inspection::of(&StateDict::open(output, weights.tables())?)
}

fn write_error(output: &Path, source: io::Error) -> WeightsError {
    WeightsError::Write {
        path: output.to_owned(),
        source,
    }
}

fn same_file(source: &Path, output: &Path) -> bool {
    match (source.canonicalize(), output.canonicalize()) {
        (Ok(source), Ok(output)) => source == output,
        _ => false,
    }
}

/// Returns an error if `zeg`'s models would compute something else from the weights than their own program does.
fn check(path: &Path, weights: &StateDict, found: &Inspection) -> Result<(), WeightsError> {
    let shortened = |names: Vec<String>| match names.as_slice() {
        [one] => one.clone(),
        [one, two] => format!("{one}, {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
        [] => String::new(),
    };
    let foreign: Vec<String> = weights
        .keys()
        .filter(|key| matches!(parts::place(key, weights.tables()), Place::Foreign(_)))
        .map(str::to_owned)
        .collect();
    let unsupported = |reason: String| WeightsError::Unsupported {
        path: path.to_owned(),
        reason,
    };
    if !foreign.is_empty() {
        return Err(unsupported(format!(
            "the model is not a vision transformer of CLIP's form; it has additional tensors: {}",
            shortened(foreign)
        )));
    }
    weights.check_unread()?;
    if found.parts.is_empty() {
        let names: Vec<String> = weights.keys().map(str::to_owned).collect();
        return Err(unsupported(format!(
            "none of the tensors belongs to CLIP or a segmentation head; the file has {}",
            shortened(names)
        )));
    }
    if !found.missing.is_empty() {
        return Err(WeightsError::Format {
            path: path.to_owned(),
            reason: format!("tensors are missing: {}", shortened(found.missing.clone())),
        });
    }
    Ok(())
}

/// Returns the tensors to write, in order: wide types come first, so that every tensor is aligned.
fn plan<'a>(
    path: &Path,
    weights: &'a StateDict,
    precision: ImportPrecision,
) -> Result<Vec<Planned<'a>>, WeightsError> {
    let mut plan = Vec::new();
    let most = weights
        .file_bytes()
        .saturating_mul(MOST_GROWTH)
        .saturating_add(FREE_BYTES);
    let mut sum = 0_u64;
    for key in weights.keys() {
        let Some(entry) = weights.entry(key) else {
            continue;
        };
        if !matches!(parts::place(key, weights.tables()), Place::Known(_)) {
            continue;
        }
        let dtype = match precision {
            ImportPrecision::F32 => Dtype::F32,
            ImportPrecision::F16 => Dtype::F16,
            ImportPrecision::Same => own_type(entry),
        };
        let bytes = entry
            .shape
            .iter()
            .try_fold(width(dtype), |product, &size| {
                product.checked_mul(size as u64)
            })
            .unwrap_or(u64::MAX);
        sum = sum.saturating_add(bytes);
        if sum > most {
            return Err(WeightsError::Format {
                path: path.to_owned(),
                reason: format!(
                    "the tensors would take more than {most} bytes, the limit for a file of this size"
                ),
            });
        }
        plan.push(Planned {
            key,
            dtype,
            shape: entry.shape.clone(),
            bytes,
        });
    }
    plan.sort_by_key(|tensor| (std::cmp::Reverse(width(tensor.dtype)), tensor.key));
    Ok(plan)
}

/// Returns the size of a value in bytes.
fn width(dtype: Dtype) -> u64 {
    if dtype == Dtype::F32 { 4 } else { 2 }
}

/// Returns the smallest type that represents the values of a tensor exactly.
fn own_type(entry: &Entry) -> Dtype {
    let mut types = entry.pieces.iter().map(|piece| match piece.stored.dtype {
        Dtype::F16 | Dtype::BF16 => piece.stored.dtype,
        Dtype::I8 => Dtype::F16,
        _ => Dtype::F32,
    });
    let first = types.next().unwrap_or(Dtype::F32);
    if types.all(|other| other == first) {
        first
    } else {
        Dtype::F32
    }
}

/// Returns the bytes of a tensor in the output.
fn encoded(weights: &StateDict, tensor: &Planned<'_>) -> Result<Vec<u8>, WeightsError> {
    let Some(entry) = weights.entry(tensor.key) else {
        return Ok(Vec::new());
    };
    let values = weights
        .read(tensor.key)?
        .map(|read| read.values)
        .unwrap_or_default();
    check_values(weights, tensor, &values)?;
    if let [piece] = entry.pieces.as_slice()
        && piece.stored.dtype == tensor.dtype
        && !entry.transposed
        && let Some(source) = weights.source(piece)
        && let Some(bytes) = convert::bytes(source, &piece.stored)?
    {
        return Ok(bytes);
    }
    let narrow = |lost: Option<&f32>| match lost {
        Some(value) => Err(WeightsError::Unsupported {
            path: weights.origin().into(),
            reason: format!(
                "tensor {:?} has the value {value}, which does not fit into {:?}; import it as f32",
                tensor.key, tensor.dtype
            ),
        }),
        None => Ok(()),
    };
    Ok(match tensor.dtype {
        Dtype::F16 => {
            let mut narrowed = vec![f16::ZERO; values.len()];
            narrowed.convert_from_f32_slice(&values);
            let mut pairs = values.iter().zip(&narrowed);
            narrow(
                pairs
                    .find(|(v, n)| v.is_finite() && !n.is_finite())
                    .map(|(v, _)| v),
            )?;
            little_endian(narrowed.reinterpret_cast())
        }
        Dtype::BF16 => {
            let mut narrowed = vec![bf16::ZERO; values.len()];
            narrowed.convert_from_f32_slice(&values);
            little_endian(narrowed.reinterpret_cast())
        }
        _ if cfg!(target_endian = "little") => bytemuck::cast_slice(&values).to_vec(),
        _ => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    })
}

/// Returns an error if the values cannot be those of a model, so that no damaged file gets a new name.
fn check_values(
    weights: &StateDict,
    tensor: &Planned<'_>,
    values: &[f32],
) -> Result<(), WeightsError> {
    let (path, key) = (|| PathBuf::from(weights.origin()), || tensor.key.to_owned());
    match value_defect(&tensor.shape, values) {
        None => Ok(()),
        Some(ValueDefect::NotFinite { index, value }) => Err(WeightsError::NotFinite {
            path: path(),
            key: key(),
            index,
            value,
        }),
        Some(ValueDefect::AllZero) => Err(WeightsError::AllZero {
            path: path(),
            key: key(),
        }),
    }
}

/// Returns the bytes of 16-bit numbers in little-endian order.
fn little_endian(bits: &[u16]) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        bytemuck::cast_slice(bits).to_vec()
    } else {
        bits.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }
}

fn metadata(
    weights: &StateDict,
    found: &Inspection,
    sha256: String,
) -> Result<BTreeMap<&'static str, String>, WeightsError> {
    let first: PathBuf = weights
        .paths()
        .next()
        .map(Path::to_owned)
        .unwrap_or_default();
    let name = first
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut metadata = BTreeMap::from([
        (FORMAT_KEY, FORMAT.to_owned()),
        (FAMILY_KEY, found.family.clone()),
        (SOURCE_KEY, name),
        (SOURCE_SHA256_KEY, sha256),
    ]);
    if let Some(stated) = weights.metadata().get(SELF_TRAINING_KEY) {
        metadata.insert(SELF_TRAINING_KEY, stated.clone());
    }
    if let Some(architecture) = &found.architecture {
        let json = serde_json::to_string(architecture).map_err(|error| WeightsError::Format {
            path: first,
            reason: error.to_string(),
        })?;
        metadata.insert(ARCHITECTURE_KEY, json);
    }
    Ok(metadata)
}

/// Returns the JSON header of a safetensors file.
fn header(plan: &[Planned<'_>], metadata: &BTreeMap<&str, String>) -> io::Result<Vec<u8>> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut at = 0_u64;
    for tensor in plan {
        let end = at.saturating_add(tensor.bytes);
        let entry: Value = json!({
            "dtype": format!("{:?}", tensor.dtype),
            "shape": tensor.shape,
            "data_offsets": [at, end],
        });
        header.insert(tensor.key.to_owned(), entry);
        at = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(header)
}

/// Reads the written file back and compares names, shapes and the digest of all values.
fn verify(
    written: &Path,
    output: &Path,
    plan: &[Planned<'_>],
    digest: Sha256,
    advance: &mut dyn FnMut(u64),
) -> Result<(), WeightsError> {
    let differs = |what: &str| {
        write_error(
            output,
            io::Error::other(format!("{what} differs when the file is read back")),
        )
    };
    let again = StateDict::open(written, &[])?;
    if again.keys().count() != plan.len() {
        return Err(differs("the number of tensors"));
    }
    let mut found = Sha256::new();
    for tensor in plan {
        let entry = again.entry(tensor.key).ok_or_else(|| differs(tensor.key))?;
        let piece = entry.pieces.first().ok_or_else(|| differs(tensor.key))?;
        let source = again.source(piece).ok_or_else(|| differs(tensor.key))?;
        if entry.shape != tensor.shape || piece.stored.dtype != tensor.dtype {
            return Err(differs(tensor.key));
        }
        let bytes = convert::bytes(source, &piece.stored)?.ok_or_else(|| differs(tensor.key))?;
        found.update(&bytes);
        advance(tensor.bytes);
    }
    if found.finalize() != digest.finalize() {
        return Err(differs("a value"));
    }
    Ok(())
}
