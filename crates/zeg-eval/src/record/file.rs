//! Reads and writes records as files.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeg_base::file::{NewFile, Overwrite, behind_link};

use super::{Evaluation, FILE_NAME};
use crate::EvalError;

/// Largest size of a record in bytes; COCO-Stuff's 5,000 images take half a million.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;

impl Evaluation {
    /// Reads a record.
    ///
    /// - `path`: the file, or the folder of `evaluation.json`
    ///
    /// # Errors
    /// Returns [`EvalError::Unreadable`], [`EvalError::FileTooLarge`], [`EvalError::Json`], or [`EvalError::InFile`]
    /// with an error of [`Evaluation::validate`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EvalError> {
        let mut path = path.as_ref().to_path_buf();
        if path.is_dir() {
            path.push(FILE_NAME);
        }
        let text = read_limited(&path, MAX_FILE_BYTES)?;
        let evaluation: Self = match serde_json::from_slice(&text) {
            Ok(evaluation) => evaluation,
            Err(source) => return Err(EvalError::Json { path, source }),
        };
        match evaluation.validate() {
            Ok(()) => Ok(evaluation),
            Err(source) => Err(EvalError::InFile {
                path,
                source: Box::new(source),
            }),
        }
    }

    /// Writes the record as `evaluation.json` into a folder, which is created if it does not exist, and returns the
    /// path. The file is written completely or not at all.
    ///
    /// # Errors
    /// Returns [`EvalError::Unwritable`] or an error of [`Evaluation::validate`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<PathBuf, EvalError> {
        self.validate()?;
        let folder = folder.as_ref();
        let path = folder.join(FILE_NAME);
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let behind = behind_link(&path, Overwrite::Replace)?;
            let mut file = NewFile::create(&behind, Overwrite::Replace)?;
            write_record(&mut file, &serde_json::to_value(self)?)?;
            file.finish()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(source) => Err(EvalError::Unwritable { path, source }),
        }
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, EvalError> {
    let unreadable = |error| EvalError::Unreadable {
        path: path.into(),
        source: zeg_base::file::read_error(path, error),
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // Reading one byte more than the limit detects large files: devices and pipes do not report their length.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > limit {
        let bytes = path
            .metadata()
            .map_or(length, |facts| facts.len().max(length));
        return Err(EvalError::FileTooLarge {
            path: path.into(),
            bytes,
            limit,
        });
    }
    Ok(bytes)
}

/// Writes one line per field and one line per entry of a list, so that records can be read and compared line by line.
fn write_record(file: &mut impl Write, record: &Value) -> io::Result<()> {
    let Value::Object(fields) = record else {
        return serde_json::to_writer(file, record).map_err(io::Error::from);
    };
    writeln!(file, "{{")?;
    for (position, (name, value)) in fields.iter().enumerate() {
        write!(file, "  {}: ", serde_json::to_string(name)?)?;
        write_field(file, value)?;
        let last = position + 1 == fields.len();
        writeln!(file, "{}", if last { "" } else { "," })?;
    }
    writeln!(file, "}}")
}

fn write_field(file: &mut impl Write, value: &Value) -> io::Result<()> {
    match value {
        Value::Array(entries)
            if entries
                .iter()
                .any(|entry| entry.is_object() || entry.is_array()) =>
        {
            writeln!(file, "[")?;
            for (position, entry) in entries.iter().enumerate() {
                let last = position + 1 == entries.len();
                writeln!(file, "    {entry}{}", if last { "" } else { "," })?;
            }
            write!(file, "  ]")
        }
        Value::Object(fields) if fields.contains_key("rows") => {
            write!(file, "{{")?;
            for (position, (name, value)) in fields.iter().enumerate() {
                let comma = if position > 0 { ", " } else { "" };
                write!(file, "{comma}{}: ", serde_json::to_string(name)?)?;
                write_field(file, value)?;
            }
            write!(file, "}}")
        }
        value => write!(file, "{value}"),
    }
}
