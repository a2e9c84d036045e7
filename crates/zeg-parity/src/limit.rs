//! Measures how far a result deviates from its reference, and defines the limits of this deviation.

use super::array::Array;

/// Largest accepted deviation of a result from its reference, with its measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// Largest difference, divided by the root mean square of the reference (by 1 if that is 0).
    OfRms(f64),
    /// Largest difference, divided by the largest absolute value of the reference (by 1 if that is 0).
    OfMax(f64),
    /// Largest difference of a value, divided by this value in the reference.
    Relative(f64),
    /// Largest difference.
    Absolute(f64),
    /// No value may differ; the deviation is the number of differing values.
    Exact,
}

impl Limit {
    /// Limit of activations and losses; two builds of the reference differ by 7e-6.
    pub(crate) const ACTIVATION: Self = Self::OfRms(3e-5);
    /// Limit of gradients; two builds of the reference differ by 1.4e-5.
    pub(crate) const GRADIENT: Self = Self::OfRms(1e-4);

    /// Returns the largest deviation with which a comparison passes.
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::OfRms(limit)
            | Self::OfMax(limit)
            | Self::Relative(limit)
            | Self::Absolute(limit) => limit,
            Self::Exact => 0.0,
        }
    }
}

/// Returns the deviation of a result from its reference, in the measure of the limit.
///
/// # Errors
/// Returns an error if the shapes differ or a value of the result is not finite.
#[allow(clippy::float_cmp)] // labels and ids are compared exactly
pub(crate) fn deviation(reference: &Array, found: &Array, limit: Limit) -> Result<f64, String> {
    if reference.shape != found.shape {
        return Err(format!(
            "has shape {:?}, but the reference has {:?}",
            found.shape, reference.shape
        ));
    }
    if let Some(position) = found.values.iter().position(|value| !value.is_finite()) {
        return Err(format!("is {} at {position}", found.values[position]));
    }
    let pairs = || reference.values.iter().zip(&found.values);
    if limit == Limit::Exact {
        return Ok(pairs().filter(|(r, f)| r != f).count() as f64);
    }
    let one_for_zero = |unit: f64| if unit == 0.0 { 1.0 } else { unit };
    let unit = match limit {
        Limit::OfRms(_) => one_for_zero(reference.rms()),
        Limit::OfMax(_) => one_for_zero(reference.largest()),
        _ => 1.0,
    };
    let distance = |(reference, found): (&f64, &f64)| match limit {
        _ if reference == found => 0.0,
        Limit::Relative(_) => ((found - reference) / reference).abs(),
        _ => (found - reference).abs() / unit,
    };
    // `f64::max` ignores NaN; a NaN in the reference must stay NaN here, so that the comparison fails.
    let larger = |a: f64, b: f64| {
        if a.is_nan() || b.is_nan() {
            f64::NAN
        } else {
            a.max(b)
        }
    };
    Ok(pairs().map(distance).fold(0.0, larger))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(reference: &[f64], found: &[f64], limit: Limit) -> Result<f64, String> {
        let (reference, found) = (Array::row(reference.to_vec()), Array::row(found.to_vec()));
        deviation(&reference, &found, limit)
    }

    #[test]
    fn a_deviation_is_relative_to_the_root_mean_square() {
        let deviation = measured(&[3.0, -4.0], &[3.0, -4.5], Limit::ACTIVATION).unwrap();
        assert!((deviation - 0.5 / 12.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(measured(&[0.0], &[0.25], Limit::ACTIVATION), Ok(0.25));
        assert_eq!(measured(&[1.0, 2.0], &[1.0, 5.0], Limit::Exact), Ok(1.0));
        let relative = Limit::Relative(1e-3);
        assert_eq!(measured(&[4.0, 0.5], &[4.0, 0.25], relative), Ok(0.5));
    }

    #[test]
    fn a_deviation_can_be_relative_to_the_largest_value() {
        let limit = Limit::OfMax(2e-4);
        assert_eq!(measured(&[3.0, -4.0], &[3.5, -4.0], limit), Ok(0.125));
        assert_eq!(measured(&[0.0], &[0.25], limit), Ok(0.25));
    }

    #[test]
    fn a_result_that_is_not_finite_or_has_another_shape_is_a_problem() {
        for limit in [Limit::ACTIVATION, Limit::Absolute(1.0), Limit::Exact] {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(measured(&[1.0], &[value], limit).is_err(), "{value}");
                // This holds even if the reference has the same value.
                assert!(measured(&[value], &[value], limit).is_err(), "{value}");
            }
            assert!(measured(&[1.0], &[1.0, 1.0], limit).is_err());
        }
    }

    #[test]
    fn a_reference_that_is_not_finite_never_passes() {
        for reference in [f64::NAN, f64::INFINITY] {
            let deviation = measured(&[reference, 0.0], &[1.0, 5.0], Limit::ACTIVATION).unwrap();
            let within = deviation <= Limit::ACTIVATION.value();
            assert!(!within, "{reference}: {deviation}");
        }
    }
}
