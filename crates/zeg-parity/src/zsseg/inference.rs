//! Compares inference with all its options: on an image, and on given masks and class embeddings.

use burn::tensor::{Device, Tensor};
use zeg_image::RgbImage;
use zeg_model::{
    inference::PlannedWindow,
    mask_transformer::Regions,
    method::Scoring,
    methods::zsseg::{
        Zsseg, ZssegOptions,
        classifier::RegionClassifier,
        ensemble::{Ensemble, RegionLogits},
        regions::{Fill, RegionBox, RegionImage, RegionMasks},
    },
    scores::{Labelling, QueryMasks, ScoreField, WindowScores},
    trace::Trace,
};

use super::{
    ACTIVATION,
    case::{self, Case},
    compare_trace,
    text::Prompts,
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
    small_model::compare_labels,
    zegformer::inference::{classes_first, output_size},
};

/// Rows that the queries are compared with, the last for "no object".
const QUERY_ROWS: &str = "text.query_rows_with_no_object";
/// Rows that the crops are compared with, the last for "no object".
const REGION_ROWS: &str = "text.region_rows_with_no_object";
/// Largest stride in pixels at which a map is stored.
const MOST_STEPS: usize = 16;
/// Mask logit of every pixel in the results `all_empty`.
const EMPTY: f32 = -6.0;

/// One image with its masks and class embeddings.
struct Setup<'a> {
    case: &'a Case,
    model: &'a Zsseg,
    image: RgbImage,
    /// Height and width of the map.
    out: [usize; 2],
    masks: QueryMasks,
    /// Class logits of the queries, "no object" last: `[queries, classes + 1]`
    own: Vec<f32>,
    /// Rows of the classes and of "no object" for the crops: `[classes + 1, dim]`
    region_rows: Tensor<2>,
}

/// Compares the file `infer`.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let model = case.model(device)?;
    let image = case::image(&mut check, "in.image")?;
    let padded = case::padded_size(std::slice::from_ref(&image));
    let mut trace = Trace::on();
    let images = case::batch(std::slice::from_ref(&image), padded, device);
    let Regions { vectors, masks } = model.regions(images, &mut trace)?;
    compare_trace(&mut check, "mid.", trace)?;
    check.compare("out.class_embed", &Array::of(vectors.clone())?, ACTIVATION);
    check.compare("out.pred_masks", &Array::of(masks.clone())?, ACTIVATION);
    let rows = rows(&mut check, case, device)?;
    compare_rows(&mut check, case, &model, device)?;
    let setup = Setup::new(&mut check, case, &model, (image, vectors, masks), rows)?;
    setup.compare_probabilities(&mut check);
    setup.compare_all(&mut check)?;
    Ok(check.finish())
}

/// Compares the file `regions`.
pub(super) fn compare_regions(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let model = case.model(device)?;
    let image = case::image(&mut check, "in.image")?;
    let vectors = check.input("in.pred_embeds")?.clone();
    let vectors: Tensor<3> = case::tensor(&check, "in.pred_embeds", &vectors, device)?;
    let masks = check.input("in.pred_masks")?.clone();
    let masks: Tensor<4> = case::tensor(&check, "in.pred_masks", &masks, device)?;
    let infer = case.sibling("infer")?;
    let rows = rows(&mut Check::new(&infer, None), case, device)?;
    let mut setup = Setup::new(&mut check, case, &model, (image, vectors, masks), rows)?;
    setup.compare_all(&mut check)?;
    setup.masks.values.fill(EMPTY);
    let main = setup.options()?;
    setup.compare(&mut check, "all_empty.", &main)?;
    let alone = ZssegOptions {
        fusion: Ensemble::CropsAlone,
        ..main
    };
    setup.compare(&mut check, "all_empty_clip_only.", &alone)?;
    Ok(check.finish())
}

/// Reads the rows of the queries and of the crops.
fn rows(check: &mut Check, case: &Case, device: &Device) -> Result<[Tensor<2>; 2], ParityError> {
    let mut read = |name: &str| -> Result<Tensor<2>, ParityError> {
        let rows = check.input(name)?.clone();
        if rows.shape.first() != Some(&(case.classes.len() + 1)) {
            return Err(check.tensor_error(name, "is not [classes + 1, dim]"));
        }
        case::tensor(check, name, &rows, device)
    };
    Ok([read(QUERY_ROWS)?, read(REGION_ROWS)?])
}

