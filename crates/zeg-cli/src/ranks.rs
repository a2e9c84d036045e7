//! The ranks of this program: processes that a launcher such as `mpirun` or `srun` started together.
//!
//! `zeg train`, `zeg eval` and `zeg segment` share their work among ranks; every other command is work for one process. The
//! launcher says in environment variables how many processes it has started. Without this, each of them would take itself
//! for the only one and do the whole work.

#[cfg(feature = "mpi")]
mod mpi;

use std::{sync::OnceLock, time::Duration};

use zeg::DeviceChoice;
use zeg_base::ranks::{Ranks, RanksError};

#[cfg(feature = "mpi")]
use crate::commands::interrupt;
use crate::{
    cli::Command,
    commands::json::{self, JsonTarget},
    hints, host, say,
};

/// Environment variable with which the program ignores the launcher if it is `off`.
const SWITCH: &str = "ZEG_MPI";
/// Variables of the launchers: the number of processes, and the number of this one.
const LAUNCHERS: [[&str; 2]; 4] = [
    ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"],
    ["MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"],
    ["PMI_SIZE", "PMI_RANK"],
    ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"],
];
/// Variables of the launchers: the number of this process among those of its host.
const LOCAL_RANKS: [&str; 4] = [
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "SLURM_LOCALID",
];
/// Number of threads of this rank, unless the user states it.
static THREADS: OnceLock<usize> = OnceLock::new();

/// The errors of starting several processes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// This build cannot work with other processes.
    #[error(
        "{size} processes were started ({variable} is {size}), but this build of zeg works alone"
    )]
    #[cfg_attr(feature = "mpi", allow(dead_code))]
    NoMpi { size: usize, variable: &'static str },
    /// The command is work for one process.
    #[error(
        "{size} processes were started ({variable} is {size}), but `zeg {command}` is work for one"
    )]
    OneProcess {
        size: usize,
        variable: &'static str,
        command: &'static str,
    },
    /// The MPI library does not know of the other processes.
    #[error(
        "the launcher has started {size} processes ({variable} is {size}), but the MPI library of this program knows of \
         {known}"
    )]
    #[cfg_attr(not(feature = "mpi"), allow(dead_code))]
    Unknown {
        size: usize,
        variable: &'static str,
        known: usize,
    },
    /// The MPI library cannot be started.
    #[error("the MPI library cannot be started: {0}")]
    #[cfg_attr(not(feature = "mpi"), allow(dead_code))]
    Library(String),
}

impl LaunchError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoMpi { .. } => {
                "start it once, or build it with `--features mpi`; with ZEG_MPI=off each process works alone"
            }
            Self::OneProcess { .. } => {
                "start it once; train, eval and segment share their work among processes"
            }
            Self::Unknown { .. } => {
                "start the program with the launcher of the MPI library that it was built with; under Slurm, \
                 `srun --mpi=pmix` or `--mpi=pmi2`"
            }
            Self::Library(_) => {
                "check the installation of MPI with a program of its own, such as `mpirun -n 2 hostname`"
            }
        }
    }
}

/// What a launcher says of the processes that it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Launch {
    size: usize,
    /// Number of this process.
    rank: usize,
    /// The variable that says so.
    variable: &'static str,
}

impl Launch {
    /// Returns what the environment says; `None` for a single process.
    ///
    /// - `variable`: returns an environment variable
    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        if variable(SWITCH).as_deref() == Some("off") {
            return None;
        }
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        LAUNCHERS.iter().find_map(|&[size, rank]| {
            let count = number(size).filter(|&count| count > 1)?;
            number(rank).map(|rank| Self {
                size: count,
                rank,
                variable: size,
            })
        })
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the number of this process among those that a launcher has started on this host, from 0.
fn local_rank() -> usize {
    let mut numbers = LOCAL_RANKS
        .iter()
        .map(|name| environment(name)?.trim().parse().ok());
    let number = numbers.find_map(|number| number);
    number
        .filter(|_| Launch::of(environment).is_some())
        .unwrap_or(0)
}

/// Returns the number of threads of this rank, unless the user states it; `None` for a single process.
pub(crate) fn own_threads() -> Option<usize> {
    THREADS.get().copied()
}

/// Returns the device of `--device auto`: a GPU of this host, each rank another one, or the processor without any.
pub(crate) fn own_device() -> DeviceChoice {
    let named = environment("CUDA_VISIBLE_DEVICES");
    let gpus = match &named {
        Some(list) => list
            .split(',')
            .filter(|name| !name.trim().is_empty())
            .count(),
        None => std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count),
    };
    if cfg!(feature = "cuda") && gpus > 0 {
        DeviceChoice::Cuda(local_rank() % gpus)
    } else if cfg!(feature = "webgpu") {
        DeviceChoice::WebGpu
    } else {
        DeviceChoice::Cpu
    }
}

/// Divides the cores of each host among its ranks, unless the launcher has given each its own.
fn share_cores(ranks: &Ranks) -> Result<(), RanksError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let allowed = lines
        .find(|line| line.starts_with("Cpus_allowed:"))
        .unwrap_or_default();
    let host = ranks.hosts().get(ranks.rank()).map_or("", String::as_str);
    let own = format!("{host}\n{allowed}");
    let all = ranks.gather("the cores of each rank", own.as_bytes())?;
    let same = all.iter().filter(|other| **other == own.as_bytes()).count();
    let _ = THREADS.set((cores / same.max(1)).max(1));
    Ok(())
}

