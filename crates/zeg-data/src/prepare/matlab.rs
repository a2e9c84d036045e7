//! Reads label maps from MATLAB files: the part of the MAT-file format, version 5, that two data sets need.
//!
//! The Semantic Boundaries data set stores its masks in a struct (`GTcls.Segmentation`), PASCAL Context in a plain
//! array (`LabelMap`). Both were saved by MATLAB 7: each variable is a zlib stream, and arrays are stored column by
//! column. All elements before the wanted array are skipped by their stated size and not parsed, so cells, sparse
//! matrices and other content need no support. Source of the format: "MAT-File Format", The MathWorks, chapter 1
//! (level 5).
//!
//! The files are untrusted. Sizes are compared with the number of available bytes before they are used, a stream may
//! inflate to [`MAX_INFLATED`] bytes at most, and nesting is followed only as deep as the wanted array.

use std::io::Read;

use flate2::read::ZlibDecoder;
use zeg_image::LabelMap;

/// Largest size of an inflated variable, in bytes. A mask of 500×500 takes 250 kB.
pub(crate) const MAX_INFLATED: u64 = 1 << 26;
/// Number of bytes before the first element.
const HEADER: usize = 128;
/// Largest number of fields of a struct; `GTcls` has three.
const MAX_FIELDS: usize = 4096;

const TYPE_INT8: u32 = 1;
const TYPE_INT32: u32 = 5;
const TYPE_UINT32: u32 = 6;
const TYPE_MATRIX: u32 = 14;
const TYPE_COMPRESSED: u32 = 15;
const CLASS_STRUCT: u8 = 2;
const FLAG_COMPLEX: u8 = 0x08;

/// An error of reading a label map from a MATLAB file.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MatError {
    /// The file does not begin like a MAT-file of version 5.
    #[error("not a MATLAB 5 file{}", found.map_or_else(String::new, |found| format!(" but {found}")))]
    Format {
        /// The format of the file, if it was recognised.
        found: Option<&'static str>,
    },
    /// An element states more bytes than are left.
    #[error("the file is cut off: an element should have {stated} bytes, but only {left} are left")]
    CutOff {
        /// The size that the element states, in bytes.
        stated: usize,
        /// Number of bytes left in the file or the enclosing element.
        left: usize,
    },
    /// A compressed variable is damaged.
    #[error("damaged compressed variable: {reason}")]
    Inflate {
        /// The error of the decompressor.
        reason: String,
    },
    /// A compressed variable inflates to more than the limit of 64 MiB.
    #[error("a compressed variable inflates to more than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Parts of an array contradict each other.
    #[error("damaged array: {reason}")]
    Array {
        /// What is wrong.
        reason: String,
    },
    /// There is no variable or field of this name.
    #[error("holds no `{wanted}`; it holds {}", if found.is_empty() { "nothing".to_owned() } else { found.join(", ") })]
    Missing {
        /// The variable or field that was looked for.
        wanted: String,
        /// Names of the first few existing variables or fields.
        found: Vec<String>,
    },
    /// The array cannot be a label map.
    #[error("`{name}` is {found}, not a matrix of whole numbers from 0 to 65535")]
    NotLabels {
        /// The variable or field.
        name: String,
        /// A description of what it is.
        found: String,
    },
}

#[cfg(test)]
#[path = "matlab_tests.rs"]
mod tests;

