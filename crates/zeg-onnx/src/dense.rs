//! The graphs of models that give every class a map of logits: the input, the model, and the scores of pixels.

use zeg_model::{method::Scoring, vision::VisionTransformer};

use crate::{
    OnnxError,
    bytes::resize_bytes,
    calibration::calibrate,
    graph::{Attribute, Finished, Graph, Precision},
    params::ParameterSet,
    settings::{Classes, Request, Settings},
    shapes::Size,
    value::{Dim, Kind, Value},
};

/// A graph with what its name ends in: nothing, or the part of the model that it is.
#[derive(Debug)]
pub struct Part {
    /// Part of the model, such as `encoder`; empty for the whole model.
    pub part: &'static str,
    /// The graph.
    pub graph: Finished,
}

/// A part of the encoding of an image, which does not depend on the classes.
#[derive(Debug, Clone)]
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) value: Value,
    pub(crate) about: &'static str,
}

/// Logits of all classes on a grid, `[batch, classes, h, w]`, and what the grid covers.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) logits: Value,
    pub(crate) covers: Covers,
}

/// What the grid of logits covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Covers {
    /// The image with its padding; a cell is a square of the model's stride.
    Padded,
    /// The image without padding.
    Image,
    /// The image without padding; logits become scores on the grid, and these are resized.
    ScoredOnGrid,
}

/// A model whose logits lie on a grid.
pub(crate) trait DenseModel {
    /// Checks the settings against the model.
    fn check(&self, settings: &Settings) -> Result<(), OnnxError> {
        let _ = settings;
        Ok(())
    }

    /// Returns whether the graph needs a parameter.
    fn reads(&self, name: &str) -> bool {
        let _ = name;
        true
    }

    /// Returns the image tower, under `backbone` in the parameters.
    fn tower(&self) -> &VisionTransformer;

    /// Returns the usual side of the images that the tower gets, in pixels.
    fn side(&self) -> usize {
        self.tower().config().input_resolution
    }

    /// Encodes padded images `[batch, 3, height, width]`.
    fn encode(&self, g: &mut Graph, frame: &Frame) -> Vec<Feature>;

    /// Scores classes on an encoding.
    ///
    /// - `features`: the values of [`DenseModel::encode`], in its order
    /// - `text`: class embeddings `[classes, dim]`
    fn score(&self, g: &mut Graph, features: &[Value], text: &Value) -> Vec<Layer>;
}

/// The input of the model.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Normalised images, padded to multiples of the stride: `[batch, 3, height, width]`, in the kind of the computation
    pub(crate) images: Value,
    /// The same without padding.
    pub(crate) unpadded: Value,
}

/// Builds the graphs of a dense model.
pub(crate) fn graphs(model: &dyn DenseModel, request: &Request) -> Result<Vec<Part>, OnnxError> {
    model.check(request.settings)?;
    let mut params = ParameterSet::of_model(request.model, |name| model.reads(name));
    let settings = request.settings;
    if settings.precision == Precision::Int8Qdq {
        let statistics = request.facts().normalization;
        calibrate(
            &mut params,
            model.tower(),
            model.side(),
            &statistics,
            request.progress,
        );
    }
    let new = || Graph::new(&params, settings.opset, settings.precision);
    let mut g = new();
    let frame = input(&mut g, request);
    let features = model.encode(&mut g, &frame);
    if !settings.split {
        let text = class_embeddings(&mut g, request, Texts::Classes);
        let values: Vec<Value> = features.into_iter().map(|feature| feature.value).collect();
        let layers = model.score(&mut g, &values, &text);
        let scores = scores(&mut g, layers, Some(&frame.unpadded), request);
        g.output("scores", &scores, &about_scores(request));
        return Ok(vec![Part {
            part: "",
            graph: g.finish()?,
        }]);
    }
    let mut head = new();
    let mut inputs = Vec::with_capacity(features.len());
    for feature in features {
        let value = g.cast(&feature.value, Kind::Float);
        g.output(feature.name, &value, feature.about);
        let input = head.input(feature.name, Kind::Float, value.shape, feature.about);
        inputs.push(head.cast(&input, head.float()));
    }
    let text = class_embeddings(&mut head, request, Texts::Classes);
    let layers = model.score(&mut head, &inputs, &text);
    let scores = scores(&mut head, layers, None, request);
    head.output("scores", &scores, &about_scores(request));
    Ok(vec![
        Part {
            part: "encoder",
            graph: g.finish()?,
        },
        Part {
            part: "head",
            graph: head.finish()?,
        },
    ])
}

fn about_scores(request: &Request) -> String {
    let meaning = match request.facts().scoring {
        Scoring::Sigmoid => "sigmoid of each class",
        Scoring::Softmax => "softmax over the classes",
        Scoring::MaskSum => "masks weighted by class scores",
    };
    format!("Score of every class at every pixel ({meaning})")
}

