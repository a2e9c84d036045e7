//! An evaluation that several ranks share.

use zeg_base::{fingerprint::Fingerprint, ranks::Ranks};

use super::{args::EvalSettings, job::EvalJob};
use crate::commands::{json::JsonTarget, train::same_fingerprints};

/// Checks that all ranks score the same models on the same images.
///
/// # Errors
/// Returns an error that names the first rank that differs, or one if another rank has failed.
pub(super) fn check_same(ranks: &Ranks, jobs: &[EvalJob]) -> anyhow::Result<()> {
    if ranks.is_single() {
        return Ok(());
    }
    let program = env!("CARGO_PKG_VERSION");
    let mut own = Fingerprint::new().with("program", program);
    for (job, number) in jobs.iter().zip(1..) {
        own = own.and(job.facts()?.grouped(&format!("model {number}")));
    }
    same_fingerprints(ranks, &own)
}

/// Returns where the document goes: the first rank writes it.
pub(super) fn json<'a>(settings: &'a EvalSettings, ranks: &Ranks) -> Option<&'a JsonTarget> {
    settings.json.as_ref().filter(|_| ranks.is_first())
}
