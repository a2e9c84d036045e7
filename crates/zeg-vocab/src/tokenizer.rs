//! CLIP's byte-pair tokenizer: text → ids of a vocabulary of 49,408.
//!
//! A text is cleaned ([`crate::clean`]) and split into pieces (special tokens, contractions, runs of letters, single
//! digits, runs of other characters). Each piece is encoded separately: its UTF-8 bytes become symbols, the last one in
//! its end-of-word form, and the adjacent pair with the best-ranked merge is joined until no merge applies.
//!
//! The ids follow the order of the vocabulary: 256 byte symbols, the same symbols with the end-of-word suffix, one id
//! per merge in rank order, and the two special tokens. A better rank is therefore a lower id, and ranks are not
//! stored.

use std::collections::HashMap;
use std::io::{self, Read};

use flate2::read::GzDecoder;
use regex::Regex;
use thiserror::Error;

use crate::clean::Cleaner;

/// Number of entries in CLIP's vocabulary.
pub const VOCABULARY_SIZE: usize = 49_408;
/// Id before the first token of every text.
pub const START_TOKEN: u32 = 49_406;
/// Id after the last token of every text; the output of the text encoder is taken at this position.
pub const END_TOKEN: u32 = 49_407;
/// Number of tokens that CLIP's text encoders take, including start and end tokens.
pub const CONTEXT_LENGTH: usize = 77;

/// Number of byte symbols in their plain form; their end-of-word forms follow.
const SYMBOLS: u32 = 256;
const MERGES: usize = 48_894;
const MERGES_GZ: &[u8] = include_bytes!("../assets/clip_merges.txt.gz");
const START_TEXT: &str = "<|startoftext|>";
const END_TEXT: &str = "<|endoftext|>";
const END_OF_WORD: &str = "</w>";
/// Pattern of the pieces of a text.
///
/// The original pattern ignores case everywhere. This only matters for the literals (`'ſ` is `'s`) and for U+0345: the
/// other case of this mark is a letter, so the mark matches neither class and separates pieces.
const PIECES: &str = r"(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\u{345}]+";

/// Treatment of a text with more tokens than the context length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Return an error.
    #[default]
    Error,
    /// Keep the first tokens, and replace the last of them by the end token.
    Truncate,
}

/// An error of tokenizing a text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenizeError {
    /// The text has more tokens than the context length.
    #[error("{text:?} has {tokens} tokens with start and end, the limit is {limit}")]
    TooLong {
        /// The text as it was given.
        text: String,
        /// Number of its tokens, including start and end.
        tokens: usize,
        /// Largest number of tokens.
        limit: usize,
    },
}

/// An error of loading the built-in vocabulary; a defect of the build, never of the input.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The compressed list of merges cannot be read.
    #[error("the built-in merges cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line of the list is not a pair of known symbols.
    #[error("line {line} of the built-in merges is not a pair of known symbols: {text:?}")]
    Merge {
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// The list is not complete.
    #[error("{0} built-in merges, expected {MERGES}")]
    Count(usize),
    /// A built-in pattern does not compile.
    #[error("a built-in pattern does not compile: {0}")]
    Pattern(#[from] regex::Error),
}

/// CLIP's tokenizer. It holds the vocabulary, so create it once and reuse it.
///
/// ```
/// use zeg_vocab::tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer};
///
/// let tokenizer = Tokenizer::new()?;
/// assert_eq!(tokenizer.encode("a photo of a cat"), [320, 1125, 539, 320, 2368]);
/// let ids = tokenizer.tokenize("a photo of a cat", CONTEXT_LENGTH, Overflow::Error)?;
/// assert_eq!(ids[..7], [49406, 320, 1125, 539, 320, 2368, 49407]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    cleaner: Cleaner,
    pieces: Regex,
    /// By byte: its symbol.
    symbols: [u32; 256],
    /// By pair of adjacent ids: the id of the merged token.
    merges: HashMap<(u32, u32), u32>,
}

impl Tokenizer {
    /// Loads the built-in vocabulary.
    ///
    /// # Errors
    /// Returns an error only if the built-in data is damaged.
    pub fn new() -> Result<Self, TokenizerError> {
        let mut text = String::new();
        GzDecoder::new(MERGES_GZ).read_to_string(&mut text)?;
        let order = byte_order();
        let mut symbols = [0; 256];
        for (symbol, byte) in (0..).zip(order) {
            symbols[usize::from(byte)] = symbol;
        }
        Ok(Self {
            cleaner: Cleaner::new()?,
            pieces: Regex::new(PIECES)?,
            symbols,
            merges: parse_merges(&text, &order)?,
        })
    }

