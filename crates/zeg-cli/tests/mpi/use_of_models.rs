//! Evaluation and segmentation over three ranks: the files of one process.

use std::{collections::BTreeMap, path::Path};

use crate::launch::{Place, has_mpirun, zeg};

/// Trains a small model.
fn trained(place: &Place) -> String {
    let mut arguments = place.train("zegclip-inductive", "run");
    for change in ["training.steps=3", "training.batch=4"] {
        arguments.extend(["--set".to_owned(), change.to_owned()]);
    }
    place.run(zeg(&arguments)).success();
    place
        .path("run/model.safetensors")
        .to_str()
        .unwrap()
        .to_owned()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Returns all files of a folder, without the journals, by their paths in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let inner = files(&entry.path()).into_iter();
            found.extend(inner.map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else if !name.starts_with(".zeg") {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn an_evaluation_over_three_ranks_has_the_record_of_one_process() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let model = trained(&place);
    let eval = |name: &str| {
        let mut arguments = words(&format!("eval {model} --limit 41 -o {name} --write-labels"));
        arguments.extend([format!("{name}-labels"), format!("--json={name}.json")]);
        arguments
    };
    place.run(zeg(&eval("one"))).success();
    place.run(place.mpirun(3, &eval("three"))).success();
    let record = |name: &str| {
        let mut record = place.json(name);
        record.as_object_mut().unwrap().remove("timing");
        record
    };
    assert_eq!(
        record("one/evaluation.json"),
        record("three/evaluation.json")
    );
    assert_eq!(record("one.json"), record("three.json"));
    assert!(files(&place.path("one-labels")) == files(&place.path("three-labels")));
    let panels = |name: &str| {
        let mut files = files(&place.path(name));
        files.remove("evaluation.json");
        files
    };
    assert!(panels("one") == panels("three"), "the galleries differ");

    // A run that is complete is not repeated, and one that was stopped goes on.
    let again = place.run(place.mpirun(2, &[eval("three"), words("--resume")].concat()));
    assert!(
        again.success().stderr().contains("complete already"),
        "{}",
        again.stderr()
    );
}

#[test]
fn a_segmentation_over_three_ranks_has_the_files_of_one_process() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let model = trained(&place);
    let photos = crate::common::World::new();
    let images = photos.data().join("JPEGImages");
    std::fs::write(images.join("broken.jpg"), "no image").unwrap();
    let segment = |name: &str| {
        let images = images.to_str().unwrap();
        let fixed = format!("segment {images} --model {model} --threshold 0 -o {name}");
        let mut arguments = words(&format!(
            "{fixed} --write labels,overlay,coco,html,summary --classes"
        ));
        arguments.extend([
            "red, blue|purple, green".to_owned(),
            format!("--json={name}.json"),
        ]);
        arguments
    };
    let one = place.run(zeg(&segment("one")));
    let three = place.run(place.mpirun(3, &segment("three")));
    for ran in [&one, &three] {
        assert!(ran.stderr().contains("broken.jpg"), "{}", ran.stderr());
    }
    assert_eq!(one.stdout().replace("one", "three"), three.stdout());
    let (one, three) = (files(&place.path("one")), files(&place.path("three")));
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        three.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &one {
        assert!(*bytes == three[name], "{name} differs");
    }
    let text = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(
        text("one.json").replace("one/", "three/"),
        text("three.json")
    );

    // What the ranks have finished is kept like the work of one process.
    std::fs::remove_file(images.join("broken.jpg")).unwrap();
    let resumed = place.run(zeg(&[segment("three"), words("--resume")].concat()));
    assert!(
        resumed
            .success()
            .stderr()
            .contains("6 of 6 images are finished"),
        "{}",
        resumed.stderr()
    );
}
