//! Reads a matrix from a `.npy` file.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

use npyz::half::f16;

use super::layout;
use crate::{ModelError, weights::HostTensor};

/// Number of first bytes that hold the whole header of every usual `.npy` file.
const MOST_HEADER_BYTES: u64 = 1 << 16;
/// Largest depth of brackets in a header: the dictionary, a list of fields, a field and its shape.
const DEEPEST_BRACKETS: usize = 4;
/// Largest number of values in a table; larger ones fit into no memory.
const MOST_VALUES: u64 = 1 << 40;

/// Returns where the text of a header begins and ends in a file, as the file states it; `None` if it is no `.npy` file.
fn stated_header(start: &[u8]) -> Option<[usize; 2]> {
    match *start {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, low, high, ..] => {
            Some([10, 10 + usize::from(u16::from_le_bytes([low, high]))])
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', _, _, a, b, c, d, ..] => {
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            Some([12, length.saturating_add(12)])
        }
        _ => None,
    }
}

/// Returns whether brackets are nested in a header as little as in every header that NumPy writes for plain numbers.
///
/// The library's parser takes exponential time for nested brackets.
fn has_few_brackets(header: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in header {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest <= DEEPEST_BRACKETS
}

/// Returns whether the product of the sizes in the header of a `.npy` file is a possible number of bytes.
///
/// The library multiplies them without a check.
fn has_possible_shape(header: &[u8]) -> bool {
    let header = String::from_utf8_lossy(header);
    let Some((_, shape)) = header.split_once("shape") else {
        return true; // the library refuses the header
    };
    let shape = shape.split_once(')').map_or(shape, |(shape, _)| shape);
    let mut sizes = shape
        .split(|c: char| !c.is_ascii_digit())
        .filter(|size| !size.is_empty());
    let bytes = sizes.try_fold(1_u64, |product, size| {
        product.checked_mul(size.parse::<u64>().ok()?.max(1))
    });
    bytes.is_some_and(|bytes| bytes <= MOST_VALUES)
}

/// Reads an array as `f32`, and returns the type of the stored numbers with it.
///
/// # Errors
/// Returns an error if the file is damaged, is in column-major order, or does not hold floats.
pub(super) fn read_npy(path: &Path) -> Result<(HostTensor, &'static str), ModelError> {
    let file = File::open(path).map_err(|source| ModelError::Read {
        path: path.to_owned(),
        source,
    })?;
    let format = |error: std::io::Error| ModelError::Format {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut reader = BufReader::new(file);
    let mut header = Vec::new();
    let head = reader
        .by_ref()
        .take(MOST_HEADER_BYTES)
        .read_to_end(&mut header);
    head.map_err(format)?;
    let refused = |reason: &str| ModelError::Format {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    // The library takes as much memory as the file states, up to 4 GiB, before it reads. It refuses other files itself.
    if let Some([start, end]) = stated_header(&header) {
        let Some(text) = header.get(start..end) else {
            return Err(refused(
                "the header is longer than the file, or than 64 KiB",
            ));
        };
        if !has_few_brackets(text) {
            return Err(refused("the header has nested brackets"));
        }
    }
    if !has_possible_shape(&header) {
        return Err(refused(
            "the header states a shape that is larger than any memory",
        ));
    }
    let reader = std::io::Cursor::new(header).chain(reader);
    let npy = npyz::NpyFile::new(reader).map_err(format)?;
    let shape: Vec<usize> = npy.shape().iter().map(|&n| n as usize).collect();
    if npy.order() == npyz::Order::Fortran {
        let reason = format!(
            "holds an array of shape {shape:?} in column-major (Fortran) order; save it in C order, with \
             numpy.ascontiguousarray"
        );
        return Err(layout(path, reason));
    }
    let descr = npy.dtype().descr();
    let descr = descr.trim_matches('\'');
    let (values, dtype) = match descr {
        "<f2" => {
            let values = npy.into_vec::<f16>().map_err(format)?;
            (values.into_iter().map(f16::to_f32).collect(), "f16")
        }
        "<f4" => (npy.into_vec::<f32>().map_err(format)?, "f32"),
        "<f8" => {
            let values = npy.into_vec::<f64>().map_err(format)?;
            (values.into_iter().map(|v| v as f32).collect(), "f64")
        }
        other => return Err(layout(path, other_type(other, &shape))),
    };
    Ok((HostTensor { shape, values }, dtype))
}

/// Says what the values of an array are instead of little-endian floats.
fn other_type(descr: &str, shape: &[usize]) -> String {
    let what = if descr.starts_with(">f") {
        "big-endian floats"
    } else if descr.contains("b1") {
        "Boolean values"
    } else if descr.contains(['i', 'u']) {
        "integers"
    } else {
        "values"
    };
    format!(
        "holds {what} (NumPy type {descr}) of shape {shape:?}; class embeddings must be f16, f32 or f64 in little-endian \
         order, such as of array.astype('<f4')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an array of zeros and returns the error of reading it.
    fn error_of(descr: &str, order: &str, shape: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.npy");
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(format!("{header:<117}\n").bytes());
        bytes.extend([0; 64]);
        std::fs::write(&path, bytes).unwrap();
        let error = read_npy(&path).unwrap_err();
        assert!(matches!(error, ModelError::Table { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn an_array_of_another_kind_is_named_with_what_is_expected() {
        for (descr, order, expected) in [
            ("<f4", "True", "column-major"),
            (">f4", "False", "big-endian floats (NumPy type >f4)"),
            ("|b1", "False", "Boolean values"),
            ("<i8", "False", "integers"),
        ] {
            let error = error_of(descr, order, "(2, 2)");
            assert!(
                error.contains(expected) && error.contains("[2, 2]"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_header_that_is_longer_than_the_file_is_refused_before_memory_is_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.npy");
        for start in [
            &b"\x93NUMPY\x02\x00\xf0\xff\xff\xff{'descr': '<f4'"[..],
            b"\x93NUMPY\x03\x00\xff\xff\xff\xff",
            b"\x93NUMPY\x01\x00\xff\xff{'descr': '<f4'",
        ] {
            std::fs::write(&path, start).unwrap();
            let error = read_npy(&path).unwrap_err().to_string();
            assert!(error.contains("header is longer than the file"), "{error}");
        }
        let whole = b"\x93NUMPY\x02\x00\x02\x00\x00\x00{}";
        assert_eq!(stated_header(whole), Some([12, 14]));
        assert_eq!(stated_header(b"\x93NUMPY"), None);
    }

    #[test]
    fn nested_brackets_are_refused_before_they_are_parsed() {
        assert!(has_few_brackets(b"{'descr': '<f4', 'shape': (2, 3), }\n"));
        assert!(!has_few_brackets(
            b"{'descr': [[[[[[[['<f4', 'shape': (2, 3), }\n"
        ));
    }

    #[test]
    fn an_impossible_shape_is_refused_before_it_is_multiplied() {
        let impossible = b"\x93NUMPY\x01\x00\x76\x00{'shape': (9223372036854775808, 4), }";
        assert!(!has_possible_shape(impossible) && has_possible_shape(b"{'shape': (2, 2)}"));
    }
}
