//! `zeg check` with small models of every method: as text, as JSON and with `--quiet`.

#![allow(clippy::unwrap_used)] // in tests

use assert_cmd::Command;
use zeg_model::methods::Methods;

fn check(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("zeg").unwrap();
    let command = command.args(["check", "--size", "small"]).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn every_method_is_checked_and_listed() {
    let (code, out, err) = check(&[]);
    assert_eq!(code, 0, "{out}{err}");
    for method in Methods::default().iter() {
        assert!(out.contains(method.name()), "{out}");
    }
    for word in ["instructions", "threads", "devices", "kernels", "deviation"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let count = Methods::default().iter().count();
    let last = out.lines().last().unwrap();
    assert_eq!(last, format!("check: PASS {count} cases"));
}

#[test]
fn the_result_can_be_json_or_the_verdict_only() {
    let (code, out, _) = check(&["--precision", "int8", "--json", "-"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["passed"]), (0, &true.into()), "{out}");
    assert_eq!(report["precision"], "int8");
    for case in report["cases"].as_array().unwrap() {
        let limit = case["limit"].as_f64().unwrap();
        assert!(case["deviation"].as_f64().unwrap() <= limit, "{case}");
        assert_eq!(case["repeats"], true, "{case}");
    }
    let (code, out, err) = check(&["--quiet"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}{err}");
    assert!(err.is_empty(), "{err}");
}

#[test]
fn a_device_that_this_build_lacks_is_refused() {
    if cfg!(not(feature = "webgpu")) {
        let (code, _, err) = check(&["--device", "webgpu"]);
        assert_eq!(code, 1);
        assert!(err.contains("webgpu"), "{err}");
    }
}
