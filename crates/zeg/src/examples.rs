//! Classes given by example images with masks, beside their names or instead of them.
//!
//! [`ExampleFolder::open`] lists the pairs of images and masks of a folder, [`ExampleSet::encode`] encodes them with a
//! model, through the cache, and [`ExampleSet::fit`] gives classes the scores that follow from them.
//!
//! ```no_run
//! use zeg::{Segmenter, examples::ExampleFolder, vocab::classes::parse_class_list};
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut segmenter = Segmenter::load("clip-vit-b-16.safetensors".as_ref())?;
//! let folder = ExampleFolder::open("examples".as_ref())?; // examples/gasket/1.jpg, examples/gasket/1_mask.png
//! segmenter.set_examples(&folder, None, &|_, _| ())?;
//! let mut classes = parse_class_list("hand, table")?;
//! segmenter.add_example_classes(&mut classes); // "gasket", which no name describes
//! segmenter.set_classes(&classes)?;
//! # Ok(())
//! # }
//! ```

mod cache;
mod folder;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use zeg_base::fingerprint::{Fingerprint, digest};
use zeg_model::{
    ModelError,
    classes::ClassQueries,
    embeddings::same_name,
    examples::{ClassExamples, ExampleFeatures, ExampleOptions, ExampleScores},
    inference::{Inference, Refinement},
    stop::StopSign,
    weights::{file_sha256, image_facts},
};

use self::cache::FeatureCache;
pub use self::folder::{
    ExampleError, ExampleFolder, ExamplePair, FolderClass, MASK_SUFFIX, MaskWarning,
};
use crate::{embedding_cache::image_tower, loading::LoadedModel};

/// Encoded examples of some classes.
#[derive(Debug, Clone)]
pub struct ExampleSet {
    classes: Vec<EncodedClass>,
    /// Digest of everything that the scores of the classes follow from.
    digest: String,
}

/// The encoded examples of a class.
#[derive(Debug, Clone)]
struct EncodedClass {
    name: String,
    /// Whether the class was added to a class list by its examples alone, so that its name does not count.
    is_alone: bool,
    features: Vec<ExampleFeatures>,
}

