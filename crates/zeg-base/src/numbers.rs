//! The ranges of numbers that a user writes: on the command line, in experiment files and in descriptions of data sets.

/// The legal values of a number; infinite values and NaN are never legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legal {
    /// Any finite number.
    Finite,
    /// At least 0.
    NotNegative,
    /// Above 0.
    Positive,
    /// 0 to 1.
    Probability,
    /// At least 0 and below 1.
    BelowOne,
}

impl Legal {
    /// Returns whether a number is legal.
    pub fn accepts(self, number: f64) -> bool {
        number.is_finite()
            && match self {
                Self::Finite => true,
                Self::NotNegative => number >= 0.0,
                Self::Positive => number > 0.0,
                Self::Probability => (0.0..=1.0).contains(&number),
                Self::BelowOne => (0.0..1.0).contains(&number),
            }
    }

    /// Returns the end of an error message: what the number must be.
    pub fn text(self) -> &'static str {
        match self {
            Self::Finite => "must be a finite number",
            Self::NotNegative => "must be a finite number of at least 0",
            Self::Positive => "must be a finite number above 0",
            Self::Probability => "must be a number from 0 to 1",
            Self::BelowOne => "must be a number of at least 0 and below 1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_has_numbers_that_are_not_finite() {
        for legal in [
            Legal::Finite,
            Legal::NotNegative,
            Legal::Positive,
            Legal::Probability,
            Legal::BelowOne,
        ] {
            for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(!legal.accepts(number), "{legal:?} {number}");
            }
            assert!(legal.accepts(0.5), "{legal:?}");
            assert_eq!(legal.accepts(-0.5), legal == Legal::Finite);
        }
        assert!(Legal::NotNegative.accepts(0.0) && !Legal::Positive.accepts(0.0));
        assert!(Legal::Probability.accepts(1.0) && !Legal::BelowOne.accepts(1.0));
    }
}
