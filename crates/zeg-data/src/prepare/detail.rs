//! Converts `trainval_merged.json` of PASCAL in Detail: PASCAL Context's masks as run lengths, one per annotation.
//!
//! The file has some 600 MB, most of them masks of object parts, which are not needed, and the masks of an image need
//! not follow each other. It is therefore read as a stream and never held in memory: a first pass ([`index`]) collects
//! the images and the size of their run lengths, and the conversion takes as many images at a time as fit into
//! [`BATCH_BYTES`], with one pass per batch (the official file needs one batch).
//!
//! Fields that are read: `images[]` with `image_id`, `file_name`, `phase`; `annos_segmentation[]` with `image_id`,
//! `category_id` and `segmentation` as `{"size": [height, width], "counts": …}`. Where masks overlap, the later one
//! counts, as in the Detail API (`getMask`).

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeg_image::rle::RleError;
use zeg_image::{LabelMap, Rle, image_size, voc_palette, write_indexed_png};

use super::PrepareError;
use super::labels::SharedRule;
use super::place;
use super::run::{Outcome, Runner};

/// Largest number of bytes of run lengths that are held in memory at a time.
const BATCH_BYTES: u64 = 1 << 28;
/// Largest number of pixels of an image for which masks are drawn; VOC's images have at most 500×500.
const MAX_PIXELS: usize = 1 << 24;

/// Label maps to draw from a file of annotations.
#[derive(Debug)]
pub(crate) struct Detail {
    pub(crate) json: PathBuf,
    pub(crate) rule: SharedRule,
    pub(crate) images: Vec<DetailImage>,
}

/// A label map to draw.
#[derive(Debug)]
pub(crate) struct DetailImage {
    /// The label map's path relative to the result's folder.
    pub(crate) to: PathBuf,
    /// `image_id` in the file.
    pub(crate) id: u64,
    /// The image's name without its extension.
    pub(crate) stem: String,
    pub(crate) image_path: PathBuf,
    /// Number of bytes of its run lengths.
    pub(crate) bytes: u64,
    /// The file of annotations.
    pub(crate) json: PathBuf,
}

impl DetailImage {
    /// Returns whether the label map at `path` is complete.
    pub(crate) fn is_made(&self, path: &Path) -> bool {
        place::is_converted(path, &self.json)
    }
}

/// An entry of `images[]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Image {
    #[serde(rename = "image_id")]
    pub(crate) id: u64,
    pub(crate) file_name: String,
    pub(crate) phase: String,
}

/// The images of a file of annotations and the size of their run lengths.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) images: Vec<Image>,
    /// Number of bytes of run lengths of each `image_id`.
    pub(crate) bytes: HashMap<u64, u64>,
}

/// Reads the file once and returns its images and the size of their run lengths.
pub(crate) fn index(json: &Path) -> Result<Index, PrepareError> {
    let mut images = Vec::new();
    let mut bytes: HashMap<u64, u64> = HashMap::new();
    stream(
        json,
        &mut |image| images.push(image),
        &mut |annotation: Annotation| {
            let size = annotation
                .segmentation
                .counts()
                .map_or(0, RunLengths::bytes);
            let whole = size_of::<Annotation>() + size;
            *bytes.entry(annotation.image_id).or_default() += whole as u64;
        },
    )?;
    Ok(Index { images, bytes })
}

impl Detail {
    /// Draws all label maps that do not exist yet.
    pub(crate) fn run(&self, runner: &Runner) -> Result<(), PrepareError> {
        let mut rest = Vec::new();
        for image in &self.images {
            if image.is_made(&runner.path(&image.to)) {
                runner.file(&image.to, |_| Ok(Outcome::Skipped))?;
            } else {
                rest.push(image);
            }
        }
        let mut rest = rest.as_slice();
        while !rest.is_empty() && !runner.is_stopped() {
            let (batch, later) = rest.split_at(batch_length(rest));
            rest = later;
            let masks = self.masks(batch)?;
            batch.par_iter().try_for_each(|image| {
                let none = Vec::new();
                let masks = masks.get(&image.id).unwrap_or(&none);
                runner.file(&image.to, |path| self.draw(image, masks, path))
            })?;
        }
        Ok(())
    }

    /// Reads the masks of a batch of images, in the order of the file.
    fn masks(&self, batch: &[&DetailImage]) -> Result<HashMap<u64, Vec<Annotation>>, PrepareError> {
        let mut masks: HashMap<u64, Vec<Annotation>> =
            batch.iter().map(|image| (image.id, Vec::new())).collect();
        stream(&self.json, &mut |_| {}, &mut |annotation| {
            if let Some(masks) = masks.get_mut(&annotation.image_id) {
                masks.push(annotation);
            }
        })?;
        Ok(masks)
    }

