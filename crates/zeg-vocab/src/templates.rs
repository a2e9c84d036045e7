//! Prompt templates: sentences into which a class name is inserted before it is encoded.
//!
//! CLIP was trained on captions, not on single words, so "a photo of a dog" is closer to its training data than "dog".
//! With several templates the embeddings of a class are averaged.

mod file;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    classes::shortened,
    sections::{Section, sections},
};

pub use file::TemplateFileError;

/// Placeholder of the class name.
const PLACE: &str = "{}";

/// Largest length of a template in characters; CLIP reads 77 tokens.
const MAX_TEMPLATE_CHARACTERS: usize = 1000;
/// Largest number of templates in a set; the largest published set has 80.
const MAX_TEMPLATES: usize = 1000;

/// The built-in sets, one section per set.
const SETS: &str = include_str!("../assets/templates.txt");
/// Alias of `name-only`.
const NONE: &str = "none";
/// Name of the set whose sentences begin with learned vectors.
const LEARNED: &str = "learned";

/// Returns the names of the built-in sets in their order.
fn names() -> impl Iterator<Item = &'static str> {
    sections(SETS).map(|set| set.name)
}

/// An error in a prompt template or in a set of templates.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template does not have exactly one placeholder for the class name.
    #[error(
        "template {template:?} has {places} placeholders for the class name; write {{}} exactly once"
    )]
    Places {
        /// The template as it was given.
        template: String,
        /// Number of `{}` in it.
        places: usize,
    },
    /// The template is too long.
    #[error("a template of {characters} characters, the limit is {limit}: {start:?}")]
    LongTemplate {
        /// Beginning of the template.
        start: String,
        /// Its length.
        characters: usize,
        /// The limit.
        limit: usize,
    },
    /// The template contains a control character, such as a tab.
    #[error("template {template:?} contains the control character {character:?}; remove it")]
    ControlCharacter {
        /// The template, shortened.
        template: String,
        /// The first such character.
        character: char,
    },
    /// No built-in set has this name.
    #[error("unknown template set {name:?}; there are {}{}", names().collect::<Vec<_>>().join(", "), did_you_mean(*closest))]
    UnknownSet {
        /// The name as it was given, shortened.
        name: String,
        /// The built-in set with the most similar name, if any is similar.
        closest: Option<&'static str>,
    },
    /// A set has too many templates.
    #[error("the template set {name:?} has {templates} templates, the limit is {limit}")]
    TooMany {
        /// Name of the set.
        name: String,
        /// Number of templates.
        templates: usize,
        /// The limit.
        limit: usize,
    },
    /// A set has no templates.
    #[error("the template set {name:?} is empty")]
    Empty {
        /// Name of the set.
        name: String,
    },
}

fn did_you_mean(closest: Option<&str>) -> String {
    closest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// A prompt template: a sentence with one placeholder `{}` for the class name. It is serialised as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Parses a template such as `a photo of a {}`.
    ///
    /// # Errors
    /// Returns [`TemplateError::Places`] unless `{}` occurs exactly once, [`TemplateError::LongTemplate`] or
    /// [`TemplateError::ControlCharacter`].
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let characters = template.chars().count();
        if characters > MAX_TEMPLATE_CHARACTERS {
            return Err(TemplateError::LongTemplate {
                start: shortened(template),
                characters,
                limit: MAX_TEMPLATE_CHARACTERS,
            });
        }
        if let Some(character) = template.chars().find(|character| character.is_control()) {
            return Err(TemplateError::ControlCharacter {
                template: shortened(template),
                character,
            });
        }
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

    /// Returns the template with the class name inserted.
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

/// A named set of prompt templates that are used together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TemplateSet {
    name: String,
    templates: Vec<Template>,
    /// Whether learned vectors stand in front of every sentence.
    #[serde(skip)]
    learned: bool,
}

impl TemplateSet {
    /// Returns the set `single`: "a photo of a {}", the only template of ZegCLIP's PASCAL VOC configurations.
    pub fn single() -> Self {
        Self::built_in("single")
    }

    /// Returns the set `multi`: the 15 templates of ZegCLIP's COCO-Stuff configurations.
    pub fn multi() -> Self {
        Self::built_in("multi")
    }

    /// Returns a built-in set.
    ///
    /// | name | templates |
    /// |---|---|
    /// | `single` | 1, ZegCLIP and CLIP-RC on PASCAL VOC |
    /// | `multi` | 15, ZegCLIP and CLIP-RC on COCO-Stuff |
    /// | `imagenet-80` | 80, CLIP on ImageNet |
    /// | `zegformer-single`, `zegformer-8` | 1 and 8, ZegFormer's head |
    /// | `zegformer-32` | 32, ZegFormer's classifier of cropped regions |
    /// | `zsseg-single` | 1, zsseg without learned vectors |
    /// | `vild-14` | 14, of the detector `ViLD`; zsseg across data sets |
    /// | `learned` | the class name behind vectors that a model has learned |
    /// | `cat-seg` | 1, CAT-Seg |
    /// | `maskclip-85` | 85, MaskCLIP and MaskCLIP+ |
    /// | `name-only` or `none` | the class name alone |
    ///
    /// # Errors
    /// Returns [`TemplateError::UnknownSet`] if there is no such set.
    pub fn by_name(name: &str) -> Result<Self, TemplateError> {
        let wanted = if name == NONE { "name-only" } else { name };
        match sections(SETS).find(|set| set.name == wanted) {
            Some(set) => Ok(Self::of_section(set)),
            None => Err(TemplateError::UnknownSet {
                name: shortened(name),
                closest: closest(name),
            }),
        }
    }

