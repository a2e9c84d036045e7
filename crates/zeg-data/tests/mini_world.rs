//! Tests of the mini world in memory: reproducible images, exact masks, correct captions, and classes as configured.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use zeg_data::mini_world::{
    Captioned, Colour, Name, Part, PretrainStage, Shape, Texture, World, WorldConfig, WorldError,
    WorldSample, WorldSplit,
};
use zeg_image::{IGNORE_LABEL, RgbImage, write_rgb_png};

const PARTS: [Part; 4] = [Part::Pretrain, Part::Train, Part::Val, Part::Test];

fn world(change: impl FnOnce(&mut WorldConfig)) -> World {
    let mut config = WorldConfig::default();
    change(&mut config);
    World::new(config).unwrap()
}

/// Returns the FNV-1a hash of image and labels.
fn hash(sample: &WorldSample) -> u64 {
    let labels = sample.labels.labels().iter();
    let labels = labels.flat_map(|label| label.to_le_bytes());
    let bytes = sample.image.as_raw().iter().copied().chain(labels);
    zeg_base::hash::fnv1a(bytes.collect::<Vec<u8>>())
}

#[test]
fn images_do_not_depend_on_order_or_threads() {
    let world = world(|_| {});
    for part in PARTS {
        let backwards: Vec<WorldSample> = (0..40)
            .rev()
            .map(|index| world.sample(part, index))
            .collect();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let made = pool.build().unwrap().install(|| world.samples(part, 0..40));
            assert!(made.iter().eq(backwards.iter().rev()), "{part}");
        }
        assert_eq!(world.samples(part, 30..40), {
            let mut last = backwards[..10].to_vec();
            last.reverse();
            last
        });
    }
    let stage = PretrainStage::single(32);
    let batch = world.pretrain_batch(stage, 5..25).unwrap();
    for (index, made) in (5..).zip(&batch) {
        assert_eq!(*made, world.pretrain(stage, index).unwrap());
    }
}

/// If any image changes, these hashes change, and earlier trainings are no longer comparable.
#[test]
fn images_and_captions_do_not_change_between_versions() {
    let study = world(|_| {});
    let combinations = world(|config| {
        config.split = WorldSplit::UnseenCombinations;
        config.seed = 7;
    });
    let hashes = [
        hash(&study.sample(Part::Train, 0)),
        hash(&study.sample(Part::Val, 123_456)),
        hash(&combinations.sample(Part::Test, 1)),
        hash(&study.pretrain(PretrainStage::single(32), 2).unwrap().sample),
    ];
    assert_eq!(
        hashes.map(|hash| format!("{hash:016x}")),
        [
            "01f4a781140a0d5f",
            "f2db4fa911a763d7",
            "d368aae699ce6770",
            "1326fcd8a46893bb",
        ]
    );
    let captions: Vec<String> = (0..3)
        .map(|index| {
            let stage = PretrainStage::scene(64);
            study.pretrain(stage, index).unwrap().caption
        })
        .collect();
    assert_eq!(
        captions,
        [
            "a drawing with a striped orange ring, a plain purple thing with a checked red ring.",
            "a picture of a plain blue ring and a striped cyan.",
            "a drawing with a striped yellow disc with a plain red crescent",
        ]
    );
}

#[test]
fn images_differ_by_seed_part_and_index() {
    let (first, second) = (world(|_| {}), world(|config| config.seed = 1));
    let mut hashes = BTreeSet::new();
    for world in [&first, &second] {
        for part in PARTS {
            hashes.extend((0..50).map(|index| hash(&world.sample(part, index))));
        }
    }
    assert_eq!(hashes.len(), 2 * 4 * 50);
}

/// Returns the hue of a colour in degrees, 0..360.
fn hue([red, green, blue]: [f64; 3]) -> f64 {
    let angle = (3_f64.sqrt() * (green - blue)).atan2(2.0 * red - green - blue);
    angle.to_degrees().rem_euclid(360.0)
}

