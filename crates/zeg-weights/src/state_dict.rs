//! Named tensors of weight files, read on demand as `f32`.
//!
//! Only the tensors that a model asks for are read and converted. Stored as `f32`, `f16`, `bf16`, `f64`, or compact:
//! `int8` rows with a `float32` scale a row beside them in `<key>.scale`, where value = int8 × scale rounded to
//! `f16`. Whole numbers, such as the position ids that some programs store, are no weights and not listed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use half::f16;
use safetensors::Dtype;
use sha2::{Digest, Sha256};
use zeg_base::hex;

use crate::{
    WeightsError,
    container::{self, ContainerFormat, Contents, StoredTensor},
    convert,
    key_table::{KeyTable, StoredLayout},
    source::Source,
};

/// Suffix of the row scales that stand beside a compact matrix.
const SCALE_SUFFIX: &str = ".scale";

/// Matrices that the reference applies as `x @ M`: stored `[in, out]`, but compact rows are output channels, so
/// their compact form is the transpose.
const COMPACT_TRANSPOSED: [&str; 3] = ["visual.proj", "backbone.proj", "text_projection"];

/// A tensor in main memory, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub values: Vec<f32>,
}

/// Where one tensor is.
#[derive(Debug, Clone)]
enum Stored {
    File(Entry),
    Memory(Arc<HostTensor>),
}

/// How one tensor is made of tensors of files.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Put one after the other along the first dimension; at least one.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) transposed: bool,
    /// As it is here.
    pub(crate) shape: Vec<usize>,
}

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    file: usize,
    /// Name inside the file.
    pub(crate) name: String,
    pub(crate) stored: StoredTensor,
    /// Row scales of a compact matrix, in `float32`.
    pub(crate) scale: Option<StoredTensor>,
}

/// What one opened file was found to be.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    /// As it was named, so an index or a folder rather than the files of it.
    pub(crate) path: PathBuf,
    /// Where files that belong to it may stand; `None` for bytes in memory.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) format: ContainerFormat,
    pub(crate) table: KeyTable,
    /// Names that are not listed, with the reason.
    pub(crate) ignored: Vec<(String, &'static str)>,
}

/// Named tensors of one or several files; later files win.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    files: Vec<Arc<Source>>,
    entries: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
    opened: Vec<Opened>,
    /// Beside those that are always known.
    tables: Vec<KeyTable>,
}

impl StateDict {
    /// Opens a weight file of any format and names its tensors as the reference checkpoints do.
    ///
    /// The format is told from the contents: safetensors, an index of several such files, `torch.save`'s two
    /// forms, TorchScript. A folder stands for the weights in it.
    ///
    /// - `tables`: those of the methods whose checkpoints are to be recognised, beside CLIP's publishers and residual
    ///   networks; also for files that are added later
    ///
    /// # Errors
    /// The file cannot be read, is of none of these formats, is damaged, or would run code in Python.
    pub fn open(path: &Path, tables: &[KeyTable]) -> Result<Self, WeightsError> {
        let mut dict = Self::with_tables(tables);
        dict.add(path)?;
        Ok(dict)
    }

    /// Returns a dict without tensors that knows these tables.
    fn with_tables(tables: &[KeyTable]) -> Self {
        Self {
            tables: tables.to_vec(),
            ..Self::default()
        }
    }

    /// As [`StateDict::open`] for a file that is in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`StateDict::open`].
    pub fn from_bytes(
        name: &str,
        bytes: Vec<u8>,
        tables: &[KeyTable],
    ) -> Result<Self, WeightsError> {
        let mut dict = Self::with_tables(tables);
        let path = Path::new(name);
        let source = Source::memory(path, bytes);
        let contents = container::recognise(&source).map_err(|defect| defect.of(path))?;
        dict.take(path, None, vec![(source, contents)])?;
        Ok(dict)
    }

    /// Adds a file's tensors, replacing those of the same name.
    ///
    /// # Errors
    /// As [`StateDict::open`].
    pub fn add(&mut self, path: &Path) -> Result<(), WeightsError> {
        let files = container::open(path)?;
        let folder = files.first().and_then(|(file, _)| file.path().parent());
        let folder = folder.map(Path::to_owned);
        self.take(path, folder, files)
    }

