//! Loads a model, sets the classes and segments images: the entry point for other Rust programs.
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
//! Encoding an image is expensive; scoring classes on it is cheap. One encoded image serves many class lists:
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

mod encoded_classes;
mod segmentation;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use burn::tensor::{Device, Tensor};
use zeg_image::RgbImage;
use zeg_model::{
    ModelError, Precision,
    classes::ClassQueries,
    embeddings::same_name,
    examples::ExampleOptions,
    inference::{Inference, TestTime},
    method::Scoring,
    methods::Methods,
    patch_maps::PatchMaps,
    scores::Labelling,
    stop::StopSign,
    weights::{StatedActivation, StatedHeads},
};
use zeg_vocab::{classes::ClassQuery, templates::TemplateSet};

pub use self::{encoded_classes::EncodedClasses, segmentation::Segmentation};
use crate::{
    device::DeviceChoice,
    embedding_cache::EmbeddingCache,
    examples::{ExampleError, ExampleFolder, ExampleSet},
    loading::{LoadedModel, MethodChoice, ModelOptions},
    session::{EncodedImage, Session, SessionError, SessionSettings, StripVisitor},
    text_sources::{
        Embedded, EmbeddingOrigin, TableSource, Templates, TextSources, class_queries,
        usual_templates,
    },
};

/// Settings that a model is loaded with; the default is the CPU and the settings stored in the model file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// File with the frozen weights of a checkpoint; `None`: the file that the checkpoint names.
    pub base: Option<PathBuf>,
    /// Method for plain CLIP weights; `None`: the default method for them.
    pub method: Option<MethodChoice>,
    /// The methods that are known.
    pub methods: Methods,
    /// Device that tensors live on.
    pub device: DeviceChoice,
    /// The number format that the encoder computes with; 8-bit integers are faster but slightly less exact, and work on
    /// the CPU only.
    pub precision: Precision,
    /// Folder that caches class embeddings; `None`: class names are encoded anew every time.
    pub cache: Option<PathBuf>,
    /// Table of class embeddings to use instead of a text tower (`.npy` or `.safetensors`).
    pub table: Option<PathBuf>,
    /// Classes of the table's rows, for a table without class names; `None`: such a table has one row for each class
    /// that is asked for, in the same order.
    pub table_classes: Option<Vec<ClassQuery>>,
    /// Prompt templates for the text tower, which then encodes every class; `None`: the templates that the model was
    /// trained with, and the class embeddings that are stored with it.
    pub templates: Option<TemplateSet>,
    /// Activation of plain CLIP weights, and of the text tower of a trained model; `None`: that of the files.
    pub activation: Option<StatedActivation>,
    /// Numbers of attention heads of plain CLIP weights, and of the text tower of a trained model; `None`: those of the
    /// files.
    pub heads: StatedHeads,
}

/// A model with the classes to segment; the class names are encoded once, the images one by one.
#[derive(Debug)]
pub struct Segmenter {
    loaded: LoadedModel,
    device: Device,
    classes: Option<EncodedClasses>,
    settings: SessionSettings,
    templates: TemplateSet,
    /// Whether the templates were given in the options.
    templates_are_asked: bool,
    table: Option<PathBuf>,
    /// Classes of the table's rows.
    table_classes: Option<Vec<Vec<String>>>,
    cache: Option<EmbeddingCache>,
    /// Encoded examples of classes.
    examples: Option<ExampleSet>,
}

/// Returns all names of every class.
fn all_names(classes: &[ClassQuery]) -> Vec<Vec<String>> {
    let names = |class: &ClassQuery| class.names().map(str::to_owned).collect();
    classes.iter().map(names).collect()
}

impl Segmenter {
    /// Opens a model on the CPU: a checkpoint of `zeg train`, a released checkpoint of a known method, or plain CLIP
    /// weights in any published format.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or does not fit the model.
    pub fn load(model: &Path) -> anyhow::Result<Self> {
        Self::load_with(model, LoadOptions::default())
    }