/// Compares the rows with the class embeddings and the "no object" of the model.
fn compare_rows(
    check: &mut Check,
    case: &Case,
    model: &Zsseg,
    device: &Device,
) -> Result<(), ParityError> {
    let Some(adapter) = &model.clip_adapter else {
        return Err(ParityError::Backend("the model is no segmenter".into()));
    };
    let unit = zeg_model::layers::l2_normalize(adapter.non_object_embedding.val());
    let weights = case.weights(None)?;
    let prompts = Prompts::open(&weights, device)?;
    let queries = prompts.of_queries(case, &case.classes)?;
    let crops = prompts.of_crops(case, &case.classes)?;
    for (name, classes) in [(QUERY_ROWS, queries), (REGION_ROWS, crops)] {
        // A second adapter has a "no object" of its own, which nothing reads.
        let stored = check.reference(name).cloned();
        if let Some(stored) = stored {
            let classes = Array::of(classes)?;
            let length = classes.values.len();
            let own = Array::of(unit.clone())?;
            let is_shared = name == QUERY_ROWS;
            let last = if is_shared {
                own.values
            } else {
                stored.values[length..].to_vec()
            };
            let found = Array {
                shape: stored.shape.clone(),
                values: [classes.values, last].concat(),
            };
            check.compare_value(name, &stored, &found, ACTIVATION);
        }
    }
    Ok(())
}

impl<'a> Setup<'a> {
    fn new(
        check: &mut Check,
        case: &'a Case,
        model: &'a Zsseg,
        (image, vectors, masks): (RgbImage, Tensor<3>, Tensor<4>),
        [query_rows, region_rows]: [Tensor<2>; 2],
    ) -> Result<Self, ParityError> {
        let [_, queries, h, w] = masks.dims();
        let text = query_rows.narrow(0, 0, case.classes.len());
        Ok(Self {
            case,
            model,
            out: output_size(check, "in.out_hw")?,
            masks: QueryMasks {
                values: Array::of(masks)?.to_f32(),
                queries,
                grid: [h, w],
            },
            own: Array::of(model.class_logits(vectors, text)?)?.to_f32(),
            region_rows,
            image,
        })
    }

    /// Returns the options of the file's main results.
    fn options(&self) -> Result<ZssegOptions, ParityError> {
        let meta = self.case.meta();
        Ok(ZssegOptions {
            ensemble_weight: meta.at("lam")?.number()?,
            mask_threshold: meta.at("mask_thr")?.number()? as f32,
            ..ZssegOptions::default()
        })
    }

    /// Returns height and width of the image, without and with padding.
    fn sizes(&self) -> [[usize; 2]; 2] {
        [
            [self.image.height() as usize, self.image.width() as usize],
            case::padded_size(std::slice::from_ref(&self.image)),
        ]
    }

    /// Compares the probabilities of the masks at the size of the image.
    fn compare_probabilities(&self, check: &mut Check) {
        let [size, padded] = self.sizes();
        let masks = RegionMasks::new(&self.masks, padded, size, 0.5);
        let shape = [self.masks.queries, size[0], size[1]];
        let all = Array::from_values(&shape, &masks.probabilities.concat());
        check.compare("out.mask_probs_every2", &all.every(2, 1..3), ACTIVATION);
    }

    /// Compares the main results and those of every switch.
    fn compare_all(&self, check: &mut Check) -> Result<(), ParityError> {
        let main = self.options()?;
        self.compare(check, "out.", &main)?;
        let switch = |change: fn(&mut ZssegOptions)| {
            let mut options = main.clone();
            change(&mut options);
            options
        };
        for (name, options) in [
            ("thr04", switch(|o| o.mask_threshold = 0.4)),
            ("matting", switch(|o| o.matting = true)),
            ("expand15", switch(|o| o.expand = 1.5)),
            ("clip_only", switch(|o| o.fusion = Ensemble::CropsAlone)),
            ("no_clip", switch(|o| o.fusion = Ensemble::QueriesAlone)),
            ("cross", switch(|o| o.fusion = Ensemble::AllUnseen)),
            ("fill_zero", switch(|o| o.fill = Fill::Zero)),
        ] {
            let prefix = format!("var.{name}.");
            if check.has(&format!("{prefix}class_scores")) {
                self.compare(check, &prefix, &options)?;
            }
        }
        Ok(())
    }

    /// Compares all results with one set of options.
    fn compare(
        &self,
        check: &mut Check,
        prefix: &str,
        options: &ZssegOptions,
    ) -> Result<(), ParityError> {
        let [size, padded] = self.sizes();
        let classes = self.case.classes.len();
        let mut masks = RegionMasks::new(&self.masks, padded, size, options.mask_threshold);
        if let Some(error) = self.case.planted {
            let inside = masks.inside.iter_mut();
            error.alter_masks(inside.map(Vec::as_mut_slice), [false, true]);
        }
        let valid = masks.valid();
        let mut logits = RegionLogits {
            own: self.own.clone(),
            crops: None,
            valid: valid.clone(),
            classes,
        };
        if options.fusion != Ensemble::QueriesAlone {
            compare_boxes(check, prefix, &masks, &valid);
            logits.crops = Some(self.compare_crops(check, prefix, options, &masks)?);
        }
        let scores = logits.scores(options.fusion, options.ensemble_weight, &self.case.seen);
        let listed: Vec<f32> = if options.fusion == Ensemble::CropsAlone {
            let rows = |query: &usize| &scores[query * classes..(query + 1) * classes];
            valid.iter().flat_map(rows).copied().collect()
        } else {
            scores.clone()
        };
        let found = Array::from_values(&[listed.len() / classes.max(1), classes], &listed);
        check.compare(&format!("{prefix}class_scores"), &found, ACTIVATION);
        self.compare_map(check, prefix, scores)
    }

