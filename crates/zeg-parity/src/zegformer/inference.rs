//! Compares ZegFormer's inference with all its options.
//!
//! This file is long because every option of the reference has its own tensors, and all are compared on one image.

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::RgbImage;
use zeg_model::{
    inference::PlannedWindow,
    method::Scoring,
    methods::zegformer::{
        QueryOutput, ZegFormer,
        classifier::CropClassifier,
        crops::{ClipImage, CropStyle, Outside, QueryMasks, align},
        foreground::{bounding_box, enlarge, foreground},
        fusion::{ClassLogits, Fusion},
    },
    scores::{Labelling, ScoreField, WindowScores},
    trace::Trace,
};

use super::{
    ACTIVATION, MASK_TIE,
    case::{self, Case, Switches},
    compare_trace,
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
    set_pass::compare_output,
    small_model::compare_labels,
};

/// Class embeddings with the head's prompt templates.
const TEXT: &str = "text.text_features_test";
/// Class embeddings with the prompt templates for crops.
const CROP_TEXT: &str = "text.text_features_test_clip";
/// Stride in pixels at which a variant's map is stored.
const VARIANT_STEP: usize = 3;
/// Offset of the variant `no_clip_gamma`.
const VARIANT_OFFSET: f32 = 0.3;

/// Compares the file.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let check_ref = &mut check;
    let inputs = case::images(check_ref, "in.image.")?;
    let model = case.model(device)?;
    let region = RegionModel {
        clip: Clip::open(check_ref, case, device)?,
        model: &model,
        case,
    };
    compare_classes(check_ref, case);
    let switches = case.switches()?;
    let size = case::padded_size(&inputs);
    let mut trace = Trace::on();
    let output = region.forward(&inputs, size, &mut trace, Some(check_ref))?;
    compare_trace(check_ref, "mid.", trace)?;
    let mut first_stages = first_stages(&output, size)?;
    plant(case, &mut first_stages);
    let boxes = compare_masks(check_ref, &mut first_stages)?;
    compare_crops(check_ref, &region.clip, &inputs, &first_stages, &boxes);
    for (index, (image, first_stage)) in inputs.iter().zip(&first_stages).enumerate() {
        let names = Names {
            features: format!("clip.image_features.{index}"),
            scores: format!("out.class_scores.{index}"),
            map: format!("out.sem_seg.{index}"),
            labels: Some(format!("out.argmax.{index}")),
            step: 1,
        };
        let out = output_size(check_ref, &format!("in.out_hw.{index}"))?;
        region
            .clip
            .compare_result(check_ref, case, (image, first_stage), switches, out, &names)?;
    }
    compare_variants(check_ref, &region, &inputs[0], switches)?;
    Ok(check.finish())
}

/// Compares the lists of seen and unseen classes.
fn compare_classes(check: &mut Check, case: &Case) {
    for (name, seen) in [("seen_indexes", true), ("unseen_indexes", false)] {
        let classes = (0..case.classes.len()).filter(|&class| case.seen[class] == seen);
        let classes: Vec<u32> = classes.map(|class| class as u32).collect();
        let found = Array::from_values(&[classes.len()], &classes);
        check.compare(name, &found, Limit::Exact);
    }
}

/// Reads the height and width of a map.
pub(crate) fn output_size(check: &mut Check, name: &str) -> Result<[usize; 2], ParityError> {
    let [height, width] = check.input(name)?.to_u32()[..] else {
        return Err(check.tensor_error(name, "is not [height, width]"));
    };
    Ok([height as usize, width as usize])
}

/// The two stages that a file is computed with.
struct RegionModel<'a> {
    clip: Clip,
    model: &'a ZegFormer,
    case: &'a Case,
}

