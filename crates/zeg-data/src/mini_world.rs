//! The mini world: a data set made of nothing but a seed, small enough to pre-train and adapt on in minutes.
//!
//! Images show a few textured, coloured shapes over a cluttered background. A class is a texture and a colour
//! ("striped red"); shape, size, rotation, occlusion, light and noise say nothing about it. 20 of the 32 names are
//! classes, 15 seen and 5 unseen as in the published protocol; captions for pre-training name all 32. A model that
//! learned words and images from captions can therefore segment a class that it never saw a mask of.
//!
//! The stations of an image, in file order: [`WorldConfig`] → names → scene (which objects, where) → render (pixels
//! and exact masks) → caption. Image `i` of a part is a function of the configuration and `i` alone, and has the
//! same bytes on every machine and any number of threads. The background is no class and has no label.

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
use render::{Canvas, Look};
use scene::{Layout, ObjectChoice, draw_objects};

/// Name of the class list and of the data set.
pub const NAME: &str = "mini-world20";

/// A part of the world; no image is in two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Images for captions; their objects have any of the 32 names.
    Pretrain,
    /// Images for training with masks.
    Train,
    /// Images for scores while something is tried out.
    Val,
    /// Images for the last score.
    Test,
}

impl Part {
    /// What image number `index` is called, such as `train-000012`.
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

/// An object that can be seen in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its texture and colour.
    pub name: Name,
    /// Its outline.
    pub shape: Shape,
    /// Its class; `None` for a name that is no class, whose pixels have no label.
    pub class: Option<u16>,
    /// Pixels that show it, at least 1.
    pub visible: usize,
}

/// An image, its truth and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorldSample {
    /// The image, RGB bytes.
    pub image: RgbImage,
    /// Class indices, unseen classes included, or [`IGNORE_LABEL`] for background and distractors.
    pub labels: LabelMap,
    /// The objects, those behind first.
    pub objects: Vec<ObjectInfo>,
}

impl WorldSample {
    /// The image and its labels as an entry of a data set.
    pub(crate) fn into_sample(self, id: String) -> Sample {
        Sample {
            id,
            image: self.image,
            labels: self.labels,
        }
    }
}

/// An image with a sentence about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Captioned {
    /// The image. Pre-training leaves its labels alone.
    pub sample: WorldSample,
    /// Names every object of the image and nothing else.
    pub caption: String,
}

/// A checked configuration with the names it chooses.
#[derive(Debug, Clone)]
pub struct World {
    config: WorldConfig,
    classes: ClassSet,
    /// All 32 names.
    all: Vec<Name>,
    /// Seen classes, then unseen ones: a class's label is its position.
    known: Vec<Name>,
    /// Names that are no class.
    pool: Vec<Name>,
    /// The names of the pool that training images may show.
    training_pool: Vec<Name>,
}

impl World {
    /// Checks the configuration and chooses the classes.
    ///
    /// # Errors
    /// [`WorldError::Setting`] for a value that is out of range.
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

    /// The settings.
    pub fn config(&self) -> &WorldConfig {
        &self.config
    }

    /// The 20 classes, seen ones first.
    pub fn classes(&self) -> &ClassSet {
        &self.classes
    }

    /// All 32 names, for captions and for scores of pre-training.
    pub fn names(&self) -> &[Name] {
        &self.all
    }

    /// The label of a name; `None` where it is no class.
    pub fn class_of(&self, name: Name) -> Option<u16> {
        let position = self.known.iter().position(|known| *known == name)?;
        u16::try_from(position).ok()
    }

    /// Image number `index` of a part.
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

    /// Several images of a part, made on the threads of rayon's current pool.
    pub fn samples(&self, part: Part, range: Range<u64>) -> Vec<WorldSample> {
        let indices = range.into_par_iter();
        indices.map(|index| self.sample(part, index)).collect()
    }

    /// Image and caption number `index` of a phase of pre-training.
    ///
    /// Phases draw from one stream of numbers: an image is new as long as its `index` is, whatever the phase.
    ///
    /// # Errors
    /// [`WorldError::Setting`] for a phase whose images or numbers of objects are out of range.
    pub fn pretrain(&self, stage: PretrainStage, index: u64) -> Result<Captioned, WorldError> {
        stage.check()?;
        Ok(self.captioned(stage, index))
    }

    /// Several images with captions, made on the threads of rayon's current pool.
    ///
    /// # Errors
    /// As [`World::pretrain`].
    pub fn pretrain_batch(
        &self,
        stage: PretrainStage,
        range: Range<u64>,
    ) -> Result<Vec<Captioned>, WorldError> {
        stage.check()?;
        let indices = range.into_par_iter();
        Ok(indices.map(|index| self.captioned(stage, index)).collect())
    }

    /// A sentence that names the image's objects; `chance` decides which of many.
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

    /// Every name with the same probability.
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
        let look = Look {
            clutter: self.config.clutter,
            noise: self.config.noise,
            lighting: self.config.lighting,
        };
        let objects = draw_objects(layout, choice, &mut rng);
        let mut canvas = Canvas::with_background(layout.size, look.clutter, &mut rng);
        for (number, object) in (1..).zip(&objects) {
            canvas.paint(object, number);
        }
        let (image, owners) = canvas.finish(&look, &mut rng);
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

    /// The random numbers of one image or caption.
    ///
    /// Each use has a seed of its own, itself drawn from the world's seed at a counter beyond any image's, so that
    /// no two uses, nor a training run with the same seed, share numbers.
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

/// What random numbers are used for.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Images(Part),
    Captions,
}