    /// Compares crops, features and logits; returns the logits of the classes, `[valid queries, classes]`.
    fn compare_crops(
        &self,
        check: &mut Check,
        prefix: &str,
        options: &ZssegOptions,
        masks: &RegionMasks,
    ) -> Result<Vec<f32>, ParityError> {
        let Some(classifier) = &self.model.classifier else {
            return Err(ParityError::Backend("the model has no image tower".into()));
        };
        let (valid, side) = (masks.valid(), classifier.side());
        let image = RegionImage::new(&self.image, options);
        let crops = image.crops(masks, &valid, side);
        let shape = [valid.len(), 3, side, side];
        let all = Array::from_values(&shape, &crops);
        check.compare(
            &format!("{prefix}crops_every8"),
            &all.every(8, 2..4),
            ACTIVATION,
        );
        for (row, query) in valid.iter().enumerate() {
            for step in 1..=MOST_STEPS {
                let names = [
                    format!("{prefix}crop{query}_every{step}"),
                    format!("{prefix}crop_query{query}_every{step}"),
                ];
                for name in names
                    .iter()
                    .filter(|name| check.has(name))
                    .cloned()
                    .collect::<Vec<_>>()
                {
                    let length = 3 * side * side;
                    let one = Array {
                        shape: vec![3, side, side],
                        values: all.values[row * length..][..length].to_vec(),
                    };
                    check.compare(&name, &one.every(step, 1..3), ACTIVATION);
                }
            }
        }
        if valid.is_empty() {
            return Ok(Vec::new());
        }
        let features = classifier.encode(&image, masks)?;
        let dim = features.len() / valid.len().max(1);
        check.compare(
            &format!("{prefix}image_features"),
            &Array::from_values(&[valid.len(), dim], &features),
            ACTIVATION,
        );
        let rows = self.region_rows.clone();
        let logits = RegionClassifier::logits(classifier.upload(&features), rows);
        let logits = Array::of(logits)?;
        check.compare(&format!("{prefix}clip_logits"), &logits, ACTIVATION);
        let width = self.case.classes.len() + 1;
        let rows = logits.values.chunks_exact(width);
        let of_classes = rows.flat_map(|row| &row[..width - 1]);
        Ok(of_classes.map(|value| *value as f32).collect())
    }

    /// Compares the map and its labels.
    fn compare_map(
        &self,
        check: &mut Check,
        prefix: &str,
        scores: Vec<f32>,
    ) -> Result<(), ParityError> {
        let [size, padded] = self.sizes();
        let classes = self.case.classes.len();
        let mut field = ScoreField::new(classes, size, Scoring::MaskSum, Vec::new());
        let scores = WindowScores::Masks {
            masks: self.masks.clone(),
            scores,
        };
        field.push_window(&PlannedWindow::whole(size), scores, padded)?;
        let strip = field.strip(0..self.out[0], self.out); // [rows, classes, columns]
        let map = classes_first(strip.values(), classes, self.out);
        let mut labels = vec![0_u16; self.out[0] * self.out[1]];
        strip.label(&Labelling::default(), &mut labels, None);
        let labels = Array::from_values(&self.out, &labels);
        for step in 1..=MOST_STEPS {
            let suffix = if step == 1 {
                String::new()
            } else {
                format!("_every{step}")
            };
            let thinned = map.every(step, 1..3);
            check.compare(&format!("{prefix}sem_seg{suffix}"), &thinned, ACTIVATION);
            let name = format!("{prefix}argmax{suffix}");
            if let Some(reference) = check.reference(&name) {
                let labels = labels.every(step, 0..2);
                compare_labels(check, &name, reference, &labels, &thinned);
            }
        }
        Ok(())
    }
}

/// Compares which masks are not empty, and their boxes.
fn compare_boxes(check: &mut Check, prefix: &str, masks: &RegionMasks, valid: &[usize]) {
    let flags: Vec<u8> = (0..masks.inside.len())
        .map(|query| u8::from(valid.contains(&query)))
        .collect();
    let found = Array::from_values(&[flags.len()], &flags);
    check.compare(&format!("{prefix}valid"), &found, Limit::Exact);
    let boxes = valid
        .iter()
        .filter_map(|&query| RegionBox::of_mask(&masks.inside[query], masks.size));
    let boxes: Vec<f64> = boxes
        .flat_map(|found| [found.left, found.top, found.right, found.bottom])
        .map(|place| place as f64)
        .collect();
    let found = Array {
        shape: vec![boxes.len() / 4, 4],
        values: boxes,
    };
    let name = format!("{prefix}boxes_xyxy_exclusive");
    check.compare(&name, &found, Limit::Exact);
}
