//! Where results are made, and what they never replace.

use super::*;

#[test]
fn a_download_may_be_prepared_in_its_own_folder() {
    for (name, folder, target) in [
        ("voc12", "voc", "VOCdevkit/VOC2012"),
        ("coco-stuff164k", "coco", ""),
        ("pascal-context", "context_json", "VOCdevkit/VOC2010"),
        ("pascal-context", "context_mat", "VOCdevkit/VOC2010"),
        ("ade20k", "ade20k", "nested"),
        ("ade20k-full", "ade_full", "ADE20K_2021_17_01"),
        ("cityscapes", "cityscapes", ""),
    ] {
        let from = copy_of(folder);
        if name == "voc12" {
            // Otherwise its converted form would replace the file in colour.
            fs::copy(
                from.path()
                    .join("VOCdevkit/VOC2012/SegmentationClass/2007_000001.png"),
                from.path()
                    .join("VOCdevkit/VOC2012/SegmentationClass/2007_000002.png"),
            )
            .unwrap();
        }
        let before = contents(from.path());
        prepare(name, from.path(), &from.path().join(target));
        let after = contents(from.path());
        assert!(
            before
                .iter()
                .all(|(file, bytes)| after.get(file) == Some(bytes)),
            "{name}"
        );
        let again = prepare(name, from.path(), &from.path().join(target));
        assert_eq!(again.converted, 0, "{name}");
    }
}

#[test]
fn files_of_the_download_are_never_replaced() {
    // The label maps of 459 ids have the paths of the label maps of 60 classes.
    let from = copy_of("context_png");
    let before = contents(from.path());
    let planned = plan("pascal-context", from.path()).unwrap();
    let to = from.path().join("VOCdevkit/VOC2010");
    let error = planned.run(&to, &options(), &go_on).unwrap_err();
    assert!(
        matches!(error, PrepareError::WouldReplaceSource { .. }),
        "{error}"
    );
    assert_eq!(contents(from.path()), before);

    // The mask in colour is only recognised when it is read.
    let from = copy_of("voc");
    let before = contents(from.path());
    let planned = plan("voc12", from.path()).unwrap();
    let summary = planned
        .run(&from.path().join("VOCdevkit/VOC2012"), &options(), &go_on)
        .unwrap();
    let [failure] = summary.failed.as_slice() else {
        panic!("{:?}", summary.failed)
    };
    assert!(
        failure
            .reason
            .contains("the result would replace this file"),
        "{failure:?}"
    );
    let after = contents(from.path());
    assert!(
        before
            .iter()
            .all(|(file, bytes)| after.get(file) == Some(bytes))
    );
}

#[test]
fn files_of_the_user_are_never_replaced() {
    let planned = plan("voc12", &download("voc")).unwrap();
    for file in [
        "JPEGImages/2007_000001.jpg",
        "SegmentationClass/2007_000001.png",
        "SegmentationClassAug/2008_000001.png",
        "ImageSets/Segmentation/train.txt",
    ] {
        let to = tempfile::tempdir().unwrap();
        let path = to.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = planned.run(to.path(), &options(), &go_on).unwrap_err();
        assert!(
            matches!(&error, PrepareError::Occupied { path: named } if *named == path),
            "{file}: {error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(contents(to.path()).len(), 1, "{file}");
    }
}

#[test]
#[cfg(unix)]
fn files_of_the_download_are_not_replaced_through_a_linked_folder() {
    // The result's folder of masks is a link to a folder of the download.
    let from = copy_of("context_png");
    let before = contents(from.path());
    let to = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        from.path()
            .join("VOCdevkit/VOC2010/SegmentationClassContext"),
        to.path().join("SegmentationClassContext"),
    )
    .unwrap();
    let planned = plan("pascal-context", from.path()).unwrap();
    let error = planned.run(to.path(), &options(), &go_on).unwrap_err();
    assert!(
        matches!(error, PrepareError::WouldReplaceSource { .. }),
        "{error}"
    );
    assert_eq!(contents(from.path()), before);
}

#[test]
#[cfg(unix)]
fn links_in_the_download_stay_links() {
    let from = copy_of("voc");
    let image_file = from
        .path()
        .join("VOCdevkit/VOC2012/JPEGImages/2007_000003.jpg");
    fs::rename(&image_file, from.path().join("elsewhere.jpg")).unwrap();
    std::os::unix::fs::symlink("../../../elsewhere.jpg", &image_file).unwrap();
    let copies = PrepareOptions {
        images: ImagePlacement::Copy,
        ..options()
    };
    let planned = plan("voc12", from.path()).unwrap();
    let to = from.path().join("VOCdevkit/VOC2012");
    let summary = planned.run(&to, &copies, &go_on).unwrap();
    assert_eq!(summary.failed.len(), 1); // the mask in colour
    assert_eq!(
        fs::read_link(&image_file).unwrap(),
        Path::new("../../../elsewhere.jpg")
    );
    let to = tempfile::tempdir().unwrap();
    planned.run(to.path(), &copies, &go_on).unwrap();
    let copy = to.path().join("JPEGImages/2007_000003.jpg");
    assert!(fs::symlink_metadata(copy).unwrap().is_file());
}
