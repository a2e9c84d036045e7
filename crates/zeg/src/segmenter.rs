//! The façade for other Rust programs: load a model, say which classes, segment images.
//!
//! ```no_run
//! use zeg::Segmenter;
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut segmenter = Segmenter::load("clip-vit-b-16.safetensors".as_ref())?;
//! segmenter.set_classes(&zeg::vocab::classes::parse_class_list("dog, sofa|couch, wall")?)?;
//! let image = zeg::image::decode_rgb("living-room.jpg".as_ref())?;
//! let found = segmenter.segment(&image)?; // labels and confidence at the image's own size
//! println!("{}", found.share(0)); // how much of it is dog
//! # Ok(())
//! # }
//! ```
//!
//! Encoding an image is the work; asking about it is cheap. An image that is encoded once answers many word lists:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let segmenter = zeg::Segmenter::load("model.safetensors".as_ref())?;
//! # let image = zeg::image::decode_rgb("living-room.jpg".as_ref())?;
//! let encoded = segmenter.encode(&image)?;
//! for list in ["dog, sofa, wall", "animal, furniture, wall"] {
//!     let classes = segmenter.encode_classes(&zeg::vocab::classes::parse_class_list(list)?)?;
//!     let found = segmenter.ask(&encoded, &classes, &mut [])?;
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
    embeddings::same_name,
    inference::{ClassQueries, Inference, TestTime},
    method::Scoring,
    methods::Methods,
    scores::Labelling,
    vocabulary::WORDS_KEY,
};
use zeg_vocab::{classes::ClassQuery, templates::TemplateSet};

use crate::{
    device::DeviceChoice,
    embedding_cache::EmbeddingCache,
    loading::{LoadedModel, MethodChoice, ModelOptions},
    session::{
        Answer, Confidence, EncodedImage, Question, Session, SessionError, SessionSettings,
        StripVisitor,
    },
    text_sources::{TextSources, class_queries},
};

/// What a model is loaded with; the default is the processor, and what the model file says.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The frozen weights of a checkpoint, where they are not the file it names.
    pub base: Option<PathBuf>,
    /// How plain CLIP weights are used.
    pub method: Option<MethodChoice>,
    /// The methods that are known.
    pub methods: Methods,
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

/// A model with classes to tell apart. The words are encoded once, the images one by one.
#[derive(Debug)]
pub struct Segmenter {
    loaded: LoadedModel,
    device: Device,
    classes: Option<EncodedClasses>,
    settings: SessionSettings,
    templates: TemplateSet,
    table: Option<PathBuf>,
    cache: Option<EmbeddingCache>,
}

/// Classes, encoded for one model.
#[derive(Debug, Clone)]
pub struct EncodedClasses {
    classes: Vec<ClassQuery>,
    queries: ClassQueries,
    rule: Labelling,
}

impl EncodedClasses {
    /// The classes, by class index.
    pub fn classes(&self) -> &[ClassQuery] {
        &self.classes
    }

    /// Names of the classes, by class index.
    pub fn names(&self) -> Vec<String> {
        self.classes.iter().map(|c| c.name.clone()).collect()
    }

    /// What a session is asked: labels and confidence.
    fn question(&self) -> Question<'_> {
        Question {
            classes: &self.queries,
            rule: self.rule.clone(),
            seen_offsets: &[],
            confidence: Confidence::Keep,
        }
    }
}

/// What was found in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// The class index of every pixel; [`IGNORE_LABEL`] where no class reaches its threshold.
    pub labels: LabelMap,
    /// The best class's score of every pixel, 0 to 1, row-major; also where it is not reached.
    pub confidence: Vec<f32>,
}

impl Segmentation {
    /// Share of the image's pixels that a class has, 0 to 1.
    pub fn share(&self, class: u16) -> f64 {
        let labels = self.labels.labels();
        let count = labels.iter().filter(|&&label| label == class).count();
        count as f64 / labels.len().max(1) as f64
    }

    /// Share of the image's pixels without a class, 0 to 1.
    pub fn unlabelled(&self) -> f64 {
        self.share(IGNORE_LABEL)
    }
}

impl From<Answer> for Segmentation {
    fn from(answer: Answer) -> Self {
        let mut labels = answer.labels.into_iter();
        Self {
            labels: labels
                .next()
                .unwrap_or_else(|| LabelMap::filled(0, 0, IGNORE_LABEL)),
            confidence: answer.confidence.unwrap_or_default(),
        }
    }
}

