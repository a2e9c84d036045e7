//! Locks: one process at a time works on a folder or a file.
//!
//! The lock is the operating system's lock on a small file, so it ends with its process, even with one that is killed.
//! The content of the file is for messages: process, host and start of its owner. A file that is found unlocked but
//! with an owner was left by a process that ended early; on the same machine the lock is taken over. The file systems
//! of clusters need not share locks between hosts, so an owner on another host is believed to be alive.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Name of the file that locks the folder it is in.
pub const FOLDER_LOCK: &str = "zeg.lock";
/// Longest lock file that is read, in bytes.
const LONGEST: u64 = 4096;
/// Number of attempts before a lock file that others keep removing is given up.
const ATTEMPTS: usize = 100;

/// The process that holds a lock, or held it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Number of the process.
    pub process: u32,
    /// Name of its host.
    pub host: String,
    /// Identity of the boot of its host; empty where the system has none.
    boot: String,
    /// Time of the lock, to the second.
    pub since: SystemTime,
}

impl Owner {
    /// Returns this process.
    fn current() -> Self {
        let of_kernel = |name: &str| {
            let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name));
            text.map(|text| printable(text.trim())).ok()
        };
        let of_variable = |name: &str| std::env::var(name).ok().map(|text| printable(&text));
        let host = of_kernel("hostname")
            .or_else(|| of_variable("HOSTNAME"))
            .or_else(|| of_variable("COMPUTERNAME"));
        Self {
            process: std::process::id(),
            host: host.unwrap_or_else(|| "unknown".to_owned()),
            boot: of_kernel("random/boot_id").unwrap_or_default(),
            since: SystemTime::now().max(SystemTime::UNIX_EPOCH), // earlier times have no text
        }
    }

    /// Returns the owner that a lock file names; `None` if the text has another form.
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        Some(Self {
            process: value("process")?.parse().ok()?,
            host: printable(value("host")?),
            boot: printable(value("boot").unwrap_or_default()),
            since: humantime::parse_rfc3339(value("since")?).ok()?,
        })
    }

    /// Returns the content of a lock file.
    fn to_text(&self) -> String {
        let since = humantime::format_rfc3339_seconds(self.since);
        format!(
            "process {}\nhost {}\nboot {}\nsince {since}\n",
            self.process, self.host, self.boot
        )
    }

    /// Whether the owner ran on the machine of another process, as far as both tell it.
    ///
    /// Containers of one machine have host names of their own, but the same boot; a machine that was started anew has
    /// the same host name.
    fn shares_machine(&self, other: &Self) -> bool {
        self.host == other.host || (!self.boot.is_empty() && self.boot == other.boot)
    }

    /// Whether the process seems to run on this machine, for file systems without locks.
    fn seems_alive(&self) -> bool {
        let processes = Path::new("/proc");
        !processes.join("self").exists() || processes.join(self.process.to_string()).exists()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = humantime::format_rfc3339_seconds(self.since);
        write!(
            f,
            "process {} on host {} (since {since})",
            self.process, self.host
        )
    }
}

/// Returns a text without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Errors of locking; each names the place that was to be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A process holds the lock.
    #[error("{} is in use by {}", place.display(), named(owner.as_ref()))]
    InUse {
        /// The folder or file.
        place: PathBuf,
        /// The process, if the lock file could be read.
        owner: Option<Owner>,
    },
    /// A process of another host holds the lock, or left it behind.
    #[error("{} belongs to {owner}; this host cannot tell whether that process still runs", place.display())]
    OtherHost {
        /// The folder or file.
        place: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// The process.
        owner: Box<Owner>,
    },
    /// Something else has the name of the lock file.
    #[error("{}: not a lock of this program, so it is left alone", lock.display())]
    Foreign {
        /// What stands in the way.
        lock: PathBuf,
    },
    /// The lock file, or the folder for it, cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

fn named(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "another process".to_owned(), ToString::to_string)
}

/// A lock that this process holds; dropping it removes the lock file.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    was_left: bool,
    left_by: Option<Owner>,
    /// Folders that were made for the lock, the innermost first; those that stay empty are removed.
    made: Vec<PathBuf>,
}

impl Lock {
    /// Locks a folder by a file in it, and creates the folder if it does not exist.
    ///
    /// # Errors
    /// Returns an error if another process holds the lock, or if the folder cannot be created or written into.
    pub fn of_folder(folder: &Path) -> Result<Self, LockError> {
        Self::acquire(folder, &folder.join(FOLDER_LOCK))
    }

    /// Locks a file that need not exist, by a file beside it with `.lock` at the end of its name; creates the folder.
    ///
    /// # Errors
    /// Returns an error if another process holds the lock, or if no file can be created beside the file.
    pub fn of_file(path: &Path) -> Result<Self, LockError> {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        Self::acquire(path, Path::new(&lock))
    }

    /// Whether a process that held the lock before ended without releasing it.
    pub fn was_left(&self) -> bool {
        self.was_left
    }

    /// Returns the process of [`was_left`](Self::was_left), unless it ended before it could say who it was.
    pub fn left_by(&self) -> Option<&Owner> {
        self.left_by.as_ref()
    }