fn apart(a: f64, b: f64) -> f64 {
    let difference = (a - b).rem_euclid(360.0);
    difference.min(360.0 - difference)
}

/// Returns the colours of the pixels of a class whose four neighbours have the same class.
fn inner_pixels(sample: &WorldSample, class: u16) -> Vec<[f64; 3]> {
    let at = |x: u32, y: u32| sample.labels.get(x as usize, y as usize) == Some(class);
    let inside = |x: u32, y: u32| {
        at(x, y)
            && at(x + 1, y)
            && at(x, y + 1)
            && (x > 0 && at(x - 1, y))
            && (y > 0 && at(x, y - 1))
    };
    let pixels = sample.image.enumerate_pixels();
    pixels
        .filter(|(x, y, _)| inside(*x, *y))
        .map(|(_, _, pixel)| pixel.0.map(f64::from))
        .collect()
}

fn mean(pixels: &[[f64; 3]]) -> [f64; 3] {
    std::array::from_fn(|channel| {
        pixels.iter().map(|pixel| pixel[channel]).sum::<f64>() / pixels.len() as f64
    })
}

/// Returns the largest of the channels' standard deviations.
fn deviation(pixels: &[[f64; 3]], mean: [f64; 3]) -> f64 {
    let of = |channel: usize| {
        let square = pixels.iter().map(|pixel| pixel[channel] - mean[channel]);
        let square: f64 = square.map(|difference| difference * difference).sum();
        (square / pixels.len() as f64).sqrt()
    };
    (0..3).map(of).fold(0.0, f64::max)
}

/// Checks that the pixels under each mask have the colour of the class, and a pattern if the class has a texture.
fn check_masks(sample: &WorldSample) {
    for object in &sample.objects {
        let Some(class) = object.class else { continue };
        let labels = sample.labels.labels().iter();
        assert_eq!(
            labels.filter(|label| **label == class).count(),
            object.visible
        );
        let inner = inner_pixels(sample, class);
        if inner.len() < 30 {
            continue;
        }
        let mean = mean(&inner);
        let seen = hue(mean);
        let distance = |colour: Colour| apart(seen, hue(colour.rgb().map(f64::from)));
        let nearest = Colour::ALL
            .into_iter()
            .min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
        let (name, shape) = (object.name, object.shape);
        assert_eq!(nearest, Some(name.colour), "{name} {shape:?}: hue {seen}");
        assert!(distance(name.colour) < 10.0, "{name} {shape:?}: hue {seen}");
        let deviation = deviation(&inner, mean);
        if name.texture == Texture::Plain {
            assert!(deviation < 18.0, "{name} {shape:?}: {deviation}");
        } else if inner.len() > 80 {
            assert!(deviation > 28.0, "{name} {shape:?}: {deviation}");
        }
    }
    let classes: BTreeSet<u16> = sample.labels.labels().iter().copied().collect();
    let objects = sample.objects.iter().filter_map(|object| object.class);
    let named: BTreeSet<u16> = objects.chain([IGNORE_LABEL]).collect();
    assert!(classes.is_subset(&named));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn masks_match_the_colour_and_texture_of_their_class(part in 0_usize..4, index in any::<u64>(), seed in 0..i64::MAX as u64) {
        let world = world(|config| config.seed = seed);
        check_masks(&world.sample(PARTS[part], index));
    }

    #[test]
    fn any_legal_settings_make_images(
        size in 16_usize..80,
        objects in (1_usize..=9, 1_usize..=9),
        radius in (0.0_f64..1.0, 0.0_f64..1.0),
        rotation in 0.0..=std::f64::consts::PI,
        shares in (0.0..=1.0, 0.0..=0.5, 0.0..=0.9, 0.0..=1.0),
        index in any::<u64>(),
    ) {
        let pixels = |share: f64| 4.0 + share * (size as f64 / 2.0 - 4.0);
        let (a, b) = (pixels(radius.0), pixels(radius.1));
        let world = world(|config| {
            config.size = size;
            config.objects = (objects.0.min(objects.1), objects.0.max(objects.1));
            config.radius = (a.min(b), a.max(b));
            config.rotation = rotation;
            (config.clutter, config.noise, config.lighting, config.distractors) = shares;
            config.unseen_in_training = false;
        });
        let sample = world.sample(Part::Train, index);
        prop_assert_eq!(sample.image.dimensions(), (size as u32, size as u32));
        prop_assert_eq!(sample.labels.labels().len(), size * size);
        prop_assert!(sample.objects.len() <= objects.0.max(objects.1));
    }
}

