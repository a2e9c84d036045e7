//! The text side of zero-shot segmentation: class lists and their splits, prompt templates, and CLIP's tokenizer.
//!
//! The modules follow the path of a class name: [`classes`] reads the class list of a benchmark or of a user,
//! [`templates`] inserts a class name into prompt templates, [`clean`] repairs the text, and [`tokenizer`] turns it
//! into token ids.
//!
//! ```
//! use zeg_vocab::classes::ClassSet;
//!
//! let classes = ClassSet::by_name("voc20").unwrap();
//! assert_eq!((classes.len(), classes.unseen.len()), (20, 5));
//! ```

#![forbid(unsafe_code)]

pub mod classes;
pub mod clean;
mod sections;
pub mod templates;
pub mod text_file;
pub mod tokenizer;