/// Adds the image as input, and normalises and pads it.
pub(crate) fn input(g: &mut Graph, request: &Request) -> Frame {
    let images = normalised_input(g, request);
    let images = g.cast(&images, g.float());
    g.scope("pad", |g| Frame {
        images: padded(g, &images, request.facts().stride),
        unpadded: images.clone(),
    })
}

/// Adds the image as input, and normalises it: `[batch, 3, height, width]`, in 32-bit floats
pub(crate) fn normalised_input(g: &mut Graph, request: &Request) -> Value {
    let settings = request.settings;
    let batch = settings
        .batch
        .map_or_else(|| Dim::named("batch"), Dim::Known);
    let size = match settings.size {
        Some(size) => size.map(Dim::Known),
        None => ["height", "width"].map(Dim::named),
    };
    if settings.preprocessing {
        return from_bytes(g, batch, &size, request);
    }
    let shape = vec![batch, Dim::Known(3), size[0].clone(), size[1].clone()];
    let about = "RGB image, normalised with the mean and standard deviation of the metadata";
    g.input("image", Kind::Float, shape, about)
}

/// Adds bytes as input; resizes them to a fixed size, and normalises them.
fn from_bytes(g: &mut Graph, batch: Dim, size: &[Dim; 2], request: &Request) -> Value {
    let fixed = request.settings.size;
    let own = match fixed {
        Some(_) => ["image_height", "image_width"].map(Dim::named),
        None => size.clone(),
    };
    let [height, width] = own;
    let about = if fixed.is_some() {
        "RGB image of any size, 0 to 255; it is resized to the size of the model"
    } else {
        "RGB image, 0 to 255"
    };
    let bytes = g.input(
        "image",
        Kind::Byte,
        vec![batch, height, width, Dim::Known(3)],
        about,
    );
    g.scope("preprocess", |g| {
        let floats = g.cast(&bytes, Kind::Float);
        let maps = g.transpose(&floats, &[0, 3, 1, 2]);
        let maps = match fixed {
            Some([height, width]) => {
                let sizes = [Size::Is(height as i64), Size::Is(width as i64)];
                resize_bytes(g, &maps, sizes, size.clone())
            }
            None => maps,
        };
        let statistics = request.facts().normalization;
        let mean = g.constants("mean", &statistics.mean, &[3, 1, 1], Kind::Float);
        let std = g.constants("std", &statistics.std, &[3, 1, 1], Kind::Float);
        let centred = g.subtract(&maps, &mean);
        g.divide(&centred, &std)
    })
}

/// Pads images at the right and at the bottom with zeros, to multiples of the stride.
pub(crate) fn padded(g: &mut Graph, images: &Value, stride: usize) -> Value {
    let multiple = |dim: Dim| match dim {
        Dim::Known(length) => Dim::Known(length.next_multiple_of(stride)),
        Dim::Named(name) => Dim::named(format!("padded_{name}")),
    };
    let shape = vec![
        images.dim(0),
        images.dim(1),
        multiple(images.dim(2)),
        multiple(images.dim(3)),
    ];
    if shape == images.shape {
        return images.clone();
    }
    let missing = |g: &mut Graph, axis: i64| match images.dim(axis) {
        Dim::Known(length) => g.integers(&[(length.next_multiple_of(stride) - length) as i64]),
        Dim::Named(_) => {
            let length = g.sizes(&[Size::Of(images, axis)]);
            let stride = g.integers(&[stride as i64]);
            let negative = g.negate(&length);
            g.modulo(&negative, &stride) // the sign is that of the stride
        }
    };
    let (below, right) = (missing(g, 2), missing(g, 3));
    let mut pads = vec![Size::Is(0); 6];
    pads.extend([Size::Computed(&below), Size::Computed(&right)]);
    let pads = g.sizes(&pads);
    let mode = vec![Attribute::Text("mode", "constant")];
    g.node("Pad", &[images, &pads], mode, images.kind, shape)
}

/// A set of class embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Texts {
    /// The usual one.
    Classes,
    /// That for crops of regions.
    Crops,
}

/// Adds class embeddings as input, or as constants: `[classes, dim]`
pub(crate) fn class_embeddings(g: &mut Graph, request: &Request, texts: Texts) -> Value {
    let dim = request.facts().embed_dim;
    let text = match request.classes {
        Classes::Input => g.input(
            "class_embeddings",
            Kind::Float,
            vec![Dim::named("classes"), Dim::Known(dim)],
            "Class embeddings, rows of length 1, from the text tower of the model",
        ),
        Classes::Fixed(classes) => {
            let shape = [classes.names.len(), dim];
            let for_crops = classes
                .crop_embeddings
                .as_ref()
                .filter(|_| texts == Texts::Crops);
            let values = for_crops.unwrap_or(&classes.embeddings);
            g.constants("class_embeddings", values, &shape, Kind::Float)
        }
    };
    g.cast(&text, g.float())
}

