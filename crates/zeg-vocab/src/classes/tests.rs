//! Tests of the built-in lists and of custom lists.

use std::collections::HashSet;

use super::*;

#[test]
fn lists_have_their_published_sizes() {
    for (name, classes, unseen) in [
        ("voc20", 20, 5),
        ("voc21", 21, 5),
        ("voc20-zegformer", 20, 5),
        ("coco-stuff171", 171, 15),
        ("pascal-context60", 60, 10),
        ("pascal-context59", 59, 10),
        ("ade20k-150", 150, 0),
        ("ade20k-full847", 847, 275),
        ("cityscapes19", 19, 0),
    ] {
        let set = ClassSet::by_name(name).unwrap();
        assert_eq!((set.len(), set.unseen.len()), (classes, unseen), "{name}");
        assert_eq!(set.seen().len(), classes - unseen, "{name}");
        assert!(set.unseen.is_sorted(), "{name}");
        let names: HashSet<Vec<String>> = (0..classes).map(|label| set.names_of(label)).collect();
        assert_eq!(names.len(), classes, "{name}");
        assert_eq!(
            set.palette().iter().collect::<HashSet<_>>().len(),
            classes.min(256),
            "{name}"
        );
    }
    assert_eq!(ClassSet::names().len(), 9);
}

/// Names decide the text embeddings, so every list is compared with its source name by name.
#[test]
fn class_lists_are_those_of_the_published_code_name_by_name() {
    let golden = include_str!("../../tests/golden/class_lists.txt");
    let (mut list, mut label, mut lists) = (None, 0, 0);
    let written = golden.lines().map(str::trim);
    for line in written.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            list = Some(ClassSet::by_name(name.trim_end_matches(']')).unwrap());
            (label, lists) = (0, lists + 1);
            continue;
        }
        let set = list.as_ref().unwrap();
        assert_eq!(set.names_of(label).join(", "), line, "{} {label}", set.name);
        label += 1;
        assert!(label <= set.len(), "{}", set.name);
    }
    // voc21 and pascal-context60 are voc20 and pascal-context59 after a background.
    assert_eq!(lists, ClassSet::names().len() - 2);
    for (whole, part) in [("voc21", "voc20"), ("pascal-context60", "pascal-context59")] {
        let (whole, part) = (
            ClassSet::by_name(whole).unwrap(),
            ClassSet::by_name(part).unwrap(),
        );
        assert_eq!(whole.classes[0], "background");
        assert_eq!(whole.classes[1..], part.classes);
    }
    assert_eq!(ClassSet::usually_spelled("voc20-zegformer"), "voc20");
    assert_eq!(ClassSet::usually_spelled("voc21"), "voc21");
}

/// Unseen classes as the papers list them.
#[test]
fn labels_are_the_published_ones() {
    let names = |name: &str| -> Vec<(usize, String)> {
        let set = ClassSet::by_name(name).unwrap();
        set.unseen
            .iter()
            .map(|label| (*label, set.classes[*label].clone()))
            .collect()
    };
    let expect = |name: &str, expected: &[(usize, &str)]| {
        let expected: Vec<_> = expected
            .iter()
            .map(|(i, n)| (*i, (*n).to_owned()))
            .collect();
        assert_eq!(names(name), expected);
    };
    expect(
        "voc20",
        &[
            (15, "pottedplant"),
            (16, "sheep"),
            (17, "sofa"),
            (18, "train"),
            (19, "tvmonitor"),
        ],
    );
    expect(
        "coco-stuff171",
        &[
            (19, "cow"),
            (23, "giraffe"),
            (28, "suitcase"),
            (29, "frisbee"),
            (36, "skateboard"),
            (51, "carrot"),
            (76, "scissors"),
            (88, "cardboard"),
            (94, "clouds"),
            (112, "grass"),
            (133, "playingfield"),
            (136, "river"),
            (137, "road"),
            (157, "tree"),
            (160, "wall-concrete"),
        ],
    );
    expect(
        "pascal-context60",
        &[
            (1, "aeroplane"),
            (7, "bird"),
            (8, "boat"),
            (15, "cat"),
            (20, "cow"),
            (25, "fence"),
            (32, "keyboard"),
            (34, "motorbike"),
            (49, "sofa"),
            (55, "tvmonitor"),
        ],
    );
    let context = ClassSet::by_name("pascal-context59").unwrap();
    assert_eq!(context.index_of("background"), None);
    assert_eq!(context.index_of("cat"), Some(14));
    assert!(context.is_unseen(14) && !context.is_unseen(15));
    let coco = ClassSet::by_name("coco-stuff171").unwrap();
    assert_eq!(
        (coco.index_of("person"), coco.index_of("wood")),
        (Some(0), Some(170))
    );
}