    fn draw(
        &self,
        image: &DetailImage,
        masks: &[Annotation],
        to: &Path,
    ) -> Result<Outcome, PrepareError> {
        let wrong = |reason: String| PrepareError::Annotation {
            path: self.json.clone(),
            image: image.stem.clone(),
            reason,
        };
        // The size is read from the image, because the sizes in the annotations may be wrong.
        let (width, height) = image_size(&image.image_path)?;
        if width.saturating_mul(height) > MAX_PIXELS {
            return Err(wrong(format!(
                "{width}×{height} pixels; the limit is {MAX_PIXELS} pixels"
            )));
        }
        let mut map = LabelMap::filled(width, height, 0);
        for (number, annotation) in masks.iter().enumerate() {
            let Segmentation::Mask { size, counts } = &annotation.segmentation else {
                return Err(wrong(
                    "a mask is not given as run lengths (`size` and `counts`)".to_owned(),
                ));
            };
            let stated = (size[1] as usize, size[0] as usize);
            if stated != (width, height) {
                return Err(PrepareError::SizeMismatch {
                    image: image.image_path.clone(),
                    image_size: (width, height),
                    labels: self.json.clone(),
                    label_size: stated,
                });
            }
            let category = annotation.category_id;
            if !self.rule.takes(category) {
                return Err(wrong(format!(
                    "category {category}; legal categories are 0..=459"
                )));
            }
            let mask = counts
                .mask(size[1], size[0])
                .map_err(|source| PrepareError::Mask {
                    path: self.json.clone(),
                    image: image.stem.clone(),
                    annotation: number,
                    source,
                })?;
            for (x, y) in mask.pixels() {
                let index = y as usize * width + x as usize;
                if let Some(label) = map.labels_mut().get_mut(index) {
                    *label = category;
                }
            }
        }
        let labels = self.rule.apply(map, &self.json)?;
        write_indexed_png(to, &labels, &voc_palette(self.rule.classes()))?;
        Ok(Outcome::Converted)
    }
}

/// Returns how many of the first images fit into one batch, at least one.
fn batch_length(images: &[&DetailImage]) -> usize {
    let mut bytes: u64 = 0;
    let fitting = images.iter().take_while(|image| {
        bytes = bytes.saturating_add(image.bytes);
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// Reads the file once and calls the functions with every image and every annotation.
fn stream(
    json: &Path,
    on_image: &mut dyn FnMut(Image),
    on_annotation: &mut dyn FnMut(Annotation),
) -> Result<(), PrepareError> {
    let file = File::open(json).map_err(|source| PrepareError::unreadable(json, source))?;
    let mut parser = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 16, file));
    let parts = Parts {
        on_image,
        on_annotation,
    };
    parts
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|source| PrepareError::Json {
            path: json.into(),
            source,
        })
}

/// Visitor of the outermost object.
struct Parts<'a> {
    on_image: &'a mut dyn FnMut(Image),
    on_annotation: &'a mut dyn FnMut(Annotation),
}

impl<'de> DeserializeSeed<'de> for Parts<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with `images` and `annos_segmentation`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Images => map.next_value_seed(Each(&mut *self.on_image))?,
                Key::Annotations => map.next_value_seed(Each(&mut *self.on_annotation))?,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
enum Key {
    #[serde(rename = "images")]
    Images,
    #[serde(rename = "annos_segmentation")]
    Annotations,
    #[serde(other)]
    Other,
}

/// Visitor of a list that passes on the elements one by one.
struct Each<'a, T>(&'a mut dyn FnMut(T));

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Each<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u16,
    segmentation: Segmentation,
}

#[derive(Debug)]
enum Segmentation {
    /// Run lengths; `size` is height and width.
    Mask { size: [u32; 2], counts: RunLengths },
    /// Polygons or any other form.
    Other,
}

impl Segmentation {
    fn counts(&self) -> Option<&RunLengths> {
        match self {
            Self::Mask { counts, .. } => Some(counts),
            Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Segmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Segmentation;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("run lengths or polygons")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Segmentation, A::Error> {
                let (mut size, mut counts) = (None, None);
                while let Some(key) = map.next_key::<RleKey>()? {
                    match key {
                        RleKey::Size => size = Some(map.next_value()?),
                        RleKey::Counts => counts = Some(map.next_value()?),
                        RleKey::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(match (size, counts) {
                    (Some(size), Some(counts)) => Segmentation::Mask { size, counts },
                    _ => Segmentation::Other,
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Segmentation, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Segmentation::Other)
            }

            fn visit_unit<E>(self) -> Result<Segmentation, E> {
                Ok(Segmentation::Other)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RleKey {
    Size,
    Counts,
    #[serde(other)]
    Other,
}

/// Run lengths in the form of the file.
#[derive(Debug)]
enum RunLengths {
    /// COCO's compressed string.
    Text(Box<[u8]>),
    /// A list of numbers.
    Numbers(Box<[u32]>),
}

impl RunLengths {
    /// Returns the number of bytes in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Numbers(numbers) => 4 * numbers.len(),
        }
    }

    fn mask(&self, width: u32, height: u32) -> Result<Rle, RleError> {
        match self {
            Self::Text(text) => Rle::from_coco_string(width, height, text),
            Self::Numbers(numbers) => Rle::from_counts(width, height, numbers.to_vec()),
        }
    }
}

impl<'de> Deserialize<'de> for RunLengths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RunLengths;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("run lengths as a string or a list of numbers")
            }

            fn visit_str<E>(self, text: &str) -> Result<RunLengths, E> {
                Ok(RunLengths::Text(text.as_bytes().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RunLengths, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = list.next_element()? {
                    numbers.push(number);
                }
                Ok(RunLengths::Numbers(numbers.into()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_the_images_that_fit_and_at_least_one() {
        let image = |bytes| DetailImage {
            to: PathBuf::new(),
            id: 1,
            stem: String::new(),
            image_path: PathBuf::new(),
            bytes,
            json: PathBuf::new(),
        };
        let images = [BATCH_BYTES / 2, BATCH_BYTES / 2, 1, u64::MAX].map(image);
        let images: Vec<&DetailImage> = images.iter().collect();
        assert_eq!(batch_length(&images), 2);
        assert_eq!(batch_length(&images[2..]), 1);
        assert_eq!(batch_length(&images[3..]), 1); // larger than a batch, but still read
    }
}
