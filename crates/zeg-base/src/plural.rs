//! Numbers with their nouns in messages: "1 image", "2 images".

use std::borrow::Cow;

/// Returns a number with its noun, in the plural unless the number is 1.
///
/// - `noun`: in the singular, with a regular plural: `image`, `class`, `entry`
///
/// ```
/// use zeg_base::plural::counted;
///
/// assert_eq!(counted(1_usize, "image"), "1 image");
/// assert_eq!(counted(0_u64, "class"), "0 classes");
/// ```
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = number(count);
    format!("{count} {}", noun_for(count, noun))
}

/// Returns a noun in the plural unless the number is 1, for messages such as `3 of 4 images`.
pub fn noun_for(count: impl TryInto<u64>, noun: &str) -> Cow<'_, str> {
    match number(count) {
        1 => Cow::Borrowed(noun),
        _ => Cow::Owned(plural(noun)),
    }
}

fn number(count: impl TryInto<u64>) -> u64 {
    count.try_into().unwrap_or(u64::MAX)
}

/// Returns the regular plural of a noun.
fn plural(noun: &str) -> String {
    let vowel = |c: char| matches!(c, 'a' | 'e' | 'i' | 'o' | 'u');
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(vowel) => format!("{stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end)) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        for (count, noun, expected) in [
            (0, "image", "0 images"),
            (1, "image", "1 image"),
            (2, "image", "2 images"),
            (2, "class", "2 classes"),
            (2, "category", "2 categories"),
            (2, "key", "2 keys"),
            (3, "batch", "3 batches"),
            (1, "label file", "1 label file"),
            (2, "label file", "2 label files"),
        ] {
            assert_eq!(counted(count as u64, noun), expected);
        }
        assert_eq!(noun_for(1_usize, "image"), "image");
        assert_eq!(noun_for(4_usize, "image"), "images");
    }
}
