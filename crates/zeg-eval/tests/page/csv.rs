//! The CSV file.

use super::*;

#[test]
fn csv_holds_every_number() {
    let mut runs: Vec<Evaluation> = (1..4)
        .map(|seed| evaluation("voc20", 0..30, seed))
        .collect();
    for run in &mut runs {
        run.classes[3].name = "boat, \"ship\"\r\nor ferry".into();
    }
    let reports: Vec<_> = runs.iter().map(|run| run.report().unwrap()).collect();
    let records = records(&to_csv(&input("x", runs)).unwrap());
    assert_eq!(
        records[0].join(","),
        "run,scope,class,split,metric,value,std,n"
    );
    assert!(records.iter().all(|record| record.len() == 8));
    let find = |run: &str, class: &str, metric: &str| -> Vec<String> {
        let found: Vec<_> = records
            .iter()
            .filter(|record| record[0] == run && record[2] == class && record[4] == metric)
            .collect();
        assert_eq!(found.len(), 1, "{run} {class} {metric}");
        found[0].clone()
    };
    // Every number is read back exactly.
    for (run, report) in reports.iter().enumerate() {
        let run = (run + 1).to_string();
        let hiou: f64 = find(&run, "", "hIoU")[5].parse().unwrap();
        assert_eq!(hiou.to_bits(), report.hiou.unwrap().to_bits());
        let boat = find(&run, "boat, \"ship\"\r\nor ferry", "IoU");
        assert_eq!(
            boat[5].parse::<f64>().unwrap().to_bits(),
            report.classes[3].iou.unwrap().to_bits()
        );
        assert_eq!(boat[3], "seen");
        assert_eq!(
            find(&run, "sheep", "pixels")[5],
            report.classes[16].pixels.to_string()
        );
    }
    let mean = find("mean", "", "mIoU(U)");
    let expected = reports
        .iter()
        .map(|report| report.miou_unseen.unwrap())
        .sum::<f64>()
        / 3.0;
    assert!((mean[5].parse::<f64>().unwrap() - expected).abs() < 1e-15);
    assert_eq!((mean[6].is_empty(), mean[7].as_str()), (false, "3"));
    // The file has a header, and summaries and classes of three runs and of their mean.
    assert_eq!(records.len(), 1 + 3 * (7 + 20 * 4) + 7 + 20 * 3);
}

#[test]
fn an_undefined_number_is_an_empty_field() {
    let records = records(&to_csv(&input("x", vec![evaluation("voc20", 0..0, 1)])).unwrap());
    assert_eq!(records[1], ["1", "summary", "", "", "pAcc", "", "", "0"]);
}
