//! Checks the files in `deploy/`: the container, the compose file and the systemd unit.

use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(name)).unwrap()
}

/// Returns the instructions of a Dockerfile, with continued lines joined and without comments.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let whole = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = whole.lines().map(str::trim).filter(|line| !line.is_empty());
    let split = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap();
        (name.to_owned(), rest.trim().to_owned())
    };
    lines.map(split).collect()
}

/// Returns the words of a text that are flags of the program.
fn flags(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| c.is_whitespace() || "\"',[]`".contains(c));
    parts
        .filter(|word| word.len() > 3 && word.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

/// Returns the flags that a page of the command reference does not name.
fn unknown_flags(page: &str, used: &[String]) -> Vec<String> {
    let known = flags(page);
    let unknown = used.iter().filter(|flag| !known.contains(flag));
    unknown.cloned().collect()
}

/// Fails for flags that the page of `zeg serve` in the command reference does not name.
fn check_flags(file: &str, used: &[String]) {
    let page = root().join("docs/src/reference/commands/serve.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(!used.is_empty(), "{file}");
    let unknown = unknown_flags(&page, used);
    assert!(unknown.is_empty(), "{file}: `zeg serve` has no {unknown:?}");
}

/// A flag that is the beginning of another one was taken for it.
#[test]
fn flags_are_compared_as_a_whole() {
    let page = "- `--label-studio <URL>`\n- `--no-auth`";
    let used = flags("--label --label-studio --no-auth");
    assert_eq!(unknown_flags(page, &used), ["--label"]);
}

/// Tests of the page pass without Chromium, and their messages are not shown.
#[test]
fn a_check_without_a_browser_says_so() {
    let script = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let start = script.find("if ! command -v chromium").unwrap();
    let end = start + script[start..].find("\nfi").unwrap() + "\nfi".len();
    let folder = tempfile::tempdir().unwrap();
    let said = || {
        let output = std::process::Command::new("bash")
            .args(["-c", &format!("PATH=$1\n{}", &script[start..end]), "bash"])
            .arg(folder.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(said().lines().count(), 1);
    assert!(said().starts_with("skipped: "), "{}", said());
    let program = folder.path().join("google-chrome");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    assert_eq!(said(), "");
}

/// In an address after `#token=`, the signs + and / of base64 are easily lost.
#[test]
fn tokens_are_made_of_digits_and_letters() {
    let page = std::fs::read_to_string(root().join("docs/src/guide/container.md")).unwrap();
    for text in [page, read("compose.yaml")] {
        assert!(text.contains("openssl rand -hex 32 > deploy/zeg-token"));
        assert!(!text.contains("base64"));
    }
}

#[test]
fn the_container_runs_as_nobody_in_particular_and_says_how_it_is() {
    let text = read("Dockerfile");
    let all = instructions(&text);
    let of = |name: &str| {
        let found = all.iter().filter(|(own, _)| own == name);
        found.map(|(_, rest)| rest.as_str()).collect::<Vec<_>>()
    };
    for (name, _) in &all {
        let known = [
            "FROM",
            "WORKDIR",
            "COPY",
            "ENV",
            "RUN",
            "USER",
            "EXPOSE",
            "HEALTHCHECK",
            "ENTRYPOINT",
            "CMD",
        ];
        assert!(known.contains(&name.as_str()), "{name}");
    }
    // Two stages, each from an image with a version; the toolchain stays in the first.
    let stages = of("FROM");
    assert_eq!(stages.len(), 2);
    assert!(
        stages
            .iter()
            .all(|image| image.contains(':') && !image.contains("latest")),
        "{stages:?}"
    );
    assert_eq!(
        of("COPY").last(),
        Some(&"--from=build /src/target/release/zeg /usr/local/bin/zeg")
    );
    // The last stage ends as a user by number, so that a cluster can see that it is not root.
    let user = of("USER");
    assert_eq!(user, ["10001:10001"]);
    let position = |name: &str| all.iter().rposition(|(own, _)| own == name).unwrap();
    assert!(position("USER") > position("RUN") && position("USER") < position("CMD"));
    let check = of("HEALTHCHECK")[0];
    assert!(
        check.contains("/readyz") && check.contains("--timeout"),
        "{check}"
    );
    // Lists in JSON form run without a shell, which would keep signals from the program.
    for (name, first) in [("ENTRYPOINT", "zeg"), ("CMD", "--model")] {
        let words: Vec<String> = serde_json::from_str(of(name)[0]).unwrap();
        assert_eq!(words[0], first);
    }
    let command = check.split_once("CMD ").unwrap().1;
    let words: Vec<String> = serde_json::from_str(command).unwrap();
    assert_eq!(words[..2], ["bash", "-c"]);
    let mut used = flags(of("ENTRYPOINT")[0]);
    used.extend(flags(of("CMD")[0]));
    // The calls in the head of the file; flags before the name of the image are docker's.
    for line in text
        .lines()
        .filter(|line| line.starts_with("#   docker run"))
    {
        used.extend(flags(line.split_once(" zeg ").unwrap().1));
    }
    check_flags("Dockerfile", &used);
    let ignored = read("Dockerfile.dockerignore");
    assert!(ignored.lines().any(|line| line == "**/target"));
}

#[test]
fn the_compose_file_is_for_one_machine_and_has_a_token() {
    let text = read("compose.yaml");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let body = lines.join("\n");
    assert!(!body.contains('\t'), "YAML has no tabs");
    for part in [
        "services:",
        "  zeg:",
        "  label-studio:",
        "volumes:",
        "secrets:",
    ] {
        assert!(lines.contains(&part), "{part}");
    }
    // Ports are open on this machine only.
    let ports: Vec<&&str> = lines
        .iter()
        .filter(|line| line.trim().starts_with("- \""))
        .collect();
    assert_eq!(ports.len(), 2);
    assert!(
        ports.iter().all(|port| port.contains("\"127.0.0.1:")),
        "{ports:?}"
    );
    let images: Vec<&&str> = lines
        .iter()
        .filter(|line| line.trim().starts_with("image:"))
        .collect();
    assert!(
        images
            .iter()
            .all(|image| image.matches(':').count() == 2 && !image.contains("latest")),
        "{images:?}"
    );
    for line in [
        "    read_only: true",
        "      - no-new-privileges:true",
        "        condition: service_healthy",
    ] {
        assert!(lines.contains(&line), "{line}");
    }
    assert!(body.contains("--token-file") && !body.contains("--no-auth"));
    check_flags("compose.yaml", &flags(&body));
    // Secrets are not committed.
    let ignored = read(".gitignore");
    assert!(ignored.lines().any(|line| line == "zeg-token"));
}

#[test]
fn the_systemd_unit_has_its_sections_and_gives_the_server_time_to_stop() {
    let text = read("zeg.service");
    let mut section = "";
    let mut settings = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            settings.push((section, key, value));
        }
    }
    let of = |key: &str| {
        settings
            .iter()
            .find(|(_, own, _)| *own == key)
            .map(|(section, _, value)| (*section, *value))
    };
    let (section, start) = of("ExecStart").unwrap();
    assert_eq!(section, "Service");
    assert!(
        start.starts_with("/usr/local/bin/zeg serve ") && start.contains("--token-file"),
        "{start}"
    );
    check_flags("zeg.service", &flags(start));
    let patience: u64 = of("TimeoutStopSec").unwrap().1.parse().unwrap();
    let config = zeg_serve::ServeConfig::default();
    assert!(
        patience > config.stop_time.as_secs(),
        "the server needs {:?} to stop",
        config.stop_time
    );
    // Memory by the number of workers, as docs/src/guide/serve.md counts it, for one model.
    let gibibytes = |workers: u64| {
        let fixed = config.cache_memory
            + config.upload_memory as u64
            + 2 * config.max_body as u64
            + (64 << 20);
        (fixed + 9 * config.max_pixels * workers) as f64 / f64::from(1 << 30)
    };
    let said = format!(
        "two workers about {:.1} GiB, with eight {:.1} GiB",
        gibibytes(2),
        gibibytes(8)
    );
    assert!(text.replace("\n# ", " ").contains(&said), "{said}");
    assert_eq!(of("DynamicUser"), Some(("Service", "yes")));
    assert_eq!(of("WantedBy"), Some(("Install", "multi-user.target")));
}
