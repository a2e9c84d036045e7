//! The quickstart.

use super::*;

#[test]
fn the_quickstart_leaves_scores_images_and_a_page() {
    let folder = TempDir::new().unwrap();
    let arguments = ["quickstart", "--steps", "2", "--limit", "3", "--json", "-"];
    let small = ["--threads", "2"];
    let output = zeg(folder.path())
        .args(arguments)
        .args(small)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let outputs = zeg_cli::schema::outputs();
    let (_, schema) = outputs
        .iter()
        .find(|(name, _)| *name == "quickstart")
        .unwrap();
    assert_eq!(validate::faults(schema.as_value(), &summary), None);
    let runs = summary["runs"].as_array().unwrap();
    let mut pairs: Vec<(&str, u64)> = runs
        .iter()
        .map(|run| {
            (
                run["method"].as_str().unwrap(),
                run["split"].as_u64().unwrap(),
            )
        })
        .collect();
    pairs.dedup();
    assert_eq!(
        pairs.len(),
        6,
        "three methods on two splits, each once: {pairs:?}"
    );
    for run in runs {
        assert!(run["p_acc"].is_number() && run["hiou"].is_number(), "{run}");
    }
    let quickstart = folder.path().join("quickstart");
    for file in [
        "reports/split-0/report.html",
        "reports/split-1/report.html",
        "segmented/index.html",
        "zegclip.toml",
    ] {
        assert!(quickstart.join(file).is_file(), "{file}");
    }
    let page = std::fs::read_to_string(quickstart.join("index.html")).unwrap();
    assert_eq!(page.matches("<li class=\"shot\">").count(), 6);
    for shown in page.split("<img src=\"").skip(1) {
        let file = shown.split('"').next().unwrap();
        assert!(quickstart.join(file).is_file(), "{file}");
    }
    assert!(
        page.contains("unseen · IoU"),
        "each image shows an unseen class"
    );
    for averaged in ["±", "mean of", "average"] {
        assert!(
            !page.contains(averaged),
            "methods are compared, never averaged"
        );
    }
    let text = stderr(&output);
    assert!(
        text.contains("$ zeg train quickstart/zegclip.toml --weights mini"),
        "{text}"
    );

    let again = zeg(folder.path()).args(arguments).output().unwrap();
    assert!(!again.status.success());
    assert!(stderr(&again).contains("--overwrite"), "{}", stderr(&again));
}

/// The whole quickstart, with bounds that leave room for other machines.
#[test]
fn the_quickstart_learns_classes_without_a_mask() {
    let folder = TempDir::new().unwrap();
    let output = zeg(folder.path())
        .args(["quickstart", "--quiet", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["seconds"].as_f64().unwrap() < 900.0, "{summary}");
    let score = |run: &serde_json::Value, name: &str| run[name].as_f64().unwrap();
    let runs = summary["runs"].as_array().unwrap();
    for run in runs {
        // Chance finds one class in 20.
        assert!(score(run, "miou_unseen") > 0.25, "{run}");
        assert!(score(run, "miou_seen") > 0.5, "{run}");
    }
    let best = summary["best"].as_str().unwrap();
    for run in runs.iter().filter(|run| run["title"] == best) {
        assert!(score(run, "hiou") > 0.5, "{run}");
    }
}

#[test]
fn a_quickstart_does_not_replace_runs_of_somebody_else() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("runs/own/model.safetensors");
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    std::fs::write(&own, "weeks of work").unwrap();
    let arguments = ["quickstart", "-o", ".", "--overwrite"];
    let output = zeg(folder.path()).args(arguments).output().unwrap();
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("was not made by a quickstart"),
        "{}",
        stderr(&output)
    );
    assert_eq!(std::fs::read_to_string(&own).unwrap(), "weeks of work");

    // A page that is not a quickstart's stays, too, with and without the flag.
    let folder = TempDir::new().unwrap();
    let page = folder.path().join("index.html");
    std::fs::write(&page, "a home page").unwrap();
    for flags in [&["-o", "."][..], &arguments[1..]] {
        let output = zeg(folder.path())
            .arg("quickstart")
            .args(flags)
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(stderr(&output).contains("index.html was not made by a quickstart"));
        assert_eq!(std::fs::read_to_string(&page).unwrap(), "a home page");
    }
}

#[cfg(unix)]
#[test]
fn a_quickstart_removes_no_folder_behind_a_link() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("disk/model.safetensors");
    std::fs::create_dir(own.parent().unwrap()).unwrap();
    std::fs::write(&own, "weeks of work").unwrap();
    std::fs::write(folder.path().join("quickstart.json"), "{}").unwrap();
    let link = folder.path().join("reports");
    std::os::unix::fs::symlink("disk", &link).unwrap();
    let arguments = ["quickstart", "-o", ".", "--overwrite"];
    let output = zeg(folder.path()).args(arguments).output().unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("not a folder, so it is not removed"));
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert!(own.is_file());
}
