//! The loss of the prompt stage: CLIP must recognise the class of a region of the ground truth by its learned prompt.

use std::sync::OnceLock;

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation};
use zeg_image::normalize::Normalization;
use zeg_model::{methods::zsseg::Zsseg, trace::Trace};
use zeg_vocab::tokenizer::Tokenizer;

use super::regions::{NUMBERS, class_box, cut_class, cut_image, mask_out, part};
use crate::{
    TrainError,
    batch::Inputs,
    recipe::{LossPart, MethodLoss, PartTerms},
    targets::Targets,
};

/// Number of parts of an image that are drawn until one shows the class.
const DRAWS: usize = 10;
/// Number of random numbers per image: the class, and those of every draw.
const PER_IMAGE: usize = 1 + DRAWS * NUMBERS;

/// The loss of the prompt stage.
#[derive(Default)]
pub(super) struct PromptLoss {
    tokenizer: OnceLock<Tokenizer>,
}

/// Regions with their classes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Regions {
    /// Normalised and masked regions: `[regions, 3, height, width]`
    pub values: Vec<f32>,
    /// Index of each region's class.
    pub classes: Vec<usize>,
}

impl Regions {
    /// Adds a normalised region; what is outside of its class gets the reference's colour.
    ///
    /// In training, as in the reference, that is CLIP's mean colour taken for a normalised one: (0.48, 0.46, 0.41) and not
    /// 0, which is the colour at inference.
    ///
    /// - `region`: `[3, height, width]`
    /// - `inside`: `[height, width]`
    pub fn push(&mut self, mut region: Vec<f32>, inside: &[bool], class: usize) {
        let colour = Normalization::CLIP.mean.map(|mean| mean / 255.0);
        mask_out(&mut region, inside, colour);
        self.values.extend(region);
        self.classes.push(class);
    }

    /// Cuts a random region of a random class out of every image that has a label.
    ///
    /// - `images`: normalised images `[batch, 3, height, width]`
    /// - `numbers`: uniform in 0..1, [`PER_IMAGE`] for every image
    /// - `to`: height and width of a region
    fn cut(images: &[f32], targets: &Targets, numbers: &[f32], to: [usize; 2]) -> Self {
        let size = targets.size();
        let pixels = (size[0] * size[1]).max(1);
        let mut regions = Self::default();
        let images = images.chunks_exact(3 * pixels);
        let labels = targets.labels().chunks_exact(pixels);
        let numbers = numbers.chunks_exact(PER_IMAGE);
        let classes = targets.classes().max(1);
        let present = targets.present().chunks_exact(classes);
        for (((image, labels), present), numbers) in images.zip(labels).zip(present).zip(numbers) {
            let present: Vec<usize> = (0..classes).filter(|&class| present[class]).collect();
            let chosen = (present.len() as f32 * numbers[0]) as usize;
            let Some(&class) = present.get(chosen).or(present.last()) else {
                continue;
            };
            let label = class as u16;
            let Some(within) = class_box(labels, label, size) else {
                continue;
            };
            let parts = numbers[1..].chunks_exact(NUMBERS);
            let found = parts
                .map(|numbers| part(within, numbers))
                .find_map(|window| {
                    let inside = cut_class(labels, label, size[1], window, to);
                    inside.contains(&true).then_some((window, inside))
                });
            // A part of an object with large holes may miss it every time; the sample is then left out.
            if let Some((window, inside)) = found {
                regions.push(cut_image(image, size, window, to), &inside, class);
            }
        }
        regions
    }
}

/// Returns the mean cross-entropy of logits `[regions, classes]`: `[1]`.
pub fn cross_entropy(logits: Tensor<2>, classes: &[usize]) -> Tensor<1> {
    let count = classes.len();
    let right: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
    let right = Tensor::<2, Int>::from_data(TensorData::new(right, [count, 1]), &logits.device());
    let chosen = activation::log_softmax(logits, 1).gather(1, right); // [regions, 1]
    -chosen.mean()
}

/// Draws numbers from the device's random stream, which every step and micro-batch seeds anew.
fn draw(count: usize, device: &Device) -> Result<Vec<f32>, TrainError> {
    let device = device.clone().without_autodiff();
    let numbers = Tensor::<1>::random([count], Distribution::Uniform(0.0, 1.0), &device);
    let data = numbers.into_data().convert::<f32>();
    data.try_into_vec()
        .map_err(|error| TrainError::Backend(format!("{error:?}")))
}

impl PromptLoss {
    fn tokenizer(&self) -> Result<&Tokenizer, TrainError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let fresh = Tokenizer::new()?;
        Ok(self.tokenizer.get_or_init(|| fresh))
    }
}

impl MethodLoss for PromptLoss {
    type Model = Zsseg;

    fn terms(&self, model: &Zsseg, part: LossPart) -> Result<PartTerms, TrainError> {
        let device = part.device();
        let Inputs::Images(images) = part.inputs else {
            return Err(TrainError::Config(
                "prompts are learned on images, not on cached features; leave out training.cached-copies"
                    .into(),
            ));
        };
        let targets = part.labels.known()?;
        let batch = images.len() / (3 * part.size * part.size).max(1);
        let numbers = draw(batch * PER_IMAGE, &device)?;
        let size = model.config().region_size;
        let regions = Regions::cut(&images, &targets, &numbers, size);
        let ids = model.prompt_ids(self.tokenizer()?, part.names)?;
        let text = model.prompted_classes(&ids, &mut Trace::off())?;
        let loss = if regions.classes.is_empty() {
            text.sum() * 0.0 // gradients are zero instead of absent
        } else {
            let logits = model.region_logits(&regions.values, size, text, &mut Trace::off())?;
            cross_entropy(logits, &regions.classes) * part.share
        };
        Ok(PartTerms {
            named: vec![("class", loss)],
            count: 0,
            observed: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_labelled_image_gives_one_region_of_a_class_that_it_has() {
        let labels = vec![zeg_image::IGNORE_LABEL; 16]
            .into_iter()
            .chain([2; 16])
            .collect();
        let targets = Targets::new(labels, 2, [4, 4], 3).unwrap();
        let images = vec![7.0; 2 * 3 * 16];
        let regions = Regions::cut(&images, &targets, &[0.5; 2 * PER_IMAGE], [6, 5]);
        assert_eq!(regions.classes, [2]);
        assert_eq!(regions.values.len(), 3 * 6 * 5);
        assert!(regions.values.iter().all(|v| (v - 7.0).abs() < 1e-5));
    }

    #[test]
    fn outside_of_the_class_a_region_has_the_mean_colour() {
        let mut regions = Regions::default();
        regions.push(vec![9.0; 6], &[true, false], 1);
        let close = |index: usize, value: f32| (regions.values[index] - value).abs() < 1e-6;
        assert!(close(0, 9.0) && close(1, 0.481_454_66) && close(5, 0.408_210_73));
    }
}
