//! Rewrites a sequential JPEG whose components are in several scans as one with a single scan.
//!
//! The decoder returns stripes for such a file if its colours are subsampled vertically (etemesi254/zune-image#341).
//! Both files hold the same coefficients in another order, so nothing is lost: the coefficients are decoded
//! (ITU T.81, annex F.2) and coded again with plain tables. Progressive files are not concerned.

use std::borrow::Cow;
use std::path::Path;

use crate::ImageError;
use crate::decode::corrupt;
use crate::jpeg_frame::{Component, Frame};
use crate::jpeg_huffman::{BitReader, BitWriter, Block, Code, Decoder, decode_block, encode_block};

/// Markers, each without its first byte 0xFF (ITU T.81, table B.1).
const HUFFMAN_TABLES: u8 = 0xC4;
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;
const QUANTISATION_TABLES: u8 = 0xDB;
const NUMBER_OF_LINES: u8 = 0xDC;
const RESTART_INTERVAL: u8 = 0xDD;
/// Number of tables of each kind.
const TABLES: usize = 4;

/// Returns the file with all components in one scan; a file that is so already, or is progressive, is unchanged.
///
/// The size in `frame` must have been checked.
pub(crate) fn as_one_scan<'a>(
    bytes: &'a [u8],
    frame: &Frame,
    name: &Path,
) -> Result<Cow<'a, [u8]>, ImageError> {
    // A file without a scan is left to the decoder.
    let is_split = first_scan(bytes).is_some_and(|count| count < frame.components.len());
    if !frame.is_sequential() || !is_split {
        return Ok(Cow::Borrowed(bytes));
    }
    let refuse = |reason: &str| corrupt(name, reason);
    let mut file = File::new(frame).map_err(refuse)?;
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut scans = 0;
    while let Some((marker, content, after)) = next_segment(rest) {
        rest = after;
        match marker {
            END_OF_IMAGE => break,
            START_OF_SCAN => {
                scans += 1;
                let scan = file.scan(content).map_err(refuse)?;
                file.read_scan(&scan, after).map_err(refuse)?;
            }
            QUANTISATION_TABLES => file.read_quantisation(content).map_err(refuse)?,
            HUFFMAN_TABLES => file.read_huffman(content).map_err(refuse)?,
            RESTART_INTERVAL => {
                let interval = content
                    .first_chunk()
                    .map(|value| u16::from_be_bytes(*value));
                file.restart = usize::from(interval.ok_or_else(|| refuse("the DRI is too short"))?);
            }
            NUMBER_OF_LINES | 0xC0..=0xCF => {}
            // Segments for applications tell how the components are to be read as colours.
            _ if scans == 0 => file.kept.extend(segment(marker, content)),
            _ => {}
        }
    }
    file.write().map(Cow::Owned).map_err(refuse)
}

/// The blocks of a component, in rows that are padded to whole units of the frame.
struct Plane {
    component: Component,
    /// Number of blocks in a row and of rows that hold pixels.
    real: (usize, usize),
    /// Number of blocks in a row and of rows in the file with one scan.
    padded: (usize, usize),
    /// The blocks, row by row.
    blocks: Vec<Block>,
    /// Number of bits of the quantisation table's values (0: 8, 1: 16), and the values.
    quantisation: Option<(u8, Vec<u8>)>,
}

/// A component in a scan, with its tables.
struct Part {
    plane: usize,
    dc: Decoder,
    ac: Decoder,
}

/// What has been read of a file.
struct File<'a> {
    frame: &'a Frame,
    /// Number of units, which hold a block or more of every component, in a row, and number of rows.
    units: (usize, usize),
    planes: Vec<Plane>,
    quantisation: [Option<(u8, Vec<u8>)>; TABLES],
    dc: [Option<Decoder>; TABLES],
    ac: [Option<Decoder>; TABLES],
    /// Number of units between restart markers; 0 means no restart.
    restart: usize,
    /// Segments that are copied.
    kept: Vec<u8>,
}

type Reason = &'static str;

