//! FNV-1a with 64 bits: a hash of names that stays the same across versions and machines.
//!
//! It is neither keyed nor cryptographic: seeds may follow from it, trust may not.

use std::hash::Hasher as _;

use fnv::FnvHasher;

/// Returns the FNV-1a hash of bytes.
pub fn fnv1a(bytes: impl AsRef<[u8]>) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes.as_ref());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test suite of the draft `draft-eastlake-fnv`, appendix C.
    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }
}
