//! `zeg segment`: pictures and class names to label maps, overlays and annotations.

pub(crate) mod outputs;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde::Serialize;
use zeg::{
    LoadOptions, Segmentation, Segmenter, Words,
    explain::{ExplainOptions, Explanation, explain},
    export::{Classes, Exporter, Overwrite, Picture, ProbabilitySource, Summary, summarize},
    image::{
        RgbImage, decode_rgb, distinct_palette,
        inputs::{InputPicture, Recursion, expand},
        overlay,
    },
    spool::SpooledScores,
    vocab::{
        classes::{ClassQuery, Role, parse_class_list, parse_classes_argument},
        templates::TemplateSet,
    },
};

use self::outputs::{Output, Settings};
use super::{
    JsonTarget, change_inference,
    model_file::{cache_folder, resolve_model},
    open_device,
};
use crate::{cli::SegmentArgs, progress};

/// Pictures of more pixels than this are worked on one at a time.
const LARGE: usize = 8_000_000;

/// What was found in one picture.
#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    summary: Summary,
    /// Files that belong to this picture alone.
    files: Vec<PathBuf>,
    /// What competes for its regions, with `--explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<Vec<Explanation>>,
}

/// A picture that was segmented.
struct Done {
    picture: RgbImage,
    result: Segmentation,
    scores: Option<SpooledScores>,
    regions: Option<Vec<Explanation>>,
}

