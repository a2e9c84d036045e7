//! Huffman's codes of sequential JPEG: blocks of coefficients to bits and back (ITU T.81, annexes C and F).

/// The 64 quantised coefficients of 8×8 samples, in the zigzag order of the file; the first is their mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block([i16; 64]);

impl Default for Block {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Block {
    /// Returns the block of the same mean without any detail.
    pub(crate) fn flat(&self) -> Self {
        let mut flat = Self::default();
        flat.0[0] = self.0[0];
        flat
    }
}

/// Largest number of bits of the difference of two means, and of another coefficient, with samples of 8 bits.
const DC_BITS: u32 = 11;
const AC_BITS: u32 = 10;
/// The symbols of the end of a block and of 16 zeros.
const END: u8 = 0x00;
const ZEROS: u8 = 0xF0;

type Reason = &'static str;
const TOO_SHORT: Reason = "the data of a scan are too short";

/// A table that decodes symbols.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    /// Number of codes of each length from 1 to 16.
    counts: [u8; 16],
    /// The symbols in the order of their codes.
    symbols: Vec<u8>,
}

impl Decoder {
    /// Parses a table of a DHT segment, behind its number; also returns what follows it.
    pub(crate) fn parse(content: &[u8]) -> Result<(Self, &[u8]), Reason> {
        let (&counts, rest) = content
            .split_first_chunk::<16>()
            .ok_or("a Huffman table is too short")?;
        let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest
            .split_at_checked(total)
            .ok_or("a Huffman table is too short")?;
        let symbols = symbols.to_vec();
        Ok((Self { counts, symbols }, rest))
    }

    fn next(&self, bits: &mut BitReader) -> Result<u8, Reason> {
        // `first` is the first code of the current length, `index` the position of its symbol.
        let (mut code, mut first, mut index) = (0_usize, 0_usize, 0_usize);
        for &count in &self.counts {
            let count = usize::from(count);
            code = code << 1 | bits.take(1)? as usize;
            if let Some(place) = code.checked_sub(first).filter(|place| *place < count) {
                let symbol = self.symbols.get(index + place).copied();
                return symbol.ok_or("a code stands for no symbol");
            }
            index += count;
            first = (first + count) << 1;
        }
        Err("a code stands for no symbol")
    }
}

/// Reads the bits of a scan; a byte 0xFF is followed by a stuffed zero, which is skipped.
pub(crate) struct BitReader<'a> {
    rest: &'a [u8],
    /// The last byte that was read, and the number of its bits that are left.
    byte: u8,
    left: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self {
            rest: data,
            byte: 0,
            left: 0,
        }
    }

    fn take(&mut self, count: u32) -> Result<u32, Reason> {
        let mut value = 0;
        for _ in 0..count {
            if self.left == 0 {
                (self.byte, self.rest) = match *self.rest {
                    [0xFF, 0, ref rest @ ..] => (0xFF, rest),
                    [byte, ref rest @ ..] if byte != 0xFF => (byte, rest),
                    _ => return Err(TOO_SHORT),
                };
                self.left = 8;
            }
            self.left -= 1;
            value = value << 1 | u32::from(self.byte >> self.left & 1);
        }
        Ok(value)
    }

    /// Takes a number of `count` bits, whose first bit is 0 if it is negative (ITU T.81, F.2.2.1).
    fn take_signed(&mut self, count: u32) -> Result<i32, Reason> {
        let value = self.take(count)? as i32;
        let is_negative = count > 0 && value < 1 << (count - 1);
        Ok(if is_negative {
            value - (1 << count) + 1
        } else {
            value
        })
    }

    /// Goes on behind a restart marker, which must come next.
    pub(crate) fn restart(&mut self) -> Result<(), Reason> {
        self.left = 0;
        while let [0xFF, 0xFF, ..] = self.rest {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        match *self.rest {
            [0xFF, 0xD0..=0xD7, ref rest @ ..] => {
                self.rest = rest;
                Ok(())
            }
            _ => Err("a restart marker is missing"),
        }
    }
}

/// Decodes a block; `prediction` is the mean of the block before it, and becomes that of this block.
pub(crate) fn decode_block(
    bits: &mut BitReader,
    (dc, ac): (&Decoder, &Decoder),
    prediction: &mut i32,
    block: &mut Block,
) -> Result<(), Reason> {
    let size = u32::from(dc.next(bits)?);
    if size > DC_BITS {
        return Err("a mean has more than 11 bits");
    }
    *prediction += bits.take_signed(size)?;
    block.0[0] = i16::try_from(*prediction).map_err(|_| "a mean is out of range")?;
    let mut place = 1;
    while place < 64 {
        let symbol = ac.next(bits)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 0xF));
        if size == 0 && symbol != ZEROS {
            break;
        }
        if size > AC_BITS {
            return Err("a coefficient has more than 10 bits");
        }
        place += zeros;
        let value = bits.take_signed(size)? as i16;
        let target = block.0.get_mut(place);
        *target.ok_or("a block has more than 64 coefficients")? = value;
        place += 1;
    }
    Ok(())
}

