//! CLIP as the classifier of crops: cuts the crop of every mask and compares it with the class embeddings.

use zeg_image::normalize::Normalization;
use zeg_model::methods::zegformer::{ZegFormer, crops::CropStyle};

use crate::{
    dense::{self, Texts},
    graph::{Attribute, Graph},
    layers::Interpolation,
    operators::Reduction,
    settings::Request,
    shapes::Size,
    tower::Tower,
    value::{Dim, Kind, Value},
};

/// Builds the graph: image, masks and class embeddings to CLIP's logits of every mask.
pub(super) fn build(g: &mut Graph, model: &ZegFormer, request: &Request) {
    let Some(classifier) = &model.classifier else {
        return;
    };
    let images = dense::normalised_input(g, request); // [1, 3, height, width], without padding
    let image = for_clip(g, &images, request);
    let grid = match request.settings.size {
        Some(size) => {
            size.map(|side| Dim::Known(side.next_multiple_of(request.facts().stride) / 4))
        }
        None => ["mask_height", "mask_width"].map(Dim::named),
    };
    let [h, w] = grid;
    let shape = vec![Dim::Known(1), Dim::named("masks"), h, w];
    let about = "Masks of the first stage, all of them or some";
    let masks = g.input("masks", Kind::Float, shape, about);
    let text = dense::class_embeddings(g, request, Texts::Crops);
    let side = classifier.side();
    let style = model.options().crops;
    let crops = g.scope("crops", |g| crops(g, &image, &masks, (style, side)));
    let crops = g.cast(&crops, g.float());
    let tower = Tower {
        config: classifier.config(),
        prefix: "classifier.tower",
    };
    let tokens = tower.embed(g, &crops, Interpolation::Linear);
    let last = tower.config.layers - 1;
    let tokens = tower.blocks(g, tokens, 0..last, &mut |_, _| {});
    let class = tower.block_of_class(g, last, &tokens.sequence);
    let vectors = tower.project_tokens(g, &class);
    let vectors = g.squeeze(&vectors, 1); // [masks, dim]
    let unit = g.unit(&vectors);
    let rows = g.transpose(&text, &[1, 0]);
    let cosines = g.product(&unit, &rows);
    let cosines = g.cast(&cosines, Kind::Float);
    let logits = g.scale(&cosines, f64::from(classifier.scale()));
    g.output(
        "crop_logits",
        &logits,
        "CLIP's logits of the classes for the crop of every mask",
    );
}

/// Normalises an image for CLIP, and pads it with the mean colour: `[1, 3, height, width]`
fn for_clip(g: &mut Graph, images: &Value, request: &Request) -> Value {
    g.scope("for_clip", |g| {
        let own = request.facts().normalization;
        let clip = Normalization::CLIP;
        let statistics = |g: &mut Graph, name: &str, values: [f32; 3]| {
            g.constants(name, &values, &[3, 1, 1], Kind::Float)
        };
        let (std, mean) = (
            statistics(g, "std", own.std),
            statistics(g, "mean", own.mean),
        );
        let scaled = g.multiply(images, &std);
        let pixels = g.add(&scaled, &mean);
        let pixels = g.round(&pixels); // they are bytes
        let (std, mean) = (
            statistics(g, "clip_std", clip.std),
            statistics(g, "clip_mean", clip.mean),
        );
        let centred = g.subtract(&pixels, &mean);
        let normalised = g.divide(&centred, &std);
        dense::padded(g, &normalised, request.facts().stride)
    })
}

/// Cuts the crops of masks: `[masks, 3, side, side]`
fn crops(g: &mut Graph, image: &Value, masks: &Value, (style, side): (CropStyle, usize)) -> Value {
    let sizes = [Size::Of(image, 2), Size::Of(image, 3)];
    let logits = g.resize(masks, sizes, [image.dim(2), image.dim(3)]); // [1, masks, height, width]
    let square = [Size::Is(side as i64); 2];
    let side_dims = [Dim::Known(side), Dim::Known(side)];
    if style == CropStyle::Mask {
        let small = g.resize(&logits, square, side_dims.clone());
        let inside = foreground(g, &small);
        let image = g.resize(image, square, side_dims);
        return g.multiply(&image, &inside);
    }
    let inside = foreground(g, &logits); // [masks, 1, height, width]
    let boxes = boxes(g, &inside); // [masks, 4]
    let count = g.sizes(&[Size::Of(masks, 1)]);
    let numbers = g.range(&count, masks.dim(1));
    let (images, numbers) = if style == CropStyle::MaskedCrop {
        (g.multiply(image, &inside), numbers)
    } else {
        let zero = g.integers(&[0]);
        (image.clone(), g.multiply(&numbers, &zero))
    };
    let shape = vec![
        masks.dim(1),
        Dim::Known(3),
        Dim::Known(side),
        Dim::Known(side),
    ];
    let attributes = vec![
        Attribute::Text("coordinate_transformation_mode", "half_pixel"),
        Attribute::Text("mode", "avg"),
        Attribute::Int("output_height", side as i64),
        Attribute::Int("output_width", side as i64),
        Attribute::Int("sampling_ratio", 0),
        Attribute::Float("spatial_scale", 1.0),
    ];
    g.node(
        "RoiAlign",
        &[&images, &boxes, &numbers],
        attributes,
        Kind::Float,
        shape,
    )
}

/// Returns 1 where a mask covers a pixel, else 0: `[1, masks, h, w]` → `[masks, 1, h, w]`
fn foreground(g: &mut Graph, logits: &Value) -> Value {
    let turned = g.transpose(logits, &[1, 0, 2, 3]);
    let zero = g.number(0.0, Kind::Float);
    let inside = g.greater(&turned, &zero);
    g.cast(&inside, Kind::Float)
}

/// Returns the bounding boxes of masks, left, top, right, bottom: `[masks, 4]`; that of a mask which is empty or one pixel
/// wide or high is the whole image.
fn boxes(g: &mut Graph, inside: &Value) -> Value {
    let zero = g.number(0.0, Kind::Float);
    let half = g.number(0.5, Kind::Float);
    let ends = |g: &mut Graph, axis: i64, other: i64| {
        let covered = g.reduce(Reduction::Max, inside, &[other]);
        let covered = g.reshape(&covered, &[0, -1]); // [masks, length]
        let is_covered = g.greater(&covered, &half);
        let count = g.sizes(&[Size::Of(inside, axis)]);
        let places = g.range(&count, inside.dim(axis));
        let places = g.cast(&places, Kind::Float);
        let length = g.cast(&count, Kind::Float);
        let far = g.choose(&is_covered, &places, &length);
        let negative = g.negate(&far);
        let first = g.reduce(Reduction::Max, &negative, &[1]);
        let first = g.negate(&first);
        let near = g.choose(&is_covered, &places, &zero);
        let last = g.reduce(Reduction::Max, &near, &[1]);
        (first, last, length) // [masks, 1] each, [1]
    };
    let (left, right, width) = ends(g, 3, 2);
    let (top, bottom, height) = ends(g, 2, 3);
    let wide = g.greater(&right, &left);
    let high = g.greater(&bottom, &top);
    let is_box = g.and(&wide, &high);
    let left = g.choose(&is_box, &left, &zero);
    let top = g.choose(&is_box, &top, &zero);
    let right = g.choose(&is_box, &right, &width);
    let bottom = g.choose(&is_box, &bottom, &height);
    g.concat(&[&left, &top, &right, &bottom], 1)
}