pub(crate) fn run(args: &SegmentArgs) -> anyhow::Result<ExitCode> {
    let classes = class_list(args)?;
    check_numbers(args)?;
    let recursion = if args.recursive {
        Recursion::Subfolders
    } else {
        Recursion::FolderOnly
    };
    let pictures = expand(&args.images, recursion)?;
    let stems = stems(&pictures, &args.output, &args.write)?;

    open_device(&args.compute)?;
    let segmenter = load(args)?;
    let words_bar = progress::bar(classes.len() as u64, "reading");
    let words = segmenter.words_with(
        &classes,
        Some(&|done, all| {
            words_bar.set_length(all as u64);
            words_bar.set_position(done as u64);
        }),
    )?;
    words_bar.finish_and_clear();
    let list = Classes::new(words.names(), palette(&classes))?;
    let settings = Settings {
        folder: &args.output,
        overwrite: if args.overwrite {
            Overwrite::Replace
        } else {
            Overwrite::Refuse
        },
        minimal_area: args.min_area,
        label_studio_prefix: &args.label_studio_prefix,
        method: &segmenter.model().method.clone(),
        outputs: &args.write,
    };
    std::fs::create_dir_all(&args.output).with_context(|| args.output.display().to_string())?;
    let mut exporters = outputs::open(&list, &settings)?;

    let work = Work {
        args,
        segmenter: &segmenter,
        words: &words,
        classes: &list,
    };
    let bar = progress::bar(pictures.len() as u64, "segmenting");
    let (mut found, mut failed) = (Vec::new(), 0_usize);
    for group in groups(&pictures, &stems) {
        let results = work.segment_all(group.0);
        for ((input, stem), result) in group.0.iter().zip(group.1).zip(results) {
            match result.and_then(|done| work.write(input, stem, &done, &mut exporters)) {
                Ok(one) => {
                    if args.json.is_none() {
                        bar.suspend(|| report(input, &one));
                    }
                    found.push(one);
                }
                // One bad picture does not lose the others.
                Err(error) => {
                    failed += 1;
                    bar.suspend(|| {
                        eprintln!("error: {}", crate::hints::describe(&error));
                        if let Some(hint) = crate::hints::hint(&error) {
                            eprintln!("hint: {hint}");
                        }
                    });
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    for exporter in exporters {
        let shared = exporter.finish()?;
        let of_pictures = |path: &PathBuf| found.iter().any(|f| f.files.contains(path));
        for path in shared.iter().filter(|path| !of_pictures(path)) {
            if args.json.is_none() {
                println!("{}", path.display());
            }
        }
    }
    if let Some(json) = &args.json {
        JsonTarget::new(json).write(&found)?;
    }
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} pictures could not be segmented",
        pictures.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// The classes to tell apart: what `--classes` means, and the words of `--background`.
fn class_list(args: &SegmentArgs) -> anyhow::Result<Vec<ClassQuery>> {
    let mut classes = parse_classes_argument(&args.classes).context("--classes")?;
    if let Some(list) = &args.background {
        for mut class in parse_class_list(list).context("--background")? {
            class.role = Role::Background;
            classes.push(class);
        }
        let mut seen = std::collections::HashSet::new();
        for name in classes.iter().flat_map(ClassQuery::names) {
            anyhow::ensure!(
                seen.insert(name.to_lowercase()),
                "--background: {name:?} is among the classes too"
            );
        }
    }
    Ok(classes)
}

fn check_numbers(args: &SegmentArgs) -> anyhow::Result<()> {
    for (name, value) in [
        ("--threshold", args.threshold.unwrap_or(0.0)),
        ("--opacity", args.opacity),
    ] {
        anyhow::ensure!(
            (0.0..=1.0).contains(&value),
            "{name} {value}: a number from 0 to 1"
        );
    }
    Ok(())
}

/// Opens the model and applies what the command line says about it.
fn load(args: &SegmentArgs) -> anyhow::Result<Segmenter> {
    let templates = args
        .templates
        .as_deref()
        .map(TemplateSet::by_name_or_file)
        .transpose()?;
    let options = LoadOptions {
        base: args.model.weights.clone(),
        method: args.method.config(),
        device: args.compute.device,
        precision: args.precision.value(),
        table: args.model.text.clone(),
        cache: if args.no_cache { None } else { cache_folder() },
        templates,
    };
    let mut segmenter = Segmenter::load_with(&resolve_model(&args.checkpoint)?, options)?;
    change_inference(segmenter.inference_mut(), &args.inference)?;
    if let Some(threshold) = args.threshold.or(segmenter.default_threshold()) {
        segmenter.inference_mut().threshold = (threshold > 0.0).then_some(threshold);
    }
    Ok(segmenter)
}

/// A colour for each class: its own, or one that is easy to tell from the others.
fn palette(classes: &[ClassQuery]) -> Vec<[u8; 3]> {
    let free = distinct_palette(classes.len());
    classes
        .iter()
        .zip(free)
        .map(|(class, free)| class.colour.unwrap_or(free))
        .collect()
}

/// Pictures that are worked on together, with the names of their results: as many as there are threads, a large one
/// alone, so that no more than one large result is in memory.
fn groups<'a>(
    mut pictures: &'a [InputPicture],
    mut stems: &'a [PathBuf],
) -> impl Iterator<Item = (&'a [InputPicture], &'a [PathBuf])> {
    let threads = rayon::current_num_threads().max(1);
    std::iter::from_fn(move || {
        let small = pictures
            .iter()
            .take(threads)
            .take_while(|picture| is_small(picture));
        let count = small.count().max(1).min(pictures.len());
        let (group, rest) = pictures.split_at(count);
        let (names, other_names) = stems.split_at(count);
        (pictures, stems) = (rest, other_names);
        (!group.is_empty()).then_some((group, names))
    })
}

/// Whether a picture is small enough to be worked on beside others; one whose size cannot be told is not.
fn is_small(picture: &InputPicture) -> bool {
    zeg::image::picture_size(&picture.path).is_ok_and(|(w, h)| w.saturating_mul(h) <= LARGE)
}

/// Everything that a picture meets.
struct Work<'a> {
    args: &'a SegmentArgs,
    segmenter: &'a Segmenter,
    words: &'a Words,
    classes: &'a Classes,
}

impl Work<'_> {
    /// Segments the pictures of a group side by side; results in the pictures' order.
    fn segment_all(&self, pictures: &[InputPicture]) -> Vec<anyhow::Result<Done>> {
        if let [picture] = pictures {
            return vec![self.segment(picture)];
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = pictures
                .iter()
                .map(|picture| scope.spawn(|| self.segment(picture)))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| {
                        Err(anyhow::anyhow!("a worker thread ended unexpectedly"))
                    })
                })
                .collect()
        })
    }

    fn segment(&self, input: &InputPicture) -> anyhow::Result<Done> {
        let picture = decode_rgb(&input.path)?;
        let wants_scores = self.args.write.iter().any(|output| output.needs_scores());
        if self.args.explain.is_none() && !wants_scores {
            let result = self.segmenter.segment_words(&picture, self.words)?;
            return Ok(Done {
                picture,
                result,
                scores: None,
                regions: None,
            });
        }
        let encoded = self.segmenter.encode(&picture)?;
        let result = self.segmenter.ask(&encoded, self.words)?;
        let options = self
            .args
            .explain
            .map(|candidates| ExplainOptions { candidates });
        let regions = options
            .map(|options| {
                explain(
                    self.segmenter,
                    &encoded,
                    self.words,
                    &result.labels,
                    options,
                )
            })
            .transpose()?;
        let scores = wants_scores
            .then(|| SpooledScores::new(self.segmenter, &encoded, self.words))
            .transpose()?;
        Ok(Done {
            picture,
            result,
            scores,
            regions,
        })
    }

    /// Hands a picture to all writers.
    fn write(
        &self,
        input: &InputPicture,
        stem: &Path,
        done: &Done,
        exporters: &mut [Box<dyn Exporter>],
    ) -> anyhow::Result<Found> {
        let labels = &done.result.labels;
        let palette: Vec<[u8; 3]> = (0..self.classes.len())
            .map(|label| self.classes.colour(label as u16))
            .collect();
        let painted = self
            .args
            .write
            .iter()
            .any(|output| output.needs_overlay())
            .then(|| {
                overlay(
                    &done.picture,
                    labels,
                    self.classes.names(),
                    &palette,
                    self.args.opacity,
                )
            });
        let picture = Picture {
            path: &input.relative,
            stem,
            labels,
            confidence: Some(&done.result.confidence),
            probabilities: done.scores.as_ref().map(|s| s as &dyn ProbabilitySource),
            overlay: painted.as_ref(),
        };
        for exporter in exporters {
            exporter.add(&picture)?;
        }
        if let Some(scores) = &done.scores {
            scores
                .check()
                .context("reading scores back from the temporary file")?;
        }
        let of_its_own = [Output::Labels, Output::Overlay];
        let files = of_its_own
            .into_iter()
            .filter(|output| self.args.write.contains(output))
            .map(|output| {
                let mut name = stem.as_os_str().to_owned();
                name.push(output.suffix());
                self.args.output.join(name)
            })
            .collect();
        Ok(Found {
            summary: Summary {
                image: input.path.display().to_string(),
                ..summarize(&picture, self.classes)?
            },
            files,
            regions: done.regions.clone(),
        })
    }
}

