//! The list of known models, with the description, licence and files of each.
//!
//! The built-in list is a TOML file that is compiled in. Users may add entries of the same form in a file of their
//! own. Both files are validated when they are read, so that the rest of the crate can use names as folder names and
//! addresses as URLs.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use crate::{
    HubError,
    list::{parse, read_short},
    settings::variable,
};

/// The built-in list, as TOML.
const BUILT_IN: &str = include_str!("../assets/registry.toml");
/// The largest size of a list of models, in bytes; a larger file is refused.
const LONGEST_FILE: u64 = 1 << 20;

/// The file format of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A safetensors file: tensors after a JSON header.
    Safetensors,
    /// A TorchScript archive, the format of OpenAI's CLIP releases.
    TorchArchive,
    /// A zip file with a pickle, the format that `torch.save` writes.
    TorchPickle,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// The name of the file in the model's folder.
    pub name: String,
    /// Length in bytes, if published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 as 64 lower-case hexadecimal digits, if published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Addresses that offer the same content, tried in this order.
    pub sources: Vec<String>,
}

/// Instructions for a model that a program cannot download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Manual {
    /// The web page to open.
    pub page: String,
    /// What to do on the page, and afterwards.
    pub steps: String,
}

/// How a model is obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obtain {
    /// By downloading these files, of which the first one contains the weights. Never empty.
    Download(Vec<RemoteFile>),
    /// By a manual download.
    Manual(Manual),
}

/// One model in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name of the model, which consists of lower-case letters, digits, `-`, `.` and `_`.
    pub name: String,
    /// Other names that are accepted for it.
    pub aliases: Vec<String>,
    /// A short description.
    pub about: String,
    /// The model family, such as `clip`.
    pub family: String,
    /// The format of the weights.
    pub format: Format,
    /// The licence of the weights, as their owner states it.
    pub licence: String,
    /// The owner's web page.
    pub home: String,
    /// How to obtain the model.
    pub obtain: Obtain,
}

impl Entry {
    /// Returns the files to download, or none if the model must be downloaded by hand.
    pub fn files(&self) -> &[RemoteFile] {
        match &self.obtain {
            Obtain::Download(files) => files,
            Obtain::Manual(_) => &[],
        }
    }

    /// Returns the total size of all files in bytes, or `None` unless all sizes are published.
    pub fn size(&self) -> Option<u64> {
        let files = self.files();
        if files.is_empty() {
            return None;
        }
        files
            .iter()
            .try_fold(0_u64, |sum, file| sum.checked_add(file.size?))
    }

    /// Returns the total size in bytes of those files whose size is published.
    pub(crate) fn known_size(&self) -> u64 {
        let sizes = self.files().iter().filter_map(|file| file.size);
        sizes.fold(0, u64::saturating_add)
    }
}

