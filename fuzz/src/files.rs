//! The targets for readers of images, labels, lists and weights, which need no tensor library.
//!
//! Each function takes any bytes, must not panic, and checks what every accepted input fulfils. The fuzz targets and the
//! test that replays `fuzz/seeds` call the same functions.

use std::{
    fs,
    ops::ControlFlow,
    path::{Component, Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;
use zeg_data::{
    Selection,
    prepare::{ImagePlacement, OnBad, PrepareOptions, plan},
};
use zeg_image::{Rle, decode_image_bytes, decode_labels_bytes, decode_rgb_bytes};
use zeg_vocab::{
    classes::{ClassQuery, MAX_NAME_CHARACTERS, parse_class_file, parse_class_list},
    templates::TemplateSet,
};
use zeg_weights::{Inspection, StateDict};

/// A target: any bytes are legal.
pub type Target = fn(&[u8]);

/// The targets of this file with their names, which are also those of the folders of seeds.
pub const TARGETS: [(&str, Target); 12] = [
    ("class_file", class_file),
    ("class_forms", class_forms),
    ("image", image),
    ("jpeg", jpeg),
    ("label_png", label_png),
    ("pickle", pickle),
    ("safetensors_header", safetensors_header),
    ("torch_archive", torch_archive),
    ("dataset_toml", dataset_toml),
    ("split_list", split_list),
    ("rle", rle),
    ("coco_json", coco_json),
];

/// Parses class files (text and TOML), class lists and template files; the first byte modulo 4 selects one.
pub fn class_file(data: &[u8]) {
    let Some((form, text)) = selected_text(data) else {
        return;
    };
    match form % 4 {
        0 => check_classes(parse_class_file(text, Path::new("fuzz.txt")).ok()),
        1 => check_classes(parse_class_file(text, Path::new("fuzz.toml")).ok()),
        2 => check_classes(parse_class_list(text).ok()),
        _ => {
            let _ = TemplateSet::parse_file(text, Path::new("fuzz.txt"));
        }
    }
}

/// Parses a class file under the name of every form; the first byte selects the extension.
pub fn class_forms(data: &[u8]) {
    const NAMES: [&str; 8] = [
        "fuzz.txt",
        "fuzz.csv",
        "fuzz.tsv",
        "fuzz.json",
        "fuzz.jsonl",
        "fuzz.yaml",
        "fuzz.toml",
        "fuzz",
    ];
    if let Some((form, text)) = selected_text(data) {
        let name = NAMES[usize::from(form) % NAMES.len()];
        check_classes(parse_class_file(text, Path::new(name)).ok());
    }
}

fn selected_text(data: &[u8]) -> Option<(u8, &str)> {
    let (form, bytes) = data.split_first()?;
    Some((*form, std::str::from_utf8(bytes).ok()?))
}

fn check_classes(classes: Option<Vec<ClassQuery>>) {
    for class in classes.iter().flatten() {
        for name in class.names() {
            assert!(!name.trim().is_empty() && name.trim() == name);
            assert!(name.chars().count() <= MAX_NAME_CHARACTERS);
            assert!(!name.contains(char::is_control));
        }
        assert!(
            class
                .threshold
                .is_none_or(|score| (0.0..=1.0).contains(&score))
        );
    }
    if let Some(classes) = classes {
        assert!(
            classes
                .iter()
                .any(|class: &ClassQuery| class.role.is_foreground())
        );
    }
}

/// Decodes an image of any format.
pub fn image(data: &[u8]) {
    if let Ok(image) = decode_rgb_bytes(data, Path::new("fuzz")) {
        assert!(image.width() > 0 && image.height() > 0);
    }
}

/// Decodes a JPEG file; the first byte selects how the rest becomes one.
///
/// Most changes of a valid file break its first segments. Three of four inputs are therefore only a part of a file: the
/// data of a baseline scan, the data of a progressive scan, or segments whose lengths are computed.
pub fn jpeg(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else {
        return;
    };
    let file = match form % 4 {
        0 => rest.to_vec(),
        1 => one_scan(0xC0, rest),
        2 => one_scan(0xC2, rest),
        _ => segments(rest),
    };
    if let Ok(decoded) = decode_image_bytes(&file, Path::new("fuzz.jpg")) {
        assert!(decoded.rgb.width() > 0 && decoded.rgb.height() > 0);
        assert_eq!(decoded.unused_bits, None); // a JPEG has 8 bits per sample
    }
}

/// Returns a grey JPEG of 16×16 pixels with this data in its scan.
fn one_scan(frame: u8, data: &[u8]) -> Vec<u8> {
    let mut file = vec![0xFF, 0xD8];
    let table = |file: &mut Vec<u8>, class: u8, symbols: [u8; 4]| {
        let mut payload = vec![class];
        payload.extend([0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // two codes of two bits, two of three
        payload.extend(symbols);
        segment(file, 0xC4, &payload);
    };
    let mut quantisation = vec![0];
    quantisation.extend([1; 64]);
    segment(&mut file, 0xDB, &quantisation);
    segment(&mut file, frame, &[8, 0, 16, 0, 16, 1, 1, 0x11, 0]);
    table(&mut file, 0x00, [0, 1, 3, 6]);
    table(&mut file, 0x10, [0x00, 0x01, 0x11, 0xF0]);
    segment(
        &mut file,
        0xDA,
        &[1, 1, 0, 0, if frame == 0xC0 { 63 } else { 0 }, 0],
    );
    file.extend(data);
    file.extend([0xFF, 0xD9]);
    file
}

/// Returns a file of segments: each takes a byte for the marker, a byte for the length, and its payload.
fn segments(mut data: &[u8]) -> Vec<u8> {
    let mut file = vec![0xFF, 0xD8];
    while let [marker, length, rest @ ..] = data {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        segment(&mut file, *marker, payload);
        data = rest;
        if *marker == 0xDA {
            file.extend(data); // the data of the last scan, which may hold further segments
            break;
        }
    }
    file.extend([0xFF, 0xD9]);
    file
}

fn segment(file: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    file.extend([0xFF, marker]);
    file.extend((payload.len() as u16 + 2).to_be_bytes());
    file.extend(payload);
}

/// Decodes a label file.
pub fn label_png(data: &[u8]) {
    if let Ok(labels) = decode_labels_bytes(data, Path::new("fuzz.png")) {
        assert_eq!(labels.labels().len(), labels.width() * labels.height());
    }
}

/// Reads the object of the legacy format of `torch.save`, followed by the storage keys and the storages.
pub fn pickle(data: &[u8]) {
    /// The magic number, the version, and the information that the machine is little-endian.
    const BEFORE: &[u8] =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
        \x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";
    weights([BEFORE, data].concat());
}

/// Reads a safetensors header: the number of data bytes (two bytes), then the header, whose length is put before it.
pub fn safetensors_header(data: &[u8]) {
    let Some((count, header)) = data.split_first_chunk::<2>() else {
        return;
    };
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + usize::from(u16::from_le_bytes(*count)), 0x3c);
    weights(file);
}

/// Reads a whole weight file, mainly PyTorch's zip files.
pub fn torch_archive(data: &[u8]) {
    weights(data.to_vec());
}

fn weights(file: Vec<u8>) {
    let Ok(weights) = StateDict::from_bytes("fuzz", file, &[]) else {
        return;
    };
    for key in weights.keys().take(64) {
        if let Ok(tensor) = weights.read(key) {
            assert_eq!(tensor.map(|tensor| tensor.shape), weights.shape(key));
        }
    }
    let _ = Inspection::of(&weights);
}

/// Parses the description of a data set.
pub fn dataset_toml(data: &[u8]) {
    let file = scratch("set.toml", data);
    if let Ok(classes) = zeg_data::classes(&file.to_string_lossy(), None, None) {
        assert!(!classes.classes.is_empty());
        assert!(classes.unseen.iter().all(|class| *class < classes.len()));
    }
}

/// Reads a split list; no id leads out of the folder.
pub fn split_list(data: &[u8]) {
    const DESCRIPTION: &str = "name = \"fuzz\"\nimages = \"{id}.png\"\nlabels = \"{id}_mask.png\"\nkind = \"index\"\n\
        classes = [\"a\", \"b\"]\n[splits]\nval = \"list.txt\"\n";
    let description = scratch("lists/set.toml", DESCRIPTION.as_bytes());
    let list = scratch("lists/list.txt", data);
    let folder = list.parent().unwrap();
    let dataset = description.to_string_lossy();
    let selection = Selection {
        dataset: &dataset,
        root: folder,
        split: "val",
        classes: None,
        unseen: None,
    };
    if let Ok(found) = zeg_data::list(&selection) {
        for item in &found.items {
            let inside = item.image.strip_prefix(folder).unwrap();
            assert!(
                inside
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)))
            );
        }
    }
}

