//! Resizes images of bytes with the program's own arithmetic: bilinear with weights of 11 bits, as OpenCV does.

use crate::{
    graph::Graph,
    shapes::Size,
    value::{Dim, Kind, Value},
};

/// The fixed-point weight that represents 1.
const ONE: f64 = 2048.0;

/// The two neighbours of every output place along an axis and their weights: `[length]` each.
struct Taps {
    first: Value,
    second: Value,
    weights: [Value; 2],
}

/// Resizes maps of whole numbers from 0 to 255, which stay whole: `[batch, channels, h, w]` → `[batch, channels, height,
/// width]`, in 32-bit floats
pub(crate) fn resize_bytes(g: &mut Graph, x: &Value, sizes: [Size; 2], shape: [Dim; 2]) -> Value {
    let [height, width] = shape;
    if [x.dim(2), x.dim(3)] == [height.clone(), width.clone()] {
        return x.clone();
    }
    let rows = taps(g, x, 2, (sizes[0], height));
    let columns = taps(g, x, 3, (sizes[1], width));
    let x = g.cast(x, Kind::Int);
    // [batch, channels, h, width], scaled by 2048
    let (left, right) = (
        g.gather(&x, &columns.first, 3),
        g.gather(&x, &columns.second, 3),
    );
    let left = g.multiply(&left, &columns.weights[0]);
    let right = g.multiply(&right, &columns.weights[1]);
    let wide = g.add(&left, &right);
    let sixteen = g.integers(&[16]);
    let wide = g.divide(&wide, &sixteen);
    let mut parts = Vec::with_capacity(2);
    for (place, weight) in [&rows.first, &rows.second].into_iter().zip(&rows.weights) {
        let row = g.gather(&wide, place, 2);
        let weight = g.unsqueeze(weight, 1);
        let product = g.multiply(&row, &weight);
        let scale = g.integers(&[1 << 16]);
        parts.push(g.divide(&product, &scale));
    }
    let sum = g.add(&parts[0], &parts[1]);
    let (two, four) = (g.integers(&[2]), g.integers(&[4]));
    let sum = g.add(&sum, &two);
    let bytes = g.divide(&sum, &four);
    let most = g.integers(&[255]);
    let bytes = g.smaller(&bytes, &most);
    g.cast(&bytes, Kind::Float)
}

/// Computes the neighbours along an axis.
fn taps(g: &mut Graph, x: &Value, axis: i64, (size, length): (Size, Dim)) -> Taps {
    let (source, target) = (g.sizes(&[Size::Of(x, axis)]), g.sizes(&[size]));
    let places = g.range(&target, length);
    let places = g.cast(&places, Kind::Float);
    let (from, to) = (g.cast(&source, Kind::Float), g.cast(&target, Kind::Float));
    let scale = g.divide(&from, &to);
    let centres = g.shift(&places, 0.5);
    let scaled = g.multiply(&centres, &scale);
    let position = g.shift(&scaled, -0.5);
    let floor = g.node(
        "Floor",
        &[&position],
        vec![],
        Kind::Float,
        position.shape.clone(),
    );
    let fraction = g.subtract(&position, &floor);
    let negative = g.negate(&fraction);
    let rest = g.shift(&negative, 1.0);
    let weights = [rest, fraction].map(|weight| {
        let scaled = g.scale(&weight, ONE);
        let rounded = g.round(&scaled); // halves become even, as in the program
        g.cast(&rounded, Kind::Int)
    });
    let first = g.cast(&floor, Kind::Int);
    let (zero, one) = (g.integers(&[0]), g.integers(&[1]));
    let last = g.subtract(&source, &one);
    let second = g.add(&first, &one);
    let inside = |g: &mut Graph, place: &Value| {
        let above = g.larger(place, &zero);
        g.smaller(&above, &last)
    };
    Taps {
        first: inside(g, &first),
        second: inside(g, &second),
        weights,
    }
}