    fn take(
        &mut self,
        path: &Path,
        folder: Option<PathBuf>,
        files: Vec<(Source, Contents)>,
    ) -> Result<(), WeightsError> {
        let format = files
            .first()
            .map_or(ContainerFormat::Sharded, |(_, contents)| contents.format);
        // The parts of one tensor of ours may stand in several files of an index.
        let mut tensors: BTreeMap<String, (usize, StoredTensor)> = BTreeMap::new();
        for (source, contents) in files {
            let file = self.files.len();
            let named = contents.tensors.into_iter();
            tensors.extend(named.map(|(name, stored)| (name, (file, stored))));
            self.metadata.extend(contents.metadata);
            self.files.push(Arc::new(source));
        }
        let table = KeyTable::detect(tensors.keys().map(String::as_str), &self.tables);
        let mut ignored = Vec::new();
        let mut names = Vec::new();
        for (name, (_, stored)) in &tensors {
            // The scales of a compact matrix are read with it.
            let matrix = name.strip_suffix(SCALE_SUFFIX);
            if matrix.is_some_and(|matrix| scale_of(&tensors, matrix).is_some()) {
                continue;
            }
            if is_integer(stored.dtype) && scale_of(&tensors, name).is_none() {
                // The family's reason is the better one.
                let known = table.plan(std::iter::once(name.as_str())).ignored;
                let whole = (name.clone(), "whole numbers, not weights");
                ignored.push(known.into_iter().next().unwrap_or(whole));
                continue;
            }
            names.push(name.as_str());
        }
        let plan = table.plan(names.into_iter());
        let damaged = |reason: String| WeightsError::Format {
            path: path.to_owned(),
            reason,
        };
        if let Some((name, key)) = plan.incomplete.first() {
            return Err(damaged(format!(
                "tensor {name:?} is there, but not the others that {key:?} is made of"
            )));
        }
        for (key, recipe) in plan.recipes {
            let pieces = recipe.parts.iter().filter_map(|name| {
                let (file, stored) = tensors.get(name)?.clone();
                Some(Piece {
                    file,
                    name: name.clone(),
                    stored,
                    scale: scale_of(&tensors, name).cloned(),
                })
            });
            let entry = entry(pieces.collect(), recipe.layout)
                .ok_or_else(|| damaged(format!("the parts of {key:?} do not fit together")))?;
            self.entries.insert(key, Stored::File(entry));
        }
        ignored.extend(plan.ignored);
        self.opened.push(Opened {
            path: path.to_owned(),
            folder,
            format,
            table,
            ignored,
        });
        Ok(())
    }

    /// Adds a tensor that is in memory, such as a generated one, replacing that of the same name.
    pub fn insert(&mut self, key: String, tensor: HostTensor) {
        self.entries.insert(key, Stored::Memory(Arc::new(tensor)));
    }

    /// Names of all tensors, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Free text that the files carry in their headers.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The family of the file opened last, such as `"OpenAI CLIP"`.
    pub fn family(&self) -> &'static str {
        self.opened
            .last()
            .map_or("no weights", |opened| opened.table.family)
    }

    /// The format of the file opened last.
    pub(crate) fn format(&self) -> Option<ContainerFormat> {
        self.opened.last().map(|opened| opened.format)
    }

    /// The files, in words.
    pub fn origin(&self) -> String {
        let names: Vec<_> = self
            .opened
            .iter()
            .map(|opened| opened.path.display().to_string())
            .collect();
        if names.is_empty() && !self.entries.is_empty() {
            "weights in memory".to_owned()
        } else if names.is_empty() {
            "no weight file".to_owned()
        } else {
            names.join(" + ")
        }
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Shape of a tensor, in the layout that [`StateDict::read`] returns.
    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        Some(match self.entries.get(key)? {
            Stored::File(entry) => entry.shape.clone(),
            Stored::Memory(tensor) => tensor.shape.clone(),
        })
    }

    /// Reads a tensor as `f32`; `None` when there is none of this name.
    ///
    /// # Errors
    /// The file cannot be read, or the stored type is none of `f32`, `f16`, `bf16`, `f64`, compact `int8`.
    pub fn read(&self, key: &str) -> Result<Option<HostTensor>, WeightsError> {
        let entry = match self.entries.get(key) {
            Some(Stored::File(entry)) => entry,
            Some(Stored::Memory(tensor)) => return Ok(Some(HostTensor::clone(tensor))),
            None => return Ok(None),
        };
        let mut values = Vec::new();
        for piece in &entry.pieces {
            let Some(source) = self.files.get(piece.file) else {
                return Ok(None);
            };
            let part = match &piece.scale {
                Some(scale) => compact_values(source, piece, scale)?,
                None => convert::values(source, &piece.name, &piece.stored)?,
            };
            if values.is_empty() {
                values = part;
            } else {
                values.extend_from_slice(&part);
            }
        }
        if let (true, [rows, columns]) = (entry.transposed, entry.shape.as_slice()) {
            values = convert::transpose(&values, *columns, *rows);
        }
        Ok(Some(HostTensor {
            shape: entry.shape.clone(),
            values,
        }))
    }

    /// The tables of methods that names are looked up in.
    pub(crate) fn tables(&self) -> &[KeyTable] {
        &self.tables
    }

    /// What the opened files were found to be.
    pub(crate) fn opened(&self) -> &[Opened] {
        &self.opened
    }

    /// How a tensor is stored; `None` for those in memory and unknown ones.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match self.entries.get(key)? {
            Stored::File(entry) => Some(entry),
            Stored::Memory(_) => None,
        }
    }

    /// The file that a piece stands in.
    pub(crate) fn source(&self, piece: &Piece) -> Option<&Source> {
        self.files.get(piece.file).map(Arc::as_ref)
    }

    /// Bytes of all files together.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length()).sum()
    }

    /// The files, those of an index one by one.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path())
    }
}