/// On a uniform background, masks cover the pixels that differ from it, except for soft pixels at the outline.
#[test]
fn masks_end_where_the_objects_end() {
    let world = world(|config| {
        (config.clutter, config.noise, config.lighting) = (0.0, 0.0, 0.0);
        config.distractors = 0.0;
    });
    for sample in world.samples(Part::Train, 0..300) {
        // Near their ends, acute tips are thinner than a pixel.
        let acute = [Shape::Star, Shape::Crescent, Shape::Triangle];
        let tips = sample
            .objects
            .iter()
            .any(|object| acute.contains(&object.shape));
        let soft = if tips { 2 } else { 1 };
        let (labels, image) = (&sample.labels, &sample.image);
        let mut colours: BTreeMap<[u8; 3], usize> = BTreeMap::new();
        for pixel in image.pixels() {
            *colours.entry(pixel.0).or_default() += 1;
        }
        let (ground, _) = colours.iter().max_by_key(|(_, count)| **count).unwrap();
        for (x, y, pixel) in image.enumerate_pixels() {
            let label = |dx: i64, dy: i64| {
                let (x, y) = (i64::from(x) + dx, i64::from(y) + dy);
                let inside = usize::try_from(x).ok().zip(usize::try_from(y).ok());
                let label = inside.and_then(|(x, y)| labels.get(x, y));
                label.is_some_and(|label| label != IGNORE_LABEL)
            };
            let around = (-soft..=soft).any(|dy| (-soft..=soft).any(|dx| label(dx, dy)));
            let differs = pixel.0 != *ground;
            assert!(differs || !label(0, 0), "({x}, {y}) shows the background");
            // Objects may be cut off by the image's edge, with their labelled pixels outside the image.
            let at_edge = [x, y].iter().any(|at| *at == 0 || *at == 63);
            assert!(
                !differs || around || at_edge,
                "({x}, {y}) has no label: {:?}",
                sample.objects
            );
        }
    }
}

#[test]
fn all_classes_occur_equally_often() {
    for split in [WorldSplit::UnseenColours, WorldSplit::UnseenCombinations] {
        let world = world(|config| config.split = split);
        let samples = world.samples(Part::Val, 0..4000);
        let mut objects: BTreeMap<Option<u16>, usize> = BTreeMap::new();
        let mut pixels = [0_usize; 20];
        let mut hidden = 0;
        for object in samples.iter().flat_map(|sample| &sample.objects) {
            *objects.entry(object.class).or_default() += 1;
            if let Some(class) = object.class {
                pixels[usize::from(class)] += object.visible;
            }
            hidden += usize::from(object.visible < 40);
        }
        let distractors = objects.remove(&None).unwrap();
        let labelled: usize = objects.values().sum();
        let share = distractors as f64 / (distractors + labelled) as f64;
        assert!((share - 0.2).abs() < 0.01, "{share}");
        assert_eq!(objects.len(), 20);
        for count in objects.values() {
            let relative = *count as f64 * 20.0 / labelled as f64;
            assert!((0.85..1.15).contains(&relative), "{objects:?}");
        }
        let all: usize = pixels.iter().sum();
        for count in pixels {
            let relative = count as f64 * 20.0 / all as f64;
            assert!((0.8..1.2).contains(&relative), "{pixels:?}");
        }
        // Few objects are nearly hidden, and an image has two or three of them.
        assert!(hidden * 100 < labelled, "{hidden} of {labelled}");
        assert!(samples.iter().all(|sample| sample.objects.len() >= 2));
        assert!(samples.iter().any(|sample| sample.objects.len() == 3));
    }
}

