//! Reads files of reference numbers: tensors, and metadata that describe how they were computed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde_json::Value;

use super::{ParityError, array::Array};

/// Key of the JSON description in the header of a vector file.
const DESCRIPTION: &str = "meta";

/// The content of a file of reference numbers.
#[derive(Debug)]
pub(crate) struct VectorFile {
    /// Path of the file.
    pub(crate) path: PathBuf,
    /// The tensors by name.
    pub(crate) tensors: BTreeMap<String, Array>,
    /// The description; null if the file has none.
    pub(crate) description: Value,
    /// The other entries of the header.
    pub(crate) header: BTreeMap<String, String>,
}

impl VectorFile {
    /// Reads a file: `.json` (only a description) or safetensors.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged, or if its description cannot be parsed.
    pub(crate) fn open(path: &Path) -> Result<Self, ParityError> {
        let bytes = std::fs::read(path).map_err(|source| ParityError::Read {
            path: path.to_owned(),
            source,
        })?;
        let format = |reason: String| ParityError::Format {
            path: path.to_owned(),
            reason,
        };
        let json = |text: &[u8]| {
            serde_json::from_slice::<Value>(&without_special_numbers(text))
                .map_err(|error| format(format!("is not JSON: {error}")))
        };
        let mut file = Self {
            path: path.to_owned(),
            tensors: BTreeMap::new(),
            description: Value::Null,
            header: BTreeMap::new(),
        };
        if is_json(path) {
            file.description = json(&bytes)?;
            return Ok(file);
        }
        let damaged = |error: safetensors::SafeTensorError| {
            format(format!("is not a complete safetensors file ({error})"))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        for (key, value) in header.metadata().iter().flatten() {
            if key == DESCRIPTION {
                file.description = json(value.as_bytes())?;
            } else {
                file.header.insert(key.clone(), value.clone());
            }
        }
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(damaged)?.iter() {
            let array = Array::decode(&view).ok_or_else(|| {
                format(format!(
                    "tensor {name:?} has the unsupported type {:?}",
                    view.dtype()
                ))
            })?;
            file.tensors.insert(name.to_owned(), array);
        }
        Ok(file)
    }

    /// Returns the description.
    pub(crate) fn meta(&self) -> Meta<'_> {
        Meta {
            value: &self.description,
            key: String::new(),
            path: &self.path,
        }
    }

    /// Returns the file's name without extension, for the report.
    pub(crate) fn label(&self) -> String {
        let stem = self.path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// Returns whether any tensor's name starts with `prefix`.
    pub(crate) fn has_any(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }
}

/// Replaces `NaN`, `Infinity` and `-Infinity`, which Python writes but JSON does not have, by `null`.
fn without_special_numbers(text: &[u8]) -> Vec<u8> {
    const SPECIAL: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut result = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let [byte, tail @ ..] = rest {
        let special = SPECIAL.into_iter().find(|word| rest.starts_with(word));
        if let Some(word) = special.filter(|_| !in_string) {
            result.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            continue;
        }
        result.push(*byte);
        rest = tail;
        match (byte, tail) {
            (b'"', _) => in_string = !in_string,
            (b'\\', [escaped, tail @ ..]) => {
                result.push(*escaped);
                rest = tail;
            }
            _ => {}
        }
    }
    result
}

/// Returns whether a file's name says that it is JSON.
pub(crate) fn is_json(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// An entry of a description; errors about missing entries name them.
#[derive(Debug, Clone)]
pub(crate) struct Meta<'a> {
    value: &'a Value,
    key: String,
    path: &'a Path,
}

impl<'a> Meta<'a> {
    /// Returns the entry of this name; `None` if it is missing or null.
    pub(crate) fn find(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(self.with(value, name))
    }

    /// Returns the entry of this name.
    pub(crate) fn at(&self, name: &str) -> Result<Self, ParityError> {
        self.find(name)
            .ok_or_else(|| self.with(self.value, name).error("is missing"))
    }

    /// Returns the names and entries inside this one, in the order of the file.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Self)> {
        let map = self.value.as_object().into_iter().flatten();
        map.map(|(name, value)| (name.as_str(), self.with(value, name)))
            .collect()
    }

