//! The façade for other Rust programs: load a model, say which classes, segment pictures.
//!
//! ```no_run
//! use zeg::Segmenter;
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut segmenter = Segmenter::load("clip-vit-b-16.safetensors".as_ref())?;
//! segmenter.set_classes(&zeg::vocab::classes::parse_class_list("dog, sofa|couch, wall")?)?;
//! let picture = zeg::image::decode_rgb("living-room.jpg".as_ref())?;
//! let found = segmenter.segment(&picture)?; // labels and confidence at the picture's own size
//! println!("{}", found.share(0)); // how much of it is dog
//! # Ok(())
//! # }
//! ```
//!
//! Encoding a picture is the work; asking about it is cheap. A picture that is encoded once answers many word lists:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let segmenter = zeg::Segmenter::load("model.safetensors".as_ref())?;
//! # let picture = zeg::image::decode_rgb("living-room.jpg".as_ref())?;
//! let encoded = segmenter.encode(&picture)?;
//! for list in ["dog, sofa, wall", "animal, furniture, wall"] {
//!     let words = segmenter.words(&zeg::vocab::classes::parse_class_list(list)?)?;
//!     let found = segmenter.ask(&encoded, &words)?;
//!     println!("{list}: {:.0} % of the first", 100.0 * found.share(0));
//! }
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage};
use zeg_model::{
    ModelError, Precision,
    dense::Scoring,
    embeddings::same_name,
    inference::{ClassQueries, EncodedPicture, Inference, Source, scan},
    scores::{Labelling, Strip},
    training_free::TrainingFreeConfig,
    vocabulary::WORDS_KEY,
};
use zeg_vocab::{classes::ClassQuery, templates::TemplateSet};

use crate::{
    device::DeviceChoice,
    loading::LoadedModel,
    word_cache::WordCache,
    words::{WordSources, embed, embed_for_crops},
};

/// What a model is loaded with; the default is the processor, and what the model file says.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The frozen weights of a checkpoint, where they are not the file it names.
    pub base: Option<PathBuf>,
    /// How plain CLIP weights are used.
    pub method: Option<TrainingFreeConfig>,
    /// Where tensors live.
    pub device: DeviceChoice,
    /// What the encoder computes with; 8-bit integers are faster, on the CPU alone, and a little less exact.
    pub precision: Precision,
    /// Folder for embeddings of words that were encoded; without, they are encoded anew every time.
    pub cache: Option<PathBuf>,
    /// Table of class embeddings to take instead of a text tower (`.npy` or `.safetensors`).
    pub table: Option<PathBuf>,
    /// Sentences that the text tower reads class names in; the model's own unless said.
    pub templates: Option<TemplateSet>,
}

/// A model with classes to tell apart. The words are encoded once, the pictures one by one.
#[derive(Debug)]
pub struct Segmenter {
    loaded: LoadedModel,
    device: Device,
    words: Option<Words>,
    inference: Inference,
    templates: TemplateSet,
    table: Option<PathBuf>,
    cache: Option<WordCache>,
}

/// Classes, encoded for one model.
#[derive(Debug, Clone)]
pub struct Words {
    classes: Vec<ClassQuery>,
    queries: ClassQueries,
    rule: Labelling,
}

impl Words {
    /// The classes, by class index.
    pub fn classes(&self) -> &[ClassQuery] {
        &self.classes
    }

    /// Names of the classes, by class index.
    pub fn names(&self) -> Vec<String> {
        self.classes.iter().map(|c| c.name.clone()).collect()
    }
}

/// What was found in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// The class index of every pixel; [`IGNORE_LABEL`] where no class reaches its threshold.
    pub labels: LabelMap,
    /// The best class's score of every pixel, 0 to 1, row-major; also where it is not reached.
    pub confidence: Vec<f32>,
}

impl Segmentation {
    /// Share of the picture's pixels that a class has, 0 to 1.
    pub fn share(&self, class: u16) -> f64 {
        let labels = self.labels.labels();
        let count = labels.iter().filter(|&&label| label == class).count();
        count as f64 / labels.len().max(1) as f64
    }