impl RegionModel<'_> {
    /// Runs the first stage on a batch, and compares its outputs if `check` is given.
    fn forward(
        &self,
        inputs: &[RgbImage],
        size: [usize; 2],
        trace: &mut Trace,
        check: Option<&mut Check>,
    ) -> Result<QueryOutput, ParityError> {
        let text = self.clip.text.clone();
        let images = case::batch(inputs, size, &text.device());
        let mut outputs = self.model.forward_all(images, text, trace);
        let last = outputs
            .pop()
            .ok_or_else(|| ParityError::Backend("the model has no decoder layer".into()))?;
        if let Some(check) = check {
            compare_output(check, "final", &last, ACTIVATION)?;
            for (layer, output) in outputs.iter().enumerate() {
                compare_output(check, &format!("aux{layer}"), output, ACTIVATION)?;
            }
        }
        Ok(last)
    }
}

/// Output of the first stage for one image, in main memory.
#[derive(Clone)]
pub(super) struct FirstStage {
    /// Class logits `[queries, classes + 1]`.
    pub(super) own: Vec<f32>,
    pub(super) masks: QueryMasks,
    /// Height and width including padding.
    pub(super) padded: [usize; 2],
    /// Foreground of every mask query at the padded size.
    pub(super) foreground: Vec<Vec<bool>>,
    /// Whether some foreground pixels were taken from the reference.
    adjusted: bool,
}

/// Splits the output of a batch by image.
fn first_stages(output: &QueryOutput, padded: [usize; 2]) -> Result<Vec<FirstStage>, ParityError> {
    let logits = Array::of(output.classes.clone())?;
    let masks = Array::of(output.masks.clone())?;
    let [batch, ..] = logits.shape[..] else {
        return Ok(Vec::new()); // it has three axes
    };
    (0..batch)
        .map(|image| Ok(FirstStage::new(&logits, &masks, image, padded)))
        .collect()
}

impl FirstStage {
    /// Returns the output for one image of class logits `[batch, queries, classes + 1]` and masks `[batch, queries, h,
    /// w]`.
    pub(super) fn new(logits: &Array, masks: &Array, image: usize, padded: [usize; 2]) -> Self {
        let part = |array: &Array| -> Vec<f32> {
            let length = array.values.len() / array.shape[0].max(1);
            let values = &array.values[image * length..][..length];
            values.iter().map(|&v| v as f32).collect()
        };
        let masks = QueryMasks {
            values: part(masks),
            queries: masks.shape[1],
            grid: [masks.shape[2], masks.shape[3]],
        };
        let foreground = (0..masks.queries)
            .map(|query| foreground(&enlarge(masks.of(query), masks.grid, padded)))
            .collect();
        Self {
            own: part(logits),
            masks,
            padded,
            foreground,
            adjusted: false,
        }
    }
}

/// Alters the foreground of every mask query if a test plants this error.
pub(super) fn plant(case: &Case, first_stages: &mut [FirstStage]) {
    if let Some(error) = case.planted {
        let masks = first_stages
            .iter_mut()
            .flat_map(|first_stage| &mut first_stage.foreground);
        error.alter_masks(masks.map(Vec::as_mut_slice), [false, true]);
    }
}

/// Compares the foreground of every mask query, and returns the boxes.
///
/// Where a logit is so near to 0 that rounding decides, the reference's pixel is used from then on.
fn compare_masks(check: &mut Check, first_stages: &mut [FirstStage]) -> Result<Array, ParityError> {
    let queries = first_stages
        .first()
        .map_or(0, |first_stage| first_stage.masks.queries);
    let [height, width] = first_stages
        .first()
        .map_or([0, 0], |first_stage| first_stage.padded);
    let name = "clip.binary_masks";
    if let Some(reference) = check.reference(name) {
        if reference.shape != [first_stages.len(), queries, height, width] {
            return Err(check.tensor_error(name, "is not [batch, queries, height, width]"));
        }
        let stored = reference.to_u8();
        let (mut wrong, mut ties) = (0, 0);
        for (index, stored) in stored.chunks_exact((height * width).max(1)).enumerate() {
            let (first_stage, query) = (&mut first_stages[index / queries], index % queries);
            let logits = enlarge(
                first_stage.masks.of(query),
                first_stage.masks.grid,
                first_stage.padded,
            );
            let pixels = stored
                .iter()
                .zip(&mut first_stage.foreground[query])
                .zip(logits);
            for ((&stored, found), logit) in pixels {
                if (stored != 0) == *found {
                    continue;
                }
                if f64::from(logit.abs()) > MASK_TIE {
                    wrong += 1;
                } else {
                    (*found, first_stage.adjusted) = (!*found, true);
                    ties += 1;
                }
            }
        }
        if ties > 0 {
            check.note(format!(
                "{ties} mask pixels whose logit is 0 except for rounding are taken from the reference"
            ));
        }
        let found: Vec<u8> = (first_stages.iter())
            .flat_map(|first_stage| {
                first_stage
                    .foreground
                    .iter()
                    .flatten()
                    .map(|&inside| u8::from(inside))
            })
            .collect();
        let found = Array::from_values(&reference.shape, &found);
        check.measured(name, Limit::Exact, f64::from(wrong), found);
    }
    Ok(compare_boxes(check, first_stages))
}

