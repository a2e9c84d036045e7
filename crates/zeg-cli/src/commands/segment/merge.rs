//! `zeg segment merge`: puts the parts of a divided run together, as one process would have written them.

mod parts;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
};

use anyhow::Context as _;
use clap::Args;
use zeg::{
    export::{Classes, ExportFormat, Needs, Overwrite, SegmentedImage, formats},
    image::{RgbImage, overlay},
};
use zeg_base::file;

pub(crate) use self::parts::MergeError;
use self::parts::{OpenPart, PlacedImage, open_parts};
use super::{
    args::{OutputPlace, SegmentOutput},
    finished::{self, Finished, FinishedImage, exists, own_files},
    inputs::Input,
    outputs::{self, Writers},
    report,
    result::{ImageResult, SegmentResult},
    warn_of_ties,
    work::palette,
};
use crate::{
    commands::{
        JsonTarget, interrupt,
        journal::{Continuation, ResultsError, check_writable},
        json::{JsonArgs, stopped},
        place::output_folder,
        shared::heading,
        stop_flag,
    },
    progress::Verbosity,
};

/// Arguments of `zeg segment merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg segment merge out/part-* -o out/whole
  zeg segment merge out/part-* -o out/whole --skip-missing --json merged.json")]
pub(super) struct MergeArgs {
    /// Folders of all parts, as `zeg segment --shard … -o` wrote them
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Folder for the results of the whole
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Replace files that exist
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    /// Leave out the images that their part has not finished, with a warning
    #[arg(long, help_heading = heading::OUTPUT)]
    skip_missing: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// Settings of `zeg segment merge`.
#[derive(Debug)]
pub(super) struct MergeSettings {
    parts: Vec<PathBuf>,
    folder: PathBuf,
    overwrite: Overwrite,
    missing: Missing,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

/// What becomes of an image that its part has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Refuse,
    Skip,
}

impl MergeArgs {
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<MergeSettings> {
        Ok(MergeSettings {
            parts: self.parts,
            folder: self.output,
            overwrite: if self.overwrite {
                Overwrite::Replace
            } else {
                Overwrite::Refuse
            },
            missing: if self.skip_missing {
                Missing::Skip
            } else {
                Missing::Refuse
            },
            json: self.json.target("segment merge")?,
            verbosity,
        })
    }
}

/// What all images of the merged run share.
struct Whole<'a> {
    settings: &'a MergeSettings,
    output: SegmentOutput,
    classes: Classes,
    finished: Finished,
    /// Whether a file of all images shows each with its colours.
    shows_images: bool,
}

/// Copies the files of all images, and writes the files that all images share from the journals of the parts.
pub(super) fn merge(settings: &MergeSettings) -> anyhow::Result<ExitCode> {
    check_is_no_part(settings)?;
    let parts = open_parts(&settings.parts)?;
    let Some(first) = parts.first() else {
        anyhow::bail!("there is no part to merge");
    };
    let images = images(settings, &parts)?;
    let output = output(settings, first);
    let classes = first.part.classes()?;
    refuse_existing(&output, &images, classes.len())?;
    check_writable(&output.folder)?;
    let stop = stop_flag();
    std::fs::create_dir_all(&output.folder).with_context(|| output.folder.display().to_string())?;
    let mut writers = outputs::open(&classes, &output, &first.part.method)?;
    let finished = Finished::open(&output.folder, first.finished.present())?;
    interrupt::clean_up([output.folder.clone()]);
    let mut kinds = output.kinds.iter();
    let whole = Whole {
        settings,
        shows_images: kinds.any(|kind| kind.needs == Needs::Overlay && kind.is_shared()),
        output,
        classes,
        finished,
    };
    let bar = settings
        .verbosity
        .progress("merging", "images", images.len() as u64);
    let json_on_stdout = settings.json.as_ref().is_some_and(JsonTarget::is_stdout);
    let (mut results, mut printed) = (Vec::new(), Ok(()));
    for placed in &images {
        if stop.load(Ordering::SeqCst) {
            bar.finish();
            print_notice!(
                "stopped after {} of {} images; run the command again with --overwrite",
                results.len(),
                images.len()
            );
            return Ok(stopped(settings.json.as_ref()));
        }
        let result = whole.take(placed, &mut writers)?;
        if !json_on_stdout && printed.is_ok() {
            bar.suspend(|| printed = report(&result));
        }
        results.push(result);
        bar.inc();
    }
    bar.finish();
    whole.finish(writers, results, json_on_stdout)?;
    printed?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that the results of the whole do not take the place of those of a part, even with `--overwrite`.
fn check_is_no_part(settings: &MergeSettings) -> Result<(), MergeError> {
    let Ok(output) = settings.folder.canonicalize() else {
        return Ok(()); // nothing is there
    };
    let is_output = |part: &&PathBuf| part.canonicalize().is_ok_and(|part| part == output);
    match settings.parts.iter().find(is_output) {
        Some(part) => Err(MergeError::OutputIsPart(part.clone())),
        None => Ok(()),
    }
}

/// Returns all finished images in the order of the whole list.
fn images<'a>(
    settings: &MergeSettings,
    parts: &'a [OpenPart],
) -> Result<Vec<PlacedImage<'a>>, MergeError> {
    let mut placed: Vec<PlacedImage> = Vec::new();
    for part in parts {
        let (found, missing) = part.images();
        if let Some(first) = missing.first() {
            if settings.missing == Missing::Refuse {
                return Err(MergeError::Unfinished {
                    folder: part.folder.clone(),
                    image: first.relative.clone(),
                    count: missing.len(),
                });
            }
            for image in missing {
                print_notice!(
                    "warning: {}: {} is not finished and is left out",
                    part.folder.display(),
                    image.relative.display()
                );
            }
        }
        placed.extend(found);
    }
    placed.sort_by_key(|image| image.place);
    Ok(placed)
}

