//! The list of models: what each is, under which terms, and which files it consists of.
//!
//! The list that the program brings along is a TOML file compiled in; a user may add entries of the same form with
//! a file of their own. Everything from either file is checked when it is read, so that names can be used as folder
//! names and addresses as addresses from there on.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use crate::{
    HubError,
    list::{parse, read_short},
    settings::variable,
};

/// The list that the program brings along.
const BUILT_IN: &str = include_str!("../assets/registry.toml");
/// No list of models is longer, and no larger file is read.
const LONGEST_FILE: u64 = 1 << 20;

/// A kind of file that holds weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Tensors with a JSON header.
    Safetensors,
    /// A TorchScript archive, as OpenAI released CLIP.
    TorchArchive,
    /// A zip file around a pickle, as `torch.save` writes.
    TorchPickle,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Its name in the model's folder.
    pub name: String,
    /// Length in bytes, where published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 as 64 lower-case hexadecimal digits, where published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Addresses of the same content, tried in this order.
    pub sources: Vec<String>,
}

/// What to do where no program can download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manual {
    /// The page to open.
    pub page: String,
    /// What to do there, and after.
    pub steps: String,
}

/// How a model is obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obtain {
    /// By downloading these files, of which the first holds the weights. Never empty.
    Download(Vec<RemoteFile>),
    /// By hand.
    Manual(Manual),
}

/// One model of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What to type: lower-case letters, digits, `-`, `.` and `_`.
    pub name: String,
    /// Other names that are understood.
    pub aliases: Vec<String>,
    /// What it is, in a few words.
    pub about: String,
    /// The family of networks that it belongs to, such as `clip`.
    pub family: String,
    /// The format of the weights.
    pub format: Format,
    /// The licence of the weights, as their owner states it.
    pub licence: String,
    /// The owner's page.
    pub home: String,
    /// How to get it.
    pub obtain: Obtain,
}

impl Entry {
    /// The files to download; none where that has to be done by hand.
    pub fn files(&self) -> &[RemoteFile] {
        match &self.obtain {
            Obtain::Download(files) => files,
            Obtain::Manual(_) => &[],
        }
    }

    /// Bytes of all files together, where all sizes are published.
    pub fn size(&self) -> Option<u64> {
        let files = self.files();
        if files.is_empty() {
            return None;
        }
        files
            .iter()
            .try_fold(0_u64, |sum, file| sum.checked_add(file.size?))
    }

    /// Bytes of those files whose size is published.
    pub(crate) fn known_size(&self) -> u64 {
        let sizes = self.files().iter().filter_map(|file| file.size);
        sizes.fold(0, u64::saturating_add)
    }
}

/// All models that are known by name.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// The list that the program brings along.
    ///
    /// # Errors
    /// [`HubError::Registry`]; a test makes sure that there is none.
    pub fn built_in() -> Result<Self, HubError> {
        Ok(Self {
            entries: parse(BUILT_IN, "built-in list")?,
        })
    }

    /// The list that the program brings along and the user's: the file that `ZEG_MODELS` names, or else
    /// `zeg/models.toml` in the user's configuration folder, if it is there.
    ///
    /// # Errors
    /// [`HubError::Read`] where `ZEG_MODELS` names a file that cannot be read; [`HubError::Registry`] where a list
    /// is not as it should be.
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

    /// Adds the entries of a file; an entry replaces the one of the same name.
    ///
    /// # Errors
    /// [`HubError::Read`] and [`HubError::Registry`], with the list unchanged.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<(), HubError> {
        let text = read_short(path, LONGEST_FILE)?;
        self.add(&text, &path.display().to_string())
    }

    /// Adds the entries of a text in the form of the built-in list; an entry replaces the one of the same name.
    /// `origin` is where the text comes from, for error messages.
    ///
    /// # Errors
    /// [`HubError::Registry`], with the list unchanged.
    pub fn add(&mut self, text: &str, origin: &str) -> Result<(), HubError> {
        let new = parse(text, origin)?;
        self.entries
            .retain(|old| new.iter().all(|new| new.name != old.name));
        self.entries.extend(new);
        Ok(())
    }

    /// All entries, in the order of the lists.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry with this name or alias, in any case of letters.
    ///
    /// # Errors
    /// [`HubError::UnknownModel`] with the name that differs least.
    pub fn find(&self, name: &str) -> Result<&Entry, HubError> {
        let wanted = name.to_lowercase();
        let exact = self.entries.iter().find(|entry| entry.name == wanted);
        let found = exact.or_else(|| {
            // The user's entries come last and win.
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
        // Longer texts are no misspelt names, and the distance costs the product of both lengths.
        if wanted.len() > 100 {
            return None;
        }
        let names = self.entries.iter().map(|entry| &entry.name);
        let distance = |name: &str| strsim::damerau_levenshtein(name, wanted);
        let (distance, name) = names.map(|name| (distance(name), name)).min()?;
        // Beyond half its letters a name has nothing to do with what was typed.
        (distance * 2 <= name.len()).then(|| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use url::Url;

    use super::*;

    #[test]
    fn the_built_in_list_is_right() {
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
    fn openai_addresses_carry_their_digest() {
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
    fn names_and_aliases_are_found_in_any_case() {
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
    fn a_huge_list_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.toml");
        fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        let error = Registry::built_in().unwrap().add_file(&path).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}