impl Segmenter {
    /// Opens a model on the processor: a checkpoint of `zeg train`, a released checkpoint of a known method, or
    /// plain CLIP weights in any published format.
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
            &ModelOptions {
                methods: options.methods,
                base: options.base,
                method: options.method,
                device: device.clone(),
                precision: options.precision,
            },
        )?;
        let templates = match (options.templates, &loaded.data) {
            (Some(templates), _) => templates,
            (None, Some(data)) => TemplateSet::by_name(&data.templates)?,
            // A model of few words knows those of this one.
            (None, None) if loaded.weights.metadata().contains_key(WORDS_KEY) => {
                TemplateSet::single()
            }
            (None, None) => TemplateSet::multi(),
        };
        let cache = options
            .cache
            .and_then(|folder| EmbeddingCache::of_file(&folder, &loaded.base));
        let settings = SessionSettings {
            inference: loaded.inference.clone(),
            test_time: TestTime::default(),
        };
        Ok(Self {
            settings,
            loaded,
            device,
            classes: None,
            templates,
            table: options.table,
            cache,
        })
    }

    /// Encodes classes, for [`Segmenter::ask`].
    ///
    /// # Errors
    /// The list is empty, or a name cannot be embedded.
    pub fn encode_classes(&self, classes: &[ClassQuery]) -> anyhow::Result<EncodedClasses> {
        self.encode_classes_with(classes, None)
    }

    /// As [`Segmenter::encode_classes`]; `progress` is told of `(classes done, classes in all)`, which takes a while for
    /// hundreds of classes in many templates.
    ///
    /// # Errors
    /// As [`Segmenter::encode_classes`].
    pub fn encode_classes_with(
        &self,
        classes: &[ClassQuery],
        progress: Option<&dyn Fn(usize, usize)>,
    ) -> anyhow::Result<EncodedClasses> {
        anyhow::ensure!(!classes.is_empty(), "no class is given to tell apart");
        let names: Vec<Vec<String>> = classes
            .iter()
            .map(|c| c.names().map(str::to_owned).collect())
            .collect();
        let sources = TextSources {
            table: self.table.as_deref(),
            table_names: None,
            stored: self.loaded.stored.as_ref(),
            weights: &self.loaded.weights,
            templates: &self.templates,
            cache: self.cache.as_ref(),
            progress,
        };
        let was_seen = |class: &ClassQuery| {
            let seen = |name: &str| {
                self.loaded
                    .trained_on
                    .iter()
                    .any(|t| t.seen && same_name(name, &t.name))
            };
            class.names().any(seen)
        };
        let seen = classes.iter().map(was_seen).collect();
        let model = self.loaded.model.as_ref();
        Ok(EncodedClasses {
            queries: class_queries(&names, seen, model, &sources, &self.device)?,
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
    /// As [`Segmenter::encode_classes`].
    pub fn set_classes(&mut self, classes: &[ClassQuery]) -> anyhow::Result<()> {
        self.classes = Some(self.encode_classes(classes)?);
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
            Scoring::Softmax | Scoring::MaskSum => None,
        }
    }

    /// How images go through the model.
    pub fn inference(&self) -> &Inference {
        &self.settings.inference
    }

    /// Changes how images go through the model; the model is told of its method's own options.
    ///
    /// # Errors
    /// `change` failed, or the model has no such option; the settings are then as before.
    pub fn change_inference<E>(
        &mut self,
        change: impl FnOnce(&mut Inference) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<ModelError>,
    {
        let mut inference = self.settings.inference.clone();
        change(&mut inference)?;
        inference.check()?;
        self.loaded.model.set_options(&inference.method)?;
        self.settings.inference = inference;
        Ok(())
    }

    /// The scales and the flip that scores are averaged over.
    pub fn test_time(&self) -> &TestTime {
        &self.settings.test_time
    }

    /// The scales and the flip that scores are averaged over, to be changed; once as it is unless said.
    pub fn test_time_mut(&mut self) -> &mut TestTime {
        &mut self.settings.test_time
    }

    /// The session that every image goes through.
    pub fn session(&self) -> Session<'_> {
        Session::new(self.loaded.model.as_ref(), &self.settings, &self.device)
    }

    /// The class and confidence of every pixel, at the image's own size.
    ///
    /// # Errors
    /// No classes are set, or the settings do not fit the image.
    pub fn segment(&self, image: &RgbImage) -> anyhow::Result<Segmentation> {
        let classes = self
            .classes
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("set_classes has not been called"))?;
        Ok(self.segment_classes(image, classes, &mut [])?)
    }

    /// As [`Segmenter::segment`], with classes at hand.
    ///
    /// - `visitors`: shown every strip of scores, from top to bottom; none for labels and confidence alone
    ///
    /// # Errors
    /// The settings do not fit the image, or a visitor failed.
    pub fn segment_classes(
        &self,
        image: &RgbImage,
        classes: &EncodedClasses,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Segmentation, SessionError> {
        let answer = self
            .session()
            .segment(image, &classes.question(), visitors)?;
        Ok(Segmentation::from(answer))
    }

    /// Encodes an image, for [`Segmenter::ask`].
    ///
    /// # Errors
    /// The settings do not fit the image.
    pub fn encode(&self, image: &RgbImage) -> Result<EncodedImage, SessionError> {
        self.session().encode(image)
    }

    /// The class and confidence of every pixel of an encoded image.
    ///
    /// - `visitors`: as those of [`Segmenter::segment_classes`]
    ///
    /// # Errors
    /// The device could not be read, or a visitor failed.
    pub fn ask(
        &self,
        image: &EncodedImage,
        classes: &EncodedClasses,
        visitors: &mut [&mut dyn StripVisitor],
    ) -> Result<Segmentation, SessionError> {
        let answer = self.session().ask(image, &classes.question(), visitors)?;
        Ok(Segmentation::from(answer))
    }
}
