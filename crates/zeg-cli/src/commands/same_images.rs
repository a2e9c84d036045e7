//! Warns if a model is scored on the images that it is trained on.

use std::{collections::BTreeSet, path::Path};

use zeg::data::{DataConfig, is_description, list};

/// Warns if the evaluation split of a data set that a file describes has the same images as its training split.
///
/// A file without splits has one split of all images, which is used for both.
///
/// - `root`: folder of the data set
/// - `trained`: the training split
pub(crate) fn warn_of_same_images(data: &DataConfig, root: &Path, trained: &str) {
    let scored = data.eval_split.as_str();
    if is_description(&data.dataset) && has_same_images(data, root, [trained, scored]) {
        print_notice!(
            "warning: {}: the evaluation split `{scored}` has the same images as the training split `{trained}`, so the \
             scores are those of images that the model is trained on; the table [splits] of the file divides the images",
            data.dataset
        );
    }
}

/// Whether two splits have the same ids; a split that cannot be listed has no images in common with another.
fn has_same_images(data: &DataConfig, root: &Path, [one, other]: [&str; 2]) -> bool {
    let ids = |split: &str| -> Option<BTreeSet<String>> {
        let dataset = list(&data.selection(root, split)).ok()?;
        Some(dataset.items.into_iter().map(|item| item.id).collect())
    };
    one == other || ids(one).is_some_and(|ids_of_one| Some(ids_of_one) == ids(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_with_the_same_ids_have_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let text = "name = 'mine'\nimages = 'i/{id}.jpg'\nlabels = 'l/{id}.png'\nkind = 'index'\nclasses = ['a']\n\
                    [splits]\none = ['x', 'y']\nother = ['y', 'x']\npart = ['x']\n";
        std::fs::write(&path, text).unwrap();
        let data = DataConfig::new(path.to_str().unwrap());
        let has_same = |splits| has_same_images(&data, Path::new(""), splits);
        assert!(has_same(["one", "other"]));
        assert!(has_same(["part", "part"]));
        assert!(!has_same(["one", "part"]));
        assert!(!has_same(["one", "none"]));
    }
}