/// Compares the boxes of all mask queries.
pub(super) fn compare_boxes(check: &mut Check, first_stages: &[FirstStage]) -> Array {
    let boxes: Vec<f32> = first_stages
        .iter()
        .flat_map(|first_stage| {
            let masks = first_stage.foreground.iter();
            masks.flat_map(|mask| bounding_box(mask, first_stage.padded))
        })
        .collect();
    let boxes = Array::from_values(&[boxes.len() / 4, 4], &boxes);
    check.compare("clip.boxes_xyxy", &boxes, Limit::Exact);
    boxes
}

/// Compares the crops of all mask queries, with and without the pixels outside of the masks.
pub(super) fn compare_crops(
    check: &mut Check,
    clip: &Clip,
    inputs: &[RgbImage],
    first_stages: &[FirstStage],
    boxes: &Array,
) {
    let side = clip.classifier.side();
    let count = boxes.shape[0];
    for (kind, outside) in [("masked", Outside::Mean), ("plain", Outside::Kept)] {
        let crops: Vec<f32> = inputs
            .iter()
            .zip(first_stages)
            .flat_map(|(image, first_stage)| {
                let clip_image = case::clip_image(image, first_stage.padded);
                let masks = first_stage.foreground.iter();
                masks
                    .flat_map(|mask| align(&clip_image, mask, outside, side))
                    .collect::<Vec<f32>>()
            })
            .collect();
        let crops = Array::from_values(&[count, 3, side, side], &crops);
        let name = |part: &str| format!("clip.crop_{kind}_{part}");
        check.compare(&name("sub8"), &crops.every(8, 2..4), ACTIVATION);
        if let Some(reference) = check.reference(&name("sub4_first4")) {
            let first = reference.shape.first().copied().unwrap_or(0);
            let part = rows(&crops, 0..first.min(count)).every(4, 2..4);
            check.compare(&name("sub4_first4"), &part, ACTIVATION);
        }
        let channels = crops.values.chunks_exact((side * side).max(1));
        let sum = |f: fn(&f64) -> f64| Array {
            shape: vec![count, 3],
            values: channels.clone().map(|c| c.iter().map(f).sum()).collect(),
        };
        check.compare(&name("sum"), &sum(|v| *v), ACTIVATION);
        check.compare(&name("sqsum"), &sum(|v| v * v), ACTIVATION);
        for query in 0..count {
            let full = name(&format!("full_query{query}"));
            if check.has(&full) {
                let mut crop = rows(&crops, query..query + 1);
                crop.shape.remove(0);
                check.compare(&full, &crop, ACTIVATION);
            }
        }
    }
}

/// Returns a range of entries along the first axis.
fn rows(array: &Array, range: std::ops::Range<usize>) -> Array {
    let length: usize = array.shape[1..].iter().product();
    let mut shape = array.shape.clone();
    shape[0] = range.len();
    Array {
        shape,
        values: array.values[range.start * length..range.end * length].to_vec(),
    }
}

