//! splitmix64 (Steele, Lea and Flood, OOPSLA 2014): pseudo-random bits as a function of a counter.

/// The increment between two states of one sequence: 2⁶⁴ divided by the golden ratio, rounded to an odd number.
pub const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Returns the splitmix64 output for a state.
///
/// The sequence of a seed is `splitmix64(seed)`, `splitmix64(seed + GOLDEN_GAMMA)`, …, with addition modulo 2⁶⁴.
pub fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(GOLDEN_GAMMA);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are the first outputs of `splitmix64.c` by Sebastiano Vigna for the seed 1234567.
    #[test]
    fn outputs_equal_the_published_ones() {
        let states = std::iter::successors(Some(1_234_567_u64), |state| {
            Some(state.wrapping_add(GOLDEN_GAMMA))
        });
        let outputs: Vec<u64> = states.take(5).map(splitmix64).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(outputs, published);
    }
}
