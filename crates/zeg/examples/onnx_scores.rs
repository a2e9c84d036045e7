//! Exports a model as ONNX, and writes the program's own scores of images for comparison.
//!
//! ```sh
//! cargo run --example onnx_scores -- MODEL FILE.onnx [KEY=VALUE …] [IMAGE …]
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `classes`, `text`, `text-classes`, `weights`, `method` | as in `zeg segment` |
//! | `hold` | `yes`: the graph holds the classes |
//! | `size`, `batch` | pixels (one side or `HxW`) and number of images, or `any` |
//! | `precision`, `opset` | as in `zeg export` |
//! | `split`, `preprocessing`, `external-data` | `yes` |
//! | `export` | `no`: scores only |
//!
//! Every image is scored at its own size as one window, without a refinement by colours. Written are, beside `FILE.onnx`,
//! `FILE.classes.npy`, float32 `[classes, dim]`, and for each image `FILE.STEM.npy`, float32 `[classes, height, width]`.
//! `reference/onnx_export.py` compares them with what ONNX Runtime and OpenVINO compute.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use zeg::{
    EncodedClasses, LoadOptions, Segmenter,
    image::decode_rgb,
    loading::MethodChoice,
    model::{
        ModelError,
        inference::{Inference, InferenceMode, Refinement},
        section::Section,
    },
    onnx::{Export, Overwrite, Precision, Settings},
    session::{ScoredStrip, StripVisitor},
    vocab::classes::parse_classes_argument,
};

/// The command line.
struct Arguments {
    model: PathBuf,
    output: PathBuf,
    values: Vec<(String, String)>,
    images: Vec<PathBuf>,
}

impl Arguments {
    fn parse() -> anyhow::Result<Self> {
        let mut all = std::env::args().skip(1);
        let model = all.next().context("name a model")?.into();
        let output = all.next().context("name the ONNX file")?.into();
        let (mut values, mut images) = (Vec::new(), Vec::new());
        for argument in all {
            match argument.split_once('=') {
                Some((key, value)) => values.push((key.to_owned(), value.to_owned())),
                None => images.push(argument.into()),
            }
        }
        Ok(Self {
            model,
            output,
            values,
            images,
        })
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.values.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    fn is(&self, key: &str) -> bool {
        self.get(key) == Some("yes")
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.get(key).map(PathBuf::from)
    }

    fn load_options(&self) -> anyhow::Result<LoadOptions> {
        let method = |name: &str| {
            let (name, options) = name.split_once(':').unwrap_or((name, ""));
            let mut section = Section::default();
            for option in options
                .split(';')
                .filter_map(|option| option.split_once('-'))
            {
                // `smoothing-0.5` stands for key-smoothing, `denoising-0.5` for prompt-denoising.
                let key = match option.0 {
                    "smoothing" => "key-smoothing",
                    _ => "prompt-denoising",
                };
                section.set(key, option.1.parse::<f32>().unwrap_or_default());
            }
            MethodChoice {
                name: name.to_owned(),
                options: section,
            }
        };
        let classes = self.get("text-classes").map(parse_classes_argument);
        Ok(LoadOptions {
            base: self.path("weights"),
            method: self.get("method").map(method),
            table: self.path("text"),
            table_classes: classes.transpose()?,
            ..LoadOptions::default()
        })
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let size = |text: &str| -> anyhow::Result<[usize; 2]> {
            Ok(match text.split_once('x') {
                Some((height, width)) => [height.parse()?, width.parse()?],
                None => [text.parse()?; 2],
            })
        };
        Ok(Settings {
            size: match self.get("size") {
                None | Some("any") => None,
                Some(text) => Some(size(text)?),
            },
            batch: match self.get("batch") {
                Some("any") => None,
                Some(text) => Some(text.parse()?),
                None => Some(1),
            },
            precision: match self.get("precision") {
                Some("f16") => Precision::F16,
                Some("int8-qdq") => Precision::Int8Qdq,
                _ => Precision::F32,
            },
            opset: self.get("opset").map_or(Ok(17), str::parse)?,
            preprocessing: self.is("preprocessing"),
            split: self.is("split"),
        })
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse()?;
    let mut segmenter = Segmenter::load_with(&arguments.model, arguments.load_options()?)?;
    segmenter.change_inference(|inference: &mut Inference| {
        inference.mode = InferenceMode::Whole;
        inference.short_side = 0;
        inference.refine = Refinement::None;
        Ok::<(), ModelError>(())
    })?;
    let list = arguments.get("classes").context("name classes")?;
    let classes = segmenter.encode_classes(&parse_classes_argument(list)?)?;
    let output = &arguments.output;
    write_classes(&classes, &output.with_extension("classes.npy"))?;
    if arguments.get("export") != Some("no") {
        let export = Export {
            classes: arguments.is("hold").then_some(&classes),
            settings: arguments.settings()?,
            external_data: arguments.is("external-data"),
        };
        let exported = export.write(&segmenter, output, Overwrite::Replace)?;
        for file in exported.files {
            println!("{}", file.written.file.display());
        }
    }
    for image in &arguments.images {
        let pixels = decode_rgb(image)?;
        let size = [pixels.height() as usize, pixels.width() as usize];
        let mut scores = Scores {
            values: vec![0.0; classes.classes().len() * size[0] * size[1]],
            size,
        };
        segmenter.segment_classes(&pixels, &classes, &mut [&mut scores])?;
        let stem = image.file_stem().unwrap_or_default().to_string_lossy();
        let path = output.with_extension(format!("{stem}.npy"));
        write_npy(
            &path,
            &scores.values,
            &[classes.classes().len(), size[0], size[1]],
        )?;
    }
    Ok(())
}

/// The scores of an image: `[classes, height, width]`.
struct Scores {
    values: Vec<f32>,
    size: [usize; 2],
}

impl StripVisitor for Scores {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        let [height, width] = self.size;
        let row_length = (strip.classes * width).max(1);
        for (row, scores) in strip.scores.chunks_exact(row_length).enumerate() {
            for (class, scores) in scores.chunks_exact(width).enumerate() {
                let start = (class * height + strip.first_row + row) * width;
                self.values[start..start + width].copy_from_slice(scores);
            }
        }
        Ok(())
    }
}

fn write_classes(classes: &EncodedClasses, path: &Path) -> anyhow::Result<()> {
    let queries = classes.question().classes;
    let shape = queries.text.dims();
    let data = queries.text.clone().into_data().convert::<f32>();
    let values = data
        .try_into_vec::<f32>()
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    write_npy(path, &values, &shape)
}

/// Writes values as a NumPy file of version 1.
fn write_npy(path: &Path, values: &[f32], shape: &[usize]) -> anyhow::Result<()> {
    let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}",
        shape.join(", ")
    );
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.resize(10 + length - 1, b' ');
    bytes.push(b'\n');
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}
