//! Compares image preprocessing: sizes, resizing and normalisation.
//!
//! Stored images have OpenCV's channel order, blue first; the images of this program are RGB.

use zeg_data::{
    augment::resize::Resize,
    chance::{Purpose, stream},
};
use zeg_image::{
    LabelMap, Normalization, RgbImage, fit_box, fit_short_side, resize_bilinear, resize_nearest,
};
use zeg_model::inference::Inference;

use super::{ParityError, array::Array, check::Check, file::Meta, limit::Limit};

/// Limit of grey levels: builds of OpenCV differ by this much, because of their fixed-point arithmetic.
const GREY_LEVEL: Limit = Limit::Absolute(1.0);
/// Limit of normalised values: the rounding of a quotient of two `f32` numbers.
const NORMALIZED: Limit = Limit::OfRms(1e-6);

/// Compares the tables of sizes and every preprocessing pipeline `pipe.<name>.*`.
pub(crate) fn compare(check: &mut Check) -> Result<(), ParityError> {
    let meta = check.file().meta();
    for (name, table) in meta.entries() {
        if let Some(name) = name.strip_prefix("pipe_")
            && check.has(&format!("pipe.{name}.bgr"))
        {
            compare_pipeline(check, name, &table)?;
        }
    }
    compare_sizes(check, "test_resize_hw_in_out", test_size)?;
    compare_sizes(check, "train_resize_hw_ratio_out", train_size)
}

/// Compares a table of sizes; each row holds the inputs and, in the last two places, the result (height first).
fn compare_sizes(
    check: &mut Check,
    name: &str,
    size: impl Fn(&[f64]) -> Option<(usize, usize)>,
) -> Result<(), ParityError> {
    let Some(table) = check.file().meta().find(name) else {
        return Ok(());
    };
    let mut reference = Vec::new();
    let mut found = Vec::new();
    for row in table.items()? {
        let row_values = row.numbers()?;
        let split = row_values.len().saturating_sub(2);
        let (input, output) = row_values.split_at(split);
        let (width, height) = size(input).ok_or_else(|| row.error("is not a row of sizes"))?;
        found.extend([height as f64, width as f64]);
        reference.extend_from_slice(output);
    }
    let (reference, found) = (Array::row(reference), Array::row(found));
    check.compare_value(&format!("meta.{name}"), &reference, &found, Limit::Exact);
    Ok(())
}

/// Returns the size at test time, from height and width.
fn test_size(row: &[f64]) -> Option<(usize, usize)> {
    let [height, width] = *row else { return None };
    let short_side = Inference::default().short_side;
    Some(fit_short_side(width as usize, height as usize, short_side))
}

/// Returns the size in training, from height, width and ratio.
fn train_size(row: &[f64]) -> Option<(usize, usize)> {
    let [height, width, ratio] = *row else {
        return None;
    };
    let resize = Resize {
        base_scale: zeg_data::RandomCrop::default().base_scale,
        ratio: (ratio, ratio), // one value, so that nothing is random
    };
    let mut rng = stream(0, Purpose::Sample, 0);
    Some(resize.draw(width as usize, height as usize, &mut rng))
}

fn compare_pipeline(check: &mut Check, name: &str, table: &Meta) -> Result<(), ParityError> {
    let key = |what: &str| format!("pipe.{name}.{what}");
    let image = image(check, &key("bgr"))?;
    let (width, height) = (image.width() as usize, image.height() as usize);

    let short_side = table.at("min_size")?.count()?;
    let (test_width, test_height) = fit_short_side(width, height, short_side);
    let resized = resize_bilinear(&image, test_width, test_height);
    check.compare(&key("resized_bgr"), &stored(&resized), GREY_LEVEL);
    // Starts from the reference's grey levels, so that only the normalisation is compared.
    let resized = self::image(check, &key("resized_bgr"))?;
    let normalized = Normalization::IMAGENET.to_chw(&resized); // [3, height, width]
    let normalized = channels_last(&normalized, &resized);
    check.compare(&key("normalized_rgb_hwc"), &normalized, NORMALIZED);

    let [long, short] = table.at("train_scale")?.pair()?;
    let (train_width, train_height) = fit_box(width, height, long, short);
    let resized = resize_bilinear(&image, train_width, train_height);
    check.compare(&key("train_scale_bgr"), &stored(&resized), GREY_LEVEL);
    if check.has(&key("label")) {
        let labels = check.input(&key("label"))?;
        let values = labels.to_u8().into_iter().map(u16::from).collect();
        let map = LabelMap::new(width, height, values)
            .map_err(|error| check.tensor_error(&key("label"), &error.to_string()))?;
        let map = resize_nearest(&map, train_width, train_height);
        let found = Array::from_values(&[train_height, train_width], map.labels());
        check.compare(&key("train_scale_label"), &found, Limit::Exact);
    }
    let found = |h: usize, w: usize| Array::row(vec![h as f64, w as f64, 3.0]);
    for (entry, found) in [
        ("out", found(test_height, test_width)),
        ("train_out", found(train_height, train_width)),
    ] {
        if let Some(reference) = table.find(entry) {
            let reference = Array::row(reference.numbers()?);
            let name = format!("meta.pipe_{name}.{entry}");
            check.compare_value(&name, &reference, &found, Limit::Exact);
        }
    }
    Ok(())
}

/// Reads a stored image, `[height, width, 3]` with blue first.
fn image(check: &mut Check, name: &str) -> Result<RgbImage, ParityError> {
    let array = check.input(name)?;
    let [height, width, 3] = array.shape[..] else {
        return Err(check.tensor_error(name, "is not [height, width, 3]"));
    };
    let mut bytes = array.to_u8();
    bytes
        .as_chunks_mut::<3>()
        .0
        .iter_mut()
        .for_each(|pixel| pixel.reverse());
    RgbImage::from_raw(width as u32, height as u32, bytes)
        .ok_or_else(|| check.tensor_error(name, "is not [height, width, 3]"))
}

/// Returns an image in the stored layout, `[height, width, 3]` with blue first.
fn stored(image: &RgbImage) -> Array {
    let shape = [image.height() as usize, image.width() as usize, 3];
    let mut bytes = image.as_raw().clone();
    bytes
        .as_chunks_mut::<3>()
        .0
        .iter_mut()
        .for_each(|pixel| pixel.reverse());
    Array::from_values(&shape, &bytes)
}

/// Rearranges `[3, height, width]` to `[height, width, 3]`.
fn channels_last(planes: &[f32], image: &RgbImage) -> Array {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let pixels = height * width;
    let values =
        (0..pixels).flat_map(|pixel| [0, 1, 2].map(|c| f64::from(planes[c * pixels + pixel])));
    Array {
        shape: vec![height, width, 3],
        values: values.collect(),
    }
}
