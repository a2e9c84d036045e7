//! Label maps out of MATLAB files: as much of the MAT-file format, version 5, as two data sets need.
//!
//! The Semantic Boundaries data set keeps its masks in a struct (`GTcls.Segmentation`), PASCAL Context in a plain
//! array (`LabelMap`). Both were saved by MATLAB 7: each variable is a zlib stream, arrays stand column by column.
//! Everything on the way to the wanted array is skipped by its stated size, nothing is built of it; so cells,
//! sparse matrices and whatever else lies beside it cost nothing. Source of the format: "MAT-File Format",
//! The MathWorks, chapter 1 (level 5).
//!
//! These files come from strangers. Sizes are compared with the bytes that are there before anything is done with
//! them, a stream may inflate to [`MAX_INFLATED`] at most, and nesting is followed only as deep as the wanted
//! array lies.

use std::io::Read;

use flate2::read::ZlibDecoder;
use zeg_image::LabelMap;

/// Most bytes a variable may have when it is inflated. A mask of 500×500 takes 250 kB.
pub(crate) const MAX_INFLATED: u64 = 1 << 26;
/// Bytes before the first element.
const HEADER: usize = 128;
/// Most fields of a struct; `GTcls` has three.
const MAX_FIELDS: usize = 4096;

const TYPE_INT8: u32 = 1;
const TYPE_INT32: u32 = 5;
const TYPE_UINT32: u32 = 6;
const TYPE_MATRIX: u32 = 14;
const TYPE_COMPRESSED: u32 = 15;
const CLASS_STRUCT: u8 = 2;
const FLAG_COMPLEX: u8 = 0x08;

/// Why a MATLAB file gives no label map.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MatError {
    /// The file does not begin as a MAT-file of version 5 does.
    #[error("not a MATLAB 5 file{}", found.map_or_else(String::new, |found| format!(" but {found}")))]
    Format {
        /// What it is instead, if that is known.
        found: Option<&'static str>,
    },
    /// An element states more bytes than are left.
    #[error("cut off: an element of {stated} bytes, where {left} are left")]
    CutOff {
        /// The size it states.
        stated: usize,
        /// Bytes left in the file or the enclosing element.
        left: usize,
    },
    /// A compressed variable is damaged.
    #[error("damaged compressed variable: {reason}")]
    Inflate {
        /// What the decompressor said.
        reason: String,
    },
    /// A compressed variable becomes larger than the limit of 64 MiB.
    #[error("a compressed variable of more than {limit} bytes")]
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
    /// No variable or field of the name.
    #[error("holds no `{wanted}`; it holds {}", if found.is_empty() { "nothing".to_owned() } else { found.join(", ") })]
    Missing {
        /// The variable or field looked for.
        wanted: String,
        /// Names of those there are, the first few.
        found: Vec<String>,
    },
    /// The array is no map of labels.
    #[error("`{name}` is {found}, not a matrix of whole numbers from 0 to 65535")]
    NotLabels {
        /// The variable or field.
        name: String,
        /// What it is.
        found: String,
    },
}

#[cfg(test)]
#[path = "matlab_tests.rs"]
mod tests;

/// Reads the label map at `path` (a variable, then the fields below it) from the content of a MATLAB file.
///
/// The map has the array's columns as its width and the rows as its height, as a viewer shows it.
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

/// Follows the fields from a struct down to the array.
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

/// Checks the first 128 bytes: a text, the version and the characters `MI` as a 16-bit number.
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

/// A tagged run of bytes, the file format's only building block.
#[derive(Debug, Clone, Copy)]
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

/// The elements that follow each other in a run of bytes.
struct Elements<'a> {
    rest: &'a [u8],
    order: Order,
}

impl<'a> Elements<'a> {
    fn new(bytes: &'a [u8], order: Order) -> Self {
        Self { rest: bytes, order }
    }

