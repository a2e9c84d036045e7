//! Tells the files that earlier conversions made from those of the user, which are never replaced.
//!
//! Links and copies are known by their content. A converted label map is known by its form and its size, so that a
//! conversion that continues need not convert again what is there.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use zeg_image::{image_size, voc_palette};

use super::ImagePlacement;
use super::place::{is_placed, is_same_file};
use super::plan::{Task, Work};
use super::run::shrunk_size;

/// Number of bytes at the start of a PNG file that hold its header and its palette.
const HEAD_BYTES: u64 = 2048;

/// Returns whether the path of a task's file is free, or the file there was made from the same source.
pub(crate) fn is_own(path: &Path, task: &Task, images: ImagePlacement) -> bool {
    let from = task.from();
    if is_free(path) || is_same_file(path, from) {
        return true;
    }
    let is_source = || is_placed(path, from, images) || has_same_bytes(path, from);
    match &task.work {
        Work::Place { .. } => is_source(),
        Work::Image { .. } => is_source() || is_shrunk_image(path, from),
        Work::Labels { rule, image, .. } => {
            is_label_map(path, image) || rule.keeps_values() && is_source()
        }
    }
}

/// Returns whether nothing stands at a path, or a link that leads nowhere.
pub(crate) fn is_free(path: &Path) -> bool {
    fs::metadata(path).is_err()
}

/// Returns whether a file has the form of a converted label map, and the size of its image or of the shrunk image.
///
/// An image whose size is unknown does not tell; the conversion finds out what is wrong with it.
pub(crate) fn is_label_map(path: &Path, image: &Path) -> bool {
    let Ok(original) = image_size(image) else {
        return true;
    };
    let fits = image_size(path).is_ok_and(|made| is_shrunk(made, original));
    fits && has_label_form(path)
}

/// Returns whether a file is a PNG as `write_indexed_png` writes it: indices with VOC's palette, or 16-bit grey.
fn has_label_form(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    if read.is_err() || !head.starts_with(b"\x89PNG") {
        return false;
    }
    // The bit depth and the colour type follow the sides in the header, which is the first chunk.
    match head.get(24..26) {
        Some([8, 3]) => {
            let palette = voc_palette(256).concat();
            head.windows(palette.len()).any(|there| there == palette)
        }
        Some([16, 0]) => true,
        _ => false,
    }
}

/// Returns whether a file is a smaller form of an image.
fn is_shrunk_image(path: &Path, from: &Path) -> bool {
    match (image_size(path), image_size(from)) {
        (Ok(made), Ok(original)) => made != original && is_shrunk(made, original),
        _ => false,
    }
}

/// Returns whether a size is the original one, or one that shrinking gives with any limit.
fn is_shrunk(made: (usize, usize), original: (usize, usize)) -> bool {
    shrunk_size(original, Some(made.0.min(made.1))) == made
}

fn has_same_bytes(a: &Path, b: &Path) -> bool {
    let length = |path: &Path| fs::metadata(path).map(|about| about.len()).ok();
    length(a) == length(b) && matches!((fs::read(a), fs::read(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use zeg_image::{LabelMap, RgbImage, write_indexed_png, write_jpeg, write_rgb_png};

    use super::*;

    #[test]
    fn label_maps_are_known_by_form_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        write_jpeg(&file("image.jpg"), &RgbImage::new(60, 40)).unwrap();
        let is_label_map = |name: &str| is_label_map(&file(name), &file("image.jpg"));
        let label_map = |name: &str, (width, height): (usize, usize), classes: usize| {
            let map = LabelMap::filled(width, height, 1);
            write_indexed_png(&file(name), &map, &voc_palette(classes)).unwrap();
        };
        label_map("whole.png", (60, 40), 20);
        label_map("shrunk.png", (36, 24), 20);
        label_map("wide.png", (60, 40), 847);
        label_map("turned.png", (40, 60), 20);
        write_rgb_png(&file("colour.png"), &RgbImage::new(60, 40)).unwrap();
        fs::write(file("text.png"), "mine").unwrap();
        for own in ["whole.png", "shrunk.png", "wide.png"] {
            assert!(is_label_map(own), "{own}");
        }
        for other in ["turned.png", "colour.png", "text.png"] {
            assert!(!is_label_map(other), "{other}");
        }
    }

    #[test]
    fn an_image_of_the_same_size_is_not_a_shrunk_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for (name, (width, height)) in [
            ("image.jpg", (60, 40)),
            ("same.jpg", (60, 40)),
            ("small.jpg", (36, 24)),
        ] {
            write_jpeg(&file(name), &RgbImage::new(width, height)).unwrap();
        }
        assert!(is_shrunk_image(&file("small.jpg"), &file("image.jpg")));
        assert!(!is_shrunk_image(&file("same.jpg"), &file("image.jpg")));
    }
}
