//! Pictures for the report: the best, the middling and the worst, with what was true, what was said, and where the
//! two differ.

use std::path::Path;

use zeg::{
    data::SampleSource,
    eval::{Evaluation, GalleryEntry, gallery, gallery::ClassShare},
    evaluation::Setup,
    image::{IGNORE_LABEL, LabelMap, RgbImage, resize_bilinear, resize_nearest, write_jpeg},
};

/// Longest side of a picture in the gallery, in pixels.
const LONGEST_SIDE: usize = 480;
/// Where prediction and truth agree, and where they do not.
const RIGHT: [u8; 3] = [46, 160, 90];
const WRONG: [u8; 3] = [214, 48, 49];
/// How much colour lies over the photograph, in 256ths.
const STRENGTH: u16 = 150;

/// Id and score of every picture that has one.
pub(super) fn rated(evaluation: &Evaluation) -> Vec<(&str, f64)> {
    let pictures = evaluation.pictures.iter();
    pictures
        .filter_map(|picture| Some((picture.id.as_str(), picture.score(evaluation.metric)?)))
        .collect()
}

/// Segments the chosen pictures once more and writes them beside the record.
///
/// - `rated`: id and score of every picture
/// - `each`: pictures a rank
/// - `colours`: one a class
pub(super) fn write(
    setup: &Setup,
    dataset: &dyn SampleSource,
    rated: &[(&str, f64)],
    (each, colours): (usize, &[[u8; 3]]),
    folder: &Path,
) -> anyhow::Result<Vec<GalleryEntry>> {
    let mut entries = Vec::new();
    for (place, rank) in gallery::pick(rated, each) {
        let (id, score) = rated[place];
        let Some(index) = (0..dataset.len()).find(|&index| dataset.id(index) == id) else {
            continue;
        };
        let (sample, predicted) = setup.predict(dataset, index)?;
        let labels = (sample.labels.labels(), predicted.labels());
        let classes = ClassShare::of(labels, dataset.classes().len(), IGNORE_LABEL)?;
        let (width, height) = fitted(
            sample.image.width() as usize,
            sample.image.height() as usize,
        );
        let picture = resize_bilinear(&sample.image, width, height);
        let truth = resize_nearest(&sample.labels, width, height);
        let predicted = resize_nearest(&predicted, width, height);
        let colour = |label: u16| colours.get(usize::from(label)).copied();
        let views = [
            ("picture", picture.clone()),
            (
                "truth",
                tinted(&picture, &truth, |place| colour(truth.labels()[place])),
            ),
            (
                "prediction",
                tinted(&picture, &predicted, |place| {
                    colour(predicted.labels()[place])
                }),
            ),
            (
                "error",
                tinted(&picture, &truth, |place| {
                    let (truth, predicted) = (truth.labels()[place], predicted.labels()[place]);
                    let verdict = if truth == predicted { RIGHT } else { WRONG };
                    (truth != IGNORE_LABEL).then_some(verdict)
                }),
            ),
        ];
        let mut names = Vec::new();
        for (what, view) in &views {
            let name = format!("{}-{what}.jpg", file_stem(id));
            write_jpeg(&folder.join(&name), view)?;
            names.push(name);
        }
        let [picture, truth, prediction, error] = names.try_into().unwrap_or_default();
        entries.push(GalleryEntry {
            picture,
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
    picture: &RgbImage,
    labels: &LabelMap,
    colour: impl Fn(usize) -> Option<[u8; 3]>,
) -> RgbImage {
    debug_assert_eq!(picture.width() as usize, labels.width());
    let mut tinted = picture.clone();
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
    fn pictures_fit_and_never_vanish() {
        assert_eq!(fitted(480, 100), (480, 100));
        assert_eq!(fitted(960, 500), (480, 250));
        assert_eq!(fitted(30_000, 2), (480, 1));
    }

    #[test]
    fn pixels_without_a_colour_turn_grey() {
        let picture = RgbImage::from_raw(2, 1, vec![200, 0, 0, 200, 0, 0]).unwrap();
        let labels = LabelMap::new(2, 1, vec![0, IGNORE_LABEL]).unwrap();
        let view = tinted(&picture, &labels, |place| {
            (place == 0).then_some([0, 255, 0])
        });
        let [left, right] = [view.get_pixel(0, 0).0, view.get_pixel(1, 0).0];
        assert!(left[1] > 100, "{left:?}");
        assert!(right[0] == right[1] && right[1] == right[2], "{right:?}");
    }
}
