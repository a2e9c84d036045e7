//! Named tensors of weight files, read on demand as `f32`.
//!
//! Only the tensors that a model requests are read and converted. They are stored as `f32`, `f16`, `bf16`, `f64` or in
//! compact form: an `int8` matrix with one `float32` scale per row in `<key>.scale`, where value = int8 × scale,
//! rounded to `f16`. Other integer tensors, such as the position ids that some programs store, are not weights and not
//! listed.

mod entries;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::Dtype;

use self::entries::{SCALE_SUFFIX, compact_values, entry, is_integer, scale_of};
use crate::{
    WeightsError,
    architecture::{StatedActivation, StatedHeads},
    container::{self, ContainerFormat, Contents, Record, StoredTensor},
    convert,
    folders::folders_of,
    key_table::KeyTable,
    prefixes, side_files,
    source::Source,
};

/// Metadata key of a checkpoint of `zeg`; the keys of its other files begin with `zeg.`. Their names have no prefixes.
pub(crate) const OWN_METADATA: &str = "zeg";

/// A tensor in main memory, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The values, as many as the product of `shape`.
    pub values: Vec<f32>,
}

/// The location of a tensor.
#[derive(Debug, Clone)]
enum Stored {
    File(Entry),
    Memory(Arc<HostTensor>),
}

/// A tensor in `zeg` and the tensors of files that it is made of.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// At least one tensor of a file; several are concatenated along the first dimension.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) transposed: bool,
    /// The shape in `zeg`, after concatenation and transposition.
    pub(crate) shape: Vec<usize>,
}

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Index of the file.
    pub(crate) file: usize,
    /// Name in the file.
    pub(crate) name: String,
    pub(crate) stored: StoredTensor,
    /// The `float32` row scales of a compact matrix.
    pub(crate) scale: Option<StoredTensor>,
}

/// The properties of an opened file.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    /// The path as given, which may be that of an index or a folder.
    pub(crate) path: PathBuf,
    /// Indices of the files: one, or those that an index lists.
    pub(crate) files: Range<usize>,
    /// The folders in which the configuration files may lie, the most likely first; none for bytes in memory.
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) format: ContainerFormat,
    pub(crate) table: KeyTable,
    /// Names that are not listed, with the reason.
    pub(crate) ignored: Vec<(String, &'static str)>,
    /// Names of tensors of integers that no table explains, with their types.
    pub(crate) integers: Vec<(String, Dtype)>,
    /// Keys of a checkpoint that hold other weights of the same model, which are not read.
    passed_over: Vec<String>,
}

/// Named tensors of one or several files; later files replace tensors of earlier ones.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    files: Vec<Arc<Source>>,
    /// The records of each file whose checksums are compared.
    records: Vec<Arc<Vec<Record>>>,
    entries: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
    opened: Vec<Opened>,
    /// Key tables of methods, in addition to the built-in ones.
    tables: Vec<KeyTable>,
    /// The activation that the user or a checkpoint states.
    activation: Option<StatedActivation>,
    /// The numbers of heads that the user or a checkpoint states.
    heads: StatedHeads,
}

impl StateDict {
    /// Opens a weight file of any format and gives its tensors the names of the reference checkpoints.
    ///
    /// The format is recognised from the contents: safetensors, an index of several such files, both formats of
    /// `torch.save`, TorchScript, or pickled NumPy arrays. A folder stands for the weights in it.
    ///
    /// - `tables`: the key tables of the methods whose checkpoints are to be recognised, in addition to the published
    ///   formats of CLIP and residual networks; they also apply to files that are added later
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, has none of these formats, is damaged, or would run code in Python.
    pub fn open(path: &Path, tables: &[KeyTable]) -> Result<Self, WeightsError> {
        let mut dict = Self::with_tables(tables);
        dict.add(path)?;
        Ok(dict)
    }

    /// Returns a dict with these tables and without tensors.
    fn with_tables(tables: &[KeyTable]) -> Self {
        Self {
            tables: tables.to_vec(),
            ..Self::default()
        }
    }

    /// States the activation, which takes precedence over the files.
    pub fn state_activation(&mut self, activation: StatedActivation) {
        self.activation = Some(activation);
    }

    /// Returns the activation that [`StateDict::state_activation`] stated.
    pub(crate) fn activation(&self) -> Option<StatedActivation> {
        self.activation
    }

