//! The labelling configuration of a Label Studio project: which image, which labels, and as what they are drawn.
//!
//! The configuration is XML. `Image` names the field of a task's data that holds the image, and the tags `BrushLabels`,
//! `PolygonLabels` and `RectangleLabels` hold one `Label` per class. `predicted_values` of a label, Label Studio's own
//! attribute, gives the class names to ask the model for; without it the label itself is the class name. The attributes
//! `zeg_background`, `zeg_threshold`, `zeg_min_area` and `zeg_model` of such a tag are this program's own. Since they
//! come with every request, a restart of the server loses no setting.

mod attributes;
mod error;

use std::collections::{BTreeSet, HashMap};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use zeg::vocab::classes::{ClassQuery, ClassSet, Role};

use self::attributes::{attributes, check_own, threshold};
pub(super) use self::error::LabellingError;

/// Largest depth of tags that is read.
const MAX_DEPTH: usize = 64;

/// How a tag draws regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// Masks.
    Brush,
    /// Outlines.
    Polygon,
    /// Bounding boxes.
    Rectangle,
}

impl Tool {
    fn of_tag(tag: &str) -> Option<Self> {
        match tag {
            "BrushLabels" => Some(Self::Brush),
            "PolygonLabels" => Some(Self::Polygon),
            "RectangleLabels" => Some(Self::Rectangle),
            _ => None,
        }
    }

    fn tag(self) -> &'static str {
        match self {
            Self::Brush => "BrushLabels",
            Self::Polygon => "PolygonLabels",
            Self::Rectangle => "RectangleLabels",
        }
    }

    /// Returns the type of its results, which is also the key of their labels.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Brush => "brushlabels",
            Self::Polygon => "polygonlabels",
            Self::Rectangle => "rectanglelabels",
        }
    }
}

/// A label with the tag that draws it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drawn {
    /// The label as results name it.
    pub(super) label: String,
    /// Name of the tag.
    pub(super) tag: String,
    /// How the tag draws.
    pub(super) tool: Tool,
}

/// What a project labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Labelling {
    /// Name of the image tag.
    pub(super) image: String,
    /// Field of a task's data that holds the image.
    pub(super) field: String,
    /// The classes to ask for: those of the labels, then background classes.
    pub(super) classes: Vec<ClassQuery>,
    /// The labels, by class index; background classes have none.
    pub(super) drawn: Vec<Drawn>,
    /// Name of the model; `None` for the server's first.
    pub(super) model: Option<String>,
    /// Smallest area of a region in pixels; `None` for the default.
    pub(super) min_area: Option<u64>,
}