/// Drops what this process prints, if a launcher has started it as another one than the first.
pub(crate) fn mute_others() {
    if Launch::of(environment).is_some_and(|launch| launch.rank > 0) {
        say::mute();
    }
}

/// Meets the other ranks of a command.
///
/// - `json`: where the command writes its document, for an error of which no other part of the program learns
///
/// # Errors
/// Returns an error if a launcher has started several processes for a command or a build that works alone.
pub(crate) fn open(command: &Command, json: Option<&JsonTarget>) -> anyhow::Result<Ranks> {
    let Some(launch) = Launch::of(environment).filter(|_| !command.is_shard()) else {
        say::unmute();
        return Ok(Ranks::single());
    };
    let Launch { size, variable, .. } = launch;
    let Some(timeout) = command.rank_timeout() else {
        return Err(LaunchError::OneProcess {
            size,
            variable,
            command: command.name(),
        }
        .into());
    };
    let ranks = join(launch, timeout, json)?;
    share_cores(&ranks)?;
    if ranks.is_first() {
        say::unmute();
    } else {
        say::mute();
    }
    Ok(ranks)
}

#[cfg(not(feature = "mpi"))]
fn join(launch: Launch, _: Duration, _: Option<&JsonTarget>) -> anyhow::Result<Ranks> {
    let Launch { size, variable, .. } = launch;
    Err(LaunchError::NoMpi { size, variable }.into())
}

#[cfg(feature = "mpi")]
fn join(launch: Launch, timeout: Duration, json: Option<&JsonTarget>) -> anyhow::Result<Ranks> {
    let json = json.cloned();
    let give_up = move |rank: usize, error: RanksError| {
        say::unmute();
        let error = anyhow::Error::new(error).context(format!("rank {rank}"));
        report(&error, json.as_ref().filter(|_| rank == 0));
        interrupt::remove_temporary_files();
    };
    let transport = mpi::MpiTransport::open(timeout, Box::new(give_up))?;
    let known = zeg_base::ranks::Transport::size(&transport);
    if known != launch.size {
        let Launch { size, variable, .. } = launch;
        return Err(LaunchError::Unknown {
            size,
            variable,
            known,
        }
        .into());
    }
    let host = mpi::host();
    Ok(Ranks::join(transport, &host)?)
}

/// Ends the work of all ranks after that of this one, and reports its error; returns the exit code if it failed.
///
/// An error is reported once: by the rank that has it, or the first of them. The first rank writes the document.
///
/// - `json`: where the command writes its document
pub(crate) fn finish(
    ranks: &Ranks,
    result: Result<std::process::ExitCode, anyhow::Error>,
    json: Option<&JsonTarget>,
    detail: impl FnOnce(&anyhow::Error),
) -> std::process::ExitCode {
    let first_json = json.filter(|_| ranks.is_first());
    let error = match result {
        Ok(code) => match ranks.meet("the end of the command") {
            Ok(()) => return code,
            Err(error) => error.into(),
        },
        Err(error) => error,
    };
    let code = hints::exit_code(&error);
    let is_of_others = error.chain().any(|cause| {
        let of_train = cause.downcast_ref::<zeg_train::TrainError>();
        matches!(
            of_train,
            Some(zeg_train::TrainError::Ranks(RanksError::Other { .. }))
        ) || matches!(cause.downcast_ref(), Some(RanksError::Other { .. }))
    });
    if is_of_others {
        json::report(first_json, &error, code);
        return std::process::ExitCode::from(code);
    }
    let text = hints::describe(&error);
    let reports = ranks.fail(&text).unwrap_or(true);
    if reports {
        let is_first = ranks.is_first();
        say::unmute();
        let error = if is_first {
            error
        } else {
            error.context(ranks.name(ranks.rank()))
        };
        // A program that has called the command gets the error with the document.
        if !host::is_called() {
            hints::print(&error);
        }
        detail(&error);
        json::report(first_json, &error, code);
    } else {
        json::report(first_json, &error, code);
    }
    std::process::ExitCode::from(code)
}

#[cfg(feature = "mpi")]
fn report(error: &anyhow::Error, json: Option<&JsonTarget>) {
    hints::print(error);
    json::report(json, error, hints::exit_code(error));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Option<Launch> {
        Launch::of(|name| {
            let mut all = variables.iter();
            let found = all.find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn launchers_are_recognised_by_their_variables() {
        let mpirun = [("OMPI_COMM_WORLD_SIZE", "3"), ("OMPI_COMM_WORLD_RANK", "0")];
        let expected = Launch {
            size: 3,
            rank: 0,
            variable: "OMPI_COMM_WORLD_SIZE",
        };
        assert_eq!(launch(&mpirun), Some(expected));
        assert_eq!(launch(&[mpirun[0], mpirun[1], (SWITCH, "off")]), None);
        assert_eq!(launch(&[("PMI_SIZE", "1"), ("PMI_RANK", "0")]), None);
        // The script of a Slurm job is no task of a step.
        assert_eq!(
            launch(&[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")]),
            None
        );
        let step = launch(&[("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "2")]);
        assert_eq!(step.map(|step| (step.size, step.rank)), Some((4, 2)));
        assert_eq!(launch(&[]), None);
    }
}