    /// Returns the token ids of a text of any length, without start and end tokens.
    ///
    /// The literal texts `<|startoftext|>` and `<|endoftext|>` become the special ids, as in the original.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let text = self.cleaner.clean(text);
        let mut ids = Vec::new();
        for piece in self.pieces.find_iter(&text) {
            match piece.as_str() {
                START_TEXT => ids.push(START_TOKEN),
                END_TEXT => ids.push(END_TOKEN),
                word => ids.extend(self.encode_word(word)),
            }
        }
        ids
    }

    /// Returns the input of a text encoder, `[context_length]`: start token, ids, end token, zeros.
    ///
    /// # Errors
    /// Returns [`TokenizeError::TooLong`] if the text has too many tokens and `overflow` is [`Overflow::Error`].
    pub fn tokenize(
        &self,
        text: &str,
        context_length: usize,
        overflow: Overflow,
    ) -> Result<Vec<u32>, TokenizeError> {
        let mut ids = vec![START_TOKEN];
        ids.extend(self.encode(text));
        ids.push(END_TOKEN);
        if ids.len() > context_length {
            if overflow == Overflow::Error {
                return Err(TokenizeError::TooLong {
                    text: text.to_owned(),
                    tokens: ids.len(),
                    limit: context_length,
                });
            }
            ids.truncate(context_length);
            if let Some(last) = ids.last_mut() {
                *last = END_TOKEN;
            }
        }
        ids.resize(context_length, 0);
        Ok(ids)
    }

    /// Merges the symbols of one piece: the best merge first, and all its occurrences from left to right.
    fn encode_word(&self, word: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = word.bytes().map(|b| self.symbols[usize::from(b)]).collect();
        if let Some(last) = ids.last_mut() {
            *last += SYMBOLS;
        }
        let joined = |pair: &[u32]| self.merges.get(&(pair[0], pair[1])).copied();
        while let Some(best) = ids.windows(2).filter_map(joined).min() {
            let mut next = Vec::with_capacity(ids.len());
            let mut at = 0;
            while at < ids.len() {
                if ids.get(at..at + 2).and_then(joined) == Some(best) {
                    next.push(best);
                    at += 2;
                } else {
                    next.push(ids[at]);
                    at += 1;
                }
            }
            ids = next;
        }
        ids
    }
}

/// Returns the bytes in the order of their symbols: the printable characters of Latin-1 first, then the others.
fn byte_order() -> [u8; 256] {
    let is_printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut order = [0; 256];
    let printable = (0..=255).filter(|byte| is_printable(*byte));
    let others = (0..=255).filter(|byte| !is_printable(*byte));
    for (place, byte) in order.iter_mut().zip(printable.chain(others)) {
        *place = byte;
    }
    order
}

/// Reads the list of merges into pairs of ids.
fn parse_merges(text: &str, order: &[u8; 256]) -> Result<HashMap<(u32, u32), u32>, TokenizerError> {
    let mut ids: HashMap<String, u32> = HashMap::with_capacity(VOCABULARY_SIZE);
    let mut stand_ins = (256_u32..).filter_map(char::from_u32);
    for (id, byte) in (0..).zip(order) {
        // The list writes a printable byte as itself, and the other bytes as the characters from U+0100 on.
        let shown = match byte {
            33..=126 | 161..=172 | 174..=255 => Some(char::from(*byte)),
            _ => stand_ins.next(),
        };
        if let Some(shown) = shown {
            ids.insert(format!("{shown}{END_OF_WORD}"), id + SYMBOLS);
            ids.insert(shown.to_string(), id);
        }
    }
    let mut merges = HashMap::with_capacity(MERGES);
    for (id, (line, pair)) in (2 * SYMBOLS..).zip(text.lines().enumerate()) {
        let merge = pair.split_once(' ').and_then(|(left, right)| {
            let sides = (*ids.get(left)?, *ids.get(right)?);
            Some((sides, format!("{left}{right}")))
        });
        let (sides, token) = merge.ok_or_else(|| TokenizerError::Merge {
            line: line + 1,
            text: pair.to_owned(),
        })?;
        merges.insert(sides, id);
        ids.insert(token, id);
    }
    if merges.len() == MERGES {
        Ok(merges)
    } else {
        Err(TokenizerError::Count(merges.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up() {
        assert_eq!(2 * SYMBOLS as usize + MERGES + 2, VOCABULARY_SIZE);
        assert_eq!(END_TOKEN as usize + 1, VOCABULARY_SIZE);
    }

    #[test]
    fn damaged_merges_are_refused() {
        let order = byte_order();
        assert_eq!(
            (order[0], order[93], order[188], order[255]),
            (33, 126, 0, 173)
        );
        let error = parse_merges("i n\nin zz", &order).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(matches!(
            parse_merges("i n", &order),
            Err(TokenizerError::Count(1))
        ));
    }

    #[test]
    fn long_texts_are_refused_or_cut() {
        let tokenizer = Tokenizer::new().unwrap();
        let error = tokenizer
            .tokenize("one two three", 4, Overflow::Error)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"one two three\" has 5 tokens with start and end, the limit is 4"
        );
        let cut = tokenizer
            .tokenize("one two three", 4, Overflow::Truncate)
            .unwrap();
        assert_eq!((cut[0], cut[3], cut.len()), (START_TOKEN, END_TOKEN, 4));
        assert_eq!(
            tokenizer.tokenize("one", 1, Overflow::Truncate).unwrap(),
            [END_TOKEN]
        );
        assert!(
            tokenizer
                .tokenize("one", 0, Overflow::Truncate)
                .unwrap()
                .is_empty()
        );
    }
}
