//! Tests that all published rows are read as printed, belong to known data sets, and are found by benchmark and
//! protocol.

use zeg_data::datasets;
use zeg_eval::{
    Protocol,
    published::{Row, rows, tables},
};

/// Data sets of published rows that are described in files instead of having an entry.
const DESCRIBED: [&str; 3] = ["cvc-clinicdb", "isic", "six-medical-sets"];

#[test]
fn rows_are_of_data_sets_and_class_lists_that_are_known() {
    let mut with_entry = 0;
    for row in tables().iter().flat_map(|table| &table.rows) {
        let Some(entry) = datasets::find(&row.benchmark) else {
            assert!(DESCRIBED.contains(&row.benchmark.as_str()), "{row:?}");
            assert_eq!(row.class_list, None, "{row:?}");
            continue;
        };
        with_entry += 1;
        match &row.class_list {
            Some(list) => assert!(
                entry.class_lists.iter().any(|known| known.name == list),
                "{row:?}"
            ),
            None => assert_eq!(entry.class_lists.len(), 1, "{row:?}"),
        }
        if let Some(trained_on) = &row.trained_on {
            assert!(datasets::find(trained_on).is_some(), "{row:?}");
        }
    }
    assert_eq!(with_entry, 119);
}

#[test]
fn the_file_is_read_whole() {
    let tables = tables();
    let sizes: Vec<(&str, usize)> = tables
        .iter()
        .map(|table| (table.name.as_str(), table.rows.len()))
        .collect();
    assert_eq!(
        sizes,
        [
            ("benchmarks", 48),
            ("designs", 24),
            ("query-formats", 12),
            ("prompt-depths", 8),
            ("losses", 6),
            ("templates", 4),
            ("cross-dataset", 17),
            ("medical", 3)
        ]
    );
    for row in tables.iter().flat_map(|table| &table.rows) {
        assert!(!row.source.is_empty(), "{row:?}");
        let figures = [
            row.p_acc, row.seen, row.unseen, row.hiou, row.miou, row.macc, row.mdice,
        ];
        assert!(figures.iter().any(Option::is_some), "{row:?}");
        for figure in figures.into_iter().flatten() {
            assert!((0.0..=100.0).contains(&figure), "{row:?}");
        }
        assert_eq!(
            row.hiou.is_some(),
            row.recomputed_hiou().is_some(),
            "{row:?}"
        );
    }
}

#[test]
fn rows_are_of_one_protocol_and_class_list() {
    let names = |rows: Vec<&Row>| {
        rows.iter()
            .map(|row| row.method.clone())
            .collect::<Vec<_>>()
    };
    let inductive = rows("voc12", "voc20", Protocol::Inductive, None);
    assert_eq!(inductive.len(), 9);
    let zegclip = inductive
        .iter()
        .find(|row| row.method == "ZegCLIP")
        .unwrap();
    assert_eq!((zegclip.p_acc, zegclip.hiou), (Some(94.6), Some(84.3)));
    assert_eq!(
        inductive,
        rows("voc12", "voc20", Protocol::Inductive, Some("voc12"))
    );
    assert!(rows("voc12", "voc21", Protocol::Inductive, None).is_empty());
    assert!(
        rows(
            "voc12",
            "voc20",
            Protocol::Inductive,
            Some("coco-stuff164k")
        )
        .is_empty()
    );
    assert!(rows("voc12", "voc20", Protocol::CrossDataset, None).is_empty());
    let crossed = rows(
        "voc12",
        "voc20",
        Protocol::CrossDataset,
        Some("coco-stuff164k"),
    );
    assert_eq!(
        names(crossed),
        [
            "ZegFormer",
            "ZegCLIP",
            "†ZegCLIP+ST",
            "CAT-Seg (ViT-B/16)",
            "CAT-Seg (ViT-L/14)"
        ]
    );
    let dagger = rows(
        "pascal-context",
        "pascal-context60",
        Protocol::TransductiveUnseen,
        None,
    );
    assert_eq!(names(dagger), ["MaskCLIP+", "ZegCLIP+ST"]);
    // Folder data sets have their own class names.
    let medical = rows("cvc-clinicdb", "custom", Protocol::FullySupervised, None);
    assert_eq!(
        medical.iter().map(|row| row.mdice).collect::<Vec<_>>(),
        [Some(69.75)]
    );
}

#[test]
fn figures_that_do_not_fit_are_known() {
    let rows = tables().iter().flat_map(|table| &table.rows);
    let differing: Vec<String> = rows
        .filter(|row| row.hiou_differs())
        .map(|row| {
            let (benchmark, protocol, method) = (&row.benchmark, row.protocol, &row.method);
            let hiou = row.recomputed_hiou().unwrap();
            format!("{benchmark} {protocol} {method} {hiou:.1}")
        })
        .collect();
    assert_eq!(
        differing,
        [
            "voc12 inductive zsseg (SimBase) 77.6",
            "voc12 transductive zsseg+ST 78.6",
            "coco-stuff164k inductive CaGNet 17.9",
            "coco-stuff164k transductive STRICT 32.6",
            "pascal-context inductive CaGNet 20.9",
            "pascal-context fully-supervised ZegCLIP 58.5"
        ]
    );
}