impl ExampleSet {
    /// Encodes the examples of a folder with a model.
    ///
    /// - `cache`: folder that encoded examples are kept in, so that each is encoded once
    /// - `progress`: is called with `(examples done, examples in all)`
    ///
    /// # Errors
    /// Returns an error if the model's method does not use examples, an image or a mask cannot be read, or a mask does not
    /// fit its image.
    pub fn encode(
        folder: &ExampleFolder,
        model: &LoadedModel,
        inference: &Inference,
        cache: Option<&Path>,
        device: &Device,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self, ExampleError> {
        if !model.model.uses_examples() {
            return Err(ExampleError::NotUsed {
                method: model.method.clone(),
            });
        }
        let inference = &of_examples(inference);
        let facts = facts(model, inference);
        let cache = cache.and_then(|folder| Some((folder, image_tower(folder, &model.base)?)));
        let all = folder.pairs();
        let (mut classes, mut digests, mut done) = (Vec::new(), Vec::new(), 0);
        for class in &folder.classes {
            let mut features = Vec::with_capacity(class.pairs.len());
            for pair in &class.pairs {
                let contents = pair_digest(pair)?;
                let kept = cache.as_ref().map(|(folder, tower)| {
                    let facts = facts.clone().with("weights: SHA-256", tower);
                    FeatureCache::new(folder, &facts.with("pair", &contents))
                });
                let found = kept.as_ref().and_then(FeatureCache::get);
                features.push(if let Some(found) = found {
                    found
                } else {
                    let new = encode_pair(pair, model, inference, device)?;
                    if let Some(kept) = &kept {
                        kept.put(&new);
                    }
                    new
                });
                digests.push(class.name.clone());
                digests.push(contents);
                done += 1;
                progress(done, all);
            }
            classes.push(EncodedClass {
                name: class.name.clone(),
                is_alone: false,
                features,
            });
        }
        Ok(Self {
            classes,
            digest: digest(digests),
        })
    }

    /// Returns the digest of the contents of all examples and the names of their classes.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the names of the classes, and of how many examples each has.
    pub fn classes(&self) -> impl Iterator<Item = (&str, usize)> {
        let classes = self.classes.iter();
        classes.map(|class| (class.name.as_str(), class.features.len()))
    }

    /// Returns the names of the classes that no class of a list has, by name or synonym.
    ///
    /// - `classes`: each a list of synonyms whose first is its name
    pub fn not_in(&self, classes: &[Vec<String>]) -> Vec<&str> {
        let is_listed = |name: &str| {
            classes
                .iter()
                .flatten()
                .any(|listed| same_name(name, listed))
        };
        let names = self.classes().map(|(name, _)| name);
        names.filter(|name| !is_listed(name)).collect()
    }

    /// States that a class is given by its examples alone.
    pub(crate) fn stand_alone(&mut self, name: &str) {
        for class in &mut self.classes {
            class.is_alone |= same_name(&class.name, name);
        }
    }

    /// Whether the name of a class does not count, because it is given by its examples alone.
    pub(crate) fn is_alone(&self, names: &[String]) -> bool {
        self.of(names).any(|class| class.is_alone)
    }

    /// Returns classes with a row of zeros for each that is given by its examples alone.
    ///
    /// - `named`: the classes with a name, which may have any rows if there are none
    /// - `alone`: of all classes, whether each is given by its examples alone
    pub(crate) fn complete(named: ClassQueries, alone: &[bool], device: &Device) -> ClassQueries {
        if !alone.contains(&true) {
            return named;
        }
        let [_, dim] = named.text.dims();
        let (mut row, mut rows, mut seen) = (0, Vec::new(), Vec::new());
        for &is_alone in alone {
            if is_alone {
                rows.push(Tensor::zeros([1, dim], device));
                seen.push(false);
            } else {
                rows.push(named.text.clone().narrow(0, row, 1));
                seen.push(named.seen.get(row).copied().unwrap_or(false));
                row += 1;
            }
        }
        ClassQueries::new(Tensor::cat(rows, 0), seen)
    }

    fn of<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a EncodedClass> {
        let is_meant =
            |class: &&EncodedClass| names.iter().any(|name| same_name(name, &class.name));
        self.classes.iter().filter(is_meant)
    }

    /// Gives classes the scores that follow from their examples; without an example of any class, nothing changes.
    ///
    /// - `queries`: class embeddings of all classes; the rows of classes that are given by examples alone do not count
    /// - `classes`: the names of each class
    ///
    /// # Errors
    /// Returns the errors of [`ExampleScores::fit`].
    pub fn fit(
        &self,
        queries: &mut ClassQueries,
        classes: &[Vec<String>],
        options: ExampleOptions,
    ) -> Result<(), ModelError> {
        let features: Vec<Vec<ExampleFeatures>> = classes
            .iter()
            .map(|names| {
                self.of(names)
                    .flat_map(|class| class.features.clone())
                    .collect()
            })
            .collect();
        if features.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let of_classes: Vec<ClassExamples> = classes
            .iter()
            .zip(&features)
            .map(|(names, examples)| ClassExamples {
                is_named: !self.is_alone(names),
                examples,
            })
            .collect();
        let scores = ExampleScores::fit(&queries.text, &of_classes, options)?;
        queries.text = scores.image_rows.clone();
        queries.examples = Some(scores);
        Ok(())
    }
}

/// Returns the settings that examples are encoded with: the short side is that of one window, so that an example takes a
/// third of the windows of an image to segment.
fn of_examples(inference: &Inference) -> Inference {
    Inference {
        short_side: inference.crop,
        refine: Refinement::None,
        ..inference.clone()
    }
}

/// Returns what the encoding of an example follows from besides its files and the weights.
fn facts(model: &LoadedModel, inference: &Inference) -> Fingerprint {
    let Inference {
        short_side,
        crop,
        stride,
        mode,
        longest_side,
        ..
    } = inference;
    image_facts(&model.weights)
        .with("program", env!("CARGO_PKG_VERSION"))
        .with("method", &model.method)
        .with("method options", format!("{:?}", model.architecture))
        .with("precision", model.precision)
        .with(
            "windows",
            format!("{short_side} {crop} {stride} {mode:?} {longest_side}"),
        )
}

/// Returns the digest of the contents of an example.
fn pair_digest(pair: &ExamplePair) -> Result<String, ExampleError> {
    let of = |path: &PathBuf| {
        file_sha256(path).map_err(|error| ExampleError::Read {
            path: path.clone(),
            source: std::io::Error::other(error),
        })
    };
    Ok(digest([of(&pair.image)?, of(&pair.mask)?]))
}

fn encode_pair(
    pair: &ExamplePair,
    model: &LoadedModel,
    inference: &Inference,
    device: &Device,
) -> Result<ExampleFeatures, ExampleError> {
    let (image, mask) = pair.read()?;
    let stop = StopSign::default();
    ExampleFeatures::of(model.model.as_ref(), &image, &mask, inference, device, stop).map_err(
        |source| ExampleError::Encode {
            path: pair.mask.clone(),
            source,
        },
    )
}
