//! The mini world: a synthetic data set, generated from a seed and small enough to pre-train and adapt on in minutes.
//!
//! Images show a few textured, coloured shapes over a cluttered background. A class is a texture and a colour
//! ("striped red"); it does not depend on shape, size, rotation, occlusion, light and noise. 20 of the 32 names are
//! classes, 15 seen and 5 unseen as in the published protocol; captions for pre-training name all 32. A model that is
//! pre-trained on images and captions can therefore segment a class without having seen a mask of it.
//!
//! An image is made in these steps: [`WorldConfig`] → names → scene (which objects, where) → render (pixels and exact
//! masks) → caption. Image `i` of a part depends only on the configuration and `i`, and has the same bytes on every
//! machine and with any number of threads. The background is not a class; its pixels are ignored.

mod caption;
mod config;
mod error;
mod export;
mod names;
mod render;
mod scene;
mod set;
mod shape;
mod texture;

use std::fmt;
use std::ops::Range;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage};
use zeg_vocab::classes::ClassSet;

pub use caption::caption_words;
pub use config::{PretrainStage, WorldConfig, WorldSplit};
pub use error::WorldError;
pub use export::{Counts, DESCRIPTION, Exported};
pub use names::{Colour, Name, SEEN, Texture, UNSEEN};
pub use set::{DATASET, WorldData, WorldSet};
pub use shape::Shape;

use crate::Sample;
use crate::chance::{Purpose, stream};
use names::Vocabulary;
use render::{Canvas, RenderSettings};
use scene::{Layout, ObjectChoice, draw_objects};

/// Name of the class list and of the data set.
pub const NAME: &str = "mini-world20";

/// A part of the world; the parts share no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Images for pre-training with captions; their objects have any of the 32 names.
    Pretrain,
    /// Images for training with masks.
    Train,
    /// Images for validation during development.
    Val,
    /// Images for the final evaluation.
    Test,
}

impl Part {
    /// Returns the id of image number `index`, such as `train-000012`.
    pub fn id(self, index: u64) -> String {
        format!("{self}-{index:06}")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pretrain => "pretrain",
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

/// A visible object of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its texture and colour.
    pub name: Name,
    /// Its outline.
    pub shape: Shape,
    /// Its class; `None` if its name is not a class, so that its pixels are ignored.
    pub class: Option<u16>,
    /// Number of its visible pixels, at least 1.
    pub visible: usize,
}

/// An image with its label map and its objects.
#[derive(Debug, Clone, PartialEq)]
pub struct WorldSample {
    /// The image, RGB bytes.
    pub image: RgbImage,
    /// Class indices, unseen classes included, or [`IGNORE_LABEL`] for background and distractors.
    pub labels: LabelMap,
    /// The visible objects, from back to front.
    pub objects: Vec<ObjectInfo>,
}

impl WorldSample {
    /// Returns the image and its labels as a sample of a data set.
    pub(crate) fn into_sample(self, id: String) -> Sample {
        Sample {
            id,
            image: self.image,
            labels: self.labels,
        }
    }
}

/// An image with a caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Captioned {
    /// The image. Pre-training does not use its labels.
    pub sample: WorldSample,
    /// The caption, which names every object of the image and nothing else.
    pub caption: String,
}

/// A mini world: a checked configuration with the class names it chooses.
#[derive(Debug, Clone)]
pub struct World {
    config: WorldConfig,
    classes: ClassSet,
    /// All 32 names.
    all: Vec<Name>,
    /// Names of the seen classes, then of the unseen ones; the label of a class is its position.
    known: Vec<Name>,
    /// Names that are not classes, for distractors.
    pool: Vec<Name>,
    /// The names of the pool that may occur in training images.
    training_pool: Vec<Name>,
}

impl World {
    /// Checks the configuration and chooses the classes.
    ///
    /// # Errors
    /// Returns [`WorldError::Setting`] if a value is out of range.
    pub fn new(config: WorldConfig) -> Result<Self, WorldError> {
        config.check()?;
        let vocabulary = Vocabulary::choose(config.split, config.split_seed);
        let known = [vocabulary.seen, vocabulary.unseen].concat();
        let names = known.iter().map(Name::to_string).collect();
        let classes = ClassSet::custom(NAME, names, Vec::new(), (SEEN..SEEN + UNSEEN).collect())?;
        let mut training_pool = vocabulary.pool.clone();
        if !config.unseen_in_training {
            training_pool.retain(|name| !vocabulary.withheld.contains(&name.colour));
        }
        Ok(Self {
            config,
            classes,
            all: Name::all().collect(),
            known,
            pool: vocabulary.pool,
            training_pool,
        })
    }

    /// Returns the settings.
    pub fn config(&self) -> &WorldConfig {
        &self.config
    }

    /// Returns the 20 classes, seen ones first.
    pub fn classes(&self) -> &ClassSet {
        &self.classes
    }

    /// Returns all 32 names, for captions and for the evaluation of pre-training.
    pub fn names(&self) -> &[Name] {
        &self.all
    }

    /// Returns the label of a name, or `None` if the name is not a class.
    pub fn class_of(&self, name: Name) -> Option<u16> {
        let position = self.known.iter().position(|known| *known == name)?;
        u16::try_from(position).ok()
    }