/// The row scales that stand beside a compact matrix, in the same file.
fn scale_of<'t>(
    tensors: &'t BTreeMap<String, (usize, StoredTensor)>,
    matrix: &str,
) -> Option<&'t StoredTensor> {
    let (file, stored) = tensors.get(matrix)?;
    let (beside, scale) = tensors.get(&format!("{matrix}{SCALE_SUFFIX}"))?;
    (stored.dtype == Dtype::I8 && file == beside).then_some(scale)
}

fn is_integer(dtype: Dtype) -> bool {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(dtype, BOOL | U8 | I8 | I16 | U16 | I32 | U32 | I64 | U64)
}

/// Puts pieces together; `None` where their shapes do not fit.
fn entry(pieces: Vec<Piece>, layout: StoredLayout) -> Option<Entry> {
    let first = pieces.first()?;
    let mut shape = first.stored.shape.clone();
    let mut transposed = layout == StoredLayout::Transposed;
    if let [piece] = pieces.as_slice() {
        transposed ^= piece.scale.is_some() && COMPACT_TRANSPOSED.contains(&piece.name.as_str());
    } else {
        let rest = shape.get(1..)?;
        if pieces
            .iter()
            .any(|piece| piece.stored.shape.get(1..) != Some(rest))
        {
            return None;
        }
        let rows = pieces.iter().try_fold(0_usize, |sum, piece| {
            sum.checked_add(*piece.stored.shape.first()?)
        })?;
        *shape.first_mut()? = rows;
    }
    if transposed {
        if shape.len() != 2 {
            return None;
        }
        shape.reverse();
    }
    Some(Entry {
        pieces,
        transposed,
        shape,
    })
}

/// The values of a compact matrix, in the order in which it is stored.
fn compact_values(
    source: &Source,
    piece: &Piece,
    scale: &StoredTensor,
) -> Result<Vec<f32>, WeightsError> {
    let format = |reason: String| WeightsError::Format {
        path: source.path().to_owned(),
        reason,
    };
    let (name, shape) = (&piece.name, &piece.stored.shape);
    let [rows, columns] = shape[..] else {
        return Err(format(format!(
            "compact tensor {name:?} has shape {shape:?}, not a matrix"
        )));
    };
    if scale.dtype != Dtype::F32 || scale.shape != [rows] {
        return Err(format(format!(
            "{:?} is {:?} {:?}, not F32 [{rows}]",
            format!("{name}{SCALE_SUFFIX}"),
            scale.dtype,
            scale.shape
        )));
    }
    let scales = convert::values(source, name, scale)?;
    let bytes = convert::bytes(source, &piece.stored)?
        .ok_or_else(|| format(format!("compact tensor {name:?} is stored with gaps")))?;
    Ok(bytes
        .chunks_exact(columns.max(1))
        .zip(&scales)
        .flat_map(|(row, &scale)| {
            row.iter()
                .map(move |&byte| f16::from_f32(f32::from(byte.cast_signed()) * scale).to_f32())
        })
        .collect()) // [rows, columns]
}

/// SHA-256 of a file, in lower-case hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn file_sha256(path: &Path) -> Result<String, WeightsError> {
    let mut hasher = Sha256::new();
    hash_file(path, &mut hasher, &mut |_| {})?;
    Ok(hex::encode(hasher.finalize()))
}

/// Feeds a file to a digest, telling the number of bytes after every piece.
pub(crate) fn hash_file(
    path: &Path,
    hasher: &mut Sha256,
    fed: &mut dyn FnMut(u64),
) -> Result<(), WeightsError> {
    let read = |source| WeightsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(read)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        hasher.update(bytes);
        fed(count as u64);
    }
}
