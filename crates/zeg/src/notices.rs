//! Sentences about results that mean less than they seem to; the command line and the server say the same.

use zeg_model::method::Scoring;

/// What [`Answer::tied`](crate::session::Answer::tied) says.
pub const TIED: &str = "all classes have the same score at every pixel, so the labels mean nothing";

/// Returns a sentence about a list of one class, which a softmax over classes gives to every pixel.
pub fn of_single_class(classes: usize, scoring: Scoring) -> Option<&'static str> {
    (classes == 1 && scoring == Scoring::Softmax).then_some(
        "there is only one class, so the softmax over classes gives it every pixel with confidence 1",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_softmax_is_sure_of_a_single_class() {
        assert!(of_single_class(1, Scoring::Softmax).is_some());
        assert_eq!(of_single_class(2, Scoring::Softmax), None);
        assert_eq!(of_single_class(1, Scoring::Sigmoid), None);
    }
}
