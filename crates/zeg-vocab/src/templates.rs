//! Prompt templates: sentences that a class name is put into before it is encoded.
//!
//! CLIP saw captions, not words, so "a photo of a dog" is closer to its training than "dog". With several templates
//! the embeddings of a class are averaged.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where the class name goes.
const PLACE: &str = "{}";

/// The one template of the PASCAL VOC configurations of ZegCLIP and CLIP-RC.
const SINGLE: [&str; 1] = ["a photo of a {}"];

/// The 15 templates of the COCO-Stuff configurations of ZegCLIP and CLIP-RC, each with its full stop.
const MULTI: [&str; 15] = [
    "a photo of a {}.",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "a {} in the scene.",
    "a photo of a {} in the scene.",
    "There is a {} in the scene.",
    "There is the {} in the scene.",
    "This is a {} in the scene.",
    "This is the {} in the scene.",
    "This is one {} in the scene.",
];

/// A template or a set of them that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template does not say where the name goes, or says it more than once.
    #[error(
        "template {template:?} has {places} places for the class name; write {{}} exactly once"
    )]
    Places {
        /// The template as it was given.
        template: String,
        /// How often `{}` occurs in it.
        places: usize,
    },
    /// No built-in set has this name.
    #[error("unknown template set {name:?}; there are single and multi")]
    UnknownSet {
        /// The name as it was given.
        name: String,
    },
    /// A set without templates.
    #[error("the template set {name:?} is empty")]
    Empty {
        /// Name of the set.
        name: String,
    },
}

/// A sentence with one place for the class name, written `{}`. In files it is its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Reads a template such as `a photo of a {}`.
    ///
    /// # Errors
    /// [`TemplateError::Places`] unless `{}` occurs exactly once.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        match template.split(PLACE).collect::<Vec<_>>()[..] {
            [before, after] => Ok(Self {
                before: before.to_owned(),
                after: after.to_owned(),
            }),
            ref parts => Err(TemplateError::Places {
                template: template.to_owned(),
                places: parts.len() - 1,
            }),
        }
    }

    /// The sentence with the name in its place.
    pub fn render(&self, name: &str) -> String {
        format!("{}{name}{}", self.before, self.after)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{PLACE}{}", self.before, self.after)
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(template: String) -> Result<Self, TemplateError> {
        Self::parse(&template)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

/// Templates that are used together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TemplateSet {
    name: String,
    templates: Vec<Template>,
}

impl TemplateSet {
    /// `single`: "a photo of a {}".
    pub fn single() -> Self {
        Self::built_in("single", &SINGLE)
    }

    /// `multi`: 15 sentences about photos, sizes and scenes.
    pub fn multi() -> Self {
        Self::built_in("multi", &MULTI)
    }

    /// The names that [`TemplateSet::by_name`] knows.
    pub fn names() -> &'static [&'static str] {
        &["single", "multi"]
    }

    /// A built-in set.
    ///
    /// # Errors
    /// [`TemplateError::UnknownSet`] if there is no such set.
    pub fn by_name(name: &str) -> Result<Self, TemplateError> {
        match name {
            "single" => Ok(Self::single()),
            "multi" => Ok(Self::multi()),
            _ => Err(TemplateError::UnknownSet {
                name: name.to_owned(),
            }),
        }
    }

    /// A set of one's own.
    ///
    /// # Errors
    /// [`TemplateError::Places`] for a template without exactly one `{}`, [`TemplateError::Empty`] without templates.
    pub fn custom(name: &str, templates: &[impl AsRef<str>]) -> Result<Self, TemplateError> {
        let templates = templates
            .iter()
            .map(|template| Template::parse(template.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        if templates.is_empty() {
            return Err(TemplateError::Empty {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            templates,
        })
    }

    /// The lists above hold one `{}` a template, which a test checks.
    fn built_in(name: &str, templates: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            templates: templates
                .iter()
                .filter_map(|template| Template::parse(template).ok())
                .collect(),
        }
    }

    /// Name of the set, for messages and cache keys.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The templates in their order.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// One sentence a template, in their order.
    pub fn render(&self, name: &str) -> Vec<String> {
        self.templates
            .iter()
            .map(|template| template.render(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_sets_are_complete() {
        assert_eq!(TemplateSet::single().render("dog"), ["a photo of a dog"]);
        let multi = TemplateSet::multi();
        assert_eq!(multi.templates().len(), MULTI.len());
        let sentences = multi.render("dog");
        assert!(
            sentences
                .iter()
                .all(|s| s.ends_with('.') && s.contains("dog"))
        );
        assert_eq!(sentences[9], "a photo of a dog in the scene.");
        for name in TemplateSet::names() {
            assert_eq!(TemplateSet::by_name(name).unwrap().name(), *name);
        }
    }

    #[test]
    fn a_template_has_one_place() {
        assert_eq!(Template::parse("{}").unwrap().render("dog"), "dog");
        for (template, places) in [("a dog", 0), ("{} and {}", 2), ("", 0)] {
            let error = Template::parse(template).unwrap_err();
            let template = template.to_owned();
            assert_eq!(error, TemplateError::Places { template, places });
        }
        assert!(TemplateSet::by_name("many").is_err());
        assert!(TemplateSet::custom("mine", &[] as &[&str]).is_err());
        assert_eq!(
            TemplateSet::custom("mine", &["the {}"])
                .unwrap()
                .render("cat"),
            ["the cat"]
        );
    }

    #[test]
    fn a_template_is_stored_as_its_text() {
        let json = serde_json::to_string(&TemplateSet::single()).unwrap();
        assert_eq!(json, r#"{"name":"single","templates":["a photo of a {}"]}"#);
        let template: Template = serde_json::from_str("\"a {}\"").unwrap();
        assert_eq!(template.render("dog"), "a dog");
        assert!(serde_json::from_str::<Template>("\"no place\"").is_err());
    }
}
