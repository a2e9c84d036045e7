//! Images for the report: the best, the middling and the worst, with what was true, what was said, and where the
//! two differ.

use std::path::Path;

use anyhow::Context as _;
use zeg::{
    data::{Sample, SampleSource},
    eval::{Evaluation, GalleryEntry, gallery, gallery::ClassShare},
    image::{IGNORE_LABEL, LabelMap, RgbImage, resize_bilinear, resize_nearest, write_jpeg},
    label_spool::LabelSpool,
};

/// Longest side of an image in the gallery, in pixels.
const LONGEST_SIDE: usize = 480;
/// Where prediction and truth agree, and where they do not.
const RIGHT: [u8; 3] = [46, 160, 90];
const WRONG: [u8; 3] = [214, 48, 49];
/// How much colour lies over the photograph, in 256ths.
const STRENGTH: u16 = 150;

/// A gallery to be written beside a record.
pub(super) struct Gallery<'a> {
    pub(super) dataset: &'a dyn SampleSource,
    /// Images a rank.
    pub(super) each: usize,
    /// One a class.
    pub(super) colours: &'a [[u8; 3]],
    /// The record's folder.
    pub(super) folder: &'a Path,
}

impl Gallery<'_> {
    /// Chooses images by their scores and writes them.
    ///
    /// - `predictions`: a label map for every image of the evaluation, in its order
    pub(super) fn write(
        &self,
        evaluation: &Evaluation,
        predictions: &mut LabelSpool,
    ) -> anyhow::Result<Vec<GalleryEntry>> {
        // Place among all images, id and score of those that have one.
        let (mut places, mut rated) = (Vec::new(), Vec::new());
        for (place, photo) in evaluation.image_scores.iter().enumerate() {
            if let Some(score) = photo.score(evaluation.metric) {
                places.push(place);
                rated.push((photo.id.as_str(), score));
            }
        }
        let mut entries = Vec::new();
        for (chosen, rank) in gallery::pick(&rated, self.each) {
            let (id, score) = rated[chosen];
            // An evaluation has the images of its data set, in the same order.
            let place = places[chosen];
            let sample = self.dataset.load(place)?;
            let predicted = predictions.get(place).context("reading predictions back")?;
            let Drawn { files, classes } = self.draw(id, &sample, &predicted)?;
            let [image, truth, prediction, error] = files;
            entries.push(GalleryEntry {
                image,
                truth,
                prediction,
                error,
                id: id.to_owned(),
                rank,
                score,
                classes,
            });
        }
        Ok(entries)
    }

    /// Writes the four panels of an image.
    fn draw(&self, id: &str, sample: &Sample, predicted: &LabelMap) -> anyhow::Result<Drawn> {
        let labels = (sample.labels.labels(), predicted.labels());
        let classes = ClassShare::of(labels, self.colours.len(), IGNORE_LABEL)?;
        let (width, height) = fitted(
            sample.image.width() as usize,
            sample.image.height() as usize,
        );
        let photo = resize_bilinear(&sample.image, width, height);
        let truth = resize_nearest(&sample.labels, width, height);
        let predicted = resize_nearest(predicted, width, height);
        let colour = |label: u16| self.colours.get(usize::from(label)).copied();
        let panels = [
            ("image", photo.clone()),
            (
                "truth",
                tinted(&photo, &truth, |place| colour(truth.labels()[place])),
            ),
            (
                "prediction",
                tinted(&photo, &predicted, |place| {
                    colour(predicted.labels()[place])
                }),
            ),
            (
                "error",
                tinted(&photo, &truth, |place| {
                    let (truth, predicted) = (truth.labels()[place], predicted.labels()[place]);
                    let verdict = if truth == predicted { RIGHT } else { WRONG };
                    (truth != IGNORE_LABEL).then_some(verdict)
                }),
            ),
        ];
        let mut files = Vec::new();
        for (what, panel) in &panels {
            let name = format!("{}-{what}.jpg", file_stem(id));
            write_jpeg(&self.folder.join(&name), panel)?;
            files.push(name);
        }
        Ok(Drawn {
            files: files.try_into().unwrap_or_default(),
            classes,
        })
    }
}

/// What was written of one image.
struct Drawn {
    /// Image, truth, prediction, error.
    files: [String; 4],
    classes: Vec<ClassShare>,
}

/// Ids of some data sets are paths (`frankfurt/frankfurt_000000_000294`).
fn file_stem(id: &str) -> String {
    id.replace(['/', '\\'], "-")
}

/// A size of at most [`LONGEST_SIDE`], at least one pixel each way.
fn fitted(width: usize, height: usize) -> (usize, usize) {
    let longest = width.max(height).max(1);
    if longest <= LONGEST_SIDE {
        return (width, height);
    }
    let side = |side: usize| (side * LONGEST_SIDE / longest).max(1);
    (side(width), side(height))
}

/// Lays a colour over every pixel that has one; the others turn grey.
fn tinted(
    photo: &RgbImage,
    labels: &LabelMap,
    colour: impl Fn(usize) -> Option<[u8; 3]>,
) -> RgbImage {
    debug_assert_eq!(photo.width() as usize, labels.width());
    let mut tinted = photo.clone();
    for (place, pixel) in tinted.pixels_mut().enumerate() {
        let [r, g, b] = pixel.0.map(u16::from);
        let grey = ((r * 77 + g * 150 + b * 29) >> 8) as u8;
        pixel.0 = match colour(place) {
            Some(colour) => std::array::from_fn(|channel| {
                let (over, under) = (u16::from(colour[channel]), u16::from(pixel.0[channel]));
                ((over * STRENGTH + under * (256 - STRENGTH)) >> 8) as u8
            }),
            None => [grey; 3],
        };
    }
    tinted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_fit_and_never_vanish() {
        assert_eq!(fitted(480, 100), (480, 100));
        assert_eq!(fitted(960, 500), (480, 250));
        assert_eq!(fitted(30_000, 2), (480, 1));
    }

    #[test]
    fn pixels_without_a_colour_turn_grey() {
        let photo = RgbImage::from_raw(2, 1, vec![200, 0, 0, 200, 0, 0]).unwrap();
        let labels = LabelMap::new(2, 1, vec![0, IGNORE_LABEL]).unwrap();
        let panel = tinted(&photo, &labels, |place| (place == 0).then_some([0, 255, 0]));
        let [left, right] = [panel.get_pixel(0, 0).0, panel.get_pixel(1, 0).0];
        assert!(left[1] > 100, "{left:?}");
        assert!(right[0] == right[1] && right[1] == right[2], "{right:?}");
    }
}
