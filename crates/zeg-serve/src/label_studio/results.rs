//! Turns a segmented image into the results of a prediction, in Label Studio's form.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use zeg::export::label_studio::{brush_rle, percentages};
use zeg::export::regions::RegionError;
use zeg::export::{
    Connectivity, Grouping, Mean, Region, SegmentedImage, USUAL_MINIMAL_AREA, USUAL_TOLERANCE,
    find_regions, polygons,
};
use zeg::image::{IGNORE_LABEL, LabelMap};

use super::labelling::{Labelling, Tool};

/// A prediction for one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Prediction {
    /// Its regions.
    pub(super) result: Vec<Value>,
    /// Mean confidence of the labelled pixels, 0 to 1; 0 if there are none.
    pub(super) score: f64,
    /// The model with its settings and the labelling configuration.
    pub(super) model_version: String,
}

impl Prediction {
    /// Returns a prediction without regions.
    pub(super) fn empty(version: &str) -> Self {
        Self {
            result: Vec::new(),
            score: 0.0,
            model_version: version.to_owned(),
        }
    }
}

/// A segmented image.
pub(super) struct Found<'a> {
    /// Class indices, `[height, width]`.
    pub(super) labels: &'a LabelMap,
    /// Score of the best class at every pixel, 0 to 1, row-major.
    pub(super) confidence: &'a [f32],
    /// The model with its settings and the labelling configuration.
    pub(super) version: &'a str,
}

impl Found<'_> {
    /// Returns the prediction of a task.
    ///
    /// - `task`: a text that is different for every task, for the ids of regions
    ///
    /// # Errors
    /// Returns an error if the label map has too many regions.
    pub(super) fn prediction(
        &self,
        labelling: &Labelling,
        task: &str,
    ) -> Result<Prediction, RegionError> {
        let least = labelling.min_area.unwrap_or(USUAL_MINIMAL_AREA);
        let grouping = Grouping::Connected(Connectivity::Eight);
        let regions = find_regions(self.labels, grouping, least)?;
        let segmented = SegmentedImage {
            confidence: Some(self.confidence),
            ..SegmentedImage::new(Path::new(task), self.labels)
        };
        let mut result = Vec::new();
        for region in regions.iter() {
            let Some(drawn) = labelling.drawn.get(usize::from(region.label())) else {
                continue; // a background class
            };
            let score = segmented.score(&region).unwrap_or_default();
            for mut value in values(&region, drawn.tool) {
                value[drawn.tool.key()] = json!([drawn.label]);
                result.push(json!({
                    "id": format!("zeg-{task}-{}", result.len() + 1),
                    "type": drawn.tool.key(),
                    "from_name": drawn.tag,
                    "to_name": labelling.image,
                    "original_width": region.map_width(),
                    "original_height": region.map_height(),
                    "image_rotation": 0,
                    "score": score,
                    "value": value,
                }));
            }
        }
        Ok(Prediction {
            result,
            score: self.mean_score(labelling.drawn.len()),
            model_version: self.version.to_owned(),
        })
    }

    /// Returns the mean confidence of all pixels that have one of the labels.
    fn mean_score(&self, labels: usize) -> f64 {
        let mut mean = Mean::default();
        let pixels = self.labels.labels().iter().zip(self.confidence);
        for (&label, &confidence) in pixels {
            if label != IGNORE_LABEL && usize::from(label) < labels {
                mean.add(confidence);
            }
        }
        mean.rounded().unwrap_or_default()
    }
}