    /// Returns the entries of a list.
    pub(crate) fn items(&self) -> Result<Vec<Self>, ParityError> {
        let list = self
            .value
            .as_array()
            .ok_or_else(|| self.error("is not a list"))?;
        let items = list.iter().enumerate();
        Ok(items
            .map(|(index, value)| self.with(value, &index.to_string()))
            .collect())
    }

    /// Returns the entry as a number.
    pub(crate) fn number(&self) -> Result<f64, ParityError> {
        self.value
            .as_f64()
            .ok_or_else(|| self.error("is not a number"))
    }

    /// Returns the entry as a count.
    pub(crate) fn count(&self) -> Result<usize, ParityError> {
        let number = self.value.as_u64();
        number
            .map(|n| n as usize)
            .ok_or_else(|| self.error("is not a count"))
    }

    /// Returns the entry as an integer.
    pub(crate) fn integer(&self) -> Result<i64, ParityError> {
        self.value
            .as_i64()
            .ok_or_else(|| self.error("is not an integer"))
    }

    /// Returns the entry as a boolean.
    pub(crate) fn flag(&self) -> Result<bool, ParityError> {
        self.value
            .as_bool()
            .ok_or_else(|| self.error("is neither true nor false"))
    }

    /// Returns the entry as text.
    pub(crate) fn text(&self) -> Result<&'a str, ParityError> {
        self.value.as_str().ok_or_else(|| self.error("is not text"))
    }

    /// Returns the entry as a list of counts.
    pub(crate) fn counts(&self) -> Result<Vec<usize>, ParityError> {
        self.items()?.iter().map(Self::count).collect()
    }

    /// Returns the entry as a list of texts.
    pub(crate) fn texts(&self) -> Result<Vec<String>, ParityError> {
        let items = self.items()?;
        items.iter().map(|m| m.text().map(str::to_owned)).collect()
    }

    /// Returns the entry as a list of numbers; null becomes NaN.
    pub(crate) fn numbers(&self) -> Result<Vec<f64>, ParityError> {
        let items = self.items()?;
        items
            .iter()
            .map(|item| {
                if item.value.is_null() {
                    Ok(f64::NAN)
                } else {
                    item.number()
                }
            })
            .collect()
    }

    /// Returns the entry as two counts.
    pub(crate) fn pair(&self) -> Result<[usize; 2], ParityError> {
        let counts = self.counts()?;
        <[usize; 2]>::try_from(&counts[..]).map_err(|_| self.error("is not a pair of counts"))
    }

    /// Returns an error about this entry.
    pub(crate) fn error(&self, reason: &str) -> ParityError {
        ParityError::Metadata {
            path: self.path.to_owned(),
            key: self.key.clone(),
            reason: reason.to_owned(),
        }
    }

    fn with(&self, value: &'a Value, name: &str) -> Self {
        let key = if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        };
        Self {
            value,
            key,
            path: self.path,
        }
    }
}

/// Returns the integers in a text, in order.
pub(crate) fn integers_in(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_entry_is_named_with_its_parents() {
        let description = serde_json::json!({"config": {"width": "wide"}});
        let meta = Meta {
            value: &description,
            key: String::new(),
            path: Path::new("a.safetensors"),
        };
        let config = meta.at("config").unwrap();
        let error = config.at("depth").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"a.safetensors: metadata "config.depth" is missing"#
        );
        let error = config.at("width").unwrap().count().unwrap_err().to_string();
        assert_eq!(
            error,
            r#"a.safetensors: metadata "config.width" is not a count"#
        );
    }

    #[test]
    fn special_numbers_of_python_become_null_except_in_strings() {
        let text = br#"{"a": [-Infinity, 1, NaN], "NaN \" Infinity": Infinity}"#;
        let read: Value = serde_json::from_slice(&without_special_numbers(text)).unwrap();
        let expected = serde_json::json!({"a": [null, 1, null], "NaN \" Infinity": null});
        assert_eq!(read, expected);
    }

    #[test]
    fn integers_are_found_in_text() {
        assert_eq!(
            integers_in("over 100000 elements, size//4096"),
            [100_000, 4096]
        );
    }
}