/// Reads the label map at `path` (a variable, then the fields below it) from the content of a MATLAB file.
///
/// The width of the map is the array's number of columns, its height the number of rows.
pub(crate) fn read_labels(bytes: &[u8], path: &[&str]) -> Result<LabelMap, MatError> {
    let order = check_header(bytes)?;
    let Some((&variable, fields)) = path.split_first() else {
        return Err(missing("", Vec::new()));
    };
    let mut rest = Elements::new(bytes.get(HEADER..).unwrap_or_default(), order);
    let mut names = Vec::new();
    while let Some(element) = rest.next()? {
        let inflated;
        let element = if element.kind == TYPE_COMPRESSED {
            inflated = inflate(element.data)?;
            match Elements::new(&inflated, order).next()? {
                Some(element) => element,
                None => continue,
            }
        } else {
            element
        };
        if element.kind != TYPE_MATRIX {
            continue;
        }
        let array = Array::parse(element.data, order)?;
        if array.name == variable.as_bytes() {
            return labels_below(array, variable, fields);
        }
        remember(&mut names, array.name);
    }
    Err(missing(variable, names))
}

/// Follows the fields from a struct to the array and reads its labels.
fn labels_below(array: Array, name: &str, fields: &[&str]) -> Result<LabelMap, MatError> {
    match fields.split_first() {
        None => array.labels(name),
        Some((field, rest)) => labels_below(array.field(field)?, field, rest),
    }
}

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

/// Checks the first 128 bytes (a text, the version and the characters `MI` as a 16-bit number); returns the byte order.
fn check_header(bytes: &[u8]) -> Result<Order, MatError> {
    if bytes.starts_with(b"\x89HDF") || bytes.starts_with(b"MATLAB 7.3") {
        return Err(MatError::Format {
            found: Some("MATLAB 7.3 (HDF5); save it with `-v7`"),
        });
    }
    match bytes.get(124..HEADER) {
        Some([_, 1, b'I', b'M']) => Ok(Order::Little),
        Some([1, _, b'M', b'I']) => Ok(Order::Big),
        _ => Err(MatError::Format { found: None }),
    }
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, MatError> {
    let mut inflated = Vec::new();
    let mut decoder = ZlibDecoder::new(data).take(MAX_INFLATED + 1);
    decoder
        .read_to_end(&mut inflated)
        .map_err(|error| MatError::Inflate {
            reason: error.to_string(),
        })?;
    if inflated.len() as u64 > MAX_INFLATED {
        return Err(MatError::TooLarge {
            limit: MAX_INFLATED,
        });
    }
    Ok(inflated)
}

/// A tagged run of bytes, the only building block of the file format.
#[derive(Debug, Clone, Copy)]
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

/// Reader of the consecutive elements in a run of bytes.
struct Elements<'a> {
    rest: &'a [u8],
    order: Order,
}

impl<'a> Elements<'a> {
    fn new(bytes: &'a [u8], order: Order) -> Self {
        Self { rest: bytes, order }
    }

    /// Returns the next element, or `None` if fewer bytes are left than a tag has.
    fn next(&mut self) -> Result<Option<Element<'a>>, MatError> {
        let Some((&tag, body)) = self.rest.split_first_chunk::<8>() else {
            self.rest = &[];
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = tag;
        let word = self.order.u32([a, b, c, d]);
        let short = (word >> 16) as usize;
        if short != 0 {
            // The small form has size and type in the first word and up to four bytes of data in the second.
            let all: &'a [u8] = self.rest;
            let data = all.get(4..8).and_then(|data| data.get(..short));
            let data = data.ok_or(MatError::CutOff {
                stated: short,
                left: 4,
            })?;
            self.rest = body;
            return Ok(Some(Element {
                kind: word & 0xffff,
                data,
            }));
        }
        let stated = self.order.u32([e, f, g, h]) as usize;
        let data = body.get(..stated).ok_or(MatError::CutOff {
            stated,
            left: body.len(),
        })?;
        // Data are padded to a multiple of 8 bytes, except compressed data; the last padding may be absent.
        let taken = if word == TYPE_COMPRESSED {
            stated
        } else {
            stated.next_multiple_of(8).min(body.len())
        };
        self.rest = body.get(taken..).unwrap_or_default();
        Ok(Some(Element { kind: word, data }))
    }