/// Turns logits into scores of pixels: `[batch, classes, height, width]`, in 32-bit floats
///
/// - `image`: the image without padding; `None` if it is known only that it fills the padded one, or by its fixed size
fn scores(g: &mut Graph, layers: Vec<Layer>, image: Option<&Value>, request: &Request) -> Value {
    g.scope("scores", |g| {
        let facts = request.facts();
        let mut sum: Option<Value> = None;
        let count = layers.len() as f64;
        for layer in layers {
            let mut values = g.cast(&layer.logits, Kind::Float);
            if facts.scoring == Scoring::Sigmoid {
                values = g.negate(&values); // here and not at every pixel
            }
            if layer.covers == Covers::ScoredOnGrid {
                values = scored(g, &values, facts.scoring);
            }
            values = match layer.covers {
                Covers::Padded => {
                    let enlarged = g.enlarge(&values, facts.stride);
                    cut(g, &enlarged, image, request)
                }
                Covers::Image | Covers::ScoredOnGrid => to_image(g, &values, image, request),
            };
            if layer.covers != Covers::ScoredOnGrid {
                values = scored(g, &values, facts.scoring);
            }
            sum = Some(match sum {
                Some(sum) => g.add(&sum, &values),
                None => values,
            });
        }
        let Some(sum) = sum else {
            g.misfit("Scores", &[]);
            return g.integers(&[]);
        };
        let mean = g.scale(&sum, 1.0 / count);
        let lowered = lowered(g, &mean, request);
        match facts.scoring {
            Scoring::Softmax => g.softmax(&lowered, 1),
            Scoring::Sigmoid | Scoring::MaskSum => lowered,
        }
    })
}

/// Subtracts the offsets of fixed classes: `[batch, classes, height, width]`
pub(crate) fn lowered(g: &mut Graph, scores: &Value, request: &Request) -> Value {
    match request.offsets() {
        Some(offsets) => {
            let shape = [offsets.len(), 1, 1];
            let offsets = g.constants("seen_offsets", &offsets, &shape, Kind::Float);
            g.subtract(scores, &offsets)
        }
        None => scores.clone(),
    }
}

/// Turns values into scores, where every class has its own; the values are negative logits then.
fn scored(g: &mut Graph, values: &Value, scoring: Scoring) -> Value {
    match scoring {
        Scoring::Sigmoid => g.sigmoid_of_negative(values),
        Scoring::Softmax | Scoring::MaskSum => values.clone(),
    }
}

/// Cuts the padding off.
pub(crate) fn cut(
    g: &mut Graph,
    values: &Value,
    image: Option<&Value>,
    request: &Request,
) -> Value {
    let mut values = values.clone();
    for axis in [2_i64, 3] {
        let known = request.settings.size.map(|size| size[axis as usize - 2]);
        match (known, image) {
            (Some(length), _) => {
                if values.dim(axis) != Dim::Known(length) {
                    values = g.slice(&values, axis, 0, Some(length as i64));
                }
            }
            (None, Some(image)) => {
                let end = g.sizes(&[Size::Of(image, axis)]);
                values = g.slice_to(&values, axis, 0, &end, image.dim(axis));
            }
            // A head alone does not know the image; its scores cover the padded one.
            (None, None) => {}
        }
    }
    values
}

/// Resizes values to the image; those of a head alone stay on their grid if the size of the image is not fixed.
fn to_image(g: &mut Graph, values: &Value, image: Option<&Value>, request: &Request) -> Value {
    match (request.settings.size, image) {
        (Some([height, width]), _) => {
            let sizes = [Size::Is(height as i64), Size::Is(width as i64)];
            g.resize(values, sizes, [Dim::Known(height), Dim::Known(width)])
        }
        (None, Some(image)) => {
            let sizes = [Size::Of(image, 2), Size::Of(image, 3)];
            g.resize(values, sizes, [image.dim(2), image.dim(3)])
        }
        (None, None) => values.clone(),
    }
}

/// Returns tokens as a map: `[batch, h·w, dim]` → `[batch, h, w, dim]`
///
/// - `maps`: maps on the same grid, `[batch, channels, h, w]`
pub(crate) fn as_map(g: &mut Graph, tokens: &Value, maps: &Value) -> Value {
    let dim = tokens.dim(2).known().unwrap_or(0);
    let sizes = [
        Size::Of(tokens, 0),
        Size::Of(maps, 2),
        Size::Of(maps, 3),
        Size::Is(dim as i64),
    ];
    let shape = vec![tokens.dim(0), maps.dim(2), maps.dim(3), tokens.dim(2)];
    g.reshape_to(tokens, &sizes, shape)
}

/// Returns logits on the grid of a map: `[batch, classes, h·w]` → `[batch, classes, h, w]`
///
/// - `map`: `[batch, h, w, dim]`
pub(crate) fn on_grid(g: &mut Graph, logits: &Value, map: &Value) -> Value {
    let sizes = [
        Size::Of(logits, 0),
        Size::Of(logits, 1),
        Size::Of(map, 1),
        Size::Of(map, 2),
    ];
    let shape = vec![logits.dim(0), logits.dim(1), map.dim(1), map.dim(2)];
    g.reshape_to(logits, &sizes, shape)
}