#[test]
fn unseen_classes_are_not_in_training_images_if_so_configured() {
    for split in [WorldSplit::UnseenColours, WorldSplit::UnseenCombinations] {
        for split_seed in 0..4 {
            let make = |unseen_in_training| {
                world(|config| {
                    config.split = split;
                    config.split_seed = split_seed;
                    config.unseen_in_training = unseen_in_training;
                })
            };
            let unseen = |world: &World, part| {
                let samples = world.samples(part, 0..300);
                let labels = samples.iter().flat_map(|sample| sample.labels.labels());
                let shown = labels.filter(|label| (15..20).contains(*label)).count();
                let objects = samples.iter().flat_map(|sample| &sample.objects);
                let named = objects.filter(|object| object.class.is_some_and(|class| class >= 15));
                assert_eq!(shown > 0, named.count() > 0);
                shown
            };
            let (protocol, strict) = (make(true), make(false));
            assert_eq!(protocol.classes(), strict.classes());
            assert!(unseen(&protocol, Part::Train) > 0);
            assert_eq!(unseen(&strict, Part::Train), 0);
            assert!(unseen(&strict, Part::Val) > 0);
            if split == WorldSplit::UnseenColours {
                let classes = strict.names().iter();
                let (seen, unseen): (Vec<&Name>, Vec<&Name>) = classes
                    .filter(|name| strict.class_of(**name).is_some())
                    .partition(|name| strict.class_of(**name) < Some(15));
                let colours: BTreeSet<Colour> = seen.iter().map(|name| name.colour).collect();
                assert!(unseen.iter().all(|name| !colours.contains(&name.colour)));
                for sample in strict.samples(Part::Train, 0..300) {
                    let mut objects = sample.objects.iter();
                    assert!(objects.all(|object| colours.contains(&object.name.colour)));
                }
            }
        }
    }
}

#[test]
fn the_classes_have_the_form_of_the_published_protocol() {
    let world = world(|_| {});
    let classes = world.classes();
    assert_eq!(classes.name, "mini-world20");
    assert_eq!((classes.len(), classes.seen().len()), (20, 15));
    assert_eq!(classes.unseen, [15, 16, 17, 18, 19]);
    for name in world.names() {
        let class = classes.index_of(&name.to_string());
        assert_eq!(class, world.class_of(*name).map(usize::from));
    }
    let seeds = (0..20).map(|split_seed| {
        let world = self::world(|config| config.split_seed = split_seed);
        world.classes().classes.clone()
    });
    assert!(seeds.collect::<BTreeSet<_>>().len() > 15);
}

/// Returns the names in a caption; the two words of a name always stand together.
fn names_in(caption: &str) -> BTreeSet<Name> {
    let words: Vec<&str> = caption
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .collect();
    let of_words = |pair: &[&str]| {
        let name = format!("{} {}", pair[0], pair[1]);
        Name::all().find(|known| known.to_string() == name)
    };
    words.windows(2).filter_map(of_words).collect()
}

