//! The targets for class embeddings and experiments, which need the tensor library.

use std::path::Path;

use zeg_model::{embeddings::ClassEmbeddings, methods::Methods};
use zeg_train::{experiment::Experiment, recipe::Recipes};

use super::files::{Target, scratch};

/// The targets of this file with their names, which are also those of the folders of seeds.
pub const TARGETS: [(&str, Target); 2] = [
    ("embedding_table", embedding_table),
    ("experiment", experiment),
];

/// Reads a table of class embeddings, `.npy` or `.safetensors`; the first byte is the number of class names.
pub fn embedding_table(data: &[u8]) {
    let Some((count, table)) = data.split_first() else {
        return;
    };
    let names: Vec<String> = (0..count % 8)
        .map(|number| format!("class {number}"))
        .collect();
    let file = scratch("table.npy", table);
    if let Ok(embeddings) = ClassEmbeddings::open(&file, &names) {
        assert_eq!(
            embeddings.values().len(),
            embeddings.names().len() * embeddings.dim()
        );
    }
}

/// Parses an experiment; what is accepted can be written and read again.
pub fn experiment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (methods, recipes) = (Methods::default(), Recipes::default());
    let parse =
        |text: &str| Experiment::parse(text, Path::new("fuzz.toml"), &[], &methods, &recipes);
    if let Ok(file) = parse(text) {
        let json = file.experiment.to_json().unwrap();
        let again: Experiment = serde_json::from_value(json).unwrap();
        assert_eq!(again, file.experiment);
    }
}