/// Tensor names of one result.
pub(super) struct Names {
    pub(super) features: String,
    pub(super) scores: String,
    pub(super) map: String,
    pub(super) labels: Option<String>,
    /// Stride in pixels at which the map is stored.
    pub(super) step: usize,
}

/// The second stage: CLIP's classifier of crops, with the class embeddings of both stages.
pub(super) struct Clip {
    classifier: CropClassifier,
    /// Class embeddings of the first stage, `[classes, dim]`.
    text: Tensor<2>,
    /// Class embeddings for crops, `[classes, dim]`.
    crop_text: Tensor<2>,
}

impl Clip {
    /// Opens the tower and the class embeddings; the latter come from this file, or from the file `infer`.
    pub(super) fn open(
        check: &mut Check,
        case: &Case,
        device: &Device,
    ) -> Result<Self, ParityError> {
        let mut read = |name: &str| -> Result<Tensor<2>, ParityError> {
            if check.has(name) {
                let rows = case::embeddings(check, name)?;
                return case::tensor(check, name, &rows, device);
            }
            let file = case.sibling("infer")?;
            let mut other = Check::new(&file, None);
            let rows = case::embeddings(&mut other, name)?;
            case::tensor(&other, name, &rows, device)
        };
        Ok(Self {
            text: read(TEXT)?,
            crop_text: read(CROP_TEXT)?,
            classifier: case.classifier(device)?,
        })
    }

    /// Returns CLIP's features of every mask query: `[queries, dim]`.
    fn features(
        &self,
        image: &ClipImage,
        first_stage: &FirstStage,
        style: CropStyle,
    ) -> Result<Vec<f32>, ParityError> {
        let outside = match style {
            CropStyle::MaskedCrop => Outside::Mean,
            CropStyle::Crop => Outside::Kept,
            CropStyle::Mask => return self.program_features(image, first_stage, style),
        };
        if !first_stage.adjusted {
            return self.program_features(image, first_stage, style);
        }
        let side = self.classifier.side();
        let masks = first_stage.foreground.iter();
        let crops: Vec<f32> = masks
            .flat_map(|mask| align(image, mask, outside, side))
            .collect();
        let shape = [first_stage.masks.queries, 3, side, side];
        let device = self.crop_text.device();
        let crops = Tensor::from_data(TensorData::new(crops, shape), &device);
        Ok(Array::of(self.classifier.features(crops))?.to_f32())
    }

    /// Returns CLIP's features of every mask query as the program itself computes them.
    fn program_features(
        &self,
        image: &ClipImage,
        first_stage: &FirstStage,
        style: CropStyle,
    ) -> Result<Vec<f32>, ParityError> {
        Ok(self
            .classifier
            .encode_crops(image, &first_stage.masks, style)?)
    }