/// The list of all models that are known by name.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// Returns the built-in list.
    ///
    /// # Errors
    /// Returns [`HubError::Registry`] if the compiled-in file is invalid; a test makes sure that it is valid.
    pub fn built_in() -> Result<Self, HubError> {
        Ok(Self {
            entries: parse(BUILT_IN, "built-in list")?,
        })
    }

    /// Loads the built-in list and adds the user's own list.
    ///
    /// The user's list is the file that `ZEG_MODELS` names. Without that variable it is `zeg/models.toml` in the
    /// user's configuration folder, if it exists.
    ///
    /// # Errors
    /// Returns [`HubError::Read`] if the user's list cannot be read, and [`HubError::Registry`] if a list is invalid.
    pub fn load() -> Result<Self, HubError> {
        let mut registry = Self::built_in()?;
        if let Some(path) = variable("ZEG_MODELS").map(PathBuf::from) {
            registry.add_file(&path)?;
        } else if let Ok(folders) = etcetera::choose_base_strategy() {
            let path = folders.config_dir().join("zeg").join("models.toml");
            if path.is_file() {
                registry.add_file(&path)?;
            }
        }
        Ok(registry)
    }

    /// Adds the entries of a file; an entry replaces an earlier one of the same name.
    ///
    /// # Errors
    /// Returns [`HubError::Read`] or [`HubError::Registry`] and leaves the list unchanged.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<(), HubError> {
        let text = read_short(path, LONGEST_FILE)?;
        self.add(&text, &path.display().to_string())
    }

    /// Adds the entries of a TOML text; an entry replaces an earlier one of the same name.
    ///
    /// The text has the form of the built-in list. `origin` says where the text comes from and is used in error
    /// messages only.
    ///
    /// # Errors
    /// Returns [`HubError::Registry`] if the text is invalid, and leaves the list unchanged.
    pub fn add(&mut self, text: &str, origin: &str) -> Result<(), HubError> {
        let new = parse(text, origin)?;
        self.entries
            .retain(|old| new.iter().all(|new| new.name != old.name));
        self.entries.extend(new);
        Ok(())
    }

    /// Returns all entries, in the order of the lists.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the entry with this name or alias, ignoring case.
    ///
    /// # Errors
    /// Returns [`HubError::UnknownModel`] with the most similar name if there is no such entry.
    pub fn find(&self, name: &str) -> Result<&Entry, HubError> {
        let wanted = name.to_lowercase();
        let exact = self.entries.iter().find(|entry| entry.name == wanted);
        let found = exact.or_else(|| {
            // The user's entries come last and take precedence.
            self.entries.iter().rev().find(|entry| {
                let mut aliases = entry.aliases.iter();
                aliases.any(|alias| alias.to_lowercase() == wanted)
            })
        });
        found.ok_or_else(|| HubError::UnknownModel {
            name: name.to_owned(),
            closest: self.closest(&wanted),
        })
    }

    fn closest(&self, wanted: &str) -> Option<String> {
        // A longer text is not a misspelt name, and the cost of the distance is the product of both lengths.
        if wanted.len() > 100 {
            return None;
        }
        let names = self.entries.iter().map(|entry| &entry.name);
        let distance = |name: &str| strsim::damerau_levenshtein(name, wanted);
        let (distance, name) = names.map(|name| (distance(name), name)).min()?;
        // A name that differs in more than half of its letters is not what the user meant.
        (distance * 2 <= name.len()).then(|| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use url::Url;

    use super::*;

    #[test]
    fn the_built_in_list_is_valid() {
        let registry = Registry::built_in().unwrap();
        assert!(registry.entries().len() >= 12);
        for entry in registry.entries() {
            for file in entry.files() {
                for source in &file.sources {
                    assert!(source.starts_with("https://"), "{source}");
                    let address = Url::parse(source).unwrap();
                    assert!(address.path().ends_with(&file.name), "{source}");
                }
            }
        }
    }

    #[test]
    fn openai_addresses_contain_the_digest() {
        let registry = Registry::built_in().unwrap();
        let files = registry.entries().iter().flat_map(Entry::files);
        let mut count = 0;
        for file in files {
            for source in &file.sources {
                if let Some((_, path)) =
                    source.split_once("openaipublic.azureedge.net/clip/models/")
                {
                    assert_eq!(path.split('/').next(), file.sha256.as_deref());
                    count += 1;
                }
            }
        }
        assert_eq!(count, 4);
    }

    #[test]
    fn hugging_face_addresses_name_a_revision() {
        let registry = Registry::built_in().unwrap();
        let files = registry.entries().iter().flat_map(Entry::files);
        let sources = files.flat_map(|file| &file.sources);
        let revisions: Vec<&str> = sources
            .filter_map(|source| source.split_once("/resolve/"))
            .filter_map(|(_, rest)| rest.split('/').next())
            .collect();
        assert_eq!(revisions.len(), 18);
        for revision in revisions {
            assert_eq!(revision.len(), 40, "{revision}");
            assert!(revision.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn names_and_aliases_are_found_whatever_their_case() {
        let registry = Registry::built_in().unwrap();
        for name in ["clip-vit-b-16", "CLIP-ViT-B-16", "ViT-B/16", "vit-b/16"] {
            assert_eq!(registry.find(name).unwrap().name, "clip-vit-b-16");
        }
        let laion = registry
            .find("laion/CLIP-ViT-B-16-laion2B-s34B-b88K")
            .unwrap();
        assert_eq!(laion.name, "clip-vit-b-16-laion2b");
    }

    #[test]
    fn a_list_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.toml");
        fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        let error = Registry::built_in().unwrap().add_file(&path).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}
