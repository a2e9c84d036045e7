//! Captions: English phrases that name every object of an image and nothing else.
//!
//! The two words of an object's name always stand together in the order of the class name, so that pre-training sees
//! the class names as they are used later. Most phrases name the shape, too; some use a general noun instead
//! ("thing"), and some use none, like the class names.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::names::shuffle;
use super::{Name, ObjectInfo, Shape};
use crate::chance::{below, unit};

/// Share of the objects whose shape is named.
const WITH_SHAPE: f64 = 0.7;
/// Share of the objects whose shape is named or that get a general noun; the others have no noun.
const WITH_NOUN: f64 = 0.85;
/// Nouns that fit any object.
const GENERAL_NOUNS: [&str; 3] = ["thing", "object", "shape"];
/// Share of the objects that are written with the shape first (`a ring in striped red`), decided before the others.
const SHAPE_FIRST: f64 = 0.1;

/// The openings of a caption; with an empty one, the caption is only the list of objects.
const OPENINGS: [&str; 8] = [
    "",
    "",
    "a picture of ",
    "a photo of ",
    "an image of ",
    "here we see ",
    "this is ",
    "a drawing with ",
];
/// The phrase for an image without objects.
const EMPTY: &str = "an empty picture";
/// The words that join the last two objects.
const JOINS: [&str; 4] = [" and ", " and ", " next to ", " with "];

/// Returns all words and punctuation marks that captions use, sorted and each once, for the vocabulary of a tokenizer.
pub fn caption_words() -> Vec<String> {
    let names = Name::all().map(|name| name.to_string());
    let shapes = Shape::ALL.map(|shape| with_article(shape.word()));
    let phrases = [
        OPENINGS.as_slice(),
        &JOINS,
        &GENERAL_NOUNS,
        &["a in , .", EMPTY],
    ]
    .concat();
    let texts = phrases.into_iter().map(str::to_owned);
    let texts: Vec<String> = texts.chain(names).chain(shapes).collect();
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let words: BTreeSet<String> = words.map(str::to_owned).collect();
    words.into_iter().collect()
}

/// Returns a random caption of an image with these objects; an image without objects is called `an empty picture`.
pub(super) fn caption(objects: &[ObjectInfo], rng: &mut ChaCha8Rng) -> String {
    let mut phrases: Vec<String> = objects.iter().map(|object| phrase(object, rng)).collect();
    shuffle(&mut phrases, rng);
    let opening = OPENINGS[below(rng, OPENINGS.len())];
    let join = JOINS[below(rng, JOINS.len())];
    let end = if unit(rng) < 0.5 { "." } else { "" };
    let list = match phrases.split_last() {
        None => EMPTY.to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{}{join}{last}", first.join(", ")),
    };
    format!("{opening}{list}{end}")
}

fn phrase(object: &ObjectInfo, rng: &mut ChaCha8Rng) -> String {
    let (name, shape) = (object.name, object.shape.word());
    if unit(rng) < SHAPE_FIRST {
        return format!("{} in {name}", with_article(shape));
    }
    let kind = unit(rng);
    let general = GENERAL_NOUNS[below(rng, GENERAL_NOUNS.len())];
    if kind < WITH_SHAPE {
        format!("a {name} {shape}")
    } else if kind < WITH_NOUN {
        format!("a {name} {general}")
    } else {
        format!("a {name}")
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Purpose, stream};
    use crate::mini_world::{Colour, Texture};

    #[test]
    fn captions_use_only_the_listed_words() {
        let words = caption_words();
        let objects: Vec<ObjectInfo> = Name::all()
            .zip(Shape::ALL.iter().cycle())
            .map(|(name, &shape)| ObjectInfo {
                name,
                shape,
                class: None,
                visible: 1,
            })
            .collect();
        for counter in 0..500 {
            let mut rng = stream(0, Purpose::Sample, counter);
            let caption = caption(&objects[..below(&mut rng, 32)], &mut rng);
            let apart = caption.replace(',', " , ").replace('.', " . ");
            for word in apart.split_whitespace() {
                assert!(words.iter().any(|known| known == word), "{word}: {caption}");
            }
        }
    }

    #[test]
    fn captions_read_as_english() {
        let object = |texture, colour, shape| ObjectInfo {
            name: Name { texture, colour },
            shape,
            class: None,
            visible: 100,
        };
        let objects = [
            object(Texture::Striped, Colour::Red, Shape::Ring),
            object(Texture::Plain, Colour::Orange, Shape::Ellipse),
            object(Texture::Dotted, Colour::Blue, Shape::Star),
        ];
        let made: Vec<String> = (0..400)
            .map(|counter| caption(&objects, &mut stream(0, Purpose::Sample, counter)))
            .collect();
        for wanted in [
            "a picture of a plain orange ellipse",
            "an ellipse in plain orange",
            "a striped red thing",
            " next to ",
            " and a striped red ring",
            "a dotted blue.",
        ] {
            assert!(
                made.iter().any(|caption| caption.contains(wanted)),
                "{wanted}: {made:#?}"
            );
        }
        let with_shape = made.iter().filter(|caption| caption.contains("ring"));
        assert!((260..330).contains(&with_shape.count()));
        assert!(caption(&[], &mut stream(0, Purpose::Sample, 0)).contains("an empty picture"));
    }
}
