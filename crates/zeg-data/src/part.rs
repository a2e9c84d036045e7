//! Named parts of a split: `train:1/5` is every fifth image, `train:not-1/5` all others.
//!
//! Learning rates and seen offsets must not be chosen on the images whose scores are reported in the end, and the
//! benchmarks have no split for choosing them. A part of the training images can be used for it, without a list file.

/// A split or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SplitPart<'a> {
    /// The split's name without the part.
    pub(crate) split: &'a str,
    /// The part; `None` means the whole split.
    part: Option<Fraction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    /// Number of the part, from 1.
    number: usize,
    /// Number of parts.
    of: usize,
    /// Whether all images outside the part are meant.
    others: bool,
}

impl<'a> SplitPart<'a> {
    /// Parses a name; a name without a valid part at its end is the name of a whole split.
    pub(crate) fn parse(name: &'a str) -> Self {
        let part = name.rsplit_once(':').and_then(|(split, part)| {
            let (others, part) = match part.strip_prefix("not-") {
                Some(part) => (true, part),
                None => (false, part),
            };
            let (number, of) = part.split_once('/')?;
            let (number, of) = (number.parse().ok()?, of.parse().ok()?);
            let part = Fraction { number, of, others };
            (of >= 2 && (1..=of).contains(&number)).then_some((split, part))
        });
        match part {
            Some((split, part)) => Self {
                split,
                part: Some(part),
            },
            None => Self {
                split: name,
                part: None,
            },
        }
    }

    /// Retains the items of the part.
    pub(crate) fn keep<T>(self, items: &mut Vec<T>) {
        let Some(Fraction { number, of, others }) = self.part else {
            return;
        };
        let mut index = 0;
        items.retain(|_| {
            let chosen = index % of == number - 1;
            index += 1;
            chosen != others
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(name: &str, count: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..count).collect();
        SplitPart::parse(name).keep(&mut items);
        items
    }

    #[test]
    fn a_part_is_every_nth_image() {
        assert_eq!(kept("train:1/3", 8), [0, 3, 6]);
        assert_eq!(kept("train:3/3", 8), [2, 5]);
        assert_eq!(kept("train:not-1/3", 8), [1, 2, 4, 5, 7]);
        assert_eq!(SplitPart::parse("train:1/3").split, "train");
    }

    #[test]
    fn names_without_a_valid_part_are_whole_splits() {
        for name in [
            "train",
            "C:/lists/train.txt",
            "a:b",
            "train:0/3",
            "train:4/3",
            "train:1/1",
            "x:1/",
            "lists:2/ids.txt",
        ] {
            let part = SplitPart::parse(name);
            assert_eq!((part.split, part.part), (name, None));
        }
    }

    proptest! {
        #[test]
        fn parts_divide_a_split(count in 0_usize..50, of in 2_usize..7) {
            let mut all = Vec::new();
            for number in 1..=of {
                let (part, rest) = (kept(&format!("t:{number}/{of}"), count), kept(&format!("t:not-{number}/{of}"), count));
                prop_assert_eq!(part.len() + rest.len(), count);
                prop_assert!(part.iter().all(|item| !rest.contains(item)));
                all.extend(part);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
