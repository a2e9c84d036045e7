//! Gallery of the report: the best, median and worst images, each with ground truth, prediction and errors.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use zeg::{
    data::{Sample, SampleSource},
    eval::{Evaluation, GalleryEntry, gallery, gallery::ClassShare},
    image::{IGNORE_LABEL, LabelMap, RgbImage, resize_bilinear, resize_nearest, write_jpeg},
    label_spool::LabelSpool,
};

use crate::commands::place::Existing;

/// Longest side of an image in the gallery, in pixels.
const LONGEST_SIDE: usize = 480;
/// Colour of right pixels in the error panel.
const RIGHT: [u8; 3] = [46, 160, 90];
/// Colour of wrong pixels in the error panel.
const WRONG: [u8; 3] = [214, 48, 49];
/// Endings of the names of an image's panels: image, ground truth, prediction, errors.
const ENDINGS: [&str; 4] = ["-image.jpg", "-truth.jpg", "-prediction.jpg", "-error.jpg"];
/// Opacity of a colour over the image, in 256ths.
const OPACITY: u16 = 150;

/// Returns what has, in the folder of a record, a name that the gallery may write.
///
/// Which images the gallery shows is known after the scoring only, so that every image of the data set counts.
///
/// - `ids`: ids of all images
///
/// # Errors
/// Returns the system's error if the folder cannot be read.
pub(super) fn panels_in(folder: &Path, ids: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let stems: HashSet<String> = ids.iter().map(|id| file_stem(id)).collect();
    let is_panel = |name: &str| {
        let mut found = ENDINGS
            .iter()
            .filter_map(|ending| name.strip_suffix(*ending));
        found.any(|stem| stems.contains(stem))
    };
    let about = || folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(about)? {
        let entry = entry.with_context(about)?;
        if entry.file_name().to_str().is_some_and(is_panel) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Checks that the gallery replaces nothing in the folder of a record that it may not replace.
///
/// - `ids`: ids of all images
///
/// # Errors
/// As for [`Existing::place`] and [`panels_in`].
pub(super) fn check(existing: Existing, folder: &Path, ids: &[String]) -> anyhow::Result<()> {
    let mut panels = panels_in(folder, ids)?.into_iter();
    panels.try_for_each(|panel| existing.place(&panel).map(drop))
}

/// Settings of a gallery that is written beside a record.
pub(super) struct Gallery<'a> {
    pub(super) dataset: &'a dyn SampleSource,
    /// Number of images of each rank.
    pub(super) each: usize,
    /// One colour per class.
    pub(super) colours: &'a [[u8; 3]],
    /// Folder of the record.
    pub(super) folder: &'a Path,
}

impl Gallery<'_> {
    /// Chooses images by their scores and writes them.
    ///
    /// - `predictions`: a label map for every image of the evaluation, in the same order
    pub(super) fn write(
        &self,
        evaluation: &Evaluation,
        predictions: &mut LabelSpool,
    ) -> anyhow::Result<Vec<GalleryEntry>> {
        // Images without a score are left out, so each score needs its position among all images.
        let (mut positions, mut rated) = (Vec::new(), Vec::new());
        for (position, image) in evaluation.image_scores.iter().enumerate() {
            if let Some(score) = image.score(evaluation.metric) {
                positions.push(position);
                rated.push((image.id.as_str(), score));
            }
        }
        let mut entries = Vec::new();
        for (chosen, rank) in gallery::pick(&rated, self.each) {
            let (id, score) = rated[chosen];
            // Predictions are in the order of the scored images, which are all images but those that were skipped.
            let position = positions[chosen];
            let Some(index) = (0..self.dataset.len()).find(|&index| self.dataset.id(index) == id)
            else {
                continue;
            };
            let sample = self.dataset.load(index)?;
            let predicted = predictions
                .get(position)
                .context("reading predictions back")?;
            let Panels { files, classes } = self.draw(id, &sample, &predicted)?;
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

    /// Writes the four panels of an image: image, ground truth, prediction, error.
    fn draw(&self, id: &str, sample: &Sample, predicted: &LabelMap) -> anyhow::Result<Panels> {
        let labels = (sample.labels.labels(), predicted.labels());
        let classes = ClassShare::of(labels, self.colours.len(), IGNORE_LABEL)?;
        let (width, height) = fitted(
            sample.image.width() as usize,
            sample.image.height() as usize,
        );
        let image = resize_bilinear(&sample.image, width, height);
        let truth = resize_nearest(&sample.labels, width, height);
        let predicted = resize_nearest(predicted, width, height);
        let colour = |label: u16| self.colours.get(usize::from(label)).copied();
        let panels = [
            image.clone(),
            tinted(&image, &truth, |index| colour(truth.labels()[index])),
            tinted(&image, &predicted, |index| {
                colour(predicted.labels()[index])
            }),
            tinted(&image, &truth, |index| {
                let (truth, predicted) = (truth.labels()[index], predicted.labels()[index]);
                let verdict = if truth == predicted { RIGHT } else { WRONG };
                (truth != IGNORE_LABEL).then_some(verdict)
            }),
        ];
        let mut files = Vec::new();
        for (ending, panel) in ENDINGS.iter().zip(&panels) {
            let name = format!("{}{ending}", file_stem(id));
            // Panels that must not be replaced were found before the scoring.
            write_jpeg(&Existing::Replace.place(&self.folder.join(&name))?, panel)?;
            files.push(name);
        }
        Ok(Panels {
            files: files.try_into().unwrap_or_default(),
            classes,
        })
    }
}

/// The written panels of one image.
struct Panels {
    /// File names of image, ground truth, prediction and error.
    files: [String; 4],
    classes: Vec<ClassShare>,
}

/// Returns a file name for an image; the ids of some data sets are paths (`frankfurt/frankfurt_000000_000294`).
fn file_stem(id: &str) -> String {
    id.replace(['/', '\\'], "-")
}

/// Returns width and height scaled to at most [`LONGEST_SIDE`], each at least one pixel.
fn fitted(width: usize, height: usize) -> (usize, usize) {
    let longest = width.max(height).max(1);
    if longest <= LONGEST_SIDE {
        return (width, height);
    }
    let side = |side: usize| (side * LONGEST_SIDE / longest).max(1);
    (side(width), side(height))
}

/// Blends a colour over every pixel that has one and turns the others grey.
///
/// - `colour`: returns the colour of a pixel, given its position in row-major order
fn tinted(
    image: &RgbImage,
    labels: &LabelMap,
    colour: impl Fn(usize) -> Option<[u8; 3]>,
) -> RgbImage {
    debug_assert_eq!(image.width() as usize, labels.width());
    let mut tinted = image.clone();
    for (index, pixel) in tinted.pixels_mut().enumerate() {
        let [r, g, b] = pixel.0.map(u16::from);
        let grey = ((r * 77 + g * 150 + b * 29) >> 8) as u8;
        pixel.0 = match colour(index) {
            Some(colour) => std::array::from_fn(|channel| {
                let (over, under) = (u16::from(colour[channel]), u16::from(pixel.0[channel]));
                ((over * OPACITY + under * (256 - OPACITY)) >> 8) as u8
            }),
            None => [grey; 3],
        };
    }
    tinted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::place::{NotAFile, OutputExists};

    #[test]
    fn a_file_with_the_name_of_a_panel_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ids = ["p6", "a/b"].map(str::to_owned);
        let check = |folder: &Path| check(Existing::Refuse, folder, &ids);
        assert!(check(&folder.path().join("new")).is_ok());
        for other in ["p7-image.jpg", "p6-image.png", "p6.jpg", "evaluation.json"] {
            fs::write(folder.path().join(other), "own").unwrap();
        }
        assert!(check(folder.path()).is_ok());
        for name in ["p6-image.jpg", "a-b-error.jpg"] {
            let file = folder.path().join(name);
            fs::write(&file, "own").unwrap();
            let error = check(folder.path()).unwrap_err();
            assert!(error.is::<OutputExists>(), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn a_gallery_replaces_files_and_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let ids = ["p6".to_owned()];
        let check = || check(Existing::Replace, folder.path(), &ids);
        let panel = folder.path().join("p6-truth.jpg");
        fs::write(&panel, "old").unwrap();
        assert!(check().is_ok());
        fs::remove_file(&panel).unwrap();
        fs::create_dir(&panel).unwrap();
        let error = check().unwrap_err();
        assert!(error.is::<NotAFile>(), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_gallery_writes_behind_links_and_replaces_no_device() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let ids = ["p6".to_owned()];
        let check = || check(Existing::Replace, folder.path(), &ids);
        let (kept, link) = (
            folder.path().join("kept"),
            folder.path().join("p6-error.jpg"),
        );
        fs::write(&kept, "old").unwrap();
        symlink(&kept, &link).unwrap();
        assert!(check().is_ok());
        let place = Existing::Replace.place(&link).unwrap();
        assert_eq!(place, kept.canonicalize().unwrap());
        for nothing in ["/dev/null", "nowhere"] {
            fs::remove_file(&link).unwrap();
            symlink(nothing, &link).unwrap();
            let error = check().unwrap_err();
            assert!(error.is::<NotAFile>(), "{error}");
        }
    }

    #[test]
    fn images_fit_and_never_vanish() {
        assert_eq!(fitted(480, 100), (480, 100));
        assert_eq!(fitted(960, 500), (480, 250));
        assert_eq!(fitted(30_000, 2), (480, 1));
    }

    #[test]
    fn pixels_without_a_colour_turn_grey() {
        let image = RgbImage::from_raw(2, 1, vec![200, 0, 0, 200, 0, 0]).unwrap();
        let labels = LabelMap::new(2, 1, vec![0, IGNORE_LABEL]).unwrap();
        let panel = tinted(&image, &labels, |index| (index == 0).then_some([0, 255, 0]));
        let [left, right] = [panel.get_pixel(0, 0).0, panel.get_pixel(1, 0).0];
        assert!(left[1] > 100, "{left:?}");
        assert!(right[0] == right[1] && right[1] == right[2], "{right:?}");
    }
}
