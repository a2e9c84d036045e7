//! The program's allocator.
//!
//! A training step allocates and frees tensors of many megabytes. What is freed stays with the program: given back to the
//! system and faulted in again, each page is cleared anew, which took a fifth of a step's processor time
//! (docs/src/project/decisions.md).

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After how many milliseconds freed memory goes back to the system; never where negative (`mi_option_purge_delay` of
/// mimalloc.h, in versions 2 and 3).
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed memory, unless the environment says otherwise.
#[allow(unsafe_code)]
pub(crate) fn keep_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    // SAFETY: the function takes the number of an option, which is below `_mi_option_last` of every version that this
    // crate contains, and may be called at any time (mimalloc.h, "Runtime options").
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}
