//! A world small enough to train on in a test: a random CLIP image encoder, a table of class embeddings, and a VOC
//! folder whose classes are colours.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part of this module; helpers of tests may panic

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;
use zeg::image::{LabelMap, RgbImage, write_indexed_png};
use zeg::vocab::classes::{ClassSet, voc_colour};
use zeg_base::random::{GOLDEN_GAMMA, splitmix64};

/// Width and embedding dimension of the image encoder.
pub(crate) const WIDTH: usize = 32;
pub(crate) const DIM: usize = 16;
const PATCH: usize = 8;
const LAYERS: usize = 2;
const GRID: usize = 4;

/// The folder of the world, with its files.
pub(crate) struct World {
    pub(crate) folder: TempDir,
}

impl World {
    /// Creates the world in a temporary folder.
    pub(crate) fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        write_tensors(&world.weights(), &tower(WIDTH, LAYERS), HashMap::new());
        write_class_embeddings(&world.text(), &ClassSet::by_name("voc20").unwrap().classes);
        std::fs::write(world.config(), CONFIG).unwrap();
        world.write_data();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    pub(crate) fn weights(&self) -> PathBuf {
        self.path("tower.safetensors")
    }
    pub(crate) fn text(&self) -> PathBuf {
        self.path("text.safetensors")
    }
    pub(crate) fn config(&self) -> PathBuf {
        self.path("experiment.toml")
    }
    pub(crate) fn data(&self) -> PathBuf {
        self.path("VOC2012")
    }
    pub(crate) fn image(&self, id: &str) -> PathBuf {
        self.data().join("JPEGImages").join(format!("{id}.jpg"))
    }
    pub(crate) fn labels(&self, id: &str) -> PathBuf {
        self.data()
            .join("SegmentationClass")
            .join(format!("{id}.png"))
    }

    /// Returns `zeg` in the folder of the world.
    pub(crate) fn zeg(&self) -> Command {
        let mut command = Command::cargo_bin("zeg").unwrap();
        command
            .current_dir(self.folder.path())
            .env_remove("ZEG_DEVICE")
            .env_remove("ZEG_THREADS")
            .env("ZEG_CACHE", self.path("cache"))
            .env("ZEG_OFFLINE", "1");
        command
    }

    /// Returns `zeg train` with a folder for the run.
    pub(crate) fn train(&self, run: &str) -> Command {
        let mut command = self.zeg();
        command.args([
            "train",
            "experiment.toml",
            "--data",
            "VOC2012",
            "--weights",
            "tower.safetensors",
        ]);
        command.args(["--text", "text.safetensors", "-o", run]);
        command
    }

    /// Writes six images of 48×40 pixels with two rectangles each: four for training, two for scoring.
    fn write_data(&self) {
        let sets = self.data().join("ImageSets/Segmentation");
        for folder in [
            &sets,
            &self.data().join("JPEGImages"),
            &self.data().join("SegmentationClass"),
        ] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let ids: Vec<String> = (0..6).map(|i| format!("2007_{i:06}")).collect();
        for (number, id) in ids.iter().enumerate() {
            let (width, height) = (48, 40);
            let class_at = |x: usize, y: usize| match (x, y) {
                (4..20, 6..30) => number as u16 % 4 + 1,
                (26..44, 10..36) => (number as u16 + 1) % 20 + 1,
                _ => 0,
            };
            let labels: Vec<u16> = (0..width * height)
                .map(|i| class_at(i % width, i / width))
                .collect();
            let pixels = labels
                .iter()
                .flat_map(|&class| voc_colour(usize::from(class)))
                .collect();
            let image = RgbImage::from_raw(width as u32, height as u32, pixels).unwrap();
            image.save(self.image(id)).unwrap();
            let palette: Vec<[u8; 3]> = (0..21).map(voc_colour).collect();
            write_indexed_png(
                &self.labels(id),
                &LabelMap::new(width, height, labels).unwrap(),
                &palette,
            )
            .unwrap();
        }
        std::fs::write(sets.join("train.txt"), ids[..4].join("\n")).unwrap();
        std::fs::write(sets.join("val.txt"), ids[4..].join("\n")).unwrap();
    }
}

/// Returns the standard error of a command that must fail with exit code 1.
pub(crate) fn failure(command: &mut Command) -> String {
    failure_with(1, command)
}

