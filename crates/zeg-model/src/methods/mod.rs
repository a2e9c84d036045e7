//! The segmentation methods, one folder each, and the list of them.
//!
//! To add a method: add a folder here, a line in [`BUILTIN`], and, if the method is trained, a recipe in `zeg-train`
//! (docs/src/project/extending.md).

pub mod cat_seg;
pub mod clip_rc;
pub mod maskclip_plus;
pub mod training_free;
pub mod zegclip;
pub mod zegformer;
pub mod zsseg;

#[cfg(test)]
mod key_table_tests;

use zeg_base::names::did_you_mean;

use crate::{
    ModelError,
    method::{Method, StartingPoint},
    weights::KeyTable,
};

/// The built-in methods. The first that is trained on masks and the first that uses plain CLIP are the defaults.
pub static BUILTIN: [&dyn Method; 14] = [
    &zegclip::ZegClipMethod,
    &clip_rc::ClipRcMethod,
    &zegformer::ZegFormerMethod,
    &zsseg::ZssegMethod,
    &cat_seg::CatSegMethod,
    &maskclip_plus::MaskClipPlusMethod,
    training_free::FAMILY[0],
    training_free::FAMILY[1],
    training_free::FAMILY[2],
    training_free::FAMILY[3],
    training_free::FAMILY[4],
    training_free::FAMILY[5],
    training_free::FAMILY[6],
    training_free::FAMILY[7],
];

/// The methods that a program knows.
#[derive(Debug, Clone)]
pub struct Methods(Vec<&'static dyn Method>);

impl Default for Methods {
    /// Returns the methods of [`BUILTIN`].
    fn default() -> Self {
        Self(BUILTIN.to_vec())
    }
}

impl Methods {
    /// Returns these methods and one more.
    #[must_use]
    pub fn with(mut self, method: &'static dyn Method) -> Self {
        self.0.push(method);
        self
    }

    /// Returns an iterator over all methods.
    pub fn iter(&self) -> impl Iterator<Item = &'static dyn Method> {
        self.0.iter().copied()
    }

    /// Returns the key tables of the methods' published checkpoints, for reading weights. Tables of later methods come
    /// first, because they recognise files by the tensors that they add.
    pub fn key_tables(&self) -> Vec<KeyTable> {
        let tables = self.0.iter().rev().flat_map(|method| method.key_tables());
        tables.copied().collect()
    }

    /// Returns the methods with a certain starting point.
    pub fn starting_from(&self, start: StartingPoint) -> impl Iterator<Item = &'static dyn Method> {
        self.iter()
            .filter(move |method| method.starting_point() == start)
    }

    /// Returns the default method for a starting point.
    ///
    /// # Errors
    /// Returns an error if there is no such method.
    pub fn default_for(&self, start: StartingPoint) -> Result<&'static dyn Method, ModelError> {
        self.starting_from(start).next().ok_or_else(|| {
            ModelError::Config(format!("no method has the starting point {start:?}"))
        })
    }

    /// Returns a method by its name.
    ///
    /// # Errors
    /// Returns an error if there is no method of this name; the message lists the existing ones.
    pub fn by_name(&self, name: &str) -> Result<&'static dyn Method, ModelError> {
        let found = self
            .iter()
            .find(|method| method.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let known: Vec<_> = self.iter().map(Method::name).collect();
            ModelError::Config(format!(
                "unknown method {name:?}; known: {}{}",
                known.join(", "),
                did_you_mean(name, known.iter().copied())
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