    /// Compares features, class scores and map of one image.
    pub(super) fn compare_result(
        &self,
        check: &mut Check,
        case: &Case,
        (image, first_stage): (&RgbImage, &FirstStage),
        switches: Switches,
        out: [usize; 2],
        names: &Names,
    ) -> Result<(), ParityError> {
        let (classes, queries) = (case.classes.len(), first_stage.masks.queries);
        let mut logits = ClassLogits {
            own: first_stage.own.clone(),
            clip: None,
            classes,
        };
        if switches.fusion != Fusion::QueryAlone {
            let clip_image = case::clip_image(image, first_stage.padded);
            let features = self.features(&clip_image, first_stage, switches.style)?;
            let dim = self.classifier.embed_dim();
            let found = Array::from_values(&[queries, dim], &features);
            check.compare(&names.features, &found, ACTIVATION);
            let features = self.classifier.upload(features);
            let clip = self.classifier.logits(features, self.crop_text.clone());
            logits.clip = Some(Array::of(clip)?.to_f32());
        }
        // If only one of the two stages decides, the reference stores its logits with "no object".
        let stored = match switches.fusion {
            Fusion::ClipAlone => logits.clip_with_no_object(),
            Fusion::QueryAlone => Some(first_stage.own.clone()),
            Fusion::SeenUnseen | Fusion::AllClasses => None,
        };
        let scores = logits.scores(switches.fusion, &case.seen);
        let found = match &stored {
            Some(logits) => Array::from_values(&[queries, classes + 1], logits),
            None => Array::from_values(&[queries, classes], &scores),
        };
        check.compare(&names.scores, &found, ACTIVATION);

        let offsets = case
            .seen
            .iter()
            .map(|&seen| if seen { switches.offset } else { 0.0 });
        let size = [image.height() as usize, image.width() as usize];
        let mut field = ScoreField::new(classes, size, Scoring::MaskSum, offsets.collect());
        let scores = WindowScores::Masks {
            masks: first_stage.masks.clone(),
            scores,
        };
        field.push_window(&PlannedWindow::whole(size), scores, first_stage.padded)?;
        let strip = field.strip(0..out[0], out); // [rows, classes, columns]
        let map = classes_first(strip.values(), classes, out);
        check.compare(&names.map, &map.every(names.step, 1..3), ACTIVATION);
        let Some(name) = &names.labels else {
            return Ok(());
        };
        if let Some(reference) = check.reference(name) {
            let mut labels = vec![0_u16; out[0] * out[1]];
            strip.label(&Labelling::default(), &mut labels, None);
            let found = Array::from_values(&out, &labels);
            compare_labels(check, name, reference, &found, &map);
        }
        Ok(())
    }
}

/// Rearranges `[rows, classes, columns]` to `[classes, rows, columns]`.
pub(crate) fn classes_first(values: &[f32], classes: usize, [height, width]: [usize; 2]) -> Array {
    let mut result = Vec::with_capacity(values.len());
    for class in 0..classes {
        for row in values.chunks_exact((classes * width).max(1)) {
            result.extend(row[class * width..][..width].iter().map(|&v| f64::from(v)));
        }
    }
    Array {
        shape: vec![classes, height, width],
        values: result,
    }
}

/// Compares the first image alone with other options.
///
/// The variants that change the scoring were computed without an offset, those that change the crops with the main
/// offset.
fn compare_variants(
    check: &mut Check,
    region: &RegionModel,
    image: &RgbImage,
    main: Switches,
) -> Result<(), ParityError> {
    let size = case::padded_size(std::slice::from_ref(image));
    let output = region.forward(std::slice::from_ref(image), size, &mut Trace::off(), None)?;
    let first_stages = first_stages(&output, size)?;
    let out = output_size(check, "in.out_hw.0")?;
    let crops = Switches {
        fusion: Fusion::SeenUnseen,
        style: CropStyle::MaskedCrop,
        ..main
    };
    for (name, switches) in [
        (
            "clip_only",
            Switches {
                fusion: Fusion::ClipAlone,
                offset: 0.0,
                ..crops
            },
        ),
        (
            "ens_all_cls",
            Switches {
                fusion: Fusion::AllClasses,
                offset: 0.0,
                ..crops
            },
        ),
        (
            "style_crop",
            Switches {
                style: CropStyle::Crop,
                ..crops
            },
        ),
        (
            "style_mask",
            Switches {
                style: CropStyle::Mask,
                ..crops
            },
        ),
        (
            "no_clip",
            Switches {
                fusion: Fusion::QueryAlone,
                offset: 0.0,
                ..crops
            },
        ),
        (
            "no_clip_gamma",
            Switches {
                fusion: Fusion::QueryAlone,
                offset: VARIANT_OFFSET,
                ..crops
            },
        ),
    ] {
        let names = Names {
            features: format!("var.{name}.image_features.0"),
            scores: format!("var.{name}.class_scores.0"),
            map: format!("var.{name}.sem_seg_sub{VARIANT_STEP}.0"),
            labels: Some(format!("var.{name}.argmax.0")),
            step: VARIANT_STEP,
        };
        if check.has(&names.scores) {
            region.clip.compare_result(
                check,
                region.case,
                (image, &first_stages[0]),
                switches,
                out,
                &names,
            )?;
        }
    }
    Ok(())
}
