//! PyTorch's zip files: `torch.save` since 1.6, and TorchScript.
//!
//! `<name>/data.pkl` is a pickle in which every storage is a key; the numbers of storage `k` are the entry
//! `<name>/data/k`, TorchScript's too. PyTorch stores these entries uncompressed, so that an entry is a place in the
//! file, and its size is bounded by the file's. Compressed entries are refused: no program writes them, and what
//! they inflate to is not bounded by anything.

use std::collections::HashMap;

use ::zip::{
    CompressionMethod, ZipArchive,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

use super::{ContainerFormat, Contents, MOST_DIRECTORY_BYTES, MOST_PICKLE_BYTES, torch};
use crate::{
    error::Defect,
    pickle::{self, Document, StorageRef, TensorRef},
    source::{Cursor, Source},
};

/// The entry that says in which order the bytes of a number stand.
const BYTE_ORDER: &str = "byteorder";

pub(super) fn read(source: &Source) -> Result<Contents, Defect> {
    let mut archive = Archive::open(source)?;
    let pickle = archive.bytes("data.pkl", MOST_PICKLE_BYTES)?;
    if archive.holds(BYTE_ORDER) && archive.bytes(BYTE_ORDER, 16)? != b"little" {
        return Err(Defect::format(
            "its numbers are big-endian; save it again on an ordinary machine",
        ));
    }
    let format = if archive.holds("constants.pkl") {
        ContainerFormat::TorchScript
    } else {
        ContainerFormat::TorchZip
    };
    let document = pickle::read(&pickle).map_err(Defect::from)?;
    let tensors = torch::tensors(&document, |tensor| archive.locate(&document, tensor))?;
    Ok(Contents {
        format,
        tensors,
        metadata: std::collections::BTreeMap::new(),
    })
}

struct Archive<'a> {
    source: &'a Source,
    zip: ZipArchive<Cursor<'a>>,
    /// What stands before every entry's name, with the slash.
    root: String,
    /// Numbers of the entries under `root`.
    entries: HashMap<String, usize>,
    /// Storages found so far.
    storages: HashMap<Vec<u8>, torch::Extent>,
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
                "TorchScript of before PyTorch 1.4; save it again with a newer one"
            } else {
                "a zip file that PyTorch did not write: it has no data.pkl"
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
        })
    }

    fn holds(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// First byte and length of an entry.
    fn place(&mut self, name: &str) -> Result<torch::Extent, Defect> {
        let full = || format!("{}{}", self.root, name.escape_debug());
        let index = *self
            .entries
            .get(name)
            .ok_or_else(|| Defect::Format(format!("its entry {} is missing", full())))?;
        let entry = self
            .zip
            .by_index_raw(index)
            .map_err(|error| defect(&error))?;
        if entry.encrypted() {
            return Err(Defect::Format(format!("its entry {} is encrypted", full())));
        }
        if entry.compression() != CompressionMethod::Stored
            || entry.size() != entry.compressed_size()
        {
            return Err(Defect::Format(format!(
                "its entry {} is compressed; torch.save writes entries as they are, save it again",
                full()
            )));
        }
        let end = entry
            .data_start()
            .and_then(|start| Some((start, start.checked_add(entry.size())?)))
            .filter(|(_, end)| *end <= self.source.length());
        let Some((start, _)) = end else {
            return Err(Defect::Format(format!(
                "its entry {} ends behind the file",
                full()
            )));
        };
        Ok(torch::Extent {
            start,
            bytes: entry.size(),
        })
    }

    fn bytes(&mut self, name: &str, most: usize) -> Result<Vec<u8>, Defect> {
        let place = self.place(name)?;
        let count = usize::try_from(place.bytes)
            .ok()
            .filter(|&count| count <= most)
            .ok_or_else(|| {
                Defect::Format(format!(
                    "its entry {}{name} has {} bytes; the most is {most}",
                    self.root, place.bytes
                ))
            })?;
        self.source.exactly(place.start, count)
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
        let extent = self.place(&format!("data/{key}"))?;
        self.storages.insert(storage.key.to_vec(), extent);
        Ok(extent)
    }
}

fn defect(error: &ZipError) -> Defect {
    Defect::Format(format!("not a complete zip file ({error})"))
}
