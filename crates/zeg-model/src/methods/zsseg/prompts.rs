//! Learned prompts: vectors in front of the class names, trained through the frozen CLIP on regions of the ground truth.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use zeg_vocab::tokenizer::Tokenizer;

use super::{Zsseg, classifier::RegionClassifier, config::ZssegConfig};
use crate::{
    ModelError,
    layers::l2_normalize,
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Standard deviation of fresh vectors.
pub const START: f64 = 0.02;

/// The learned vectors, under the reference's name.
#[derive(Module, Debug)]
pub struct PromptLearner {
    /// Vectors between the start token and the class name: `[vectors, width]`
    pub prefix_prompt: Param<Tensor<2>>,
}

impl PromptLearner {
    /// Reads or initialises the vectors.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        config: &ZssegConfig,
        start: Init,
    ) -> Result<Self, ModelError> {
        let shape = [config.prompt_vectors, config.prompt_width];
        let prefix_prompt = params.param("prefix_prompt", shape, start)?;
        Ok(Self { prefix_prompt })
    }
}

impl Zsseg {
    /// Returns the token ids of class names behind the vectors: `[classes]` rows of the same length.
    ///
    /// # Errors
    /// Returns an error if the model has no text tower, or a name does not fit it.
    pub fn prompt_ids(
        &self,
        tokenizer: &Tokenizer,
        names: &[String],
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let (Some(tower), Some(vocabulary)) = (&self.text_encoder, &self.vocabulary) else {
            return Err(no_text_tower());
        };
        tower.ids_behind((tokenizer, vocabulary), names, self.config.prompt_vectors)
    }

    /// Computes class embeddings through which gradients reach the vectors: unit rows `[classes, dim]`.
    ///
    /// - `ids`: from [`Zsseg::prompt_ids`]
    ///
    /// # Errors
    /// Returns an error if the model has no text tower or no vectors.
    pub fn prompted_classes(
        &self,
        ids: &[Vec<u32>],
        trace: &mut Trace,
    ) -> Result<Tensor<2>, ModelError> {
        let (Some(tower), Some(learner)) = (&self.text_encoder, &self.prompt_learner) else {
            return Err(no_text_tower());
        };
        let features = tower.forward_behind(ids, learner.prefix_prompt.val(), trace);
        trace.record("features_unnormalised", &features);
        Ok(l2_normalize(features))
    }

    /// Computes CLIP's logits of regions for classes, `[regions, classes]`; gradients flow to the class embeddings alone.
    ///
    /// - `regions`: normalised and masked regions `[regions, 3, height, width]`
    /// - `size`: height and width of the regions
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    ///
    /// # Errors
    /// Returns an error if the model has no image tower, or the device cannot be read.
    pub fn region_logits(
        &self,
        regions: &[f32],
        size: [usize; 2],
        text: Tensor<2>,
        trace: &mut Trace,
    ) -> Result<Tensor<2>, ModelError> {
        let Some(classifier) = &self.classifier else {
            return Err(ModelError::Config(
                "learning prompts needs CLIP's image tower, which the model lacks".into(),
            ));
        };
        let features = classifier.features(regions, size, trace)?;
        let [_, dim] = text.dims();
        let rows = features.len() / dim.max(1);
        let features = TensorData::new(features, [rows, dim]);
        let features = Tensor::<2>::from_data(features, &text.device());
        trace.record("visual_unnormalised", &features);
        Ok(RegionClassifier::logits(l2_normalize(features), text))
    }
}

fn no_text_tower() -> ModelError {
    ModelError::Config(
        "learning prompts needs CLIP's text tower, which the weights (--weights) do not hold"
            .into(),
    )
}
