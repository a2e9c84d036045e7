//! Tests that written files read back unchanged, and that a failure leaves an existing file unchanged.

#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use std::fs;

use proptest::prelude::*;
use zeg_image::{
    IGNORE_LABEL, ImageError, LabelMap, RgbImage, decode_labels, decode_rgb, voc_palette,
    write::{ClassNames, MAX_CLASS_NAMES_BYTES},
    write_indexed_png, write_named_png, write_rgb_png,
};

fn any_map(label: impl Strategy<Value = u16> + Clone) -> impl Strategy<Value = LabelMap> {
    (1usize..20, 1usize..20).prop_flat_map(move |(width, height)| {
        prop::collection::vec(label.clone(), width * height)
            .prop_map(move |labels| LabelMap::new(width, height, labels).unwrap())
    })
}

proptest! {
    #[test]
    fn indexed_labels_survive_a_round_trip(map in any_map(0u16..=254), colours in 0usize..256) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.png");
        write_indexed_png(&path, &map, &voc_palette(colours)).unwrap();
        prop_assert_eq!(decode_labels(&path).unwrap(), map);
    }

    #[test]
    fn labels_of_many_classes_survive_a_round_trip(map in any_map(any::<u16>())) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.png");
        write_indexed_png(&path, &map, &voc_palette(847)).unwrap();
        prop_assert_eq!(decode_labels(&path).unwrap(), map);
    }
}

#[test]
fn ignored_pixels_are_255_in_indexed_files_with_their_own_colour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.png");
    let map = LabelMap::new(3, 1, vec![0, 1, IGNORE_LABEL]).unwrap();
    write_indexed_png(&path, &map, &[[9, 9, 9], [10, 20, 30]]).unwrap();
    assert_eq!(decode_labels(&path).unwrap().labels(), [0, 1, 255]);
    let shown = decode_rgb(&path).unwrap();
    assert_eq!(shown.into_raw(), [9, 9, 9, 10, 20, 30, 224, 224, 192]);
}

/// Returns keywords and contents of the text chunks of a PNG, in file order.
fn texts(path: &std::path::Path) -> Vec<(String, String)> {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let chunks = reader.info().utf8_text.iter();
    chunks
        .map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()))
        .collect()
}

#[test]
fn class_names_are_stored_in_the_label_file() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["cat", "say \"miau\"\\", "a\0b\n", "مركبة", ""].map(String::from);
    let map = LabelMap::new(3, 1, vec![0, 4, IGNORE_LABEL]).unwrap();
    // With 5 colours the file is 8-bit indexed, with 300 it is 16-bit grey.
    for colours in [5, 300] {
        let path = folder.path().join("named.png");
        let outcome = write_named_png(&path, &map, &voc_palette(colours), &names).unwrap();
        assert_eq!(outcome, ClassNames::Written);
        let found = texts(&path);
        assert_eq!(found[0].0, "Software");
        assert!(found[0].1.starts_with("zeg "));
        assert_eq!(found[1].0, "zeg:classes");
        let list: Vec<String> = serde_json::from_str(&found[1].1).unwrap();
        assert_eq!(list, names);
        let plain = folder.path().join("plain.png");
        write_indexed_png(&plain, &map, &voc_palette(colours)).unwrap();
        assert_eq!(
            decode_labels(&path).unwrap(),
            decode_labels(&plain).unwrap()
        );
        assert_eq!(texts(&plain), []);
    }
}

#[test]
fn a_list_of_names_that_is_too_long_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("named.png");
    let map = LabelMap::filled(2, 2, 1);
    // In addition to the letters, quotes and commas take 3 bytes per name, and the brackets take 1 byte more.
    let fitting = vec!["a".repeat(MAX_CLASS_NAMES_BYTES / 104 - 4); 104];
    let outcome = write_named_png(&path, &map, &[], &fitting).unwrap();
    assert_eq!(outcome, ClassNames::Written);
    let long = vec!["a".repeat(10_000); 105];
    let outcome = write_named_png(&path, &map, &[], &long).unwrap();
    let bytes = 105 * 10_003 + 1;
    assert_eq!(outcome, ClassNames::TooLong { bytes });
    assert_eq!(decode_labels(&path).unwrap(), map);
    assert_eq!(texts(&path).len(), 1);
}

#[test]
fn images_survive_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.png");
    let image = RgbImage::from_fn(31, 17, |x, y| image::Rgb([x as u8, y as u8, 200]));
    write_rgb_png(&path, &image).unwrap();
    assert_eq!(decode_rgb(&path).unwrap(), image);
}

#[test]
fn a_failed_write_names_the_file_and_leaves_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let occupied = folder.path().join("occupied.png");
    fs::create_dir_all(occupied.join("something")).unwrap();
    let image = RgbImage::new(2, 2);
    let error = write_rgb_png(&occupied, &image).unwrap_err();
    assert!(matches!(error, ImageError::Unwritable { .. }));
    assert!(
        error
            .to_string()
            .contains("occupied.png: cannot be written")
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let nowhere = folder.path().join("no/such/folder/image.png");
    assert!(matches!(
        write_rgb_png(&nowhere, &image),
        Err(ImageError::Unwritable { .. })
    ));
    let empty = folder.path().join("empty.png");
    assert!(matches!(
        write_indexed_png(&empty, &LabelMap::filled(0, 3, 0), &[]),
        Err(ImageError::ZeroSize { .. })
    ));
    assert!(!empty.exists());
}

#[cfg(unix)]
#[test]
fn written_files_have_the_default_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (folder.path().join("ours.png"), folder.path().join("plain"));
    write_rgb_png(&ours, &RgbImage::new(1, 1)).unwrap();
    fs::write(&plain, b"").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}