    /// States numbers of attention heads, which take precedence over the files; a number that is `None` changes nothing.
    pub fn state_heads(&mut self, heads: StatedHeads) {
        self.heads = StatedHeads {
            image: heads.image.or(self.heads.image),
            text: heads.text.or(self.heads.text),
        };
    }

    /// Returns the numbers of heads that [`StateDict::state_heads`] stated.
    pub(crate) fn heads(&self) -> StatedHeads {
        self.heads
    }

    /// Opens the content of a weight file in memory; `name` is used as its path in messages.
    ///
    /// # Errors
    /// Returns the errors of [`StateDict::open`].
    pub fn from_bytes(
        name: &str,
        bytes: Vec<u8>,
        tables: &[KeyTable],
    ) -> Result<Self, WeightsError> {
        let mut dict = Self::with_tables(tables);
        let path = Path::new(name);
        let source = Source::memory(path, bytes);
        let contents = container::recognise(&source).map_err(|defect| defect.of(path))?;
        dict.take(path, Vec::new(), vec![(source, contents)])?;
        Ok(dict)
    }

    /// Adds the tensors of a file, which replace those of the same name.
    ///
    /// # Errors
    /// Returns the errors of [`StateDict::open`].
    pub fn add(&mut self, path: &Path) -> Result<(), WeightsError> {
        let files = container::open(path)?;
        let first = files.first();
        let folders = first.map_or_else(Vec::new, |(file, _)| folders_of(file.path()));
        self.take(path, folders, files)
    }

    fn take(
        &mut self,
        path: &Path,
        folders: Vec<PathBuf>,
        files: Vec<(Source, Contents)>,
    ) -> Result<(), WeightsError> {
        let format = files
            .first()
            .map_or(ContainerFormat::Sharded, |(_, contents)| contents.format);
        // The parts of one tensor may be in several files of an index, so the tensors of all files are collected first.
        let mut tensors: BTreeMap<String, (usize, StoredTensor)> = BTreeMap::new();
        let first_file = self.files.len();
        let (mut passed_over, mut has_own_names) = (Vec::new(), false);
        for (source, contents) in files {
            let file = self.files.len();
            let named = contents.tensors.into_iter();
            tensors.extend(named.map(|(name, stored)| (name, (file, stored))));
            has_own_names |= contents
                .metadata
                .keys()
                .any(|key| key == OWN_METADATA || key.starts_with("zeg."));
            self.metadata.extend(contents.metadata);
            passed_over.extend(contents.passed_over);
            self.files.push(Arc::new(source));
            self.records.push(Arc::new(contents.records));
        }
        let tensors = if has_own_names {
            tensors
        } else {
            prefixes::unwrapped(tensors, &self.tables).map_err(|defect| defect.of(path))?
        };
        let table = KeyTable::detect(tensors.keys().map(String::as_str), &self.tables);
        let (mut ignored, mut integers) = (Vec::new(), Vec::new());
        let mut names = Vec::new();
        for (name, (_, stored)) in &tensors {
            // The scales of a compact matrix are read together with the matrix.
            let matrix = name.strip_suffix(SCALE_SUFFIX);
            if matrix.is_some_and(|matrix| scale_of(&tensors, matrix).is_some()) {
                continue;
            }
            if is_integer(stored.dtype) && scale_of(&tensors, name).is_none() {
                // If the family has a reason of its own, it says more.
                let known = table.plan(std::iter::once(name.as_str())).ignored;
                ignored.push(known.into_iter().next().unwrap_or_else(|| {
                    integers.push((name.clone(), stored.dtype));
                    (name.clone(), "integers, not weights")
                }));
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
                "tensor {name:?} is present, but others that {key:?} is made of are missing"
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
            let entry = entry(pieces.collect(), recipe.layout).ok_or_else(|| {
                damaged(format!(
                    "the shapes of the parts of {key:?} do not fit together"
                ))
            })?;
            self.entries.insert(key, Stored::File(entry));
        }
        ignored.extend(plan.ignored);
        self.opened.push(Opened {
            path: path.to_owned(),
            files: first_file..self.files.len(),
            folders,
            format,
            table,
            ignored,
            integers,
            passed_over,
        });
        Ok(())
    }

    /// Adds a tensor in memory, such as a generated one, which replaces one of the same name.
    pub fn insert(&mut self, key: String, tensor: HostTensor) {
        self.entries.insert(key, Stored::Memory(Arc::new(tensor)));
    }

    /// Returns the names of all tensors, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Returns the metadata in the headers of the files.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Returns the family of the file opened last, such as `"OpenAI CLIP"`.
    pub fn family(&self) -> &'static str {
        self.opened
            .last()
            .map_or("no weights", |opened| opened.table.family)
    }

