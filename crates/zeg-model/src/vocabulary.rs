//! The vocabulary of a text tower: all of CLIP's tokens, or only the tokens of a list of words.
//!
//! A small model's token table holds only the rows of CLIP's tokens that its captions use. Its file lists the words
//! ([`WORDS_KEY`]). The rows are the tokens of these words in ascending order of their ids, the start and the end token
//! last; the end token has the highest row, as it has the highest id in CLIP.

use std::collections::BTreeSet;

use zeg_vocab::tokenizer::{END_TOKEN, START_TOKEN, TokenizeError, Tokenizer, VOCABULARY_SIZE};

use crate::{ModelError, weights::StateDict};

/// Metadata key of a weight file for the list of words, a JSON list.
pub const WORDS_KEY: &str = "zeg.words";

/// The tokens that have a row in the token table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vocabulary {
    /// All of CLIP's tokens; a token's row is its id.
    Full,
    /// The tokens of a list of words.
    Words {
        /// The words, as given.
        words: Vec<String>,
        /// CLIP's token ids of the rows, ascending.
        ids: Vec<u32>,
    },
}

impl Vocabulary {
    /// Returns the vocabulary of a list of words.
    pub fn of_words(words: Vec<String>, tokenizer: &Tokenizer) -> Self {
        let tokens = words.iter().flat_map(|word| tokenizer.encode(word));
        let ids: BTreeSet<u32> = tokens.chain([START_TOKEN, END_TOKEN]).collect();
        Self::Words {
            words,
            ids: ids.into_iter().collect(),
        }
    }

    /// Reads the vocabulary of the text tower in some weights.
    ///
    /// # Errors
    /// Returns an error if the list of words in the metadata is damaged.
    pub fn of_weights(weights: &StateDict, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let Some(json) = weights.metadata().get(WORDS_KEY) else {
            return Ok(Self::Full);
        };
        let words = serde_json::from_str(json).map_err(|error| {
            ModelError::Config(format!(
                "{}: metadata {WORDS_KEY:?}: {error}",
                weights.origin()
            ))
        })?;
        Ok(Self::of_words(words, tokenizer))
    }

    /// Returns the number of rows of the token table.
    pub fn rows(&self) -> usize {
        match self {
            Self::Full => VOCABULARY_SIZE,
            Self::Words { ids, .. } => ids.len(),
        }
    }

    /// Returns the token table's rows for a text: start token, words, end token, without padding.
    ///
    /// # Errors
    /// Returns an error if the text has more than `context_length` tokens, or a token without a row; the error then
    /// names the word and lists the vocabulary.
    pub fn read(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        context_length: usize,
    ) -> Result<Vec<u32>, ModelError> {
        let mut tokens = vec![START_TOKEN];
        tokens.extend(tokenizer.encode(text));
        tokens.push(END_TOKEN);
        if tokens.len() > context_length {
            return Err(TokenizeError::TooLong {
                text: text.to_owned(),
                tokens: tokens.len(),
                limit: context_length,
            }
            .into());
        }
        let Self::Words { words, ids } = self else {
            return Ok(tokens);
        };
        let row = |token: &u32| ids.binary_search(token).ok().map(|row| row as u32);
        let rows: Option<Vec<u32>> = tokens.iter().map(row).collect();
        rows.ok_or_else(|| {
            let is_unknown = |word: &&str| {
                tokenizer
                    .encode(word)
                    .iter()
                    .any(|token| row(token).is_none())
            };
            let word = text.split_whitespace().find(is_unknown).unwrap_or(text);
            ModelError::UnknownWord {
                word: word.trim_matches(['.', ',']).to_owned(),
                known: words.join(" "),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_named_with_the_vocabulary() {
        let tokenizer = Tokenizer::new().unwrap();
        let words = ["a", "striped", "red", "ring", "."].map(str::to_owned);
        let vocabulary = Vocabulary::of_words(words.to_vec(), &tokenizer);
        let rows = vocabulary
            .read(&tokenizer, "A striped  red ring.", 16)
            .unwrap();
        assert_eq!(rows[0] as usize, vocabulary.rows() - 2);
        assert_eq!(rows[rows.len() - 1] as usize, vocabulary.rows() - 1);
        assert!(rows[1..rows.len() - 1].iter().all(|&row| row < rows[0]));
        let error = vocabulary
            .read(&tokenizer, "a striped zebra.", 16)
            .unwrap_err();
        let ModelError::UnknownWord { word, known } = error else {
            panic!("{error}");
        };
        assert_eq!(
            (word.as_str(), known.as_str()),
            ("zebra", "a striped red ring .")
        );
        let full = Vocabulary::Full
            .read(&tokenizer, "a photo of a cat", 77)
            .unwrap();
        assert_eq!(full, [49406, 320, 1125, 539, 320, 2368, 49407]);
        assert!(
            Vocabulary::Full
                .read(&tokenizer, "a photo of a cat", 6)
                .is_err()
        );
    }
}