/// A code in which all symbols have the same number of bits.
pub(crate) struct Code {
    bits: u32,
    symbols: Vec<u8>,
}

impl Code {
    /// Returns the code of the sizes of means.
    pub(crate) fn dc() -> Self {
        Self {
            bits: 4,
            symbols: (0..=DC_BITS as u8).collect(),
        }
    }

    /// Returns the code of the other coefficients: a number of zeros, and the size of the next one.
    pub(crate) fn ac() -> Self {
        let is_used = |symbol: &u8| {
            matches!(*symbol, END | ZEROS) || (1..=AC_BITS).contains(&u32::from(symbol & 0xF))
        };
        Self {
            bits: 8,
            symbols: (0..=u8::MAX).filter(is_used).collect(),
        }
    }

    /// Returns the content of its DHT segment; `head` is its class and number.
    pub(crate) fn table(&self, head: u8) -> Vec<u8> {
        let mut counts = [0; 16];
        if let Some(count) = counts.get_mut(self.bits as usize - 1) {
            *count = self.symbols.len() as u8;
        }
        [&[head], &counts[..], &self.symbols].concat()
    }

    fn put(&self, bits: &mut BitWriter, symbol: u8) -> Result<(), Reason> {
        let place = self.symbols.binary_search(&symbol);
        let place = place.map_err(|_| "a coefficient is out of range")?;
        bits.put(place as u32, self.bits);
        Ok(())
    }
}

/// Appends the bits of a scan.
pub(crate) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    pending: u32,
    /// Number of bits of `pending`, fewer than 8 between calls.
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self {
            bytes,
            pending: 0,
            count: 0,
        }
    }

    fn put(&mut self, value: u32, count: u32) {
        self.pending = self.pending << count | value & ((1 << count) - 1);
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.pending >> self.count) as u8;
            self.bytes.push(byte);
            if byte == 0xFF {
                self.bytes.push(0);
            }
        }
        self.pending &= (1 << self.count) - 1;
    }

    /// Puts the size of a number by `symbol` and then the number (ITU T.81, F.1.2.1).
    fn put_signed(&mut self, value: i32, size: u32) {
        let bits = if value < 0 { value - 1 } else { value };
        self.put(bits as u32, size);
    }

    /// Fills the last byte with ones.
    pub(crate) fn finish(mut self) {
        self.put(0x7F, 7);
    }
}

/// Encodes a block; `prediction` is the mean of the block before it, and becomes that of this block.
pub(crate) fn encode_block(
    bits: &mut BitWriter,
    (dc, ac): (&Code, &Code),
    prediction: &mut i32,
    block: &Block,
) -> Result<(), Reason> {
    let [mean, coefficients @ ..] = &block.0;
    let difference = i32::from(*mean) - *prediction;
    *prediction = i32::from(*mean);
    dc.put(bits, size_of(difference) as u8)?;
    bits.put_signed(difference, size_of(difference));
    let mut zeros = 0_u8;
    for &value in coefficients {
        let value = i32::from(value);
        if value == 0 {
            zeros += 1;
            continue;
        }
        while zeros >= 16 {
            ac.put(bits, ZEROS)?;
            zeros -= 16;
        }
        let size = size_of(value);
        ac.put(bits, zeros << 4 | size as u8)?;
        bits.put_signed(value, size);
        zeros = 0;
    }
    if zeros > 0 {
        ac.put(bits, END)?;
    }
    Ok(())
}

/// Returns the number of bits of the absolute value.
fn size_of(value: i32) -> u32 {
    i32::BITS - value.unsigned_abs().leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_encoding_and_decoding() {
        let mut block = Block::default();
        for (place, value) in [(0, -1024), (1, 1023), (20, -1), (40, 5), (63, -1023)] {
            block.0[place] = value;
        }
        let blocks = [block.clone(), Block::default(), block];
        let (dc, ac) = (Code::dc(), Code::ac());
        let mut bytes = Vec::new();
        let mut bits = BitWriter::new(&mut bytes);
        let mut prediction = 0;
        for block in &blocks {
            encode_block(&mut bits, (&dc, &ac), &mut prediction, block).unwrap();
        }
        bits.finish();
        let tables = [dc.table(0), ac.table(0)];
        let [dc, ac] = tables
            .each_ref()
            .map(|table| Decoder::parse(&table[1..]).unwrap().0);
        let mut bits = BitReader::new(&bytes);
        let mut prediction = 0;
        for block in &blocks {
            let mut decoded = Block::default();
            decode_block(&mut bits, (&dc, &ac), &mut prediction, &mut decoded).unwrap();
            assert_eq!(&decoded, block);
        }
        let mut short = BitReader::new(&bytes[..3]);
        let mut block = Block::default();
        let result = decode_block(&mut short, (&dc, &ac), &mut 0, &mut block);
        assert_eq!(result, Err(TOO_SHORT));
    }
}