#[test]
fn captions_name_exactly_the_visible_objects() {
    let world = world(|_| {});
    let (mut names, mut shapes) = (BTreeSet::new(), BTreeSet::new());
    let (mut distinct, mut with_shape, mut objects) = (BTreeSet::new(), 0, 0);
    for stage in PretrainStage::CURRICULUM {
        for Captioned { sample, caption } in world.pretrain_batch(stage, 0..1500).unwrap() {
            assert_eq!(sample.image.width() as usize, stage.size);
            let shown: BTreeSet<Name> = sample.objects.iter().map(|object| object.name).collect();
            assert_eq!(names_in(&caption), shown, "{caption}");
            let colours = Colour::ALL.map(|colour| caption.matches(colour.word()).count());
            assert_eq!(colours.iter().sum::<usize>(), shown.len(), "{caption}");
            for object in &sample.objects {
                if caption.contains(object.shape.word()) {
                    shapes.insert(object.shape.word());
                    with_shape += 1;
                }
            }
            for shape in Shape::ALL {
                let present = sample.objects.iter().any(|object| object.shape == shape);
                assert!(present || !caption.contains(shape.word()), "{caption}");
            }
            objects += sample.objects.len();
            names.extend(shown);
            distinct.insert(caption);
        }
    }
    assert_eq!((names.len(), shapes.len()), (32, 10));
    let share = f64::from(with_shape) / objects as f64;
    assert!((0.65..0.85).contains(&share), "{share}");
    assert!(distinct.len() > 2500, "{}", distinct.len());
}

#[test]
fn settings_out_of_range_are_refused() {
    let world = world(|_| {});
    for stage in [
        PretrainStage::single(usize::MAX),
        PretrainStage {
            size: 32,
            objects: (0, usize::MAX),
        },
    ] {
        let refused = world.pretrain(stage, 0);
        assert!(matches!(refused, Err(WorldError::Setting { .. })));
        assert!(world.pretrain_batch(stage, 0..u64::MAX).is_err());
    }
    let refused = World::new(WorldConfig {
        size: 1 << 40,
        ..WorldConfig::default()
    });
    let message = refused.unwrap_err().to_string();
    assert_eq!(
        message,
        "size is 1099511627776; it must be within 16..=1024"
    );
}

/// `cargo test -p zeg-data --test mini_world speed -- --ignored --nocapture`
#[test]
#[ignore = "measures speed; run it by hand on an idle machine"]
fn speed() {
    let world = world(|_| {});
    let pairs = |stage: PretrainStage, count: u64| {
        let start = Instant::now();
        for index in 0..count {
            world.pretrain(stage, index).unwrap();
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        println!("{stage:?}: {rate:.0} images with captions per second on one thread");
    };
    for stage in PretrainStage::CURRICULUM {
        pairs(stage, 6000);
    }
    let start = Instant::now();
    world.samples(Part::Train, 0..12_000);
    let rate = 12_000.0 / start.elapsed().as_secs_f64();
    let threads = rayon::current_num_threads();
    println!("{rate:.0} training images per second on {threads} threads");
}

/// `cargo test -p zeg-data --test mini_world contact_sheet -- --ignored --nocapture`
#[test]
#[ignore = "writes an image for visual inspection"]
fn contact_sheet() {
    let world = world(|_| {});
    let palette = zeg_image::distinct_palette(20);
    let names = &world.classes().classes;
    let mut sheet = RgbImage::new(12 * 132, 8 * 130);
    for (number, sample) in (0..).zip(world.samples(Part::Val, 0..48)) {
        let zoomed = |image: &RgbImage| {
            image::imageops::resize(image, 128, 128, image::imageops::FilterType::Nearest)
        };
        let mut painted = zeg_image::overlay(&sample.image, &sample.labels, names, &palette, 0.6);
        let painted = image::imageops::crop(&mut painted, 0, 0, 64, 64).to_image();
        let (x, y) = (number % 12 * 132, number / 12 * 260);
        image::imageops::replace(&mut sheet, &zoomed(&sample.image), x, y);
        image::imageops::replace(&mut sheet, &zoomed(&painted), x, y + 130);
        let objects = sample.objects.iter();
        let objects = objects.map(|object| format!("{} {}", object.name, object.shape.word()));
        println!("{number}: {}", objects.collect::<Vec<_>>().join(", "));
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mini-world.png");
    write_rgb_png(&path, &sheet).unwrap();
    println!("{}", path.display());
}