    /// Share of the picture's pixels without a class, 0 to 1.
    pub fn unlabelled(&self) -> f64 {
        self.share(IGNORE_LABEL)
    }
}

impl Segmenter {
    /// Opens a model on the processor: a checkpoint of `zeg train`, a released ZegCLIP checkpoint, or plain CLIP
    /// weights in any published format.
    ///
    /// # Errors
    /// A file cannot be read or does not fit.
    pub fn load(model: &Path) -> anyhow::Result<Self> {
        Self::load_with(model, LoadOptions::default())
    }

    /// Opens a model.
    ///
    /// # Errors
    /// A file cannot be read or does not fit, or this build lacks the device.
    pub fn load_with(model: &Path, options: LoadOptions) -> anyhow::Result<Self> {
        let device = options.device.open().map_err(anyhow::Error::msg)?;
        let loaded = LoadedModel::open(
            model,
            options.base.as_deref(),
            options.method,
            &device,
            options.precision,
        )?;
        let templates = match (options.templates, &loaded.experiment) {
            (Some(templates), _) => templates,
            (None, Some(experiment)) => TemplateSet::by_name(&experiment.data.templates)?,
            // A model of few words knows those of this one.
            (None, None) if loaded.weights.metadata().contains_key(WORDS_KEY) => {
                TemplateSet::single()
            }
            (None, None) => TemplateSet::multi(),
        };
        let cache = options
            .cache
            .and_then(|folder| WordCache::of_file(&folder, &loaded.base));
        Ok(Self {
            inference: loaded.inference,
            loaded,
            device,
            words: None,
            templates,
            table: options.table,
            cache,
        })
    }

    /// Encodes classes, for [`Segmenter::ask`].
    ///
    /// # Errors
    /// The list is empty, or a name cannot be embedded.
    pub fn words(&self, classes: &[ClassQuery]) -> anyhow::Result<Words> {
        self.words_with(classes, None)
    }

    /// As [`Segmenter::words`]; `progress` is told of `(classes done, classes in all)`, which takes a while for
    /// hundreds of classes in many templates.
    ///
    /// # Errors
    /// As [`Segmenter::words`].
    pub fn words_with(
        &self,
        classes: &[ClassQuery],
        progress: Option<&dyn Fn(usize, usize)>,
    ) -> anyhow::Result<Words> {
        anyhow::ensure!(!classes.is_empty(), "no class is given to tell apart");
        let names: Vec<Vec<String>> = classes
            .iter()
            .map(|c| c.names().map(str::to_owned).collect())
            .collect();
        let sources = WordSources {
            table: self.table.as_deref(),
            table_names: None,
            stored: self.loaded.stored.as_ref(),
            weights: &self.loaded.weights,
            templates: &self.templates,
            cache: self.cache.as_ref(),
            progress,
        };
        let embeddings = embed(&names, &sources, &self.device)?;
        let dim = self.loaded.model.embed_dim();
        if embeddings.dim() != dim {
            return Err(ModelError::Config(format!(
                "class embeddings have {} channels, the model {dim}; they are of another CLIP",
                embeddings.dim()
            ))
            .into());
        }
        let was_seen = |class: &ClassQuery| {
            let seen = |name: &str| {
                self.loaded
                    .trained_on
                    .iter()
                    .any(|t| t.seen && same_name(name, &t.name))
            };
            class.names().any(seen)
        };
        let crop_templates = self.loaded.crop_templates();
        let for_crops = embed_for_crops(&names, crop_templates, &sources, &self.device)?;
        Ok(Words {
            queries: ClassQueries {
                text: embeddings.to_tensor(&self.device),
                crop_text: for_crops.map(|embeddings| embeddings.to_tensor(&self.device)),
                seen: classes.iter().map(was_seen).collect(),
            },
            rule: Labelling {
                threshold: None,
                class_thresholds: classes.iter().map(|c| c.threshold).collect(),
                background: classes.iter().map(|c| !c.role.is_foreground()).collect(),
            },
            classes: classes.to_vec(),
        })
    }

