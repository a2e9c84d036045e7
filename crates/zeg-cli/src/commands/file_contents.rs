//! Digests of what the files of a data set hold, by which scores are known to be those of the same images and labels.

use std::{collections::HashMap, path::PathBuf};

use rayon::prelude::*;
use zeg::{
    data::{Item, OpenSet},
    model::weights::file_sha256,
};
use zeg_base::fingerprint::{Fingerprint, digest};

use crate::progress::Verbosity;

/// Name of the part of a fingerprint.
const PART: &str = "images: file contents";
/// Stands for the digest of a file that cannot be read.
const UNREADABLE: &str = "unreadable";
/// Number of digits of a digest beside a number of images.
const DIGITS: usize = 16;

/// Digests of files; each file is read once.
#[derive(Debug, Default)]
pub(super) struct FileContents(HashMap<PathBuf, String>);

impl FileContents {
    /// Returns a digest of the files of every sample: its image and its labels.
    ///
    /// A file that cannot be read has a digest of its own. A mini world has no files, so nothing is returned for it.
    pub(super) fn of_samples(&mut self, dataset: &OpenSet, verbosity: Verbosity) -> Vec<String> {
        let OpenSet::Files(dataset) = dataset else {
            return Vec::new();
        };
        let files = dataset.items.iter().flat_map(Item::files);
        let mut new: Vec<&PathBuf> = files.filter(|path| !self.0.contains_key(*path)).collect();
        new.sort();
        new.dedup(); // annotations of all images are in one file
        if !new.is_empty() {
            let bar = verbosity.progress("comparing", "files", new.len() as u64);
            let read = |path: &PathBuf| {
                // A pipe would be waited for.
                let sha256 = path.is_file().then(|| file_sha256(path).ok()).flatten();
                bar.inc();
                (
                    path.clone(),
                    sha256.unwrap_or_else(|| UNREADABLE.to_owned()),
                )
            };
            let digests: Vec<(PathBuf, String)> = new.into_par_iter().map(read).collect();
            bar.finish();
            self.0.extend(digests);
        }
        let of_file = |path: &PathBuf| self.0.get(path).map_or(UNREADABLE, String::as_str);
        let items = dataset.items.iter();
        items
            .map(|item| digest(item.files().map(of_file)))
            .collect()
    }
}

/// Returns the part of a fingerprint for all samples; there is none for a mini world.
///
/// - `samples`: digests of [`FileContents::of_samples`]
pub(super) fn fingerprint(samples: &[String]) -> Fingerprint {
    if samples.is_empty() {
        return Fingerprint::new();
    }
    let whole = digest(samples);
    let digits = whole.get(..DIGITS).unwrap_or(&whole);
    Fingerprint::new().with(PART, format_args!("{} ({digits})", samples.len()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use zeg::{
        data::{Dataset, LabelRule, LabelSource, Metric},
        vocab::classes::ClassSet,
    };

    use super::*;

    /// Labels of the same size with other pixels are other labels, and only those of their image.
    #[test]
    fn files_of_the_same_size_with_other_contents_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: String| folder.path().join(name);
        let item = |id: &str| Item {
            id: id.to_owned(),
            image: path(format!("{id}.jpg")),
            labels: path(format!("{id}.png")),
            source: LabelSource::File,
        };
        let set = OpenSet::Files(Dataset {
            name: "own".into(),
            title: "Own".into(),
            items: vec![item("a"), item("b")],
            label_rule: LabelRule::identity(),
            classes: ClassSet::custom("own", vec!["cat".into()], Vec::new(), Vec::new()).unwrap(),
            metric: Metric::MeanIou,
        });
        for file in ["a.jpg", "a.png", "b.jpg"] {
            fs::write(path(file.into()), "1234").unwrap();
        }
        let read = || FileContents::default().of_samples(&set, Verbosity::Quiet);
        let then = read();
        assert_eq!(then.len(), 2);
        assert_ne!(then[0], then[1], "the labels of b are missing");
        assert_eq!(then, read());
        fs::write(path("a.png".into()), "1235").unwrap();
        let now = read();
        assert_ne!(then[0], now[0]);
        assert_eq!(then[1], now[1]);
        let mismatch = fingerprint(&then).check(&fingerprint(&now)).unwrap_err();
        assert!(
            mismatch
                .to_string()
                .starts_with("images: file contents 2 ("),
            "{mismatch}"
        );
        assert!(fingerprint(&[]).is_empty());
    }
}