impl Labelling {
    /// Parses a labelling configuration.
    ///
    /// A label that several tags hold is drawn by the first of them.
    pub(super) fn parse(xml: &str) -> Result<Self, LabellingError> {
        let mut written = Written::default();
        let mut reader = Reader::from_str(xml);
        let mut depth = 0_usize;
        loop {
            match reader.read_event().map_err(xml_error)? {
                Event::Start(tag) => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(LabellingError::Depth);
                    }
                    written.open(&tag, depth)?;
                }
                Event::Empty(tag) => {
                    written.open(&tag, depth + 1)?;
                    written.close(depth + 1);
                }
                Event::End(_) => {
                    written.close(depth);
                    depth = depth.saturating_sub(1);
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if depth > 0 {
            let reason = format!("{depth} tags are not closed");
            return Err(LabellingError::Xml { reason });
        }
        written.finish()
    }
}

fn xml_error(error: impl std::fmt::Display) -> LabellingError {
    LabellingError::Xml {
        reason: error.to_string(),
    }
}

/// A label as it is written.
struct WrittenLabel {
    drawn: Drawn,
    /// The class names to ask for.
    names: Vec<String>,
    threshold: Option<f32>,
}

/// A tag with labels whose end has not been read yet.
struct Open {
    depth: usize,
    tool: Tool,
    name: String,
    threshold: Option<f32>,
}

/// What has been read of a configuration.
#[derive(Default)]
struct Written {
    /// Values of the images by their names.
    images: HashMap<String, String>,
    /// The image of the first tag with labels, and this tag.
    target: Option<(String, Tool, String)>,
    open: Option<Open>,
    labels: Vec<WrittenLabel>,
    taken: BTreeSet<String>,
    background: Vec<String>,
    model: Option<String>,
    min_area: Option<u64>,
}

impl Written {
    /// Reads a start tag.
    fn open(&mut self, start: &BytesStart<'_>, depth: usize) -> Result<(), LabellingError> {
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
            let names = list
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            self.background.extend(names.map(str::to_owned));
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
        });
        Ok(())
    }

    fn add_label(&mut self, attributes: &HashMap<String, String>) -> Result<(), LabellingError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let text = |key: &str| attributes.get(key).map_or("", String::as_str).trim();
        let value = text("value");
        let shown = if text("alias").is_empty() {
            value
        } else {
            text("alias")
        };
        if shown.is_empty() || !self.taken.insert(shown.to_owned()) {
            return Ok(());
        }
        // A comma or a bar separates the names that mean this label.
        let predicted = text("predicted_values").split([',', '|']).map(str::trim);
        let mut names: Vec<String> = predicted
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            names.push(if value.is_empty() { shown } else { value }.to_owned());
        }
        self.labels.push(WrittenLabel {
            drawn: Drawn {
                label: shown.to_owned(),
                tag: open.name.clone(),
                tool: open.tool,
            },
            names,
            threshold: threshold(attributes)?.or(open.threshold),
        });
        Ok(())
    }

    /// Reads the end of the tag at this depth.
    fn close(&mut self, depth: usize) {
        if self.open.as_ref().is_some_and(|open| open.depth == depth) {
            self.open = None;
        }
    }

    fn finish(mut self) -> Result<Labelling, LabellingError> {
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
        let mut background: Vec<&String> = Vec::new();
        for name in &self.background {
            // Two tags may hold the same background.
            if !background.contains(&name) {
                background.push(name);
            }
        }
        let foreground = self.labels.iter().map(|label| label.names.as_slice());
        let alone = background.iter().map(|name| std::slice::from_ref(*name));
        let (names, synonyms): (Vec<String>, Vec<Vec<String>>) = foreground
            .chain(alone)
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

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r##"<View>
  <Header value="Rooms"/>
  <Image name="photo" value="$image" zoom="true"/>
  <BrushLabels name="brush" toName="photo" zeg_background="wall, floor" zeg_threshold="0.25">
    <Label value="Cat" background="#f00" predicted_values="cat, kitten"/>
    <Label value="R&amp;D sign" zeg_threshold="0.5"/>
  </BrushLabels>
  <View style="x"><PolygonLabels name="outline" toName="photo" zeg_min_area="64" zeg_model="mini">
    <Label value="Sofa" alias="sofa"/><Label value="Cat"/>
  </PolygonLabels></View>
  <Choices name="quality" toName="photo"><Choice value="blurred"/></Choices>
</View>"##;

    #[test]
    fn labels_become_classes_with_their_tags() {
        let found = Labelling::parse(CONFIG).unwrap();
        assert_eq!(
            (found.image.as_str(), found.field.as_str()),
            ("photo", "image")
        );
        let names: Vec<Vec<&str>> = found.classes.iter().map(|c| c.names().collect()).collect();
        let expected = [
            vec!["cat", "kitten"],
            vec!["R&D sign"],
            vec!["Sofa"],
            vec!["wall"],
            vec!["floor"],
        ];
        assert_eq!(names, expected);
        let thresholds: Vec<_> = found.classes.iter().map(|c| c.threshold).collect();
        assert_eq!(thresholds, [Some(0.25), Some(0.5), None, None, None]);
        let roles: Vec<_> = found
            .classes
            .iter()
            .map(|c| c.role.is_foreground())
            .collect();
        assert_eq!(roles, [true, true, true, false, false]);
        let drawn: Vec<_> = found
            .drawn
            .iter()
            .map(|d| (d.label.as_str(), d.tag.as_str(), d.tool))
            .collect();
        let expected = [
            ("Cat", "brush", Tool::Brush),
            ("R&D sign", "brush", Tool::Brush),
            ("sofa", "outline", Tool::Polygon),
        ];
        assert_eq!(drawn, expected);
        assert_eq!(
            (found.min_area, found.model.as_deref()),
            (Some(64), Some("mini"))
        );
    }

    #[test]
    fn configurations_that_cannot_be_predicted_are_refused() {
        let image = r#"<Image name="image" value="$image"/>"#;
        let message = |xml: &str| Labelling::parse(xml).unwrap_err().to_string();
        let within = |tags: &str| message(&format!("<View>{image}{tags}</View>"));
        assert!(message("<View>").contains("not closed"));
        assert!(message("<View></Viwe>").contains("not XML"));
        assert!(message("").contains("no BrushLabels"));
        assert!(within("<Choices name='a' toName='image'/>").contains("no BrushLabels"));
        let brush = |attributes: &str, labels: &str| {
            within(&format!(
                "<BrushLabels name='a' {attributes}>{labels}</BrushLabels>"
            ))
        };
        let cat = "<Label value='cat'/>";
        assert!(brush("toName='image'", "").contains("no BrushLabels"));
        assert!(brush("toName='other'", cat).contains("no such Image"));
        assert!(brush("toName='image' zeg_threshold='7'", cat).contains("from 0 to 1"));
        assert!(brush("toName='image' zeg_min_area='-1'", cat).contains("pixels"));
        let misspelt = brush("toName='image' zeg_treshold='0.4'", cat);
        assert!(
            misspelt.contains("did you mean \"zeg_threshold\""),
            "{misspelt}"
        );
        assert!(
            brush("toName='image'", "<Label value='cat' zeg_model='a'/>").contains("zeg_model")
        );
        let double = "<Label value='cat'/><Label value='Cat'/>";
        assert!(brush("toName='image'", double).contains("already named"));
        let deep = "<View>".repeat(100_000);
        assert_eq!(Labelling::parse(&deep), Err(LabellingError::Depth));
        let list = r#"<View><Image name="image" valueList="$images"/><BrushLabels name="a" toName="image"><Label value="cat"/></BrushLabels></View>"#;
        assert!(matches!(
            Labelling::parse(list),
            Err(LabellingError::Field { .. })
        ));
    }
}
