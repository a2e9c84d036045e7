//! The names of objects: eight colours times four textures, divided by a split into seen classes, unseen classes and a
//! pool for distractors.
//!
//! A class is a texture and a colour; the shape does not matter. Masks of an unseen class never occur in training, but
//! both words of its name occur in captions.

use std::fmt;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::WorldSplit;
use crate::chance::{Purpose, below, stream};

/// Number of classes that training has masks of.
pub const SEEN: usize = 15;
/// Number of classes that training has no mask of.
pub const UNSEEN: usize = 5;

/// The colour of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "colours")]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Cyan,
    Blue,
    Purple,
    Pink,
}

impl Colour {
    /// All values.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Cyan,
        Self::Blue,
        Self::Purple,
        Self::Pink,
    ];

    /// Returns its word in names and captions.
    pub fn word(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Cyan => "cyan",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Pink => "pink",
        }
    }

    /// Returns red, green and blue, 0..=255, under full light. The hues differ by at least 20°.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [216, 36, 36],
            Self::Orange => [245, 138, 20],
            Self::Yellow => [240, 222, 40],
            Self::Green => [44, 164, 60],
            Self::Cyan => [44, 204, 212],
            Self::Blue => [40, 80, 222],
            Self::Purple => [132, 52, 184],
            Self::Pink => [245, 130, 190],
        }
    }
}

/// The pattern on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "patterns")]
pub enum Texture {
    Plain,
    Striped,
    Dotted,
    Checked,
}

impl Texture {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Striped, Self::Dotted, Self::Checked];

    /// Returns its word in names and captions.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Striped => "striped",
            Self::Dotted => "dotted",
            Self::Checked => "checked",
        }
    }
}

/// The name of an object: its texture and colour, displayed as `striped red`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// Its pattern.
    pub texture: Texture,
    /// Its colour.
    pub colour: Colour,
}

impl Name {
    /// Returns all 32 names.
    pub fn all() -> impl Iterator<Item = Self> {
        let of = |texture| Colour::ALL.map(|colour| Self { texture, colour });
        Texture::ALL.into_iter().flat_map(of)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} {}", self.texture.word(), self.colour.word())
    }
}

/// The roles of the 32 names in a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vocabulary {
    /// Names of the seen classes.
    pub(super) seen: Vec<Name>,
    /// Names of the unseen classes.
    pub(super) unseen: Vec<Name>,
    /// Names that are not classes.
    pub(super) pool: Vec<Name>,
    /// Colours that no seen class has.
    pub(super) withheld: Vec<Colour>,
}

impl Vocabulary {
    /// Chooses the classes so that colours and textures occur as equally often as the numbers allow.
    pub(super) fn choose(split: WorldSplit, split_seed: u64) -> Self {
        let mut rng = stream(split_seed, Purpose::Order, 0);
        let (mut colours, mut textures) = (Colour::ALL, Texture::ALL);
        shuffle(&mut colours, &mut rng);
        shuffle(&mut textures, &mut rng);
        let (withheld, mut unseen, mut seen) = match split {
            WorldSplit::UnseenColours => unseen_colours(colours, textures),
            WorldSplit::UnseenCombinations => unseen_combinations(colours, textures),
        };
        unseen.sort_unstable();
        seen.sort_unstable();
        let pool = Name::all().filter(|name| !unseen.contains(name) && !seen.contains(name));
        Self {
            pool: pool.collect(),
            seen,
            unseen,
            withheld,
        }
    }
}

/// Withheld colours, unseen names, seen names.
type Choice = (Vec<Colour>, Vec<Name>, Vec<Name>);

/// Chooses unseen classes of two colours, which together have all four textures, and seen classes of the other six.
fn unseen_colours(colours: [Colour; 8], textures: [Texture; 4]) -> Choice {
    let [first, second, rest @ ..] = colours;
    let [a, b, c, d] = textures;
    let of = |colour, textures: &[Texture]| -> Vec<Name> {
        let name = |texture: &Texture| Name {
            texture: *texture,
            colour,
        };
        textures.iter().map(name).collect()
    };
    let unseen = [of(first, &[a, b, c]), of(second, &[d, a])].concat();
    // 3 · 3 + 3 · 2 = 15 names: three textures for each of three colours, then two for each of the others.
    let counts = [3, 3, 3, 2, 2, 2];
    let seen = deal(rest.into_iter().zip(counts), textures, &[]);
    (vec![first, second], unseen, seen)
}