#[test]
fn unknown_names_are_errors_with_a_hint() {
    let error = ClassSet::by_name("voc22").unwrap_err();
    assert!(error.to_string().contains("voc20"), "{error}");
    let voc = ClassSet::by_name("voc20").unwrap();
    let error = voc.with_unseen(&["dog", "motorbyke"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown class \"motorbyke\"; did you mean \"motorbike\"?"
    );
}

#[test]
fn a_custom_split_replaces_the_published_one() {
    let voc = ClassSet::by_name("voc20")
        .unwrap()
        .with_unseen(&["dog", "bird"])
        .unwrap();
    assert_eq!(voc.unseen, [2, 11]);
    assert_eq!(
        voc.unseen_flags().iter().filter(|unseen| **unseen).count(),
        2
    );
}

/// Compares labels, and the numbers of seen and unseen classes, with ZegFormer's list of 847 classes.
#[test]
fn ade20k_full_is_in_the_order_of_its_train_ids() {
    let set = ClassSet::by_name("ade20k-full847").unwrap();
    for (label, names) in [
        (0, "wall"),
        (11, "person, individual, someone, somebody, mortal, soul"),
        (
            99,
            "aircraft carrier, carrier, flattop, attack aircraft carrier",
        ),
        (300, "altar, communion table, lord's table"),
        (500, "cat"),
        (
            768,
            "control panel, instrument panel, control board, board, panel",
        ),
        (846, "adding machine, totalizer, totaliser"),
    ] {
        assert_eq!(set.names_of(label).join(", "), names);
        assert_eq!(set.label_of(names).unwrap(), label);
    }
    assert_eq!(set.names_of(847), [""; 0]);
    assert_eq!((set.seen().len(), set.unseen.len()), (572, 275));
    for (label, unseen) in [(166, true), (167, false), (846, true), (0, false)] {
        assert_eq!(set.is_unseen(label), unseen, "{label}");
    }
}

#[test]
fn short_lists_are_in_the_order_of_their_benchmark() {
    let ade = ClassSet::by_name("ade20k-150").unwrap();
    for (label, name) in [
        (0, "wall"),
        (7, "bed"),
        (89, "television receiver"),
        (149, "flag"),
    ] {
        assert_eq!(ade.index_of(name), Some(label));
    }
    let city = ClassSet::by_name("cityscapes19").unwrap();
    assert_eq!(city.index_of("rider"), Some(12));
    let voc = ClassSet::by_name("voc21").unwrap();
    assert_eq!(voc.index_of("background"), Some(0));
    assert_eq!(voc.unseen, [16, 17, 18, 19, 20]);
}

#[test]
fn custom_lists_are_checked() {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let set = ClassSet::custom(
        "gut",
        owned(&["background", " polyp "]),
        vec![owned(&["bowel wall"]), vec![]],
        vec![1, 1],
    )
    .unwrap();
    assert_eq!(
        (set.names_of(1), set.unseen.clone()),
        (owned(&["polyp"]), vec![1])
    );
    assert_eq!(set.names_of(0), ["background", "bowel wall"]);
    let plain = ClassSet::custom("gut", owned(&["a", "b"]), vec![vec![], vec![]], vec![]);
    assert!(plain.unwrap().synonyms.is_empty());

    let refused = |classes: &[&str], synonyms, unseen| {
        let set = ClassSet::custom("gut", owned(classes), synonyms, unseen);
        set.unwrap_err().to_string()
    };
    assert_eq!(
        refused(&["a", "b"], vec![vec![]], vec![]),
        "class list \"gut\": synonyms of 1 classes, but 2 classes"
    );
    assert_eq!(
        refused(&["a", "b"], vec![], vec![2]),
        "class list \"gut\": unseen label 2, but there are 2 classes, counted from 0"
    );
    for (classes, synonyms) in [
        (&["a", "A"][..], vec![]),
        (&["a", "b"], vec![vec![], owned(&["a"])]),
        (&["a", " "], vec![]),
        (&[], vec![]),
    ] {
        let error = refused(classes, synonyms, vec![]);
        assert!(error.starts_with("class list \"gut\": "), "{error}");
    }
}

/// Lists that were stored before synonyms were added can be read.
#[test]
fn stored_lists_need_no_synonyms() {
    let json = r#"{"name":"pets","classes":["cat","dog"],"unseen":[1]}"#;
    let set: ClassSet = serde_json::from_str(json).unwrap();
    assert_eq!(set.names_of(1), ["dog"]);
    let again = serde_json::to_string(&set).unwrap();
    assert_eq!(serde_json::from_str::<ClassSet>(&again).unwrap(), set);
}

#[test]
fn colours_are_those_of_voc() {
    assert_eq!(voc_colour(0), [0, 0, 0]);
    assert_eq!(voc_colour(1), [128, 0, 0]);
    assert_eq!(voc_colour(15), [192, 128, 128]);
    assert_eq!(voc_colour(20), [0, 64, 128]);
    assert_eq!(voc_colour(255), [224, 224, 192]);
}