    /// Says which classes [`Segmenter::segment`] tells apart.
    ///
    /// # Errors
    /// As [`Segmenter::words`].
    pub fn set_classes(&mut self, classes: &[ClassQuery]) -> anyhow::Result<()> {
        self.words = Some(self.words(classes)?);
        Ok(())
    }

    /// What the model is.
    pub fn model(&self) -> &LoadedModel {
        &self.loaded
    }

    /// A threshold that suits the model where the user names none: scores of a trained model say on their own whether
    /// a class is there; those of competing classes only say which is likelier.
    pub fn default_threshold(&self) -> Option<f32> {
        match self.loaded.model.scoring() {
            Scoring::Sigmoid => Some(0.1),
            Scoring::Softmax => None,
        }
    }

    /// How pictures go through the model.
    pub fn inference(&self) -> &Inference {
        &self.inference
    }

    /// How pictures go through the model, to be changed.
    pub fn inference_mut(&mut self) -> &mut Inference {
        &mut self.inference
    }

    /// The class and confidence of every pixel, at the picture's own size.
    ///
    /// # Errors
    /// No classes are set, or the settings do not fit the picture.
    pub fn segment(&self, picture: &RgbImage) -> anyhow::Result<Segmentation> {
        let words = self
            .words
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("set_classes has not been called"))?;
        self.segment_words(picture, words)
    }

    /// As [`Segmenter::segment`], with classes at hand.
    ///
    /// # Errors
    /// The settings do not fit the picture.
    pub fn segment_words(&self, picture: &RgbImage, words: &Words) -> anyhow::Result<Segmentation> {
        let size = [picture.height() as usize, picture.width() as usize];
        self.label(Source::Picture(picture, &self.device), size, words)
    }

    /// Encodes a picture, for [`Segmenter::ask`].
    ///
    /// # Errors
    /// The settings do not fit the picture.
    pub fn encode(&self, picture: &RgbImage) -> anyhow::Result<EncodedPicture> {
        let model = self.loaded.model.as_ref();
        Ok(EncodedPicture::new(
            model,
            picture,
            &self.inference,
            &self.device,
        )?)
    }

    /// The class and confidence of every pixel of an encoded picture.
    ///
    /// # Errors
    /// The device could not be read.
    pub fn ask(&self, picture: &EncodedPicture, words: &Words) -> anyhow::Result<Segmentation> {
        self.label(Source::Encoded(picture), picture.size(), words)
    }

    /// Shows every score of an encoded picture, strip by strip from top to bottom.
    ///
    /// # Errors
    /// The device could not be read, or `visit` failed.
    pub fn scan(
        &self,
        picture: &EncodedPicture,
        words: &Words,
        visit: impl FnMut(&Strip) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let model = self.loaded.model.as_ref();
        scan(
            model,
            Source::Encoded(picture),
            &words.queries,
            &self.inference,
            visit,
        )
    }

    fn label(
        &self,
        source: Source,
        [height, width]: [usize; 2],
        words: &Words,
    ) -> anyhow::Result<Segmentation> {
        let rule = Labelling {
            threshold: self.inference.threshold,
            ..words.rule.clone()
        };
        let mut labels = vec![0; width * height];
        let mut confidence = vec![0.0; width * height];
        let model = self.loaded.model.as_ref();
        scan(
            model,
            source,
            &words.queries,
            &self.inference,
            |strip: &Strip| -> anyhow::Result<()> {
                let pixels = strip.first_row * width..(strip.first_row + strip.rows()) * width;
                let confidence = &mut confidence[pixels.clone()];
                strip.label(&rule, &mut labels[pixels], Some(confidence));
                Ok(())
            },
        )?;
        Ok(Segmentation {
            labels: LabelMap::new(width, height, labels)?,
            confidence,
        })
    }
}
