//! Notices, and the published rows beside the scores.

use super::*;

#[test]
fn a_full_official_run_needs_no_notice() {
    assert_eq!(notices(official(1)), "");
    let text = to_markdown(&input("x", vec![official(1)])).unwrap();
    assert!(
        text.contains("Difference from the published ZegCLIP"),
        "{text}"
    );
    assert!(
        text.contains(
            "| ZegCLIP | 94.6 | 91.9 | 77.8 | 84.3 | published: ZegCLIP paper (CVPR 2023) |"
        ),
        "{text}"
    );
    assert!(!text.contains("ZegCLIP+ST"), "rows of another protocol");
}

#[test]
fn notices_name_what_makes_scores_incomparable() {
    let subset = notices(evaluation("voc20", 0..240, 1));
    assert_eq!(
        subset,
        "> **Note:** Only 240 of 1,449 official images were scored: not comparable with the published rows."
    );
    let text = to_markdown(&input("x", vec![evaluation("voc20", 0..240, 1)])).unwrap();
    assert!(!text.contains("Difference from the published"), "{text}");

    let changed = |change: Change| {
        let mut evaluation = official(1);
        change(&mut evaluation);
        notices(evaluation)
    };
    let cases: [(Change, &str); 11] = [
        (
            |e| e.shard = Some(Shard { index: 2, count: 4 }),
            "This is shard 2 of 4",
        ),
        (
            |e| e.scales = vec![0.75, 1.0],
            "scales 0.75, 1 instead of 1",
        ),
        (|e| e.flip = true, "test-time flip"),
        (
            |e| e.tied = vec!["2007_000033".to_owned()],
            "In 1 of 1,449 images, such as 2007\\_000033, all classes have the same score",
        ),
        (
            |e| e.inference["crop"] = json!(640),
            "crop 640 instead of 512",
        ),
        (
            |e| e.inference["seen-offset"] = json!(0),
            "seen-offset 0 instead of 0.1",
        ),
        (
            |e| e.protocol = Protocol::FullySupervised,
            "seen-offset 0.1 instead of 0",
        ),
        (
            |e| e.inference["threshold"] = json!(0.5),
            "a threshold leaves pixels unlabelled",
        ),
        (|e| e.benchmark.split = "train".into(), "split \"train\""),
        (
            |e| e.classes[15].unseen = false,
            "4 are unseen, which are not the 5 of the published split",
        ),
        (
            |e| {
                e.classes[15].unseen = false;
                e.classes[0].unseen = true;
            },
            "5 are unseen, which are not the 5 of the published split",
        ),
    ];
    for (change, part) in cases {
        let notices = changed(change);
        assert!(notices.contains(part), "{part}: {notices:?}");
    }
    // Without published rows only the number of images matters.
    let mut medical = evaluation("3", 0..5, 1);
    medical.scales = vec![2.0];
    assert_eq!(notices(medical), "");
    assert!(notices(evaluation("voc20", 0..0, 1)).contains("No image was scored"));
}

#[test]
fn published_rows_fit_the_protocol() {
    let rows = |protocol: Protocol, trained_on: Option<&str>, list: &str| -> Vec<String> {
        let mut evaluation = evaluation(list, 0..20, 1);
        evaluation.protocol = protocol;
        evaluation.trained_on = trained_on.map(str::to_owned);
        let text = to_markdown(&input("x", vec![evaluation])).unwrap();
        let rows = text.lines().filter(|line| line.contains("| published: "));
        rows.map(|line| {
            line.split(" | ")
                .next()
                .unwrap()
                .trim_start_matches("| ")
                .to_owned()
        })
        .collect()
    };
    assert_eq!(
        rows(Protocol::FullySupervised, None, "voc20"),
        ["ZegCLIP", "CLIP-RC"]
    );
    assert_eq!(
        rows(Protocol::TransductiveUnseen, None, "pascal-context60"),
        ["MaskCLIP+", "ZegCLIP+ST"]
    );
    assert_eq!(
        rows(Protocol::CrossDataset, Some("coco-stuff164k"), "voc20"),
        [
            "ZegFormer",
            "ZegCLIP",
            "†ZegCLIP+ST",
            "CAT-Seg (ViT-B/16)",
            "CAT-Seg (ViT-L/14)"
        ]
    );
    assert!(rows(Protocol::CrossDataset, Some("ade20k"), "voc20").is_empty());
    assert!(rows(Protocol::TrainingFree, None, "voc20").is_empty());
    // The table shows the hIoU computed from the row's seen and unseen mIoU, not the printed one.
    let mut strict = evaluation("coco-stuff171", 0..20, 1);
    strict.protocol = Protocol::Transductive;
    let text = to_markdown(&input("x", vec![strict])).unwrap();
    assert!(
        text.contains("| STRICT | – | 35.3 | 30.3 | 32.6 \\* |"),
        "{text}"
    );
    assert!(
        text.contains("STRICT: the published hIoU is 34.8"),
        "{text}"
    );
}