/// Returns the settings of the files, which are those of the parts.
fn output(settings: &MergeSettings, first: &OpenPart) -> SegmentOutput {
    let part = &first.part;
    let is_written = |kind: &&ExportFormat| part.kinds.iter().any(|name| name == kind.name);
    SegmentOutput {
        place: OutputPlace::Folder,
        folder: settings.folder.clone(),
        kinds: formats().filter(is_written).collect(),
        overwrite: settings.overwrite,
        continuation: Continuation::Fresh,
        opacity: part.opacity,
        minimal_area: part.minimal_area,
        absorbed_area: None, // the parts have done that
        label_studio_prefix: part.label_studio_prefix.clone(),
    }
}

/// Checks that no result exists, unless it is to be replaced.
fn refuse_existing(
    output: &SegmentOutput,
    images: &[PlacedImage],
    classes: usize,
) -> Result<(), ResultsError> {
    if output.overwrite == Overwrite::Replace {
        return Ok(());
    }
    let own =
        |image: &PlacedImage| own_files(&output.kinds, &output.folder, &image.image.stem, classes);
    let shared = finished::shared_files(output).into_iter();
    let mut all = shared.chain(images.iter().flat_map(own));
    all.find(|path| exists(path))
        .map_or(Ok(()), |path| Err(ResultsError::Exist(path)))
}

impl Whole<'_> {
    /// Copies the files of an image, keeps its result in the journal, and passes it to the shared files.
    fn take(&self, placed: &PlacedImage, writers: &mut Writers) -> anyhow::Result<ImageResult> {
        let PlacedImage {
            part, image, done, ..
        } = placed;
        let result = part.finished.read(done.span)?;
        let input = Input::of_file(placed.path(), image.relative.clone());
        let (output, stem) = (&self.output, image.stem.as_path());
        let own = own_files(&output.kinds, &output.folder, stem, self.classes.len());
        self.finished.begin_image(&input, stem, &own)?;
        for (name, sha256) in &done.files {
            self.copy(&part.folder, name, sha256)?;
        }
        self.finished
            .finish_image(&input, stem, done.source.to_owned(), &own, &result)?;
        self.share(&input, stem, &result, writers)?;
        Ok(ImageResult {
            summary: result.stored.summary,
            files: own,
            tied: result.tied,
            regions: result.regions,
        })
    }

    /// Copies a file of a part.
    ///
    /// # Errors
    /// Returns an error if the file is not what the part has written.
    fn copy(&self, folder: &Path, name: &str, sha256: &str) -> anyhow::Result<()> {
        let (from, to) = (folder.join(name), self.output.folder.join(name));
        let content = std::fs::read(&from).with_context(|| from.display().to_string())?;
        if parts::sha256(&content) != sha256 {
            return Err(ResultsError::Changed(from).into());
        }
        let written = file::make_folder_of(&to)
            .and_then(|()| file::write(&to, content, self.settings.overwrite));
        written.with_context(|| to.display().to_string())
    }

    /// Passes an image to the files that all images share.
    fn share(
        &self,
        input: &Input,
        stem: &Path,
        result: &FinishedImage,
        writers: &mut Writers,
    ) -> anyhow::Result<()> {
        let labels = result.stored.labels.to_map()?;
        let drawn: Option<RgbImage> = if self.shows_images {
            let decoded = input.decode()?;
            let (names, colours) = (self.classes.names(), palette(&self.classes));
            let opacity = self.output.opacity;
            Some(overlay(&decoded.rgb, &labels, names, &colours, opacity))
        } else {
            None
        };
        let segmented = SegmentedImage {
            stem,
            overlay: drawn.as_ref(),
            stored: Some(&result.stored),
            ..SegmentedImage::new(&input.image.relative, &labels)
        };
        for exporter in &mut writers.shared {
            exporter.add(&segmented)?;
        }
        Ok(())
    }

    /// Completes the files that all images share, lists them, and writes the JSON.
    fn finish(
        &self,
        writers: Writers,
        images: Vec<ImageResult>,
        json_on_stdout: bool,
    ) -> anyhow::Result<()> {
        warn_of_ties(&images);
        let shared = finished::shared_files(&self.output);
        self.finished.begin_shared(&shared)?;
        writers.finish()?;
        self.finished.finish_shared(&shared, false)?;
        let of_images: HashSet<&PathBuf> = images.iter().flat_map(|image| &image.files).collect();
        for path in shared.iter().filter(|path| !of_images.contains(path)) {
            if !json_on_stdout {
                print_result!("{}", path.display())?;
            }
        }
        let own = images.iter().flat_map(|image| image.files.clone());
        let files = own.chain(shared.iter().cloned()).collect();
        if let Some(json) = &self.settings.json {
            json.write(&SegmentResult {
                images,
                files,
                ..SegmentResult::default()
            })?;
        }
        Ok(())
    }
}
