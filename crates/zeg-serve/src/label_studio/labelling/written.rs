//! What has been read of a labelling configuration, tag by tag, and what it means as a whole.

use std::collections::HashMap;

use quick_xml::events::BytesStart;
use zeg::vocab::classes::{ClassQuery, ClassSet, Role};

use super::attributes::{attributes, check_fixed, check_own, listed, threshold};
use super::{Drawn, Labelling, LabellingError, Tool};

/// A label as it is written.
struct WrittenLabel {
    drawn: Drawn,
    /// Its `value`, which an alias may hide.
    value: String,
    /// The class names to ask for.
    names: Vec<String>,
    threshold: Option<f32>,
}

impl WrittenLabel {
    /// Checks that the label, written once more, says nothing else; that would be without effect.
    ///
    /// - `names`: the stated class names; empty for none
    /// - `threshold`: the stated threshold
    fn check_repeated(
        &self,
        value: &str,
        names: &[String],
        threshold: Option<f32>,
    ) -> Result<(), LabellingError> {
        let other = |attribute| {
            Err(LabellingError::Repeated {
                attribute,
                label: self.drawn.label.clone(),
            })
        };
        if value != self.value {
            return other("value");
        }
        if !names.is_empty() && names != self.names {
            return other("predicted_values");
        }
        if threshold.is_some() && threshold != self.threshold {
            return other("zeg_threshold");
        }
        Ok(())
    }
}

/// A tag with labels whose end has not been read yet.
struct Open {
    depth: usize,
    tool: Tool,
    name: String,
    threshold: Option<f32>,
    /// Whether it draws a label.
    is_used: bool,
}

/// What has been read of a configuration.
#[derive(Default)]
pub(super) struct Written {
    /// Values of the images by their names.
    images: HashMap<String, String>,
    /// The image of the first tag with labels, and this tag.
    target: Option<(String, Tool, String)>,
    open: Option<Open>,
    labels: Vec<WrittenLabel>,
    /// Positions in `labels` by what is shown.
    taken: HashMap<String, usize>,
    /// The names of every background class.
    background: Vec<Vec<String>>,
    model: Option<String>,
    min_area: Option<u64>,
}

impl Written {
    /// Reads a start tag.
    pub(super) fn open(
        &mut self,
        start: &BytesStart<'_>,
        depth: usize,
    ) -> Result<(), LabellingError> {
        let attributes = attributes(start)?;
        let text = |key: &str| attributes.get(key).cloned().unwrap_or_default();
        let name = start.name();
        let tag: &str = name.into_inner();
        check_own(tag, &attributes)?;
        if tag == "Image" {
            self.images.insert(text("name"), text("value"));
        } else if let Some(tool) = Tool::of_tag(tag) {
            self.open_tool(tool, &attributes, depth)?;
        } else if tag == "Label" {
            self.add_label(&attributes)?;
        }
        Ok(())
    }

    fn open_tool(
        &mut self,
        tool: Tool,
        attributes: &HashMap<String, String>,
        depth: usize,
    ) -> Result<(), LabellingError> {
        let text = |key: &str| attributes.get(key).cloned().unwrap_or_default();
        let (name, image) = (text("name"), text("toName"));
        check_fixed(tool.tag(), attributes)?;
        match &self.target {
            None => self.target = Some((image, tool, name.clone())),
            Some((first, ..)) if *first != image => {
                return Err(LabellingError::SeveralImages {
                    first: first.clone(),
                    second: image,
                });
            }
            Some(_) => {}
        }
        if let Some(list) = attributes.get("zeg_background") {
            // A comma separates classes, and a bar the names of one.
            let classes = list.split(',').map(|names| listed(names, &['|']));
            self.background
                .extend(classes.filter(|names| !names.is_empty()));
        }
        if let Some(model) = attributes.get("zeg_model") {
            set("zeg_model", &mut self.model, model.clone())?;
        }
        if let Some(value) = attributes.get("zeg_min_area") {
            let area = value
                .trim()
                .parse::<u64>()
                .map_err(|_| LabellingError::Attribute {
                    attribute: "zeg_min_area",
                    value: value.clone(),
                    legal: "a number of pixels",
                })?;
            set("zeg_min_area", &mut self.min_area, area)?;
        }
        self.open = Some(Open {
            depth,
            tool,
            name,
            threshold: threshold(attributes)?,
            is_used: false,
        });
        Ok(())
    }

