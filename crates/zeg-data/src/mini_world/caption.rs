//! Captions: English sentences that name every object of a picture and nothing else.
//!
//! An object's two words always stand together in the order of the class name, so that what pre-training reads is what
//! classes are asked for by. Most captions name the shape too; some call it a thing, and some leave it out, as class
//! names do.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::names::shuffle;
use super::{Name, ObjectInfo, Shape};
use crate::chance::{below, unit};

/// How many objects in a hundred are called by their shape, and how many then by a word for anything; the rest by
/// nothing.
const BY_SHAPE: f64 = 0.7;
const BY_ANYTHING: f64 = 0.85;
/// Words for anything.
const ANYTHING: [&str; 3] = ["thing", "object", "shape"];
/// How one object in ten is written instead, its shape in front: `a ring in striped red`.
const SHAPE_FIRST: f64 = 0.1;

/// What a caption may begin with. The empty one leaves the objects alone.
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
/// What a picture without objects is called.
const EMPTY: &str = "an empty picture";
/// What joins the last two objects.
const JOINS: [&str; 4] = [" and ", " and ", " next to ", " with "];

/// Every word and mark that a caption can hold, each once, sorted: what a text tower for captions must know.
pub fn caption_words() -> Vec<String> {
    let names = Name::all().map(|name| name.to_string());
    let shapes = Shape::ALL.map(|shape| with_article(shape.word()));
    let phrases = [OPENINGS.as_slice(), &JOINS, &ANYTHING, &["a in , .", EMPTY]].concat();
    let texts = phrases.into_iter().map(str::to_owned);
    let texts: Vec<String> = texts.chain(names).chain(shapes).collect();
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let words: BTreeSet<String> = words.map(str::to_owned).collect();
    words.into_iter().collect()
}

/// A caption for a picture with these objects; a picture without any is called `an empty picture`.
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
    let anything = ANYTHING[below(rng, ANYTHING.len())];
    if kind < BY_SHAPE {
        format!("a {name} {shape}")
    } else if kind < BY_ANYTHING {
        format!("a {name} {anything}")
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
    fn captions_hold_no_other_words() {
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
    fn sentences_read_as_english() {
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