impl<'a> File<'a> {
    fn new(frame: &'a Frame) -> Result<Self, Reason> {
        let factors = || frame.components.iter().map(|c| (c.across, c.down));
        if factors().any(|(across, down)| !(1..=4).contains(&across) || !(1..=4).contains(&down)) {
            return Err("a sampling factor is not 1 to 4");
        }
        let across = factors().map(|(across, _)| across).max().unwrap_or(1);
        let down = factors().map(|(_, down)| down).max().unwrap_or(1);
        let units = (
            frame.width.div_ceil(8 * across),
            frame.height.div_ceil(8 * down),
        );
        let plane = |&component: &Component| Plane {
            component,
            real: (
                (frame.width * component.across)
                    .div_ceil(across)
                    .div_ceil(8),
                (frame.height * component.down).div_ceil(down).div_ceil(8),
            ),
            padded: (units.0 * component.across, units.1 * component.down),
            blocks: Vec::new(),
            quantisation: None,
        };
        Ok(Self {
            frame,
            units,
            planes: frame.components.iter().map(plane).collect(),
            quantisation: Default::default(),
            dc: Default::default(),
            ac: Default::default(),
            restart: 0,
            kept: Vec::new(),
        })
    }

    fn read_quantisation(&mut self, mut content: &[u8]) -> Result<(), Reason> {
        while let Some((&head, rest)) = content.split_first() {
            let (wide, number) = (head >> 4, usize::from(head & 0xF));
            let length = if wide == 0 { 64 } else { 128 };
            let (values, rest) = rest
                .split_at_checked(length)
                .ok_or("a quantisation table is too short")?;
            let place = self.quantisation.get_mut(number);
            *place.ok_or("a quantisation table has a number above 3")? =
                Some((wide.min(1), values.to_vec()));
            content = rest;
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut content: &[u8]) -> Result<(), Reason> {
        while let Some((&head, rest)) = content.split_first() {
            let (decoder, rest) = Decoder::parse(rest)?;
            let tables = if head >> 4 == 0 {
                &mut self.dc
            } else {
                &mut self.ac
            };
            let place = tables.get_mut(usize::from(head & 0xF));
            *place.ok_or("a Huffman table has a number above 3")? = Some(decoder);
            content = rest;
        }
        Ok(())
    }

    /// Parses the header of a scan.
    fn scan(&self, content: &[u8]) -> Result<Vec<Part>, Reason> {
        let (&count, rest) = content.split_first().ok_or("a scan has no header")?;
        let parts = rest.as_chunks::<2>().0.iter().take(usize::from(count));
        let parts = parts.map(|&[id, tables]| {
            let mut planes = self.planes.iter();
            let table = |tables: &[Option<Decoder>; TABLES], number: u8| {
                let table = tables.get(usize::from(number)).cloned().flatten();
                table.ok_or("a scan uses a Huffman table that the file lacks")
            };
            Ok(Part {
                plane: planes
                    .position(|plane| plane.component.id == id)
                    .ok_or("a scan has a component that the frame lacks")?,
                dc: table(&self.dc, tables >> 4)?,
                ac: table(&self.ac, tables & 0xF)?,
            })
        });
        let parts = parts.collect::<Result<Vec<Part>, Reason>>()?;
        if parts.is_empty() || parts.len() != usize::from(count) {
            return Err("the header of a scan is too short");
        }
        Ok(parts)
    }

    /// Decodes the blocks of a scan, whose data are at the start of `data`.
    fn read_scan(&mut self, scan: &[Part], data: &[u8]) -> Result<(), Reason> {
        for part in scan {
            let plane = plane(&mut self.planes, part.plane)?;
            let table = self.quantisation.get(usize::from(plane.component.table));
            let table = table.cloned().flatten();
            plane.quantisation =
                Some(table.ok_or("a component uses a quantisation table that the file lacks")?);
            plane.blocks = vec![Block::default(); plane.padded.0 * plane.padded.1];
        }
        let alone = match scan {
            [part] => Some(plane(&mut self.planes, part.plane)?.real),
            _ => None,
        };
        let (columns, rows) = alone.unwrap_or(self.units);
        let mut bits = BitReader::new(data);
        let mut predictions = vec![0_i32; scan.len()];
        for unit in 0..columns * rows {
            if self.restart > 0 && unit > 0 && unit.is_multiple_of(self.restart) {
                bits.restart()?;
                predictions.fill(0);
            }
            let (x, y) = (unit % columns, unit / columns);
            for (part, prediction) in scan.iter().zip(&mut predictions) {
                let plane = plane(&mut self.planes, part.plane)?;
                let (across, down) = match alone {
                    Some(_) => (1, 1),
                    None => (plane.component.across, plane.component.down),
                };
                for (dy, dx) in (0..down).flat_map(|dy| (0..across).map(move |dx| (dy, dx))) {
                    let place = (y * down + dy) * plane.padded.0 + x * across + dx;
                    let block = plane.blocks.get_mut(place);
                    let block = block.ok_or("a scan has more blocks than its frame")?;
                    decode_block(&mut bits, (&part.dc, &part.ac), prediction, block)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the file with one scan.
    fn write(mut self) -> Result<Vec<u8>, Reason> {
        let mut bytes = vec![0xFF, START_OF_IMAGE];
        bytes.extend(&self.kept);
        let frame = self.frame;
        let size = [frame.height as u16, frame.width as u16].map(u16::to_be_bytes);
        let mut header = vec![frame.bits];
        header.extend(size.as_flattened());
        header.push(frame.components.len() as u8);
        let mut scan = vec![frame.components.len() as u8];
        for (number, plane) in (0_u8..).zip(&mut self.planes) {
            let Some((wide, values)) = &plane.quantisation else {
                return Err("a component is in no scan");
            };
            let table = [&[wide << 4 | number], &values[..]].concat();
            bytes.extend(segment(QUANTISATION_TABLES, &table));
            let Component {
                id, across, down, ..
            } = plane.component;
            header.extend([id, (across << 4 | down) as u8, number]);
            scan.extend([id, 0]); // both tables have the number 0
            plane.pad();
        }
        scan.extend([0, 63, 0]);
        let (dc, ac) = (Code::dc(), Code::ac());
        bytes.extend(segment(frame.marker, &header));
        bytes.extend(segment(HUFFMAN_TABLES, &dc.table(0x00)));
        bytes.extend(segment(HUFFMAN_TABLES, &ac.table(0x10)));
        bytes.extend(segment(START_OF_SCAN, &scan));
        self.write_blocks(BitWriter::new(&mut bytes), &dc, &ac)?;
        bytes.extend([0xFF, END_OF_IMAGE]);
        Ok(bytes)
    }

    fn write_blocks(&self, mut bits: BitWriter, dc: &Code, ac: &Code) -> Result<(), Reason> {
        let mut predictions = vec![0_i32; self.planes.len()];
        for unit in 0..self.units.0 * self.units.1 {
            let (x, y) = (unit % self.units.0, unit / self.units.0);
            for (plane, prediction) in self.planes.iter().zip(&mut predictions) {
                let Component { across, down, .. } = plane.component;
                for (dy, dx) in (0..down).flat_map(|dy| (0..across).map(move |dx| (dy, dx))) {
                    let place = (y * down + dy) * plane.padded.0 + x * across + dx;
                    let block = plane.blocks.get(place).ok_or("a component is in no scan")?;
                    encode_block(&mut bits, (dc, ac), prediction, block)?;
                }
            }
        }
        bits.finish();
        Ok(())
    }
}

impl Plane {
    /// Gives the blocks without pixels the mean of the block beside or above them.
    fn pad(&mut self) {
        let columns = self.padded.0;
        for place in 0..self.blocks.len() {
            let (x, y) = (place % columns, place / columns);
            let neighbour = if x >= self.real.0 {
                place.checked_sub(1)
            } else if y >= self.real.1 {
                place.checked_sub(columns)
            } else {
                continue;
            };
            let mean = neighbour.and_then(|place| self.blocks.get(place));
            let padding = mean.map(Block::flat).unwrap_or_default();
            if let Some(block) = self.blocks.get_mut(place) {
                *block = padding;
            }
        }
    }
}

fn plane(planes: &mut [Plane], number: usize) -> Result<&mut Plane, Reason> {
    planes
        .get_mut(number)
        .ok_or("a scan has a component that the frame lacks")
}

/// Returns the number of components in the first scan.
fn first_scan(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes.get(2..)?;
    loop {
        let (marker, content, after) = next_segment(rest)?;
        if marker == START_OF_SCAN {
            return content.first().copied().map(usize::from);
        }
        if marker == END_OF_IMAGE {
            return None;
        }
        rest = after;
    }
}

/// Returns a segment with its marker and length.
fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&[0xFF, marker], &length[..], content].concat()
}

/// Returns the marker and content of the next segment, and what follows it; data of scans are skipped.
fn next_segment(mut rest: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    loop {
        let start = rest.iter().position(|&byte| byte == 0xFF)?;
        rest = rest.get(start + 1..)?;
        match *rest.first()? {
            END_OF_IMAGE => return Some((END_OF_IMAGE, &[], &[])),
            0xFF => {}
            0x00 | 0x01 | 0xD0..=0xD8 => rest = rest.get(1..)?,
            marker => {
                let &[_, high, low] = rest.first_chunk()?;
                let length = usize::from(u16::from_be_bytes([high, low]));
                let content = rest.get(3..1 + length)?;
                return Some((marker, content, rest.get(1 + length..)?));
            }
        }
    }
}