    fn add_label(&mut self, attributes: &HashMap<String, String>) -> Result<(), LabellingError> {
        let text = |key: &str| attributes.get(key).map_or("", String::as_str).trim();
        let own = threshold(attributes)?;
        let (value, alias) = (text("value"), text("alias"));
        let shown = if alias.is_empty() { value } else { alias };
        let Some(open) = &mut self.open else {
            return match own {
                Some(_) => Err(LabellingError::Idle {
                    attribute: "zeg_threshold",
                    place: format!("the Label {shown:?}"),
                    reason: "only labels of BrushLabels, PolygonLabels and RectangleLabels are predicted",
                }),
                None => Ok(()),
            };
        };
        check_fixed("Label", attributes)?;
        if shown.is_empty() {
            return Ok(());
        }
        // A comma or a bar separates the names that mean this label.
        let mut names = listed(text("predicted_values"), &[',', '|']);
        let threshold = own.or(open.threshold);
        if let Some(first) = self.taken.get(shown).and_then(|at| self.labels.get(*at)) {
            return first.check_repeated(value, &names, threshold);
        }
        if names.is_empty() {
            names.push(if value.is_empty() { shown } else { value }.to_owned());
        }
        open.is_used = true;
        self.taken.insert(shown.to_owned(), self.labels.len());
        self.labels.push(WrittenLabel {
            drawn: Drawn {
                label: shown.to_owned(),
                tag: open.name.clone(),
                tool: open.tool,
            },
            value: value.to_owned(),
            names,
            threshold,
        });
        Ok(())
    }

    /// Reads the end of the tag at this depth.
    pub(super) fn close(&mut self, depth: usize) -> Result<(), LabellingError> {
        let Some(open) = self.open.take_if(|open| open.depth == depth) else {
            return Ok(());
        };
        if open.threshold.is_some() && !open.is_used {
            return Err(LabellingError::Idle {
                attribute: "zeg_threshold",
                place: format!("the {} {:?}", open.tool.tag(), open.name),
                reason: "it draws none of the labels",
            });
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Labelling, LabellingError> {
        let Some((image, tool, name)) = self.target.take().filter(|_| !self.labels.is_empty())
        else {
            return Err(LabellingError::NoLabels);
        };
        let tag = tool.tag();
        let Some(value) = self.images.remove(&image) else {
            return Err(LabellingError::NoImage { tag, name, image });
        };
        let is_field = |field: &&str| {
            let legal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.');
            !field.is_empty() && field.chars().all(legal)
        };
        let Some(field) = value.strip_prefix('$').filter(is_field).map(str::to_owned) else {
            return Err(LabellingError::Field { name: image, value });
        };
        let classes = self.classes()?;
        Ok(Labelling {
            image,
            field,
            classes,
            drawn: self.labels.into_iter().map(|label| label.drawn).collect(),
            model: self.model,
            min_area: self.min_area,
        })
    }

    /// Checks all names, and returns the classes of the labels, then the background classes.
    fn classes(&self) -> Result<Vec<ClassQuery>, LabellingError> {
        let mut background: Vec<&[String]> = Vec::new();
        for names in &self.background {
            // Two tags may hold the same background.
            if !background.contains(&names.as_slice()) {
                background.push(names);
            }
        }
        let foreground = self.labels.iter().map(|label| label.names.as_slice());
        let (names, synonyms): (Vec<String>, Vec<Vec<String>>) = foreground
            .chain(background.iter().copied())
            .filter_map(|names| names.split_first())
            .map(|(name, synonyms)| (name.clone(), synonyms.to_vec()))
            .unzip();
        let checked = ClassSet::custom("labelling configuration", names, synonyms, Vec::new())?;
        let thresholds = self.labels.iter().map(|label| Some(label.threshold));
        let roles = thresholds.chain(std::iter::repeat(None));
        let synonyms = checked.synonyms.iter().cloned();
        let synonyms = synonyms.chain(std::iter::repeat(Vec::new()));
        let classes = checked.classes.iter().zip(synonyms).zip(roles);
        Ok(classes
            .map(|((name, synonyms), threshold)| ClassQuery {
                synonyms,
                role: match threshold {
                    Some(_) => Role::Foreground,
                    None => Role::Background,
                },
                threshold: threshold.flatten(),
                ..ClassQuery::new(name.clone())
            })
            .collect())
    }
}

/// Sets a value that the whole configuration shares; a second value must be equal.
fn set<T: PartialEq + std::fmt::Display>(
    attribute: &'static str,
    place: &mut Option<T>,
    value: T,
) -> Result<(), LabellingError> {
    match place {
        Some(first) if *first != value => Err(LabellingError::Conflict {
            attribute,
            first: first.to_string(),
            second: value.to_string(),
        }),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}
