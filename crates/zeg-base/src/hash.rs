//! FNV-1a with 64 bits: a hash of names that stays the same across versions and machines.
//!
//! It is neither keyed nor cryptographic: use it to derive seeds, not to verify content.

use std::hash::Hasher as _;

use fnv::FnvHasher;

/// Returns the 64-bit FNV-1a hash of `bytes`.
pub fn fnv1a(bytes: impl AsRef<[u8]>) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes.as_ref());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are from the test suite in `draft-eastlake-fnv`, appendix C.
    #[test]
    fn hashes_equal_the_published_ones() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }
}
