//! Downloads the missing files of a model.

use std::{fs, path::PathBuf, sync::atomic::AtomicBool, time::Duration};

use serde::Serialize;

use crate::{
    Cache, Entry, FileRecord, HubError, Network, Obtain, Settings, cache::part_path,
    download::Download, request::client,
};

/// A step of a download, for progress reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another program is downloading the same model, and this one waits until it has finished.
    Waiting,
    /// The download of a file starts.
    Started {
        /// The name of the file.
        file: &'a str,
        /// The requested address.
        address: &'a str,
        /// Number of bytes that an earlier run has downloaded.
        done: u64,
        /// Length in bytes, if published.
        total: Option<u64>,
    },
    /// More bytes of a file have arrived.
    Progress {
        /// The name of the file.
        file: &'a str,
        /// Number of bytes that have arrived.
        done: u64,
        /// Length in bytes, if known.
        total: Option<u64>,
    },
    /// An attempt failed and will be repeated.
    Retrying {
        /// The name of the file.
        file: &'a str,
        /// What went wrong.
        reason: &'a str,
        /// The pause before the next attempt.
        pause: Duration,
    },
    /// A file is complete and verified.
    Finished {
        /// The new record of the file.
        record: &'a FileRecord,
    },
}

/// A file that [`pull()`] would download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The name of the file.
    pub file: String,
    /// The address that would be requested first.
    pub address: String,
    /// Length in bytes, if published.
    pub size: Option<u64>,
    /// Number of bytes that an earlier run has downloaded.
    pub begun: u64,
}

/// A model that is downloaded completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pulled {
    /// The name of the model.
    pub name: String,
    /// The path of the weights.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub path: PathBuf,
    /// The records of all files, the weights first.
    pub files: Vec<FileRecord>,
    /// The names of the files that this call has downloaded; empty if all files were in the cache.
    pub downloaded: Vec<String>,
}

/// Returns the files of a model that are not downloaded yet.
///
/// # Errors
/// Returns [`HubError::Manual`] if the model must be downloaded by hand, and [`HubError::Address`] if a source is not
/// a usable address.
pub fn missing(
    entry: &Entry,
    cache: &Cache,
    settings: &Settings,
) -> Result<Vec<Missing>, HubError> {
    let files = match &entry.obtain {
        Obtain::Download(files) => files,
        Obtain::Manual(manual) => {
            return Err(HubError::Manual {
                name: entry.name.clone(),
                page: manual.page.clone(),
                steps: manual.steps.clone(),
            });
        }
    };
    let manifest = cache.manifest(&entry.name).unwrap_or_default();
    let folder = cache.folder(&entry.name);
    let mut missing = Vec::new();
    for file in files {
        if cache.record_of(&entry.name, file, &manifest).is_some() {
            continue;
        }
        let source = file.sources.first().map_or("", String::as_str);
        let part = fs::metadata(part_path(&folder, file));
        missing.push(Missing {
            file: file.name.clone(),
            address: settings.resolve(source)?.into(),
            size: file.size,
            begun: part.map_or(0, |part| part.len()),
        });
    }
    Ok(missing)
}

/// Downloads the missing files of a model, verifies their digests, and returns the paths of all files.
///
/// If no file is missing, the network is not used. If two programs pull the same model, the second waits for the
/// first. Setting `cancel` stops the download soon and keeps the bytes that have arrived, as does every error other
/// than a wrong digest.
///
/// A file without a published digest is verified against the digest that Hugging Face announces, or else against the
/// digest of its first download.
///
/// # Errors
/// Returns any [`HubError`] other than those about lists of models and unknown names.
pub fn pull(
    entry: &Entry,
    cache: &Cache,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(&Event<'_>),
) -> Result<Pulled, HubError> {
    if missing(entry, cache, settings)?.is_empty() {
        return pulled(entry, cache, Vec::new());
    }
    if settings.network == Network::Offline {
        return Err(HubError::Offline {
            name: entry.name.clone(),
        });
    }
    let lock = cache.lock(&entry.name, cancel, || report(&Event::Waiting))?;
    let agent = client(settings)?;
    let folder = cache.folder(&entry.name);
    // The manifest is read under the lock, because another program may just have finished the download.
    let mut manifest = cache.manifest(&entry.name).unwrap_or_default();
    let mut downloaded = Vec::new();
    for file in entry.files() {
        if cache.record_of(&entry.name, file, &manifest).is_some() {
            continue;
        }
        let recorded = manifest
            .file(&file.name)
            .filter(|record| !cache.is_foreign(&entry.name, record)) // its digest is that of another file
            .map(|record| record.sha256.clone());
        let record = Download {
            file,
            folder: &folder,
            recorded: recorded.as_deref(),
            agent: &agent,
            settings,
            cancel,
        }
        .run(report)?;
        downloaded.push(file.name.clone());
        manifest.put(record, entry.files());
        cache.write_manifest(&entry.name, &manifest)?;
    }
    drop(lock);
    pulled(entry, cache, downloaded)
}

fn pulled(entry: &Entry, cache: &Cache, downloaded: Vec<String>) -> Result<Pulled, HubError> {
    let mut manifest = cache.manifest(&entry.name).unwrap_or_default();
    // The list of models may have lost or reordered files since the download, so the records are sorted again.
    let records = manifest.files.clone();
    for record in records {
        manifest.put(record, entry.files());
    }
    if !downloaded.is_empty() || Some(&manifest) != cache.manifest(&entry.name).as_ref() {
        cache.write_manifest(&entry.name, &manifest)?;
    }
    let weights = entry.files().first().map_or("", |file| file.name.as_str());
    Ok(Pulled {
        name: entry.name.clone(),
        path: cache.folder(&entry.name).join(weights),
        files: manifest.files,
        downloaded,
    })
}