/// Says what was written for a picture, and with `--explain` why.
fn report(input: &InputPicture, found: &Found) {
    for file in &found.files {
        println!("{}", file.display());
    }
    for region in found.regions.iter().flatten() {
        let candidates: Vec<String> = region
            .candidates
            .iter()
            .map(|c| format!("{} {:.2}", c.class, c.score))
            .collect();
        let [x, y, width, height] = region.bounding_box;
        println!(
            "{}: {:>5.1} %  {} in {width}×{height}+{x}+{y}: {}",
            input.path.display(),
            100.0 * region.share,
            region.class.as_deref().unwrap_or("(no class)"),
            candidates.join(", ")
        );
    }
}

/// The name of each picture's results, relative to the output folder. Pictures of one name are refused, as one would
/// overwrite the other, and so are results that would overwrite a picture.
fn stems(
    pictures: &[InputPicture],
    folder: &Path,
    outputs: &[Output],
) -> anyhow::Result<Vec<PathBuf>> {
    let mut taken: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    pictures
        .iter()
        .map(|picture| {
            let stem = picture.relative.with_extension("");
            let labels = folder.join(format!("{}.png", stem.display()));
            anyhow::ensure!(
                !outputs.contains(&Output::Labels) || !same_file(&labels, &picture.path),
                "{}: its labels would overwrite it; choose another folder with -o",
                picture.path.display()
            );
            if let Some(other) = taken.insert(stem.clone(), &picture.path) {
                anyhow::bail!(
                    "{} and {} would both be written to {}",
                    other.display(),
                    picture.path.display(),
                    labels.display()
                );
            }
            Ok(stem)
        })
        .collect()
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_picture_is_worked_on_alone() {
        let folder = tempfile::tempdir().unwrap();
        let input = |name: &str, width: u32, height: u32| {
            let path = folder.path().join(name);
            RgbImage::new(width, height).save(&path).unwrap();
            let relative = PathBuf::from(name);
            InputPicture { path, relative }
        };
        let pictures = [
            input("a.png", 4, 4),
            input("large.png", 4000, 2001),
            input("b.png", 4, 4),
            input("c.png", 4, 4),
        ];
        let stems = pictures.clone().map(|picture| picture.relative);
        let groups: Vec<_> = groups(&pictures, &stems).collect();
        let names: Vec<&PathBuf> = groups.iter().flat_map(|(_, names)| *names).collect();
        assert_eq!(names, stems.iter().collect::<Vec<_>>());
        for (group, names) in groups {
            assert_eq!(group.len(), names.len());
            assert!(group.len() == 1 || group.iter().all(is_small));
        }
    }
}