/// Returns the standard error of a command that must fail with an exit code.
pub(crate) fn failure_with(code: i32, command: &mut Command) -> String {
    let output = command.assert().code(code).get_output().stderr.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Writes CLIP's image encoder only.
pub(crate) fn write_image_tower(path: &Path) {
    write_tensors(path, &tower(64, LAYERS), HashMap::new());
}

/// Writes an image encoder of the world's width with twelve blocks, as many as the published one has.
pub(crate) fn write_deep_tower(path: &Path) {
    write_tensors(path, &tower(WIDTH, 12), HashMap::new());
}

/// Writes a table of class embeddings with the names of the classes.
pub(crate) fn write_class_embeddings(path: &Path, names: &[String]) {
    let rows = (0..names.len()).flat_map(|c| unit_row(c as u64)).collect();
    let names_json = serde_json::to_string(names).unwrap();
    let tensor = ("embeddings".into(), vec![names.len(), DIM], rows);
    let metadata = HashMap::from([("classes".to_owned(), names_json)]);
    write_tensors(path, &[tensor], metadata);
}

/// Writes a plain CLIP with both encoders, in OpenAI's names, for `zeg segment` without training.
pub(crate) fn write_plain_clip(path: &Path) {
    let mut tensors = tower(64, LAYERS);
    let (width, tokens, context) = (64, 49_408, 77);
    let mut add = |name: &str, shape: Vec<usize>, one: f32| {
        let values = noise(900 + tensors.len() as u64, shape.iter().product());
        let values = values.into_iter().map(|v| one + 0.2 * v).collect();
        tensors.push((name.to_owned(), shape, values));
    };
    add("token_embedding.weight", vec![tokens, width], 0.0);
    add("positional_embedding", vec![context, width], 0.0);
    add("text_projection", vec![width, DIM], 0.0);
    for norm in [
        "ln_final",
        "transformer.resblocks.0.ln_1",
        "transformer.resblocks.0.ln_2",
    ] {
        add(&format!("{norm}.weight"), vec![width], 1.0);
        add(&format!("{norm}.bias"), vec![width], 0.0);
    }
    for (part, out, input) in LINEARS {
        let name = format!("transformer.resblocks.0.{part}");
        add(
            &format!("{name}weight"),
            vec![out * width, input * width],
            0.0,
        );
        add(&format!("{name}bias"), vec![out * width], 0.0);
    }
    write_tensors(path, &tensors, HashMap::new());
}

/// The linear layers of a block: name, and outputs and inputs as multiples of the width.
const LINEARS: [(&str, usize, usize); 4] = [
    ("attn.in_proj_", 3, 1),
    ("attn.out_proj.", 1, 1),
    ("mlp.c_fc.", 4, 1),
    ("mlp.c_proj.", 1, 4),
];

const CONFIG: &str = r#"
[data]
dataset = "voc12"
classes = "voc20"
train-split = "train"
eval-split = "val"

[model]
encoder = { patch = 8, width = 32, layers = 2, heads = 2, embed-dim = 16 }
input-resolution = 32
prompts = { tokens = 2, depth = { first = 2 } }
head = { layers = 2, heads = 2, feed-forward = 24, input-scale = 4 }

[training]
setting = "inductive"
steps = 6
batch = 3
micro-batch = 2
checkpoint-every = 2
preprocess = { kind = "random-crop", base-scale = [64, 40], crop = 32 }
schedule = { base = 1e-3, warmup-steps = 2 }

[inference]
short-side = 32
crop = 32
stride = 24
"#;

fn tower(width: usize, layers: usize) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("visual.conv1.weight".into(), vec![width, 3, PATCH, PATCH]),
        ("visual.class_embedding".into(), vec![width]),
        (
            "visual.positional_embedding".into(),
            vec![1 + GRID * GRID, width],
        ),
        ("visual.proj".into(), vec![width, DIM]),
    ];
    let mut norm = |name: String| {
        shapes.push((format!("{name}.weight"), vec![width]));
        shapes.push((format!("{name}.bias"), vec![width]));
    };
    norm("visual.ln_pre".into());
    norm("visual.ln_post".into());
    for block in 0..layers {
        norm(format!("visual.transformer.resblocks.{block}.ln_1"));
        norm(format!("visual.transformer.resblocks.{block}.ln_2"));
    }
    for block in 0..layers {
        let name = |part: &str| format!("visual.transformer.resblocks.{block}.{part}");
        for (part, out, input) in LINEARS {
            let (out, input) = (out * width, input * width);
            shapes.push((name(&format!("{part}weight")), vec![out, input]));
            shapes.push((name(&format!("{part}bias")), vec![out]));
        }
    }
    shapes
        .into_iter()
        .enumerate()
        .map(|(number, (name, shape))| {
            let values = noise(number as u64 + 100, shape.iter().product());
            let one = if name.contains(".ln_") && name.ends_with("weight") {
                1.0
            } else {
                0.0
            };
            (
                name,
                shape,
                values.into_iter().map(|v| one + 0.2 * v).collect(),
            )
        })
        .collect()
}

fn unit_row(seed: u64) -> Vec<f32> {
    let row = noise(seed, DIM);
    let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    row.into_iter().map(|v| v / length).collect()
}

/// Returns numbers in −1..1 from a seed (splitmix64).
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x1234_5678_9ABC_DEF1);
    let mut next = || {
        let bits = splitmix64(state) >> 40;
        state = state.wrapping_add(GOLDEN_GAMMA);
        bits as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn write_tensors(
    path: &Path,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    metadata: HashMap<String, String>,
) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            (
                name.as_str(),
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        })
        .collect();
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}
