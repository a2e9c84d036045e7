//! Helpers of the download tests: a file, a model with that file, and a temporary cache.

use std::{fs, path::PathBuf, sync::atomic::AtomicBool, time::Duration};

use sha2::{Digest as _, Sha256};
use zeg_hub::{Cache, Entry, HubError, Network, Proxies, Pulled, Registry, Settings, pull};

use crate::server::{Reply, Request, Server, serve_file};

pub(crate) const ETAG: &str = "\"version-1\"";

/// Number of bytes before the values of [`content`].
const HEAD: usize = 128;

/// Returns a safetensors file of 200 kB of pseudo-random bytes, so that content at a wrong offset is noticed.
pub(crate) fn content() -> Vec<u8> {
    of_values(values())
}

/// Returns another file of the same length.
pub(crate) fn other_content() -> Vec<u8> {
    of_values(values().into_iter().rev().collect())
}

fn values() -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (HEAD..200_000).map(|_| next()).collect()
}

fn of_values(values: Vec<u8>) -> Vec<u8> {
    let length = values.len();
    let header = format!(
        "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{length}],\"data_offsets\":[0,{length}]}}}}"
    );
    let mut bytes = (HEAD as u64 - 8).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(HEAD, b' ');
    bytes.extend(values);
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    zeg_base::hex::encode(Sha256::digest(bytes))
}

/// Returns a model with one file; `extra` are further lines of TOML, such as the file's digest.
pub(crate) fn entry(source: &str, extra: &str) -> Entry {
    let list = format!(
        "[[model]]\nname = 'tiny'\nabout = 'a'\nfamily = 'clip'\nformat = 'safetensors'\nlicence = 'MIT'\n\
         [[model.file]]\nname = 'model.safetensors'\nsources = ['{source}']\n{extra}"
    );
    let mut registry = Registry::built_in().unwrap();
    registry.add(&list, "test").unwrap();
    registry.find("tiny").unwrap().clone()
}

/// Returns the program's settings with short timeouts and pauses, independent of the environment.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::from_env().unwrap();
    settings.network = Network::Online;
    settings.base_url = None;
    settings.token = None;
    settings.certificates = None;
    settings.proxies = Proxies::Direct;
    settings.timeouts.connect = Duration::from_secs(5);
    settings.timeouts.answer = Duration::from_secs(5);
    settings.timeouts.read = Duration::from_secs(5);
    settings.retries.first_pause = Duration::from_millis(2);
    settings.retries.longest_pause = Duration::from_millis(1500);
    settings.retries.progress = 1000;
    settings
}

/// A temporary cache, deleted when it is dropped.
pub(crate) struct Place {
    _folder: tempfile::TempDir,
    pub(crate) cache: Cache,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        Self {
            _folder: folder,
            cache,
        }
    }

    pub(crate) fn pull(&self, entry: &Entry, settings: &Settings) -> Result<Pulled, HubError> {
        pull(
            entry,
            &self.cache,
            settings,
            &AtomicBool::new(false),
            &mut |_| {},
        )
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.cache.folder("tiny").join(name)
    }

    /// Returns the names of all files in the model's folder, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.cache.folder("tiny")).unwrap();
        let mut names: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Starts a server that offers one file; `answer` may change each reply.
pub(crate) fn file_server(
    answer: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let content = content();
    Server::start(move |request| answer(request, serve_file(request, &content, ETAG)))
}
