//! Tests with MATLAB files written by scipy, files built here, and damaged files.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::*;

const SBD: &[&str] = &["GTcls", "Segmentation"];
const COMPRESSED: &[u8] =
    include_bytes!("../../tests/golden/prepare/voc/benchmark_RELEASE/dataset/cls/2008_000001.mat");
const PLAIN: &[u8] =
    include_bytes!("../../tests/golden/prepare/voc/benchmark_RELEASE/dataset/cls/2008_000002.mat");
const BIG_ENDIAN: &[u8] =
    include_bytes!("../../tests/golden/prepare/voc/benchmark_RELEASE/dataset/cls/2008_000003.mat");
const FRACTIONS: &[u8] =
    include_bytes!("../../tests/golden/prepare/context_mat/trainval/2008_000007.mat");

fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    if kind != TYPE_COMPRESSED {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

fn matrix(name: &str, class: u32, dims: &[i32], data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let mut body = element(TYPE_UINT32, &[class.to_le_bytes(), [0; 4]].concat());
    body.extend(element(TYPE_INT32, &dims));
    body.extend(element(TYPE_INT8, name.as_bytes()));
    body.extend(data);
    element(TYPE_MATRIX, &body)
}

fn file(elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b' '; 124];
    bytes.extend(b"\x00\x01IM");
    bytes.extend(elements);
    bytes
}

fn numbers(kind: u32, data: &[u8]) -> Result<Vec<u16>, MatError> {
    let file = file(&matrix("a", 6, &[1, 2], &element(kind, data)));
    read_labels(&file, &["a"]).map(LabelMap::into_labels)
}

#[test]
fn every_numeric_type_is_read() {
    let both = [7_i64, 200];
    let bytes = |each: &dyn Fn(i64) -> Vec<u8>| both.iter().flat_map(|&n| each(n)).collect();
    let types: [(u32, Vec<u8>); 9] = [
        (2, bytes(&|n| vec![n as u8])),
        (3, bytes(&|n| (n as i16).to_le_bytes().into())),
        (4, bytes(&|n| (n as u16).to_le_bytes().into())),
        (5, bytes(&|n| (n as i32).to_le_bytes().into())),
        (6, bytes(&|n| (n as u32).to_le_bytes().into())),
        (7, bytes(&|n| (n as f32).to_le_bytes().into())),
        (9, bytes(&|n| (n as f64).to_le_bytes().into())),
        (12, bytes(&|n| n.to_le_bytes().into())),
        (13, bytes(&|n| (n as u64).to_le_bytes().into())),
    ];
    for (kind, data) in types {
        assert_eq!(numbers(kind, &data).unwrap(), [7, 200], "type {kind}");
    }
    assert_eq!(numbers(1, &[7, 100]).unwrap(), [7, 100]);
}

#[test]
fn numbers_that_cannot_be_labels_are_refused() {
    for data in [
        1.5_f64.to_le_bytes(),
        (-1.0_f64).to_le_bytes(),
        f64::NAN.to_le_bytes(),
        65536.0_f64.to_le_bytes(),
    ] {
        let error = numbers(9, &[data, 0.0_f64.to_le_bytes()].concat()).unwrap_err();
        assert!(matches!(error, MatError::NotLabels { .. }), "{error}");
    }
    assert!(matches!(
        numbers(1, &[0xff, 0]),
        Err(MatError::NotLabels { .. })
    ));
    assert!(matches!(
        numbers(99, &[0, 0]),
        Err(MatError::NotLabels { .. })
    ));
}

#[test]
fn columns_become_rows() {
    let data = element(2, &[1, 2, 3, 4, 5, 6]);
    let map = read_labels(&file(&matrix("m", 9, &[2, 3], &data)), &["m"]).unwrap();
    assert_eq!((map.width(), map.height()), (3, 2));
    assert_eq!(map.labels(), [1, 3, 5, 2, 4, 6]);
}

#[test]
fn a_missing_variable_or_field_is_named_with_the_existing_ones() {
    let error = read_labels(PLAIN, &["LabelMap"]).unwrap_err();
    assert_eq!(error.to_string(), "holds no `LabelMap`; it holds `GTcls`");
    let error = read_labels(PLAIN, &["GTcls", "Mask"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "holds no `GTcls.Mask`; it holds `Boundaries`, `Segmentation`, `CategoriesPresent`"
    );
    let error = read_labels(PLAIN, &["GTcls", "Boundaries"]).unwrap_err();
    assert!(error.to_string().contains("a cell array"), "{error}");
    let error = read_labels(FRACTIONS, &["LabelMap", "x"]).unwrap_err();
    assert!(error.to_string().contains("not a struct"), "{error}");
}

#[test]
fn other_versions_are_named() {
    let mut hdf = b"MATLAB 7.3 MAT-file".to_vec();
    hdf.resize(512, 0);
    let error = read_labels(&hdf, &["a"]).unwrap_err();
    assert!(error.to_string().contains("7.3"), "{error}");
    assert!(matches!(
        read_labels(&[0; 40], &["a"]),
        Err(MatError::Format { found: None })
    ));
    assert!(matches!(
        read_labels(&file(&[]), &["a"]),
        Err(MatError::Missing { .. })
    ));
}

#[test]
fn sizes_larger_than_the_file_are_refused() {
    let huge = matrix("m", 9, &[i32::MAX, i32::MAX], &element(2, &[1, 2]));
    assert!(matches!(
        read_labels(&file(&huge), &["m"]),
        Err(MatError::Array { .. })
    ));
    let negative = matrix("m", 9, &[-1, -1], &element(2, &[1, 2]));
    assert!(matches!(
        read_labels(&file(&negative), &["m"]),
        Err(MatError::Array { .. })
    ));
    let mut long = element(TYPE_MATRIX, &[0; 8]);
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        read_labels(&file(&long), &["m"]),
        Err(MatError::CutOff { .. })
    ));
}

#[test]
fn a_stream_that_inflates_beyond_the_limit_is_refused() {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..=(MAX_INFLATED >> 20) {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    let error = read_labels(&file(&element(TYPE_COMPRESSED, &bomb)), &["m"]).unwrap_err();
    assert_eq!(
        error,
        MatError::TooLarge {
            limit: MAX_INFLATED
        }
    );
}

#[test]
fn a_compressed_variable_that_is_cut_off_is_refused() {
    // The element's size is corrected, so that only the stream itself is short.
    let mut cut = COMPRESSED[..COMPRESSED.len() - 40].to_vec();
    let left = (cut.len() - HEADER - 8) as u32;
    cut[HEADER + 4..HEADER + 8].copy_from_slice(&left.to_le_bytes());
    assert!(matches!(
        read_labels(&cut, SBD),
        Err(MatError::Inflate { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_files_do_not_panic(
        which in 0_usize..4,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let (original, path): (_, &[&str]) = [
            (COMPRESSED, SBD), (PLAIN, SBD), (BIG_ENDIAN, SBD), (FRACTIONS, &["LabelMap"]),
        ][which];
        let mut bytes = original.to_vec();
        for (index, value) in &flips {
            let index = index.index(bytes.len());
            bytes[index] = *value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(map) = read_labels(&bytes, path) {
            prop_assert!(map.labels().len() as u64 <= MAX_INFLATED);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_labels(&file(&bytes), &["a", "b"]);
    }
}