    /// Returns the next element, or an error that names it as `part`.
    fn expect(&mut self, part: &str) -> Result<Element<'a>, MatError> {
        self.next()?
            .ok_or_else(|| damaged(format!("the array ends before its {part}")))
    }
}

/// An array whose head has been read; the rest depends on its class.
struct Array<'a> {
    class: u8,
    complex: bool,
    dims: Vec<usize>,
    name: &'a [u8],
    rest: Elements<'a>,
}

impl<'a> Array<'a> {
    /// Reads the flags, dimensions and name from the content of a matrix element.
    fn parse(data: &'a [u8], order: Order) -> Result<Self, MatError> {
        let mut rest = Elements::new(data, order);
        let flags = rest.expect("flags")?;
        let word = match (flags.kind, flags.data.first_chunk::<4>()) {
            (TYPE_UINT32, Some(&bytes)) => order.u32(bytes),
            _ => return Err(damaged("the array does not begin with its flags")),
        };
        let [_, _, flag_bits, class] = word.to_be_bytes();
        let dims = rest.expect("dimensions")?;
        if dims.kind != TYPE_INT32 {
            return Err(damaged(format!(
                "its dimensions are stored as type {}, not {TYPE_INT32}",
                dims.kind
            )));
        }
        let dims = dims.data.as_chunks::<4>().0.iter().take(8);
        let dims = dims.map(|&bytes| order.u32(bytes) as usize).collect();
        let name = rest.expect("name")?;
        if name.kind != TYPE_INT8 {
            return Err(damaged(format!(
                "its name is stored as type {}, not {TYPE_INT8}",
                name.kind
            )));
        }
        Ok(Self {
            class,
            complex: flag_bits & FLAG_COMPLEX != 0,
            dims,
            name: name.data,
            rest,
        })
    }

    /// Returns a field of a struct with one element.
    fn field(self, wanted: &str) -> Result<Self, MatError> {
        let name = String::from_utf8_lossy(self.name).into_owned();
        if self.class != CLASS_STRUCT {
            return Err(not_labels(
                &name,
                format!("{}, not a struct", class_name(self.class)),
            ));
        }
        let mut rest = self.rest;
        let order = rest.order;
        let length = rest.expect("length of field names")?;
        let length = match length.data.first_chunk::<4>() {
            Some(&bytes) if length.kind == TYPE_INT32 => order.u32(bytes) as usize,
            _ => 0,
        };
        let names = rest.expect("field names")?.data;
        if length == 0 || names.len() / length > MAX_FIELDS {
            return Err(damaged(format!(
                "{} bytes of field names of {length} bytes each; a struct may have at most {MAX_FIELDS} fields",
                names.len()
            )));
        }
        let mut found = Vec::new();
        for field in names.chunks_exact(length) {
            let field = field.split(|&byte| byte == 0).next().unwrap_or_default();
            let element = rest.expect("fields")?;
            if field == wanted.as_bytes() {
                return if element.kind == TYPE_MATRIX {
                    Self::parse(element.data, order)
                } else {
                    Err(damaged(format!(
                        "its field `{wanted}` has type {}, not {TYPE_MATRIX}",
                        element.kind
                    )))
                };
            }
            remember(&mut found, field);
        }
        Err(missing(&format!("{name}.{wanted}"), found))
    }

