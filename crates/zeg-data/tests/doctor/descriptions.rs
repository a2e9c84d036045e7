//! Faults of data sets that a description names.

use super::*;

#[test]
fn masks_below_the_threshold_and_grey_masks() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a.jpg", "a.png", 1);
    write_pair(folder.path(), "b.jpg", "b.png", 2);
    let grey = write_pair(folder.path(), "c.jpg", "c.png", 3);
    GrayImage::from_fn(16, 8, |x, _| Luma([16 * x as u8]))
        .save(grey)
        .unwrap();
    let toml = folder.path().join("gut.toml");
    fs::write(
        &toml,
        format!("{MASKS}kind = 'binary'\nclasses = ['background', 'polyp']"),
    )
    .unwrap();
    let diagnosis = examine_in(toml.to_str().unwrap(), Path::new(""), "all");
    let finding = find(&diagnosis, "mask-below-threshold");
    assert_eq!((finding.severity, finding.count), (Error, 2));
    assert!(
        finding.message.contains("a.png: the brightest level is 2"),
        "{finding:?}"
    );
    names(&find(&diagnosis, "grey-mask"), Warning, "c.png");
}

/// Masks in the alpha channel, and masks of 16 bits with 0 and 255, have the same upper bits in every pixel.
#[test]
fn masks_that_would_be_read_as_empty() {
    let folder = tempfile::tempdir().unwrap();
    let alpha = write_pair(folder.path(), "a.jpg", "a.png", 1);
    let is_object = |x: u32| x >= 8;
    RgbaImage::from_fn(16, 8, |x, _| Rgba([0, 0, 0, 255 * u8::from(is_object(x))]))
        .save(alpha)
        .unwrap();
    let deep = write_pair(folder.path(), "b.jpg", "b.png", 2);
    let map: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_fn(16, 8, |x, _| Luma([255 * u16::from(is_object(x))]));
    map.save(deep).unwrap();
    let toml = folder.path().join("gut.toml");
    for kind in [
        "'binary'\nclasses = ['background', 'polyp']",
        "'palette'\nclasses = [{ name = 'wall', colour = '#000000' }, { name = 'polyp', colour = '#0000ff' }]",
    ] {
        fs::write(&toml, format!("{MASKS}kind = {kind}")).unwrap();
        let toml = toml.to_str().unwrap();
        let diagnosis = examine_in(toml, Path::new(""), "all");
        names(&find(&diagnosis, "mask-in-alpha"), Error, "a.png");
        names(&find(&diagnosis, "mask-below-upper-bits"), Error, "b.png");
        let dataset = common::open(toml, Path::new(""), "all").unwrap();
        assert!(dataset.load(0).is_err() && dataset.load(1).is_err());
    }
}

#[test]
fn a_class_that_fills_the_whole_split_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    for (image, labels) in [("a.jpg", "a.png"), ("b.jpg", "b.png")] {
        let path = write_pair(folder.path(), image, labels, labels.len() as u8);
        GrayImage::new(16, 8).save(path).unwrap();
    }
    let toml = folder.path().join("gut.toml");
    let text = format!("{MASKS}kind = 'binary'\nclasses = ['background', 'polyp']");
    fs::write(&toml, text).unwrap();
    let diagnosis = examine_in(toml.to_str().unwrap(), Path::new(""), "all");
    names(
        &find(&diagnosis, "one-class"),
        Warning,
        "only background occurs",
    );
}

#[test]
fn illegal_colours() {
    let folder = tempfile::tempdir().unwrap();
    let labels = write_pair(folder.path(), "a.jpg", "a.png", 1);
    let colour = |x: u32| {
        if x < 3 {
            Rgb([9, 8, 7])
        } else {
            Rgb([0, 0, 0])
        }
    };
    RgbImage::from_fn(16, 8, |x, _| colour(x))
        .save(labels)
        .unwrap();
    let toml = folder.path().join("gut.toml");
    let text = format!(
        "{MASKS}kind = 'palette'\nclasses = [{{ name = 'wall', colour = '#000000' }}, {{ name = 'polyp', colour = '#ffffff' }}]"
    );
    fs::write(&toml, text).unwrap();
    let diagnosis = examine_in(toml.to_str().unwrap(), Path::new(""), "all");
    names(
        &find(&diagnosis, "illegal-colour"),
        Error,
        "a.png: colour #090807 in 24 pixels",
    );
    assert_eq!(diagnosis.classes[0].pixels, 16 * 8 - 24);
}

#[test]
fn overlapping_splits_of_a_description() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        write_pair(
            folder.path(),
            &format!("{number}.jpg"),
            &format!("{number}.png"),
            number,
        );
    }
    let toml = folder.path().join("gut.toml");
    let text = format!(
        "{MASKS}kind = 'index'\nclasses = ['a', 'b', 'c', 'd', 'e']\n[splits]\ntrain = ['0', '1']\nval = ['1', '2']\nall = 'all'"
    );
    fs::write(&toml, text).unwrap();
    let toml = toml.to_str().unwrap();
    let diagnosis = examine_in(toml, Path::new(""), "train");
    names(
        &find(&diagnosis, "train-val-overlap"),
        Error,
        "`1` is in train and in val",
    );
    assert!(!problems(&examine_in(toml, Path::new(""), "all")).contains(&"train-val-overlap"));
}
