//! A method's own part of a file: names and values that only the method understands.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    ModelError,
    method::{Architecture, Method, StartingPoint},
    methods::Methods,
};

/// Keys and values of a table that belongs to a method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Section(Map<String, Value>);

impl Section {
    /// A section with the values of a structure.
    ///
    /// # Errors
    /// The structure is no table of names and values.
    pub fn of(value: &impl Serialize) -> Result<Self, ModelError> {
        match serde_json::to_value(value) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(other) => Err(ModelError::Config(format!("{other} is no table"))),
            Err(error) => Err(ModelError::Config(error.to_string())),
        }
    }

    /// Reads the section as a structure.
    ///
    /// - `place`: where the section stands, for errors
    ///
    /// # Errors
    /// A key is not known, or a value is of another kind.
    pub fn read<T: DeserializeOwned>(&self, place: &str) -> Result<T, ModelError> {
        serde_json::from_value(Value::Object(self.0.clone()))
            .map_err(|error| ModelError::Config(format!("{error}\nin {place}")))
    }

    /// Refuses every key: the method has no such section.
    ///
    /// # Errors
    /// There is a key.
    pub fn refuse_all(&self, place: &str) -> Result<(), ModelError> {
        match self.0.keys().next() {
            Some(key) => Err(ModelError::Config(format!(
                "{place}.{key}: the method has no such option"
            ))),
            None => Ok(()),
        }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Takes a key out.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Sets every key that `other` has.
    pub fn merge(&mut self, other: &Self) {
        for (key, value) in &other.0 {
            self.0.insert(key.clone(), value.clone());
        }
    }
}

/// The model's part of an experiment file: the name of a method, and the method's own section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelSection {
    /// The method; without, the first of the list that is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What the method reads.
    #[serde(flatten)]
    pub section: Section,
}

impl ModelSection {
    /// The method.
    ///
    /// # Errors
    /// The method is not known.
    pub fn method(&self, methods: &Methods) -> Result<&'static dyn Method, ModelError> {
        match &self.method {
            Some(name) => methods.by_name(name),
            None => methods.default_for(StartingPoint::Masks),
        }
    }

    /// The architecture that the section means.
    ///
    /// # Errors
    /// The method is not known, a key is not known, or the values do not fit each other.
    pub fn architecture(&self, methods: &Methods) -> Result<Arc<dyn Architecture>, ModelError> {
        self.method(methods)?.configure(&self.section, None)
    }
}