    /// The next element; `None` where fewer bytes are left than a tag has.
    fn next(&mut self) -> Result<Option<Element<'a>>, MatError> {
        let Some((&tag, body)) = self.rest.split_first_chunk::<8>() else {
            self.rest = &[];
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = tag;
        let word = self.order.u32([a, b, c, d]);
        let short = (word >> 16) as usize;
        if short != 0 {
            // The small form: size and type in one word, up to four bytes of data in the other.
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
        // Data fills up to a multiple of 8 bytes, except compressed ones; the last filling may be absent.
        let taken = if word == TYPE_COMPRESSED {
            stated
        } else {
            stated.next_multiple_of(8).min(body.len())
        };
        self.rest = body.get(taken..).unwrap_or_default();
        Ok(Some(Element { kind: word, data }))
    }

    /// The next element, which must be there; `part` names it in the error.
    fn expect(&mut self, part: &str) -> Result<Element<'a>, MatError> {
        self.next()?
            .ok_or_else(|| damaged(format!("it ends before its {part}")))
    }
}

/// An array with its head read; what follows the head depends on the class.
struct Array<'a> {
    class: u8,
    complex: bool,
    dims: Vec<usize>,
    name: &'a [u8],
    rest: Elements<'a>,
}

impl<'a> Array<'a> {
    /// Reads flags, dimensions and name of the content of a matrix element.
    fn parse(data: &'a [u8], order: Order) -> Result<Self, MatError> {
        let mut rest = Elements::new(data, order);
        let flags = rest.expect("flags")?;
        let word = match (flags.kind, flags.data.first_chunk::<4>()) {
            (TYPE_UINT32, Some(&bytes)) => order.u32(bytes),
            _ => return Err(damaged("it does not begin with its flags")),
        };
        let [_, _, flag_bits, class] = word.to_be_bytes();
        let dims = rest.expect("dimensions")?;
        if dims.kind != TYPE_INT32 {
            return Err(damaged(format!("dimensions of type {}", dims.kind)));
        }
        let dims = dims.data.as_chunks::<4>().0.iter().take(8);
        let dims = dims.map(|&bytes| order.u32(bytes) as usize).collect();
        let name = rest.expect("name")?;
        if name.kind != TYPE_INT8 {
            return Err(damaged(format!("a name of type {}", name.kind)));
        }
        Ok(Self {
            class,
            complex: flag_bits & FLAG_COMPLEX != 0,
            dims,
            name: name.data,
            rest,
        })
    }

    /// The field of a struct of one element.
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
            return Err(damaged(format!("field names of {length} bytes each")));
        }
        let mut found = Vec::new();
        for field in names.chunks_exact(length) {
            let field = field.split(|&byte| byte == 0).next().unwrap_or_default();
            let element = rest.expect("fields")?;
            if field == wanted.as_bytes() {
                return if element.kind == TYPE_MATRIX {
                    Self::parse(element.data, order)
                } else {
                    Err(damaged(format!("a field of type {}", element.kind)))
                };
            }
            remember(&mut found, field);
        }
        Err(missing(&format!("{name}.{wanted}"), found))
    }

    /// The numbers of a matrix as labels, turned from columns to rows.
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
            let there = columns.len();
            return Err(damaged(format!(
                "{there} numbers for {height}×{width} places"
            )));
        };
        let mut labels = Vec::with_capacity(count); // [height, width]; no more than the bytes that were there
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

/// Numbers in any of the types they are stored as, which may be smaller than the array's own class.
struct Numbers<'a> {
    data: &'a [u8],
    order: Order,
    read: fn([u8; 8]) -> f64,
    size: usize,
}

impl<'a> Numbers<'a> {
    /// `None` for types that hold no numbers.
    fn new(element: Element<'a>, order: Order) -> Option<Self> {
        // Each reader takes the number's bytes little end first, filled up with zeros.
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
        6 | 7 => "a matrix of fractions".into(),
        8..=15 => "a matrix of whole numbers".into(),
        other => format!("an array of class {other}"),
    }
}

/// Keeps the first few names for an error message.
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