    /// Opens a model with the given settings.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or does not fit the model, or if this build lacks the device.
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
                activation: options.activation,
                heads: options.heads,
            },
        )?;
        let templates_are_asked = options.templates.is_some();
        let templates = match options.templates {
            Some(templates) => templates,
            None => usual_templates(&loaded.weights, loaded.templates())?,
        };
        let cache = options
            .cache
            .and_then(|folder| EmbeddingCache::of_weights(&folder, &loaded.base, &loaded.weights));
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
            templates_are_asked,
            table: options.table,
            table_classes: options.table_classes.as_deref().map(all_names),
            cache,
            examples: None,
        })
    }

    /// Keeps class embeddings in memory instead of the folder of [`LoadOptions::cache`], for a program whose classes
    /// are named by strangers: a folder would grow with every name.
    ///
    /// - `most`: most bytes of all of them
    pub fn keep_embeddings_in_memory(&mut self, most: usize) {
        self.cache = Some(EmbeddingCache::in_memory(most));
    }

    /// Encodes classes for [`Segmenter::ask`].
    ///
    /// # Errors
    /// Returns an error if the list is empty or a name cannot be encoded.
    pub fn encode_classes(&self, classes: &[ClassQuery]) -> anyhow::Result<EncodedClasses> {
        self.encode_classes_with(classes, None)
    }

    /// Encodes classes as [`Segmenter::encode_classes`] does, and reports progress.
    ///
    /// - `progress`: is called with `(classes done, classes in all)`; hundreds of classes in many templates take a
    ///   while
    ///
    /// # Errors
    /// Returns the same errors as [`Segmenter::encode_classes`].
    pub fn encode_classes_with(
        &self,
        classes: &[ClassQuery],
        progress: Option<&dyn Fn(usize, usize)>,
    ) -> anyhow::Result<EncodedClasses> {
        self.encode_class_list(classes, progress, StopSign::default())
    }

    /// Encodes classes as [`Segmenter::encode_classes`] does, and ends between two classes once another thread has
    /// stored `true` in `stop`.
    ///
    /// # Errors
    /// Returns the errors of [`Segmenter::encode_classes`], and [`ModelError::Stopped`].
    pub fn encode_classes_unless(
        &self,
        classes: &[ClassQuery],
        stop: &AtomicBool,
    ) -> anyhow::Result<EncodedClasses> {
        self.encode_class_list(classes, None, StopSign::new(stop))
    }

    fn encode_class_list(
        &self,
        classes: &[ClassQuery],
        progress: Option<&dyn Fn(usize, usize)>,
        stop: StopSign<'_>,
    ) -> anyhow::Result<EncodedClasses> {
        anyhow::ensure!(
            !classes.is_empty(),
            "the class list is empty; give at least one class"
        );
        let all = all_names(classes);
        let is_alone = |names: &Vec<String>| {
            let examples = self.examples.as_ref();
            examples.is_some_and(|examples| examples.is_alone(names))
        };
        let alone: Vec<bool> = all.iter().map(is_alone).collect();
        let named = || (0..classes.len()).filter(|&class| !alone[class]);
        let names: Vec<Vec<String>> = named().map(|class| all[class].clone()).collect();
        let sources = TextSources {
            table: self.table.as_deref().map(|path| TableSource {
                path,
                row_classes: self.table_classes.as_deref(),
            }),
            stored: self.loaded.stored.as_ref(),
            weights: &self.loaded.weights,
            templates: if self.templates_are_asked {
                Templates::Asked(&self.templates)
            } else {
                Templates::Usual(&self.templates)
            },
            cache: self.cache.as_ref(),
            progress,
            stop,
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
        let seen = named().map(|class| was_seen(&classes[class])).collect();
        let model = self.loaded.model.as_ref();
        let Embedded {
            embeddings: mut queries,
            origin,
            notices,
        } = if names.is_empty() {
            let (dim, seen) = (model.embed_dim(), Vec::new());
            let nothing = ClassQueries::new(Tensor::zeros([1, dim], &self.device), seen);
            Embedded {
                embeddings: nothing,
                origin: EmbeddingOrigin::Examples,
                notices: Vec::new(),
            }
        } else {
            class_queries(&names, seen, model, &sources, &self.device)?
        };
        if let Some(examples) = &self.examples {
            queries = ExampleSet::complete(queries, &alone, &self.device);
            examples.fit(&mut queries, &all, ExampleOptions::default())?;
        }
        Ok(EncodedClasses {
            queries,
            origin,
            notices,
            rule: Labelling {
                threshold: None,
                class_thresholds: classes.iter().map(|c| c.threshold).collect(),
                background: classes.iter().map(|c| !c.role.is_foreground()).collect(),
                calibration: None,
            },
            classes: classes.to_vec(),
        })
    }

    /// Sets the classes that [`Segmenter::segment`] distinguishes.
    ///
    /// # Errors
    /// Returns the same errors as [`Segmenter::encode_classes`].
    pub fn set_classes(&mut self, classes: &[ClassQuery]) -> anyhow::Result<()> {
        self.classes = Some(self.encode_classes(classes)?);
        Ok(())
    }

    /// Encodes examples of classes; classes that are encoded from now on are scored by them as well.
    ///
    /// A class has the examples of a folder of its name, or of one of its synonyms.
    ///
    /// - `cache`: folder that encoded examples are kept in
    /// - `progress`: is called with `(examples done, examples in all)`
    ///
    /// # Errors
    /// Returns the errors of [`ExampleSet::encode`].
    pub fn set_examples(
        &mut self,
        folder: &ExampleFolder,
        cache: Option<&Path>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<(), ExampleError> {
        let (model, inference) = (&self.loaded, &self.settings.inference);
        let set = ExampleSet::encode(folder, model, inference, cache, &self.device, progress)?;
        self.examples = Some(set);
        Ok(())
    }

    /// Returns the examples of classes, if there are any.
    pub fn examples(&self) -> Option<&ExampleSet> {
        self.examples.as_ref()
    }

    /// Adds the classes that have examples but are not in a list; they are given by their examples alone, so that their
    /// names are shown and do not count. Returns their names.
    pub fn add_example_classes(&mut self, classes: &mut Vec<ClassQuery>) -> Vec<String> {
        let listed = all_names(classes);
        let Some(examples) = &mut self.examples else {
            return Vec::new();
        };
        let added: Vec<String> = examples
            .not_in(&listed)
            .into_iter()
            .map(str::to_owned)
            .collect();
        for name in &added {
            examples.stand_alone(name);
            classes.push(ClassQuery::new(name.clone()));
        }
        added
    }

    /// Returns the loaded model.
    pub fn model(&self) -> &LoadedModel {
        &self.loaded
    }

    /// Returns a suitable threshold for this model, for use when the user gives none.
    ///
    /// Sigmoid scores of a trained model say by themselves whether a class is present. Scores from a softmax or a sum
    /// of masks only rank the classes, so there is no threshold for them.
    pub fn default_threshold(&self) -> Option<f32> {
        match self.loaded.model.scoring() {
            Scoring::Sigmoid => Some(0.1),
            Scoring::Softmax | Scoring::MaskSum => None,
        }
    }

    /// Returns the prompt templates that class names are put into.
    pub fn templates(&self) -> &TemplateSet {
        &self.templates
    }

    /// Returns the file with the table of class embeddings that takes the place of the text tower, if there is one.
    pub fn table(&self) -> Option<&Path> {
        self.table.as_deref()
    }

    /// Returns the inference settings.
    pub fn inference(&self) -> &Inference {
        &self.settings.inference
    }

    /// Changes the inference settings, including the options of the model's own method.
    ///
    /// # Errors
    /// Returns an error if `change` fails or the model has no such option; the settings are then unchanged.
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

    /// Returns the test-time augmentation: the scales and the flip that scores are averaged over.
    pub fn test_time(&self) -> &TestTime {
        &self.settings.test_time
    }

    /// Returns the test-time augmentation for changing it; the default is scale 1 without a flip.
    pub fn test_time_mut(&mut self) -> &mut TestTime {
        &mut self.settings.test_time
    }

    /// Returns the settings of the session: inference and test-time augmentation.
    pub fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// Returns an inference session with other settings, for a program that serves several users with one model.
    ///
    /// The options of the model's own method stay those of [`Segmenter::change_inference`].
    pub fn session_with<'a>(&'a self, settings: &'a SessionSettings) -> Session<'a> {
        Session::new(self.loaded.model.as_ref(), settings, &self.device)
    }

    /// Returns the inference session with the current settings.
    pub fn session(&self) -> Session<'_> {
        self.session_with(&self.settings)
    }

    /// Returns the class and the confidence of every pixel, at the image's own size.
    ///
    /// # Errors
    /// Returns an error if no classes are set, or if the settings do not fit the image.
    pub fn segment(&self, image: &RgbImage) -> anyhow::Result<Segmentation> {
        let classes = self.classes.as_ref().ok_or_else(|| {
            anyhow::anyhow!("no classes are set; call `set_classes` before `segment`")
        })?;
        Ok(self.segment_classes(image, classes, &mut [])?)
    }

    /// Segments an image as [`Segmenter::segment`] does, with the given classes.
    ///
    /// - `visitors`: are called with every strip of scores, from top to bottom; may be empty
    ///
    /// # Errors
    /// Returns an error if the settings do not fit the image, or if a visitor fails.
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

    /// Returns what the model computes on the patch grid of an image, which is resized to one window.
    ///
    /// # Errors
    /// Returns the errors of [`PatchMaps::of`].
    pub fn patch_maps(
        &self,
        image: &RgbImage,
        classes: &EncodedClasses,
    ) -> Result<PatchMaps, ModelError> {
        let (model, side) = (self.loaded.model.as_ref(), self.inference().crop);
        PatchMaps::of(model, image, side, &classes.queries, &self.device)
    }

    /// Encodes an image for [`Segmenter::ask`].
    ///
    /// # Errors
    /// Returns an error if the settings do not fit the image.
    pub fn encode(&self, image: &RgbImage) -> Result<EncodedImage, SessionError> {
        self.session().encode(image)
    }

    /// Returns the class and the confidence of every pixel of an encoded image.
    ///
    /// - `visitors`: as in [`Segmenter::segment_classes`]
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, or if a visitor fails.
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
