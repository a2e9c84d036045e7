//! Faultless data sets for tests of the doctor: a small synthetic VOC, and a copy of some real images if the excerpt
//! exists beside the repository.

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use tempfile::TempDir;
use zeg_data::{Diagnosis, DoctorOptions, Finding, Selection, Severity, examine};
use zeg_image::{LabelMap, decode_labels};

use crate::common::{TinyVoc, shared_data};

/// Number of real images that are copied, for training and validation.
const REAL: (usize, usize) = (30, 6);

pub(crate) const OPTIONS: DoctorOptions = DoctorOptions {
    threads: 2,
    limit: None,
};

/// A folder in VOC's layout without faults.
pub(crate) struct HealthyVoc {
    _folder: TempDir,
    pub(crate) root: PathBuf,
    pub(crate) train: Vec<String>,
    pub(crate) val: Vec<String>,
}

/// Returns the synthetic data set and, if the excerpt exists, the real one.
pub(crate) fn healthy_vocs() -> Vec<HealthyVoc> {
    let real = shared_data("voc2012_mini/VOCdevkit/VOC2012").map(|root| real(&root));
    [synthetic()].into_iter().chain(real).collect()
}

pub(crate) fn synthetic() -> HealthyVoc {
    let ids = |name: &str, count: usize| -> Vec<String> {
        (0..count)
            .map(|number| format!("{name}{number:02}"))
            .collect()
    };
    let (train, val) = (ids("t", 12), ids("v", 3));
    let voc = TinyVoc::new(
        &train.iter().map(String::as_str).collect::<Vec<_>>(),
        &val.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    HealthyVoc {
        root: voc.root(),
        _folder: voc.into_folder(),
        train,
        val,
    }
}

fn real(from: &Path) -> HealthyVoc {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("VOC2012");
    for inner in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
        fs::create_dir_all(root.join(inner)).unwrap();
    }
    let copy = |split: &str, count: usize| -> Vec<String> {
        let list = format!("ImageSets/Segmentation/{split}.txt");
        let text = fs::read_to_string(from.join(&list)).unwrap();
        // Every tenth image is taken, so that all classes occur.
        let ids = text.lines().step_by(10).take(count).map(str::to_owned);
        let ids: Vec<String> = ids.collect();
        fs::write(root.join(list), ids.join("\n")).unwrap();
        for id in &ids {
            for file in [
                format!("JPEGImages/{id}.jpg"),
                format!("SegmentationClass/{id}.png"),
            ] {
                fs::copy(from.join(&file), root.join(&file)).unwrap();
            }
        }
        ids
    };
    let (train, val) = (copy("train", REAL.0), copy("val", REAL.1));
    HealthyVoc {
        _folder: folder,
        root,
        train,
        val,
    }
}

impl HealthyVoc {
    pub(crate) fn image(&self, id: &str) -> PathBuf {
        self.root.join(format!("JPEGImages/{id}.jpg"))
    }

    pub(crate) fn labels(&self, id: &str) -> PathBuf {
        self.root.join(format!("SegmentationClass/{id}.png"))
    }

    pub(crate) fn list(&self, split: &str, ids: &[String]) {
        let list = format!("ImageSets/Segmentation/{split}.txt");
        fs::write(self.root.join(list), ids.join("\n")).unwrap();
    }

    /// Replaces each value of a label map by `change` of it.
    pub(crate) fn relabel(&self, id: &str, change: impl Fn(u16) -> u8) {
        let path = self.labels(id);
        let map = decode_labels(&path).unwrap();
        grey(&map, change).save(path).unwrap();
    }

    pub(crate) fn select<'a>(&'a self, split: &'a str, classes: &'a str) -> Selection<'a> {
        Selection {
            dataset: "voc12",
            root: &self.root,
            split,
            classes: Some(classes),
            unseen: None,
        }
    }

    pub(crate) fn examine(&self, split: &str) -> Diagnosis {
        examine(&self.select(split, "voc20"), &OPTIONS, &|_, _| {}).unwrap()
    }

    /// Returns the finding of a code in the training split; panics with all findings if there is none.
    pub(crate) fn finding(&self, code: &str) -> Finding {
        find(&self.examine("train"), code)
    }
}

/// Returns the labels as a grey image, each value replaced by `change` of it.
pub(crate) fn grey(map: &LabelMap, change: impl Fn(u16) -> u8) -> GrayImage {
    GrayImage::from_fn(map.width() as u32, map.height() as u32, |x, y| {
        Luma([change(map.get(x as usize, y as usize).unwrap())])
    })
}

pub(crate) fn find(diagnosis: &Diagnosis, code: &str) -> Finding {
    let finding = diagnosis
        .findings
        .iter()
        .find(|finding| finding.code.as_str() == code);
    finding
        .unwrap_or_else(|| panic!("no {code} in {:#?}", diagnosis.findings))
        .clone()
}

/// Returns the codes of errors and warnings.
pub(crate) fn problems(diagnosis: &Diagnosis) -> Vec<&'static str> {
    let problems = diagnosis.findings.iter();
    let problems = problems.filter(|finding| finding.severity != Severity::Note);
    problems.map(|finding| finding.code.as_str()).collect()
}

/// Asserts that a finding has this severity, concerns one file and names it.
pub(crate) fn names(finding: &Finding, severity: Severity, file: &str) {
    assert_eq!(
        (finding.severity, finding.count),
        (severity, 1),
        "{finding:?}"
    );
    assert!(finding.message.contains(file), "{finding:?}");
    assert!(finding.examples[0].contains(file), "{finding:?}");
}
