//! Compares the second stage on given masks and class logits: empty, thin, small and large masks.

use burn::tensor::Device;
use zeg_model::methods::zegformer::fusion::Fusion;

use super::{
    case::{self, Case, Switches},
    inference::{Clip, FirstStage, Names, compare_boxes, compare_crops, output_size, plant},
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
};

/// Stride in pixels at which the maps are stored.
const STEP: usize = 2;

/// Compares the file.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let image = case::image(&mut check, "in.image")?;
    let padded = case::padded_size(std::slice::from_ref(&image));
    let logits = check.input("in.pred_logits")?.clone();
    let masks = check.input("in.pred_masks")?.clone();
    let four_axes = logits.shape.len() == 3 && masks.shape.len() == 4;
    if !four_axes || logits.shape[..2] != masks.shape[..2] || logits.shape[0] != 1 {
        return Err(check.tensor_error("in.pred_masks", "is not [1, queries, h, w]"));
    }
    let mut first_stages = [FirstStage::new(&logits, &masks, 0, padded)];
    plant(case, &mut first_stages);
    compare_sums(&mut check, &first_stages[0]);
    let boxes = compare_boxes(&mut check, &first_stages);
    let clip = Clip::open(&mut check, case, device)?;
    let images = [image];
    compare_crops(&mut check, &clip, &images, &first_stages, &boxes);
    let out = output_size(&mut check, "in.out_hw")?;
    let main = case.switches()?;
    for (name, fusion, offset) in [
        ("ens", Fusion::SeenUnseen, main.offset),
        ("ens_all", Fusion::AllClasses, 0.0),
        ("clip_only", Fusion::ClipAlone, 0.0),
    ] {
        let names = Names {
            features: "clip.image_features.0".into(),
            scores: format!("out.{name}.class_scores.0"),
            map: format!("out.{name}.sem_seg.0.sub{STEP}"),
            labels: None,
            step: STEP,
        };
        let switches = Switches {
            fusion,
            offset,
            ..main
        };
        if check.has(&names.scores) {
            let subject = (&images[0], &first_stages[0]);
            clip.compare_result(&mut check, case, subject, switches, out, &names)?;
        }
    }
    Ok(check.finish())
}

/// Compares the numbers of foreground pixels in every row and column.
fn compare_sums(check: &mut Check, first_stage: &FirstStage) {
    let [height, width] = first_stage.padded;
    let queries = first_stage.masks.queries;
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    for mask in &first_stage.foreground {
        let lines = mask.chunks_exact(width.max(1));
        rows.extend(
            lines
                .clone()
                .map(|row| row.iter().filter(|p| **p).count() as u32),
        );
        let in_column = |x: usize| lines.clone().filter(|row| row[x]).count() as u32;
        columns.extend((0..width).map(in_column));
    }
    for (name, length, sums) in [("rowsum", height, rows), ("colsum", width, columns)] {
        let found = Array::from_values(&[1, queries, length], &sums);
        check.compare(
            &format!("clip.binary_masks_bits_{name}"),
            &found,
            Limit::Exact,
        );
    }
}
