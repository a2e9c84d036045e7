//! The allocator of the program.
//!
//! A training step allocates and frees tensors of many megabytes. The program keeps freed memory: if it returned the
//! memory to the system and asked for it again, the system would clear every page anew, which took a fifth of the
//! processor time of a step (docs/src/project/decisions.md).

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of the option `mi_option_purge_delay` in mimalloc.h, versions 2 and 3: the milliseconds after which freed
/// memory returns to the system; a negative value means never.
const PURGE_DELAY: mi_option_t = 15;

/// Makes the allocator keep freed memory, unless `MIMALLOC_PURGE_DELAY` is set.
#[allow(unsafe_code)]
pub(crate) fn keep_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    // SAFETY: the function takes the number of an option. This number is below `_mi_option_last` of every version that this
    // crate contains, and the function may be called at any time (mimalloc.h, "Runtime options").
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}
