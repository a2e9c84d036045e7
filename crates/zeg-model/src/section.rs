//! The section of a file that belongs to one method: keys and values that only the method understands.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    ModelError,
    config::Activation,
    method::{Architecture, Method, StartingPoint},
    methods::Methods,
};

/// Key of the image encoder's activation.
const ACTIVATION: &str = "activation";

/// The keys and values of a method's section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Section(Map<String, Value>);

impl Section {
    /// Returns a section with the fields of a structure.
    ///
    /// # Errors
    /// Returns an error if the structure does not serialise to a table.
    pub fn of(value: &impl Serialize) -> Result<Self, ModelError> {
        match serde_json::to_value(value) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(other) => Err(ModelError::Config(format!("{other} is not a table"))),
            Err(error) => Err(ModelError::Config(error.to_string())),
        }
    }

    /// Deserialises the section.
    ///
    /// - `place`: path of the section in its file, for error messages
    ///
    /// # Errors
    /// Returns an error if a key is unknown, or a value has the wrong type.
    pub fn read<T: DeserializeOwned>(&self, place: &str) -> Result<T, ModelError> {
        serde_json::from_value(Value::Object(self.0.clone()))
            .map_err(|error| ModelError::Config(format!("{error}\nin {place}")))
    }

    /// Rejects every key, for a method without such a section.
    ///
    /// # Errors
    /// Returns an error if the section has a key.
    pub fn refuse_all(&self, place: &str) -> Result<(), ModelError> {
        match self.0.keys().next() {
            Some(key) => Err(ModelError::Config(format!(
                "{place}.{key}: the method has no such option"
            ))),
            None => Ok(()),
        }
    }

    /// Returns whether the section has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Returns the keys whose values are numbers, with the numbers.
    pub fn numbers(&self) -> Vec<(&str, f64)> {
        let numbers = self.0.iter();
        numbers
            .filter_map(|(key, value)| Some((key.as_str(), value.as_f64()?)))
            .collect()
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Removes a key and returns its value.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Sets every key of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (key, value) in &other.0 {
            self.0.insert(key.clone(), value.clone());
        }
    }
}

/// The `[model]` table of an experiment file: the name of a method, and the method's own section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelSection {
    /// Name of the method; if `None`, the first method in the list that is trained on masks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The method's own section.
    #[serde(flatten)]
    pub section: Section,
}

impl ModelSection {
    /// Returns the method.
    ///
    /// # Errors
    /// Returns an error if the method is unknown.
    pub fn method(&self, methods: &Methods) -> Result<&'static dyn Method, ModelError> {
        match &self.method {
            Some(name) => methods.by_name(name).map_err(|error| {
                // The message begins with the key, so that the line of the file can be found.
                ModelError::Config(format!("model.method: {error}"))
            }),
            None => methods.default_for(StartingPoint::Masks),
        }
    }

    /// Returns the architecture that the section describes.
    ///
    /// # Errors
    /// Returns an error if the method or a key is unknown, or the values contradict each other.
    pub fn architecture(&self, methods: &Methods) -> Result<Arc<dyn Architecture>, ModelError> {
        self.method(methods)?.configure(&self.section, None)
    }

    /// Returns the same section with the activation of the weights, unless the section states one.
    ///
    /// QuickGELU, the default, is left out, so that a method need not know the key.
    #[must_use]
    pub fn with_activation(&self, activation: Activation) -> Self {
        let mut section = self.clone();
        if activation != Activation::default() && section.section.get(ACTIVATION).is_none() {
            let name = serde_json::to_value(activation).unwrap_or_default();
            section.section.set(ACTIVATION, name);
        }
        section
    }

    /// Returns the activation that the section states, if it states one.
    ///
    /// # Errors
    /// Returns an error if there is no such activation.
    pub fn activation(&self) -> Result<Option<Activation>, ModelError> {
        let Some(value) = self.section.get(ACTIVATION) else {
            return Ok(None);
        };
        let parsed = serde_json::from_value(value.clone());
        let parsed = parsed.map_err(|e| ModelError::Config(format!("model.{ACTIVATION}: {e}")))?;
        Ok(Some(parsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_activation_of_the_weights_reaches_every_method() {
        let methods = Methods::default();
        for method in methods.starting_from(StartingPoint::Masks) {
            let model = ModelSection {
                method: Some(method.name().to_owned()),
                section: method.example(crate::method::ExampleSize::Small),
            };
            for activation in [Activation::QuickGelu, Activation::Gelu] {
                let model = model.with_activation(activation);
                let architecture = model.architecture(&methods).unwrap();
                let encoder = format!("{architecture:?}");
                assert!(
                    encoder.contains(&format!("activation: {activation:?}")),
                    "{}: {encoder}",
                    method.name()
                );
                // What the section states takes precedence.
                let again = model.with_activation(Activation::Gelu);
                assert_eq!(again.activation().unwrap(), Some(Activation::Gelu));
            }
        }
    }
}
