//! `zeg segment`: pictures and class names to label maps and overlays.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde::Serialize;
use zeg::{
    Segmenter,
    image::{
        IGNORE_LABEL, LabelMap, decode_rgb, distinct_palette, overlay, write_indexed_png,
        write_rgb_png,
    },
    vocab::classes::parse_class_list,
};

use super::{JsonTarget, change_inference, open_device};
use crate::{cli::SegmentArgs, progress};

/// What was found in one picture.
#[derive(Debug, Serialize)]
struct Found {
    image: PathBuf,
    labels: PathBuf,
    overlay: PathBuf,
    width: usize,
    height: usize,
    /// Share of the picture's pixels by class, classes that do not occur left out.
    shares: BTreeMap<String, f64>,
}

pub(crate) fn run(args: &SegmentArgs) -> anyhow::Result<ExitCode> {
    let classes = parse_class_list(&args.classes).context("--classes")?;
    anyhow::ensure!(
        (0.0..=1.0).contains(&args.threshold),
        "--threshold {}: a score from 0 to 1",
        args.threshold
    );
    anyhow::ensure!(
        (0.0..=1.0).contains(&args.opacity),
        "--opacity {}: a number from 0 to 1",
        args.opacity
    );
    let outputs = output_names(&args.images, &args.output)?;
    open_device(&args.compute)?;
    let mut segmenter = Segmenter::load(
        &args.checkpoint,
        args.model.weights.as_deref(),
        args.compute.device,
    )?;
    change_inference(segmenter.inference_mut(), &args.inference)?;
    segmenter.inference_mut().threshold = (args.threshold > 0.0).then_some(args.threshold);
    segmenter.set_classes(&classes, args.model.text.as_deref())?;
    std::fs::create_dir_all(&args.output).with_context(|| args.output.display().to_string())?;

    let palette = distinct_palette(classes.len());
    let names = segmenter.classes().to_vec();
    let bar = progress::bar(args.images.len() as u64, "segmenting");
    let (mut found, mut failed) = (Vec::new(), 0_usize);
    for (image, stem) in args.images.iter().zip(&outputs) {
        let labels_file = stem.with_extension("png");
        let overlay_file = stem.with_extension("overlay.png");
        let result = (|| -> anyhow::Result<Found> {
            let picture = decode_rgb(image)?;
            let labels = segmenter.segment(&picture)?;
            write_indexed_png(&labels_file, &labels, &palette)?;
            write_rgb_png(
                &overlay_file,
                &overlay(&picture, &labels, &names, &palette, args.opacity),
            )?;
            Ok(Found {
                image: image.clone(),
                labels: labels_file.clone(),
                overlay: overlay_file.clone(),
                width: labels.width(),
                height: labels.height(),
                shares: shares(&labels, &names),
            })
        })();
        match result {
            Ok(one) => {
                if args.json.is_none() {
                    println!("{}", one.overlay.display());
                }
                found.push(one);
            }
            // One bad picture does not lose the others.
            Err(error) => {
                failed += 1;
                bar.suspend(|| eprintln!("error: {}", crate::hints::describe(&error)));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(json) = &args.json {
        JsonTarget::new(json).write(&found)?;
    }
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} pictures could not be segmented",
        args.images.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// The path of each picture's results without extension; pictures of one name from several folders are refused, as
/// one would overwrite the other.
fn output_names(images: &[PathBuf], folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut taken: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    images
        .iter()
        .map(|image| {
            let stem = image
                .file_stem()
                .with_context(|| format!("{}: not a file name", image.display()))?;
            let output = folder.join(stem);
            // A dot in the stem would be cut as an extension later on.
            let output = folder.join(format!(
                "{}.png",
                output.file_name().unwrap_or_default().to_string_lossy()
            ));
            anyhow::ensure!(
                !same_file(&output, image),
                "{}: its labels would overwrite it; choose another folder with -o",
                image.display()
            );
            if let Some(other) = taken.insert(output.clone(), image) {
                anyhow::bail!(
                    "{} and {} would both be written to {}",
                    other.display(),
                    image.display(),
                    output.display()
                );
            }
            Ok(output)
        })
        .collect()
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn shares(labels: &LabelMap, names: &[String]) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for &label in labels.labels() {
        *counts.entry(label).or_default() += 1;
    }
    let pixels = labels.labels().len().max(1) as f64;
    counts
        .into_iter()
        .filter(|(label, _)| *label != IGNORE_LABEL)
        .filter_map(|(label, count)| {
            Some((
                names.get(usize::from(label))?.clone(),
                count as f64 / pixels,
            ))
        })
        .collect()
}
