//! Finds the known name that a misspelt one most likely stands for.

/// Longest name that is compared, in characters; the time of a comparison is proportional to the product of the lengths.
const MOST_CHARACTERS: usize = 64;

/// Returns the known name with the most similar spelling, if at most a third of it differs; upper and lower case are
/// the same.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: String = name.trim().chars().take(MOST_CHARACTERS).collect();
    let name = name.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&known.to_lowercase(), &name);
    let (distance, nearest) = known
        .into_iter()
        .map(|known| (distance(known), known))
        .min_by_key(|(distance, _)| *distance)?;
    let length = nearest.chars().count();
    (3 * distance <= length.max(3) && distance < length.max(1)).then_some(nearest)
}

/// Returns the end of an error message about an unknown name: `; did you mean "steps"?`, or nothing.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, known).map_or_else(String::new, |known| format!("; did you mean {known:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_another_one_is_not() {
        let known = ["voc12", "coco-stuff164k", "pascal-context"];
        assert_eq!(closest("vco12", known), Some("voc12"));
        assert_eq!(closest("COCO-Stuff164K", known), Some("coco-stuff164k"));
        assert_eq!(closest("pascal_context", known), Some("pascal-context"));
        assert_eq!(closest("kitti", known), None);
        assert_eq!(closest("", ["a"]), None);
        assert_eq!(closest("x", []), None);
        assert_eq!(closest(&"é".repeat(1 << 20), known), None);
        assert_eq!(
            did_you_mean("stepz", ["steps"]),
            "; did you mean \"steps\"?"
        );
        assert_eq!(did_you_mean("other", ["steps"]), "");
    }
}
