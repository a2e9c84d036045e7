//! Starts the program with and without `mpirun`, and looks at its processes.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Returns whether `mpirun` is there; says so once if it is not.
pub(crate) fn has_mpirun() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let found = Command::new("mpirun").arg("--version").output().is_ok();
        if !found {
            eprintln!("skipped: mpirun is not installed");
        }
        found
    })
}

/// A folder for the files of a test.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the arguments of a training on the mini world, with a folder for the run.
    pub(crate) fn train(&self, config: &str, run: &str) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let file = root.join(format!("configs/mini-world/{config}.toml"));
        let output = self.path(run);
        [
            "train",
            file.to_str().unwrap(),
            "--weights",
            "mini",
            "-o",
            output.to_str().unwrap(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Returns `mpirun` with ranks of one thread that run the program.
    pub(crate) fn mpirun(&self, size: usize, arguments: &[String]) -> Command {
        let mut command = self.launcher("self,vader");
        command.args(["-n", &size.to_string(), env!("CARGO_BIN_EXE_zeg")]);
        command.args(arguments);
        command
    }

    /// Returns `mpirun` with two ranks that have different arguments.
    pub(crate) fn two(&self, first: &[String], second: &[String]) -> Command {
        let mut command = self.launcher("self,vader");
        command
            .args(["-n", "1", env!("CARGO_BIN_EXE_zeg")])
            .args(first);
        command
            .args([":", "-n", "1", env!("CARGO_BIN_EXE_zeg")])
            .args(second);
        command
    }

    /// Returns `mpirun` for processes on this host.
    ///
    /// - `ways`: how messages travel, by Open MPI's names
    pub(crate) fn launcher(&self, ways: &str) -> Command {
        let mut command = Command::new("mpirun");
        command.args([
            "--allow-run-as-root",
            "--oversubscribe",
            "--bind-to",
            "none",
        ]);
        command.args(["--mca", "btl", ways, "--mca", "btl_tcp_if_include", "lo"]);
        // Its own temporary folder, so that tests at the same time do not meet.
        command.env("TMPDIR", self.folder.path());
        for name in ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"] {
            command.env_remove(name);
        }
        command.env("ZEG_THREADS", "1").env_remove("ZEG_DEVICE");
        command
            .env("ZEG_CACHE", self.path("cache"))
            .env("ZEG_OFFLINE", "1");
        command.current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, mut command: Command) -> Ran {
        command.current_dir(self.folder.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        Ran { output }
    }
}

/// Returns the program as one process, with one thread.
pub(crate) fn zeg(arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeg"));
    command
        .args(arguments)
        .env("ZEG_THREADS", "1")
        .env_remove("ZEG_DEVICE");
    command.env("ZEG_OFFLINE", "1");
    command
}

/// Returns the bytes of the model of a run.
pub(crate) fn model(place: &Place, run: &str) -> Vec<u8> {
    std::fs::read(place.path(run).join("model.safetensors")).unwrap()
}

/// A command that has ended.
pub(crate) struct Ran {
    output: Output,
}

impl Ran {
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    #[track_caller]
    pub(crate) fn success(&self) -> &Self {
        assert!(self.output.status.success(), "{}", self.stderr());
        self
    }

    /// Checks that it failed with one message, and returns that.
    #[track_caller]
    pub(crate) fn failure(&self) -> String {
        assert!(!self.output.status.success(), "{}", self.stderr());
        let stderr = self.stderr();
        let messages: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(messages.len(), 1, "{stderr}");
        stderr
    }
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            child: command.spawn().unwrap(),
        }
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, holds: impl Fn() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(
                started.elapsed() < Duration::from_mins(4),
                "{what}: not within 240 s"
            );
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "{what}: ended too early"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the process of a rank.
    pub(crate) fn process_of(&self, rank: usize) -> i32 {
        let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
        let parent = self.child.id().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let mut processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let found = processes.find(|process: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let is_child = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.split(' ').nth(1))
                .is_some_and(|of| of == parent);
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            is_child
                && environment
                    .split(|byte| *byte == 0)
                    .any(|it| it == wanted.as_bytes())
        });
        found.unwrap()
    }

    /// Sends a signal to a rank.
    pub(crate) fn signal(&self, rank: usize, signal: nix::sys::signal::Signal) {
        let process = nix::unistd::Pid::from_raw(self.process_of(rank));
        nix::sys::signal::kill(process, signal).unwrap();
    }

    /// Waits for the end of all processes.
    #[track_caller]
    pub(crate) fn end(mut self, limit: Duration) -> Ran {
        let started = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if started.elapsed() > limit {
                let _ = self.child.kill();
                panic!("still running after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = self.child.wait_with_output().unwrap();
        Ran { output }
    }
}
