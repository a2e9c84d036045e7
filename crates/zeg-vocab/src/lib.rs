//! The words side of zero-shot segmentation: class lists and their splits, prompt templates, and CLIP's tokenizer.
//!
//! In the order a class name travels: [`classes`] names the classes of a benchmark or of the command line,
//! [`templates`] puts a name into sentences, [`clean`] repairs the text, [`tokenizer`] turns it into ids.

#![forbid(unsafe_code)]

pub mod classes;
pub mod clean;
mod sections;
pub mod templates;
pub mod text_file;
pub mod tokenizer;