/// Chooses five unseen pairs of different colours, and seen classes with every colour and every texture.
fn unseen_combinations(colours: [Colour; 8], textures: [Texture; 4]) -> Choice {
    let pairs = colours.into_iter().zip(textures.into_iter().cycle());
    let unseen: Vec<Name> = pairs
        .take(UNSEEN)
        .map(|(colour, texture)| Name { texture, colour })
        .collect();
    let counts = [2, 2, 2, 2, 2, 2, 2, 1];
    let seen = deal(colours.into_iter().zip(counts), textures, &unseen);
    (Vec::new(), unseen, seen)
}

/// Gives each colour its number of textures, in turn so that all are used equally often, without the `taken` names.
fn deal(
    colours: impl Iterator<Item = (Colour, usize)>,
    textures: [Texture; 4],
    taken: &[Name],
) -> Vec<Name> {
    let mut dealt = Vec::new();
    let mut turn = textures.into_iter().cycle();
    for (colour, count) in colours {
        let names = turn.by_ref().map(|texture| Name { texture, colour });
        dealt.extend(names.filter(|name| !taken.contains(name)).take(count));
    }
    dealt
}

/// Shuffles by Fisher–Yates, so that all orders are equally likely.
pub(super) fn shuffle<T>(list: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..list.len()).rev() {
        list.swap(last, below(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn splits() -> impl Iterator<Item = (WorldSplit, Vocabulary)> {
        let kinds = [WorldSplit::UnseenColours, WorldSplit::UnseenCombinations];
        let seeds = kinds
            .into_iter()
            .flat_map(|split| (0..200).map(move |seed| (split, seed)));
        seeds.map(|(split, seed)| (split, Vocabulary::choose(split, seed)))
    }

    #[test]
    fn every_name_has_exactly_one_role() {
        for (split, vocabulary) in splits() {
            let Vocabulary {
                seen, unseen, pool, ..
            } = &vocabulary;
            assert_eq!((seen.len(), unseen.len(), pool.len()), (SEEN, UNSEEN, 12));
            let names: HashSet<&Name> = seen.iter().chain(unseen).chain(pool).collect();
            assert_eq!(names.len(), 32, "{split:?}");
        }
    }

    #[test]
    fn no_seen_class_has_a_withheld_colour_and_all_textures_occur() {
        for (split, vocabulary) in splits() {
            let count = |names: &[Name], texture| {
                let with = names.iter().filter(|name| name.texture == texture);
                with.count()
            };
            for texture in Texture::ALL {
                assert!((3..=5).contains(&count(&vocabulary.seen, texture)));
                assert!(count(&vocabulary.unseen, texture) >= 1, "{split:?}");
            }
            let colours: HashSet<Colour> = vocabulary.seen.iter().map(|name| name.colour).collect();
            match split {
                WorldSplit::UnseenColours => {
                    assert_eq!((colours.len(), vocabulary.withheld.len()), (6, 2));
                    let is_withheld = |name: &Name| vocabulary.withheld.contains(&name.colour);
                    assert!(vocabulary.unseen.iter().all(is_withheld));
                    assert!(!vocabulary.seen.iter().any(is_withheld));
                }
                WorldSplit::UnseenCombinations => {
                    assert_eq!((colours.len(), vocabulary.withheld.len()), (8, 0));
                }
            }
        }
    }

    #[test]
    fn split_seeds_choose_differently_and_repeatably() {
        let chosen: Vec<Vocabulary> = splits().map(|(_, vocabulary)| vocabulary).collect();
        let again: Vec<Vocabulary> = splits().map(|(_, vocabulary)| vocabulary).collect();
        assert_eq!(chosen, again);
        let different: HashSet<&Vec<Name>> =
            chosen.iter().map(|vocabulary| &vocabulary.unseen).collect();
        assert!(different.len() > 300, "{}", different.len());
    }
}
