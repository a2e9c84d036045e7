//! The labelling configuration of a Label Studio project: which image, which labels, and as what they are drawn.
//!
//! The configuration is XML. `Image` names the field of a task's data that holds the image, and the tags `BrushLabels`,
//! `PolygonLabels` and `RectangleLabels` hold one `Label` per class. `predicted_values` of a label, Label Studio's own
//! attribute, gives the class names to ask the model for; without it the label itself is the class name. The attributes
//! `zeg_background`, `zeg_threshold`, `zeg_min_area` and `zeg_model` of such a tag are this program's own. Since they
//! come with every request, a restart of the server loses no setting.

mod attributes;
mod error;
mod written;

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Serialize;
use zeg::vocab::classes::ClassQuery;

pub(super) use self::error::LabellingError;
use self::written::Written;

/// Largest depth of tags that is read.
const MAX_DEPTH: usize = 64;

/// How a tag draws regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Drawn {
    /// The label as results name it.
    pub(super) label: String,
    /// Name of the tag.
    pub(super) tag: String,
    /// How the tag draws.
    pub(super) tool: Tool,
}

/// What a project labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// A label that several tags hold is drawn by the first of them; the others must not say something else of it.
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
                    written.close(depth + 1)?;
                }
                Event::End(_) => {
                    written.close(depth)?;
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
        let other = "<Label value='cat'/><Label value='cat' predicted_values='dog'/>";
        assert!(brush("toName='image'", other).contains("predicted_values of the label \"cat\""));
        let deep = "<View>".repeat(100_000);
        assert_eq!(Labelling::parse(&deep), Err(LabellingError::Depth));
        let list = r#"<View><Image name="image" valueList="$images"/><BrushLabels name="a" toName="image"><Label value="cat"/></BrushLabels></View>"#;
        assert!(matches!(
            Labelling::parse(list),
            Err(LabellingError::Field { .. })
        ));
    }
}