    fn acquire(place: &Path, path: &Path) -> Result<Self, LockError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Write { path, source }
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut made = Vec::new();
        for _ in 0..ATTEMPTS {
            let missing = missing_folders(folder);
            if !missing.is_empty() {
                fs::create_dir_all(folder).map_err(write(folder))?;
                made = missing;
            }
            let file = match open(path) {
                // Another process has just removed the folder that it had made.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(write(path))?,
            };
            let Some((mut file, was_left)) = file else {
                return Err(LockError::Foreign {
                    lock: path.to_owned(),
                });
            };
            let is_locked = match file.try_lock() {
                Ok(()) if !is_at(&file, path) => continue, // the former owner has just removed it
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::InUse {
                        place: place.to_owned(),
                        owner: read(path).and_then(|text| Owner::parse(&text)),
                    });
                }
                Err(TryLockError::Error(_)) => false, // a file system without locks
            };
            let text = read(path).unwrap_or_default();
            let left_by = Owner::parse(&text);
            if left_by.is_none() && !text.trim().is_empty() {
                return Err(LockError::Foreign {
                    lock: path.to_owned(),
                });
            }
            let own = Owner::current();
            if let Some(owner) = &left_by {
                if !owner.shares_machine(&own) {
                    return Err(LockError::OtherHost {
                        place: place.to_owned(),
                        lock: path.to_owned(),
                        owner: Box::new(owner.clone()),
                    });
                }
                if !is_locked && owner.process != own.process && owner.seems_alive() {
                    return Err(LockError::InUse {
                        place: place.to_owned(),
                        owner: left_by,
                    });
                }
            }
            if let Err(source) = state(&mut file, &own) {
                if !was_left {
                    let _ = fs::remove_file(path);
                }
                return Err(write(path)(source));
            }
            return Ok(Self {
                file,
                path: path.to_owned(),
                was_left,
                left_by,
                made,
            });
        }
        Err(LockError::InUse {
            place: place.to_owned(),
            owner: None,
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            // Still locked, so that no other process locks a file that is about to vanish.
            let _ = fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                return; // it holds something by now
            }
        }
    }
}

/// Returns a folder and those above it that do not exist, the innermost first.
fn missing_folders(folder: &Path) -> Vec<PathBuf> {
    let above = folder.ancestors();
    let missing = above.take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    missing.map(Path::to_owned).collect()
}

/// Opens a lock file, which is created if nothing stands at its path; returns `None` if something else does.
///
/// The second value is whether the file was there.
fn open(path: &Path) -> io::Result<Option<(File, bool)>> {
    let found = fs::symlink_metadata(path);
    if found.as_ref().is_ok_and(|found| !found.is_file()) {
        return Ok(None);
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    Ok(Some((options.open(path)?, found.is_ok())))
}

/// Returns the content of a lock file, if it can be read.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes the owner of a lock into its file.
fn state(file: &mut File, owner: &Owner) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(owner.to_text().as_bytes())
}

/// Whether an open file is the one at a path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let same = |a: &fs::Metadata, b: &fs::Metadata| a.dev() == b.dev() && a.ino() == b.ino();
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(found)) => same(&open, &found),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves a lock in a folder whose process does not run.
    fn leave(folder: &Path, owner: &Owner) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(FOLDER_LOCK), owner.to_text()).unwrap();
    }

    #[test]
    fn a_folder_is_locked_once_and_a_lock_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("runs/a");
        let lock = Lock::of_folder(&folder).unwrap();
        assert!(!lock.was_left() && lock.left_by().is_none());
        let error = Lock::of_folder(&folder).unwrap_err();
        let LockError::InUse {
            owner: Some(owner), ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(owner.process, std::process::id());
        assert!(error.to_string().contains("runs/a is in use by process "));
        drop(lock);
        assert!(!temporary.path().join("runs").exists());
        let lock = Lock::of_folder(&folder).unwrap();
        fs::write(folder.join("result"), "").unwrap();
        drop(lock);
        let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_lock_of_a_dead_process_is_taken_over_on_the_same_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let dead = Owner {
            process: u32::MAX,
            since: SystemTime::UNIX_EPOCH,
            ..Owner::current()
        };
        leave(folder.path(), &dead);
        let lock = Lock::of_folder(folder.path()).unwrap();
        assert!(lock.was_left());
        assert_eq!(lock.left_by(), Some(&dead));
        drop(lock);
        let other = Owner {
            host: "elsewhere".into(),
            boot: "other".into(),
            ..dead
        };
        leave(folder.path(), &other);
        let error = Lock::of_folder(folder.path()).unwrap_err();
        assert!(matches!(error, LockError::OtherHost { .. }), "{error}");
        assert!(error.to_string().contains("elsewhere"), "{error}");
        assert!(folder.path().join(FOLDER_LOCK).exists());
    }

    #[test]
    fn a_container_and_a_restarted_host_are_the_same_machine() {
        let own = Owner::current();
        let restarted = Owner {
            boot: "other".into(),
            ..own.clone()
        };
        assert!(restarted.shares_machine(&own));
        let container = Owner {
            host: "other".into(),
            boot: "same".into(),
            ..own.clone()
        };
        let host = Owner {
            boot: "same".into(),
            ..own
        };
        assert!(container.shares_machine(&host));
    }

    #[test]
    fn what_is_no_lock_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("model.safetensors");
        let beside = temporary.path().join("model.safetensors.lock");
        fs::write(&beside, "mine").unwrap();
        let error = Lock::of_file(&file).unwrap_err();
        assert!(matches!(error, LockError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_to_string(&beside).unwrap(), "mine");
        fs::remove_file(&beside).unwrap();
        fs::create_dir(&beside).unwrap();
        assert!(matches!(
            Lock::of_file(&file).unwrap_err(),
            LockError::Foreign { .. }
        ));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Lock::of_folder(&file.join("run")).unwrap_err();
        assert!(matches!(error, LockError::Write { .. }), "{error}");
        assert!(error.to_string().contains("file/run"), "{error}");
    }
}