/// Returns the values of a region: its mask, the outlines of its parts, or its box.
fn values(region: &Region<'_>, tool: Tool) -> Vec<Value> {
    match tool {
        Tool::Brush => vec![json!({ "format": "rle", "rle": brush_rle(region) })],
        Tool::Polygon => polygons(region, USUAL_TOLERANCE)
            .iter()
            .map(|polygon| {
                let points = percentages(&polygon.bridged(), region);
                json!({ "points": points, "closed": true })
            })
            .collect(),
        Tool::Rectangle => {
            let found = region.bounding_box();
            let corner = [found.left, found.top];
            let size = [found.width, found.height];
            let shares = percentages(&[corner, size], region);
            let [[x, y], [width, height]] = shares.try_into().unwrap_or_default();
            vec![json!({ "x": x, "y": y, "width": width, "height": height, "rotation": 0 })]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"<View><Image name="photo" value="$image"/>
        <BrushLabels name="brush" toName="photo" zeg_min_area="1" zeg_background="wall"><Label value="cat"/></BrushLabels>
        <PolygonLabels name="outline" toName="photo"><Label value="sofa"/></PolygonLabels>
        <RectangleLabels name="box" toName="photo"><Label value="lamp"/></RectangleLabels></View>"#;

    #[test]
    fn every_region_is_drawn_by_the_tag_of_its_label() {
        let labelling = Labelling::parse(CONFIG).unwrap();
        let none = IGNORE_LABEL;
        #[rustfmt::skip]
        let labels = LabelMap::new(4, 3, vec![
            0, 0, none, 2,
            0, none, none, 2,
            1, 1, 3, 0,
        ])
        .unwrap();
        let confidence = [
            1.0,
            0.5,
            0.9,
            0.4,
            0.6,
            0.9,
            0.9,
            0.2,
            0.8,
            0.6,
            0.9,
            f32::NAN,
        ];
        let found = Found {
            labels: &labels,
            confidence: &confidence,
            version: "mini-01234567",
        };
        let prediction = found.prediction(&labelling, "7").unwrap();
        // The pixels of the background class and the unlabelled ones do not count: 4.1 of 7 pixels.
        assert!(
            (prediction.score - 0.5857).abs() < 1e-9,
            "{}",
            prediction.score
        );
        let of = |key: &str| {
            let results = prediction.result.iter().filter(|r| r["type"] == key);
            results.cloned().collect::<Vec<_>>()
        };
        let (masks, outlines, boxes) = (
            of("brushlabels"),
            of("polygonlabels"),
            of("rectanglelabels"),
        );
        assert_eq!((masks.len(), outlines.len(), boxes.len()), (2, 1, 1));
        assert_eq!(masks[0]["value"]["brushlabels"], json!(["cat"]));
        assert_eq!(
            (&masks[0]["from_name"], &masks[0]["to_name"]),
            (&json!("brush"), &json!("photo"))
        );
        assert_eq!(masks[0]["score"], 0.7);
        assert_eq!(masks[1]["score"], 0.0);
        // 12 pixels of four channels, in 32 bits.
        let head: Vec<u64> = masks[0]["value"]["rle"].as_array().unwrap()[..4]
            .iter()
            .map(|byte| byte.as_u64().unwrap())
            .collect();
        assert_eq!(head, [0, 0, 0, 48]);
        assert_eq!(outlines[0]["value"]["polygonlabels"], json!(["sofa"]));
        assert_eq!(outlines[0]["value"]["points"].as_array().unwrap().len(), 4);
        let expected = json!({ "x": 75.0, "y": 0.0, "width": 25.0, "height": 66.667, "rotation": 0, "rectanglelabels": ["lamp"] });
        assert_eq!(boxes[0]["value"], expected);
        let ids: std::collections::BTreeSet<_> = prediction
            .result
            .iter()
            .map(|r| r["id"].to_string())
            .collect();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn an_image_without_labels_has_an_empty_prediction() {
        let labelling = Labelling::parse(CONFIG).unwrap();
        let labels = LabelMap::filled(2, 2, IGNORE_LABEL);
        let found = Found {
            labels: &labels,
            confidence: &[0.1; 4],
            version: "mini-01234567",
        };
        let prediction = found.prediction(&labelling, "1").unwrap();
        assert_eq!((prediction.result.len(), prediction.score), (0, 0.0));
    }
}
