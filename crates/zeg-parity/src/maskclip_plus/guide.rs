//! Compares CLIP's tower as a guide: activations, scores with and without refinements, and pseudo labels.

use burn::tensor::{Device, activation::softmax};
use zeg_model::{
    methods::training_free::refinement::MaskClipRefinement, resize::bilinear, trace::Trace,
};
use zeg_train::methods::maskclip_plus::rows;

use super::{
    ACTIVATION,
    case::{Case, Unlabelled, images, input},
    compare_labels as compare_label_maps, compare_output, compare_trace,
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
};

/// CLIP's scale of cosine similarities.
const SCALE: f32 = 100.0;
/// Class embeddings.
const TEXT: &str = "state.decode_head.text_embeddings";

/// Compares `maskclip_vit` or `maskclip_rn`.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let tower = match case.part.strip_prefix("maskclip_") {
        Some(tower) => tower.to_owned(),
        None => case.part.clone(),
    };
    let guide = case.guide(check.file(), device)?;
    let images = images(&mut check, "in.image", case.planted, device)?;
    let [_, _, height, width] = images.dims();
    let text = input::<2>(&mut check, TEXT, device)?;
    let original = case.config(&format!("{tower}_ori"))?.pair()?;
    let mut trace = Trace::on();
    let seen = guide.forward(images, &mut trace);
    compare_trace(&mut check, "eval.", trace)?;
    let plain = seen.scores(text.clone(), &MaskClipRefinement::default());
    let probabilities = Array::of(softmax(plain * SCALE, 1))?;
    check.compare("eval.prob", &probabilities, ACTIVATION);
    for (setting, refinement) in case.refinements(&tower)? {
        let scores = seen.scores(text.clone(), &refinement);
        let prefix = format!("eval.{setting}.");
        let found = Array::of(scores.clone())?;
        check.compare(&format!("{prefix}scores"), &found, ACTIVATION);
        compare_output(&mut check, &prefix, scores, [[height, width], original], 3)?;
    }
    Ok(check.finish())
}

/// Compares `vit_guided`: pseudo labels with all classes and with the unseen ones.
pub(super) fn compare_labels(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let file = case.sibling("maskclip_vit")?;
    let guide = case.guide(&file, device)?;
    let mut inputs = Check::new(&file, None);
    let images = images(&mut inputs, "in.image", case.planted, device)?;
    let text = input::<2>(&mut inputs, TEXT, device)?;
    let seen = guide.forward(images, &mut Trace::off());
    let classes = case.config("C")?.count()?;
    let unseen = case.config("unseen")?.counts()?;
    for (set, candidates) in [("all", (0..classes).collect()), ("unseen", unseen)] {
        let name = format!("{set}.in.label");
        let labels = Unlabelled::read(&mut check, &name, classes, &candidates, case.planted)?;
        for (setting, refinement) in case.refinements("vit")? {
            let prefix = format!("{set}.{setting}.");
            if !check.has(&format!("{prefix}scores")) {
                continue;
            }
            let scores = seen.scores(rows(&text, &candidates), &refinement);
            let found = Array::of(scores.clone())?;
            check.compare(&format!("{prefix}scores"), &found, ACTIVATION);
            let large = Array::of(bilinear(scores.clone(), labels.size()))?;
            let targets = labels.labels()?.ranked(|_| Ok(scores))?;
            let found = labels.stored(targets.labels());
            let name = format!("{prefix}label_used");
            compare_label_maps(&mut check, &name, &found, &large, |pixel| {
                labels.waits(pixel)
            });
        }
    }
    Ok(check.finish())
}