/// Reads run lengths: width and height (a byte each), then COCO's compressed form.
pub fn rle(data: &[u8]) {
    let [width, height, text @ ..] = data else {
        return;
    };
    let (width, height) = (u32::from(*width), u32::from(*height));
    if let Ok(mask) = Rle::from_coco_string(width, height, text) {
        let counts = mask.counts().to_vec();
        assert_eq!(counts.iter().sum::<u32>(), width * height);
        let again = Rle::from_coco_string(width, height, mask.to_coco_string());
        assert_eq!(again.as_ref(), Ok(&mask));
        assert_eq!(Rle::from_counts(width, height, counts).as_ref(), Ok(&mask));
    }
    let counts = text.iter().copied().map(u32::from).collect();
    let _ = Rle::from_counts(width, height, counts);
}

/// Converts annotations in COCO's JSON with run lengths: the download of PASCAL Context, in a folder of three images.
pub fn coco_json(data: &[u8]) {
    let download = scratch("context/trainval_merged.json", data);
    let from = download.parent().unwrap();
    let golden = repository().join("crates/zeg-data/tests/golden/prepare/context_json/VOCdevkit");
    copy_once(&golden, &from.join("VOCdevkit"));
    let Ok(plan) = plan("pascal-context", from) else {
        return;
    };
    let to = tempfile::tempdir().unwrap();
    let options = PrepareOptions {
        threads: 1,
        images: ImagePlacement::Link,
        on_bad: OnBad::Report,
        shrink: None,
    };
    let _ = plan.run(to.path(), &options, &|_| ControlFlow::Continue(()));
}

/// Writes a file into a folder of this process, and returns its path.
pub(crate) fn scratch(name: &str, data: &[u8]) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let path = FOLDER
        .get_or_init(|| tempfile::tempdir().unwrap())
        .path()
        .join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, data).unwrap();
    path
}

/// Returns the root of the repository, which holds the seeds.
pub fn repository() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders
        .find(|folder| folder.join("fuzz/seeds").is_dir())
        .unwrap()
}

/// Copies a folder with everything in it, unless it was copied before.
fn copy_once(from: &Path, to: &Path) {
    if to.exists() {
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_once(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