    /// Returns the format of the file opened last.
    pub(crate) fn format(&self) -> Option<ContainerFormat> {
        self.opened.last().map(|opened| opened.format)
    }

    /// Describes the origin of the tensors: the paths of the files.
    pub fn origin(&self) -> String {
        let names: Vec<_> = self
            .opened
            .iter()
            .map(|opened| match opened.passed_over.as_slice() {
                [] => opened.path.display().to_string(),
                others => format!(
                    "{} (which also holds {}, not read)",
                    opened.path.display(),
                    others.join(", ")
                ),
            })
            .collect();
        if names.is_empty() && !self.entries.is_empty() {
            "weights in memory".to_owned()
        } else if names.is_empty() {
            "no weight file".to_owned()
        } else {
            names.join(" + ")
        }
    }

    /// Describes what was assumed about the files and what is not read of them, for warnings.
    pub fn notices(&self) -> Vec<String> {
        let with_others = |opened: &&Opened| !opened.passed_over.is_empty();
        let opened = self.opened.iter().filter(with_others);
        let mut notices: Vec<String> = opened
            .map(|opened| {
                format!(
                    "{}: the file holds other weights of the model as well, which are not read: {}; save them in a file \
                     of their own to use them",
                    opened.path.display(),
                    opened.passed_over.join(", ")
                )
            })
            .collect();
        notices.extend(self.left_over_notices());
        notices.extend(self.opened.iter().filter_map(side_files::notices));
        notices
    }

    /// Returns whether there is a tensor of this name.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns the shape of a tensor, in the layout that [`StateDict::read`] returns.
    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        Some(match self.entries.get(key)? {
            Stored::File(entry) => entry.shape.clone(),
            Stored::Memory(tensor) => tensor.shape.clone(),
        })
    }

    /// Returns the type in which a tensor's numbers are stored, such as `f32`.
    pub fn stored_type(&self, key: &str) -> Option<String> {
        match self.entries.get(key)? {
            Stored::File(entry) => {
                let piece = entry.pieces.first()?;
                Some(format!("{:?}", piece.stored.dtype).to_lowercase())
            }
            Stored::Memory(_) => Some("f32".to_owned()),
        }
    }

    /// Reads a tensor as `f32`, or returns `None` if there is none of this name.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if the stored type is not `f32`, `f16`, `bf16`, `f64` or compact
    /// `int8`.
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
            self.check_record(source, piece)?;
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

    /// Compares the checksum of the record that holds a piece, if the format has checksums.
    fn check_record(&self, source: &Source, piece: &Piece) -> Result<(), WeightsError> {
        let records = self.records.get(piece.file).into_iter();
        let mut records = records.flat_map(|records| records.iter());
        match records.find(|record| record.holds(piece.stored.start)) {
            Some(record) => record
                .check(source)
                .map_err(|defect| defect.of(source.path())),
            None => Ok(()),
        }
    }

    /// Returns the key tables of methods.
    pub(crate) fn tables(&self) -> &[KeyTable] {
        &self.tables
    }

    /// Returns the properties of the opened files.
    pub(crate) fn opened(&self) -> &[Opened] {
        &self.opened
    }

    /// Returns how a tensor is stored, or `None` if it is in memory or unknown.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match self.entries.get(key)? {
            Stored::File(entry) => Some(entry),
            Stored::Memory(_) => None,
        }
    }

    /// Returns the file that contains a piece.
    pub(crate) fn source(&self, piece: &Piece) -> Option<&Source> {
        self.files.get(piece.file).map(Arc::as_ref)
    }

    /// Returns the total size of all files in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length()).sum()
    }

    /// Returns the paths of the files that hold tensors whose names begin with a prefix.
    pub fn paths_of(&self, prefix: &str) -> BTreeSet<PathBuf> {
        let keys = self.keys().filter(|key| key.starts_with(prefix));
        let pieces = keys.filter_map(|key| Some(&self.entry(key)?.pieces));
        let sources = pieces.flatten().filter_map(|piece| self.source(piece));
        sources.map(|source| source.path().to_owned()).collect()
    }

    /// Returns the paths of all files; for an index, those of the files in it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path())
    }
}
