//! Compares a kernel's values with double precision, and proves that the comparison finds errors.

/// The largest deviation from the expected values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deviation {
    /// Deviation as a fraction of the root mean square of the expected values; infinite for a NaN.
    pub(crate) worst: f64,
    /// Index of the value.
    pub(crate) at: usize,
}

impl Deviation {
    /// Finds the largest deviation.
    ///
    /// # Panics
    /// Panics if the lengths differ, or all expected values are 0.
    pub(crate) fn of(found: &[f32], expected: &[f64]) -> Self {
        assert_eq!(found.len(), expected.len(), "number of values");
        let squares: f64 = expected.iter().map(|value| value * value).sum();
        let scale = (squares / expected.len() as f64).sqrt();
        assert!(
            scale > 0.0 && scale.is_finite(),
            "nothing to compare: {scale}"
        );
        let mut furthest = Self { worst: 0.0, at: 0 };
        for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let distance = (f64::from(found) - expected).abs() / scale;
            let worst = if distance.is_nan() {
                f64::INFINITY
            } else {
                distance
            };
            if worst > furthest.worst {
                furthest = Self { worst, at };
            }
        }
        furthest
    }
}

/// A kernel's values, which must agree with double precision.
pub(crate) struct Pinned<'a> {
    /// Operation, level and shape.
    pub(crate) what: &'a str,
    /// `[rows, row]`
    pub(crate) found: &'a [f32],
    /// `[rows, row]`
    pub(crate) expected: &'a [f64],
    /// Length of a row: the channels of a token, the pixels of a mask.
    pub(crate) row: usize,
    /// Length of one head's part of a row, where rows have heads.
    pub(crate) head: Option<usize>,
    /// Largest deviation that passes.
    pub(crate) limit: f64,
}

impl Pinned<'_> {
    /// Checks the deviation, and that the same check finds each error of [`planted`] in the same values.
    ///
    /// # Panics
    /// Panics if a deviation is too large, or a planted error passes.
    pub(crate) fn holds(&self) {
        let Deviation { worst, at } = Deviation::of(self.found, self.expected);
        println!(
            "measured {worst:.1e} (limit {:.0e}) {}",
            self.limit, self.what
        );
        assert!(
            worst <= self.limit,
            "{}: {} is not {} at {at} (row {}, column {}): {worst:e} of the root mean square, limit {:e}",
            self.what,
            self.found[at],
            self.expected[at],
            at / self.row,
            at % self.row,
            self.limit,
        );
        for (error, values) in planted(self.found, self.row, self.head) {
            let Deviation { worst, .. } = Deviation::of(&values, self.expected);
            assert!(
                worst > self.limit,
                "{}: a planted error passes: {error} ({worst:e}, limit {:e})",
                self.what,
                self.limit
            );
        }
    }
}

/// Number of rows at the end among which errors are planted: those of a last tile.
const LAST: usize = 8;

/// Returns the same values with one error each: a factor of 1.001 on all values; the same factor on one of the last
/// rows only; that row set to zero; two of its heads swapped; one NaN; one infinity. The row is the one with the
/// largest values among the last rows.
fn planted(values: &[f32], row: usize, head: Option<usize>) -> Vec<(&'static str, Vec<f32>)> {
    let rows = values.len() / row;
    let most = |index: &usize| {
        let row = &values[index * row..][..row];
        row.iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()))
    };
    let last = (rows.saturating_sub(LAST)..rows).max_by(|a, b| most(a).total_cmp(&most(b)));
    let last = last.unwrap_or_default() * row;
    let changed = |change: &dyn Fn(&mut [f32])| {
        let mut values = values.to_vec();
        change(&mut values);
        values
    };
    let scale = |values: &mut [f32]| {
        for value in values {
            *value *= 1.001;
        }
    };
    let mut errors = vec![
        ("all values times 1.001", changed(&|values| scale(values))),
        (
            "a last row times 1.001",
            changed(&|values| scale(&mut values[last..][..row])),
        ),
        (
            "a last row set to zero",
            changed(&|values| values[last..][..row].fill(0.0)),
        ),
        (
            "the last value NaN",
            changed(&|values| values[rows * row - 1] = f32::NAN),
        ),
        (
            "the first value infinite",
            changed(&|values| values[0] = f32::INFINITY),
        ),
    ];
    if let Some(head) = head.filter(|head| 2 * head <= row) {
        errors.push((
            "two heads of a last row swapped",
            changed(&|values| {
                let (first, second) = values[last..].split_at_mut(head);
                first.swap_with_slice(&mut second[..head]);
            }),
        ));
    }
    errors
}

#[test]
fn a_deviation_is_a_fraction_of_the_root_mean_square() {
    let expected = [3.0, -4.0, 0.0, 5.0]; // mean of the squares 12.5
    let found = Deviation::of(&[3.0, -4.0, 0.5, 5.0], &expected);
    assert!((found.worst - 0.5 / 12.5_f64.sqrt()).abs() < 1e-12 && found.at == 2);
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let found = Deviation::of(&[3.0, wrong, 0.5, 5.0], &expected);
        assert!(found.worst == f64::INFINITY && found.at == 1, "{wrong}");
    }
}

#[test]
#[should_panic(expected = "nothing to compare")]
fn all_expected_values_zero_is_refused() {
    Deviation::of(&[0.0, 0.0], &[0.0, 0.0]);
}

#[test]
#[should_panic(expected = "row 1, column 0")]
fn a_deviation_over_the_limit_is_named() {
    let pinned = Pinned {
        what: "two rows",
        found: &[1.0, 1.0, 1.1, 1.0],
        expected: &[1.0; 4],
        row: 2,
        head: None,
        limit: 1e-5,
    };
    pinned.holds();
}

/// A limit must not be so wide that an error of 10⁻³ passes.
#[test]
#[should_panic(expected = "a planted error passes: all values times 1.001")]
fn a_wide_limit_is_refused() {
    let pinned = Pinned {
        what: "two rows",
        found: &[1.0; 4],
        expected: &[1.0; 4],
        row: 2,
        head: None,
        limit: 1e-2,
    };
    pinned.holds();
}
