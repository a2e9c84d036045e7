//! Reads PyTorch's zip files: `torch.save` since 1.6, and TorchScript.
//!
//! `<name>/data.pkl` is a pickle that refers to storages by key; the values of storage `k` are the entry
//! `<name>/data/k`, also in TorchScript. Its checksum is compared when a tensor in it is read for the first time.
//!
//! PyTorch stores these entries uncompressed, so that an entry is a range of bytes in the file, and its size is bounded
//! by that of the file. Compressed entries are refused: no program writes them, and their uncompressed size is not
//! bounded.

use std::{collections::HashMap, sync::atomic::AtomicBool};

use ::zip::{
    CompressionMethod, ZipArchive,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

use super::{ContainerFormat, Contents, MOST_DIRECTORY_BYTES, MOST_PICKLE_BYTES, Record, torch};
use crate::{
    error::Defect,
    pickle::{self, Document, StorageRef, TensorRef},
    source::{Cursor, Source},
};

/// The name of the entry with the byte order.
const BYTE_ORDER: &str = "byteorder";

pub(super) fn read(source: &Source) -> Result<Contents, Defect> {
    let mut archive = Archive::open(source)?;
    let pickle = archive.bytes("data.pkl", MOST_PICKLE_BYTES)?;
    if archive.holds(BYTE_ORDER) && archive.bytes(BYTE_ORDER, 16)? != b"little" {
        return Err(Defect::format(
            "the values are big-endian; save the file again on a little-endian machine",
        ));
    }
    let format = if archive.holds("constants.pkl") {
        ContainerFormat::TorchScript
    } else {
        ContainerFormat::TorchZip
    };
    let document = pickle::read(&pickle).map_err(Defect::from)?;
    let tensors = torch::tensors(&document, |tensor| archive.locate(&document, tensor))?;
    archive.record("data.pkl")?.check(source)?;
    Ok(Contents {
        format,
        tensors: tensors.named,
        metadata: tensors.metadata,
        passed_over: tensors.passed_over,
        records: archive.records,
    })
}

struct Archive<'a> {
    source: &'a Source,
    zip: ZipArchive<Cursor<'a>>,
    /// The prefix of every entry's name, including the slash.
    root: String,
    /// Indices of the entries by their name after `root`.
    entries: HashMap<String, usize>,
    /// Storages located so far, by key.
    storages: HashMap<Vec<u8>, torch::Extent>,
    /// The records of these storages.
    records: Vec<Record>,
}

impl<'a> Archive<'a> {
    fn open(source: &'a Source) -> Result<Self, Defect> {
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let cursor = Cursor::new(source, MOST_DIRECTORY_BYTES);
        let zip = ZipArchive::with_config(config, cursor).map_err(|error| defect(&error))?;
        let names: Vec<String> = zip
            .file_names_raw()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        let root = names
            .iter()
            .filter_map(|name| name.strip_suffix("data.pkl"))
            .filter(|root| root.ends_with('/') && root.matches('/').count() == 1)
            .min()
            .map(str::to_owned);
        let Some(root) = root else {
            let reason = if names.iter().any(|name| name.ends_with("/model.json")) {
                "TorchScript files from before PyTorch 1.4 are not supported; save the file again with a newer PyTorch"
            } else {
                "a zip file that PyTorch has not written: it has no entry data.pkl"
            };
            return Err(Defect::format(reason));
        };
        let entries = names
            .iter()
            .enumerate()
            .filter_map(|(i, name)| Some((name.strip_prefix(&root)?.to_owned(), i)))
            .collect();
        Ok(Self {
            source,
            zip,
            root,
            entries,
            storages: HashMap::new(),
            records: Vec::new(),
        })
    }

    fn holds(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Returns the range of bytes of an entry.
    fn extent(&mut self, name: &str) -> Result<torch::Extent, Defect> {
        let Record { start, bytes, .. } = self.record(name)?;
        Ok(torch::Extent { start, bytes })
    }

    /// Returns an entry with its range of bytes and its checksum.
    fn record(&mut self, name: &str) -> Result<Record, Defect> {
        let full = || format!("{}{}", self.root, name.escape_debug());
        let index = *self
            .entries
            .get(name)
            .ok_or_else(|| Defect::Format(format!("the entry {} is missing", full())))?;
        let entry = self
            .zip
            .by_index_raw(index)
            .map_err(|error| defect(&error))?;
        if entry.encrypted() {
            return Err(Defect::Format(format!("the entry {} is encrypted", full())));
        }
        if entry.compression() != CompressionMethod::Stored
            || entry.size() != entry.compressed_size()
        {
            return Err(Defect::Format(format!(
                "the entry {} is compressed; save the file again with torch.save, which does not compress entries",
                full()
            )));
        }
        let end = entry
            .data_start()
            .and_then(|start| Some((start, start.checked_add(entry.size())?)))
            .filter(|(_, end)| *end <= self.source.length());
        let Some((start, _)) = end else {
            return Err(Defect::Format(format!(
                "the entry {} extends beyond the end of the file",
                full()
            )));
        };
        Ok(Record {
            name: full(),
            start,
            bytes: entry.size(),
            crc32: entry.crc32(),
            is_checked: AtomicBool::new(false),
        })
    }

    fn bytes(&mut self, name: &str, most: usize) -> Result<Vec<u8>, Defect> {
        let extent = self.extent(name)?;
        let count = usize::try_from(extent.bytes)
            .ok()
            .filter(|&count| count <= most)
            .ok_or_else(|| {
                Defect::Format(format!(
                    "the entry {}{name} has {} bytes; the limit is {most} bytes",
                    self.root, extent.bytes
                ))
            })?;
        self.source.exactly(extent.start, count)
    }

    fn locate(
        &mut self,
        document: &Document<'_>,
        tensor: &TensorRef,
    ) -> Result<torch::View, Defect> {
        torch::view(document, tensor, |storage| self.storage(storage))
    }

    fn storage(&mut self, storage: &StorageRef<'_>) -> Result<torch::Extent, Defect> {
        if let Some(extent) = self.storages.get(storage.key) {
            return Ok(*extent);
        }
        let key = String::from_utf8_lossy(storage.key);
        let record = self.record(&format!("data/{key}"))?;
        let Record { start, bytes, .. } = record;
        let extent = torch::Extent { start, bytes };
        self.records.push(record);
        self.storages.insert(storage.key.to_vec(), extent);
        Ok(extent)
    }
}

fn defect(error: &ZipError) -> Defect {
    Defect::Format(format!("not a complete zip file: {error}"))
}