    /// Returns the numbers of a matrix as labels, reordered from columns to rows.
    fn labels(mut self, name: &str) -> Result<LabelMap, MatError> {
        let numeric = (6..=15).contains(&self.class) && !self.complex;
        let &[height, width] = self.dims.as_slice() else {
            return Err(not_labels(
                name,
                format!("an array of {} dimensions", self.dims.len()),
            ));
        };
        if !numeric {
            let complex = if self.complex { "complex " } else { "" };
            return Err(not_labels(
                name,
                format!("{complex}{}", class_name(self.class)),
            ));
        }
        let order = self.rest.order;
        let numbers = self.rest.expect("numbers")?;
        let columns = Numbers::new(numbers, order)
            .ok_or_else(|| not_labels(name, format!("stored as type {}", numbers.kind)))?;
        let count = width
            .checked_mul(height)
            .filter(|&count| count == columns.len());
        let Some(count) = count else {
            let found = columns.len();
            return Err(damaged(format!(
                "it has {found} numbers for {height} rows and {width} columns"
            )));
        };
        let mut labels = Vec::with_capacity(count); // [height, width]; count is at most the number of bytes in the file
        for y in 0..height {
            for x in 0..width {
                let value = columns.get(x * height + y).unwrap_or(f64::NAN);
                if value.fract() != 0.0 || !(0.0..=65535.0).contains(&value) {
                    return Err(not_labels(name, format!("a matrix with the value {value}")));
                }
                labels.push(value as u16);
            }
        }
        LabelMap::new(width, height, labels).map_err(|error| damaged(error.to_string()))
    }
}

/// Numbers in their storage type, which may be smaller than the type of the array's class.
struct Numbers<'a> {
    data: &'a [u8],
    order: Order,
    read: fn([u8; 8]) -> f64,
    size: usize,
}

impl<'a> Numbers<'a> {
    /// Returns the numbers of an element, or `None` if its type is not numeric.
    fn new(element: Element<'a>, order: Order) -> Option<Self> {
        // Each reader takes the number's bytes in little-endian order, padded with zeros.
        let (size, read): (usize, fn([u8; 8]) -> f64) = match element.kind {
            1 => (1, |b| f64::from(b[0] as i8)),
            2 => (1, |b| f64::from(b[0])),
            3 => (2, |b| f64::from(i16::from_le_bytes([b[0], b[1]]))),
            4 => (2, |b| f64::from(u16::from_le_bytes([b[0], b[1]]))),
            5 => (4, |b| {
                f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }),
            6 => (4, |b| {
                f64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }),
            7 => (4, |b| {
                f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }),
            9 => (8, f64::from_le_bytes),
            12 => (8, |b| i64::from_le_bytes(b) as f64),
            13 => (8, |b| u64::from_le_bytes(b) as f64),
            _ => return None,
        };
        Some(Self {
            data: element.data,
            order,
            read,
            size,
        })
    }

    fn len(&self) -> usize {
        self.data.len() / self.size
    }

    fn get(&self, index: usize) -> Option<f64> {
        let start = index.checked_mul(self.size)?;
        let bytes = self.data.get(start..start.checked_add(self.size)?)?;
        let mut filled = [0; 8];
        for (place, &byte) in filled.iter_mut().zip(bytes) {
            *place = byte;
        }
        if self.order == Order::Big {
            filled.get_mut(..self.size)?.reverse();
        }
        Some((self.read)(filled))
    }
}

fn class_name(class: u8) -> String {
    match class {
        1 => "a cell array".into(),
        2 => "a struct".into(),
        3 => "an object".into(),
        4 => "text".into(),
        5 => "a sparse matrix".into(),
        6 | 7 => "a matrix of floating-point numbers".into(),
        8..=15 => "a matrix of whole numbers".into(),
        other => format!("an array of class {other}"),
    }
}

/// Adds a name to the first few names for an error message.
fn remember(names: &mut Vec<String>, name: &[u8]) {
    if names.len() < 8 {
        let name = name.get(..64).unwrap_or(name);
        names.push(format!("`{}`", String::from_utf8_lossy(name)));
    }
}

fn missing(wanted: &str, found: Vec<String>) -> MatError {
    MatError::Missing {
        wanted: wanted.to_owned(),
        found,
    }
}

fn damaged(reason: impl Into<String>) -> MatError {
    MatError::Array {
        reason: reason.into(),
    }
}

fn not_labels(name: &str, found: String) -> MatError {
    MatError::NotLabels {
        name: name.to_owned(),
        found,
    }
}
