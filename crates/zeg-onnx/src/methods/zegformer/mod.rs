//! The graphs of ZegFormer: the first stage, and CLIP as the classifier of crops.

mod crops;
mod first_stage;

use serde_json::json;
use zeg_model::methods::zegformer::{
    ZegFormer,
    fusion::{Fusion, TRUST},
};

use super::{MethodGraphs, model_of};
use crate::{
    OnnxError,
    dense::{self, Part},
    graph::Graph,
    params::ParameterSet,
    settings::Request,
};

/// Newest version of ONNX's operators whose RoiAlign ONNX Runtime 1.32 computes.
const NEWEST_ROI_ALIGN: i64 = 21;

/// The graphs of ZegFormer.
#[derive(Debug)]
pub(super) struct ZegFormerGraphs;

/// Returns whether CLIP classifies crops.
fn uses_crops(model: &ZegFormer) -> bool {
    model.classifier.is_some() && model.options().fusion != Fusion::QueryAlone
}

impl MethodGraphs for ZegFormerGraphs {
    fn methods(&self) -> &'static [&'static str] {
        &["zegformer"]
    }

    fn graphs(&self, request: &Request) -> Result<Vec<Part>, OnnxError> {
        let model: &ZegFormer = model_of(request)?;
        let settings = request.settings;
        if settings.split {
            return Err(OnnxError::setting(
                "--split encoder,head",
                "ZegFormer becomes two graphs of its own: the first stage, and the classifier of crops",
            )
            .with_hint("leave --split out"));
        }
        let with_crops = uses_crops(model);
        if with_crops && settings.batch != Some(1) {
            let batch = settings
                .batch
                .map_or_else(|| "dynamic".to_owned(), |n| n.to_string());
            return Err(OnnxError::setting(
                format!("--batch {batch}"),
                "the classifier of crops takes the masks of one image",
            )
            .with_hint("leave --batch out, and run the graphs once for each image"));
        }
        if with_crops && settings.opset > NEWEST_ROI_ALIGN {
            return Err(OnnxError::setting(
                format!("--opset {}", settings.opset),
                "ONNX Runtime has no RoiAlign of this version, which cuts the crops",
            )
            .with_hint(format!("use --opset {NEWEST_ROI_ALIGN}")));
        }
        let params = ParameterSet::of_model(request.model, |_| true);
        let new = || Graph::new(&params, settings.opset, settings.precision);
        let mut g = new();
        let frame = dense::input(&mut g, request);
        let text = dense::class_embeddings(&mut g, request, dense::Texts::Classes);
        let regions = first_stage::regions(&mut g, model, &frame.images, &text);
        if !with_crops {
            let scores = first_stage::scores(&mut g, &regions, &frame, request);
            g.output("scores", &scores, "Masks weighted by class scores");
            return Ok(vec![Part {
                part: "",
                graph: g.finish()?,
            }]);
        }
        first_stage::output(&mut g, &regions);
        let mut second = new();
        crops::build(&mut second, model, request);
        Ok(vec![
            Part {
                part: "regions",
                graph: g.finish()?,
            },
            Part {
                part: "crops",
                graph: second.finish()?,
            },
        ])
    }

    fn metadata(&self, request: &Request) -> Vec<(&'static str, String)> {
        let Ok(model) = model_of::<ZegFormer>(request) else {
            return Vec::new();
        };
        let fusion = if uses_crops(model) {
            model.options().fusion
        } else {
            Fusion::QueryAlone
        };
        vec![
            (
                "fusion",
                json!(fusion).as_str().unwrap_or_default().to_owned(),
            ),
            ("trust", TRUST.to_string()),
        ]
    }

    fn left_out(&self, request: &Request) -> Vec<String> {
        let with_crops = model_of::<ZegFormer>(request).is_ok_and(uses_crops);
        let glue = "the class scores of both graphs are combined, and the masks summed, by the program that runs them; \
                    the book's page about exports has the code";
        with_crops.then(|| glue.to_owned()).into_iter().collect()
    }
}
