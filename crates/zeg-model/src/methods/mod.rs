//! The methods, one folder each, and the one list of them.
//!
//! Adding a method: a folder here, a line in [`BUILTIN`], and, if it is trained, a recipe in `zeg-train`
//! (docs/src/project/extending.md).

pub mod clip_rc;
pub mod training_free;
pub mod zegclip;
pub mod zegformer;

#[cfg(test)]
mod key_table_tests;

use crate::{
    ModelError,
    method::{Method, StartingPoint},
    weights::KeyTable,
};

/// The list. The first method that is trained, and the first that uses plain CLIP, are the defaults.
pub static BUILTIN: [&dyn Method; 8] = [
    &zegclip::ZegClipMethod,
    &clip_rc::ClipRcMethod,
    &zegformer::ZegFormerMethod,
    training_free::FAMILY[0],
    training_free::FAMILY[1],
    training_free::FAMILY[2],
    training_free::FAMILY[3],
    training_free::FAMILY[4],
];

/// Methods that a program knows.
#[derive(Debug, Clone)]
pub struct Methods(Vec<&'static dyn Method>);

impl Default for Methods {
    /// Those of [`BUILTIN`].
    fn default() -> Self {
        Self(BUILTIN.to_vec())
    }
}

impl Methods {
    /// These methods and one more.
    #[must_use]
    pub fn with(mut self, method: &'static dyn Method) -> Self {
        self.0.push(method);
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'static dyn Method> {
        self.0.iter().copied()
    }

    /// The key tables of their published checkpoints, for reading weights. Tables of later methods come first: they
    /// recognise files by what they add.
    pub fn key_tables(&self) -> Vec<KeyTable> {
        let tables = self.0.iter().rev().flat_map(|method| method.key_tables());
        tables.copied().collect()
    }

    /// Those that start in a certain way.
    pub fn starting_from(&self, start: StartingPoint) -> impl Iterator<Item = &'static dyn Method> {
        self.iter()
            .filter(move |method| method.starting_point() == start)
    }

    /// The method that is taken where none is named.
    ///
    /// # Errors
    /// There is none.
    pub fn default_for(&self, start: StartingPoint) -> Result<&'static dyn Method, ModelError> {
        self.starting_from(start)
            .next()
            .ok_or_else(|| ModelError::Config(format!("no method starts from {start:?}")))
    }

    /// A method by its name.
    ///
    /// # Errors
    /// There is no method of this name; the error lists those that there are.
    pub fn by_name(&self, name: &str) -> Result<&'static dyn Method, ModelError> {
        let found = self
            .iter()
            .find(|method| method.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let known: Vec<_> = self.iter().map(Method::name).collect();
            ModelError::Config(format!(
                "unknown method {name:?}; known: {}",
                known.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_name() {
        let methods = Methods::default();
        for method in methods.iter() {
            let name = method.name().to_uppercase();
            assert_eq!(methods.by_name(&name).unwrap().name(), method.name());
        }
        let error = methods.by_name("sam").unwrap_err().to_string();
        for method in methods.iter() {
            assert!(error.contains(method.name()), "{error}");
        }
    }
}