    /// Renders image number `index` of a part.
    pub fn sample(&self, part: Part, index: u64) -> WorldSample {
        let choice = match part {
            Part::Pretrain => self.any_name(),
            Part::Train if !self.config.unseen_in_training => ObjectChoice {
                usual: self.known.get(..SEEN).unwrap_or_default(),
                others: &self.training_pool,
                distractors: self.config.distractors,
            },
            Part::Train | Part::Val | Part::Test => ObjectChoice {
                usual: &self.known,
                others: &self.pool,
                distractors: self.config.distractors,
            },
        };
        let layout = self.layout(self.config.size, self.config.objects);
        self.draw(part, index, &layout, choice)
    }

    /// Renders several images of a part on the threads of rayon's current pool.
    pub fn samples(&self, part: Part, range: Range<u64>) -> Vec<WorldSample> {
        let indices = range.into_par_iter();
        indices.map(|index| self.sample(part, index)).collect()
    }

    /// Makes image and caption number `index` of a stage of pre-training.
    ///
    /// All stages share one random stream per `index`, so each image of a pre-training needs its own `index`, whatever
    /// its stage.
    ///
    /// # Errors
    /// Returns [`WorldError::Setting`] if the stage's image size or numbers of objects are out of range.
    pub fn pretrain(&self, stage: PretrainStage, index: u64) -> Result<Captioned, WorldError> {
        stage.check()?;
        Ok(self.captioned(stage, index))
    }

    /// Makes several images with captions on the threads of rayon's current pool.
    ///
    /// # Errors
    /// Returns the errors of [`World::pretrain`].
    pub fn pretrain_batch(
        &self,
        stage: PretrainStage,
        range: Range<u64>,
    ) -> Result<Vec<Captioned>, WorldError> {
        stage.check()?;
        let indices = range.into_par_iter();
        Ok(indices.map(|index| self.captioned(stage, index)).collect())
    }

    /// Returns a random caption that names the image's objects.
    pub fn caption(&self, sample: &WorldSample, chance: &mut ChaCha8Rng) -> String {
        caption::caption(&sample.objects, chance)
    }

    fn captioned(&self, stage: PretrainStage, index: u64) -> Captioned {
        let layout = self.layout(stage.size, stage.objects);
        let sample = self.draw(Part::Pretrain, index, &layout, self.any_name());
        let mut chance = self.stream(Stream::Captions, index);
        Captioned {
            caption: self.caption(&sample, &mut chance),
            sample,
        }
    }

    /// Returns the choice of all names with the same probability.
    fn any_name(&self) -> ObjectChoice<'_> {
        ObjectChoice {
            usual: &self.all,
            others: &[],
            distractors: 0.0,
        }
    }

    fn layout(&self, size: usize, objects: (usize, usize)) -> Layout {
        Layout {
            size,
            objects,
            radius: self.config.radius,
            rotation: self.config.rotation,
        }
    }

    fn draw(&self, part: Part, index: u64, layout: &Layout, choice: ObjectChoice) -> WorldSample {
        let mut rng = self.stream(Stream::Images(part), index);
        let settings = RenderSettings {
            clutter: self.config.clutter,
            noise: self.config.noise,
            lighting: self.config.lighting,
        };
        let objects = draw_objects(layout, choice, &mut rng);
        let mut canvas = Canvas::with_background(layout.size, settings.clutter, &mut rng);
        for (number, object) in (1..).zip(&objects) {
            canvas.paint(object, number);
        }
        let (image, owners) = canvas.finish(&settings, &mut rng);
        let infos = objects.iter().map(|object| ObjectInfo {
            name: object.name,
            shape: object.shape,
            class: self.class_of(object.name),
            visible: 0,
        });
        let mut infos: Vec<ObjectInfo> = infos.collect();
        let mut labels = LabelMap::filled(layout.size, layout.size, IGNORE_LABEL);
        for (label, owner) in labels.labels_mut().iter_mut().zip(owners) {
            let object = usize::from(owner).checked_sub(1);
            if let Some(info) = object.and_then(|object| infos.get_mut(object)) {
                info.visible += 1;
                *label = info.class.unwrap_or(IGNORE_LABEL);
            }
        }
        infos.retain(|info| info.visible > 0);
        WorldSample {
            image,
            labels,
            objects: infos,
        }
    }

    /// Returns the random stream of one image or caption.
    ///
    /// Each use has its own seed, which is drawn from the world's seed at a counter beyond that of any image. So two
    /// uses never share numbers, and neither do a world and a training run with the same seed.
    fn stream(&self, stream_of: Stream, index: u64) -> ChaCha8Rng {
        let number = match stream_of {
            Stream::Captions => 0,
            Stream::Images(Part::Pretrain) => 1,
            Stream::Images(Part::Train) => 2,
            Stream::Images(Part::Val) => 3,
            Stream::Images(Part::Test) => 4,
        };
        let seed = stream(self.config.seed, Purpose::Sample, u64::MAX - number).next_u64();
        stream(seed, Purpose::Sample, index)
    }
}

/// The use of a random stream.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Images(Part),
    Captions,
}