    /// Creates a custom set.
    ///
    /// # Errors
    /// Returns [`TemplateError::Empty`] without templates, [`TemplateError::TooMany`], and the errors of
    /// [`Template::parse`].
    pub fn custom(name: &str, templates: &[impl AsRef<str>]) -> Result<Self, TemplateError> {
        if templates.len() > MAX_TEMPLATES {
            return Err(TemplateError::TooMany {
                name: name.to_owned(),
                templates: templates.len(),
                limit: MAX_TEMPLATES,
            });
        }
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
            learned: false,
        })
    }

    /// Returns the built-in set of this name; a test checks that it exists.
    fn built_in(name: &str) -> Self {
        let set = sections(SETS).find(|set| set.name == name);
        set.map_or_else(
            || Self {
                name: name.to_owned(),
                templates: Vec::new(),
                learned: false,
            },
            Self::of_section,
        )
    }

    /// Returns the templates of a section; a test checks that each line is one.
    fn of_section(set: Section) -> Self {
        let templates = set.lines().filter_map(|line| Template::parse(line).ok());
        Self {
            name: set.name.to_owned(),
            templates: templates.collect(),
            learned: set.name == LEARNED,
        }
    }

    /// Returns whether vectors that a model has learned stand in front of every sentence, instead of words.
    pub fn is_learned(&self) -> bool {
        self.learned
    }

    /// Returns the name of the set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns one set for each template.
    pub fn each(&self) -> Vec<Self> {
        let numbered = self.templates.iter().enumerate();
        numbered
            .map(|(number, template)| Self {
                name: format!("{}-{number}", self.name),
                templates: vec![template.clone()],
                learned: self.learned,
            })
            .collect()
    }

    /// Returns the templates in their order.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Inserts the class name into every template and returns the sentences in order.
    pub fn render(&self, name: &str) -> Vec<String> {
        self.templates
            .iter()
            .map(|template| template.render(name))
            .collect()
    }
}

/// Returns the built-in set with the most similar name, if at most a third of the name differs.
fn closest(name: &str) -> Option<&'static str> {
    zeg_base::names::closest(name, names())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_sets_are_complete() {
        assert_eq!(TemplateSet::single().render("dog"), ["a photo of a dog"]);
        let multi = TemplateSet::multi();
        assert_eq!(multi.templates().len(), 15);
        let sentences = multi.render("dog");
        assert!(
            sentences
                .iter()
                .all(|s| s.ends_with('.') && s.contains("dog"))
        );
        assert_eq!(sentences[9], "a photo of a dog in the scene.");
        let lengths = names().map(|name| {
            let lines = sections(SETS).find(|set| set.name == name).unwrap().lines();
            let set = TemplateSet::by_name(name).unwrap();
            assert_eq!((set.name(), set.templates().len()), (name, lines.count()));
            set.templates().len()
        });
        assert_eq!(
            lengths.collect::<Vec<_>>(),
            [1, 15, 80, 1, 8, 32, 1, 14, 1, 1, 85, 1]
        );
        let none = TemplateSet::by_name("none").unwrap();
        assert_eq!(
            (none.name(), none.render("dog")),
            ("name-only", vec!["dog".into()])
        );
    }

    #[test]
    fn a_template_has_one_placeholder() {
        assert_eq!(Template::parse("{}").unwrap().render("dog"), "dog");
        for (template, places) in [("a dog", 0), ("{} and {}", 2), ("", 0)] {
            let error = Template::parse(template).unwrap_err();
            let template = template.to_owned();
            assert_eq!(error, TemplateError::Places { template, places });
        }
        assert!(matches!(
            Template::parse(&"{}".repeat(501)),
            Err(TemplateError::LongTemplate {
                characters: 1002,
                ..
            })
        ));
        assert!(matches!(
            Template::parse("a\t{}"),
            Err(TemplateError::ControlCharacter {
                character: '\t',
                ..
            })
        ));
        assert!(TemplateSet::custom("mine", &[] as &[&str]).is_err());
        assert_eq!(
            TemplateSet::custom("mine", &["the {}"])
                .unwrap()
                .render("cat"),
            ["the cat"]
        );
    }

    #[test]
    fn an_unknown_set_names_all_and_the_closest() {
        let error = |name: &str| TemplateSet::by_name(name).unwrap_err().to_string();
        assert_eq!(
            error("imagenet80"),
            "unknown template set \"imagenet80\"; there are single, multi, imagenet-80, zegformer-single, \
             zegformer-8, zegformer-32, zsseg-single, vild-14, learned, \
             cat-seg, maskclip-85, name-only; did you mean \"imagenet-80\"?"
        );
        assert!(!error("photo").contains("did you mean"));
        assert!(error(&"x".repeat(100_000)).len() < 300);
    }

    #[test]
    fn a_set_has_a_bounded_number_of_templates() {
        assert!(TemplateSet::custom("mine", &["{}"; MAX_TEMPLATES]).is_ok());
        assert!(matches!(
            TemplateSet::custom("mine", &["{}"; MAX_TEMPLATES + 1]),
            Err(TemplateError::TooMany {
                templates: 1001,
                ..
            })
        ));
    }

    #[test]
    fn a_template_is_stored_as_its_text() {
        let json = serde_json::to_string(&TemplateSet::single()).unwrap();
        assert_eq!(json, r#"{"name":"single","templates":["a photo of a {}"]}"#);
        let template: Template = serde_json::from_str("\"a {}\"").unwrap();
        assert_eq!(template.render("dog"), "a dog");
        assert!(serde_json::from_str::<Template>("\"no placeholder\"").is_err());
    }
}
