//! The places of results: the path of each, the files that none may replace, and earlier results among the images.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use zeg::image::inputs::InputImage;
use zeg_base::plural::counted;

use super::{
    args::SegmentSettings,
    finished::{own_files, shared_files, written_files},
    inputs::Input,
};

/// Leaves out the images of folders and patterns that are results themselves, with one warning.
///
/// These are the images in the output folder, if it lies inside the folder that is searched, and those that the journal
/// says an earlier run has written. An image that is named directly is always segmented.
///
/// # Errors
/// Returns an error if no image is left.
pub(super) fn without_results(
    inputs: Vec<Input>,
    settings: &SegmentSettings,
) -> anyhow::Result<Vec<Input>> {
    let Ok(folder) = settings.output.folder.canonicalize() else {
        return Ok(inputs); // nothing is written yet
    };
    let written = written_files(&folder);
    let is_result = |input: &Input| {
        let InputImage { path, .. } = &input.image;
        !settings.inputs.contains(path)
            && path.canonicalize().is_ok_and(|path| {
                let is_in_folder = path.starts_with(&folder) && is_below(&folder, &input.image);
                is_in_folder || written.contains(&path)
            })
    };
    let (results, images): (Vec<Input>, Vec<Input>) = inputs.into_iter().partition(is_result);
    if let Some(first) = results.first() {
        let path = first.image.path.display();
        anyhow::ensure!(
            !images.is_empty(),
            "{path}: all images are results in the output folder; name an image directly to segment it all the same"
        );
        print_notice!(
            "warning: left out {} in the output folder as results, such as {path}; name an image directly to segment it",
            counted(results.len(), "image")
        );
    }
    Ok(images)
}

/// Whether a folder lies inside the folder that an image was found in, below the argument of the command.
fn is_below(folder: &Path, image: &InputImage) -> bool {
    let depth = image.relative.components().count();
    let searched = match image.path.ancestors().nth(depth) {
        Some(searched) if !searched.as_os_str().is_empty() => searched,
        _ => Path::new("."),
    };
    let searched = searched.canonicalize();
    searched.is_ok_and(|searched| folder != searched && folder.starts_with(searched))
}

/// Returns the output folder and the folders in it that hold results.
pub(super) fn folders(settings: &SegmentSettings, stems: &[PathBuf]) -> Vec<PathBuf> {
    let (output, classes) = (&settings.output, settings.classes.len());
    let mut folders = vec![output.folder.clone()];
    for stem in stems {
        let own = own_files(&output.kinds, &output.folder, stem, classes);
        folders.extend(
            own.iter()
                .filter_map(|file| file.parent().map(Path::to_owned)),
        );
    }
    folders.sort();
    folders.dedup();
    folders
}

/// Returns the path of each image's results without an extension, relative to the output folder.
///
/// # Errors
/// Returns an error if two results have the same path, or if a result would replace a file that the command reads.
pub(super) fn stems(images: &[Input], settings: &SegmentSettings) -> anyhow::Result<Vec<PathBuf>> {
    let output = &settings.output;
    let read = files_read(images, settings);
    for file in shared_files(output) {
        refuse_replacing(&file, &read)?;
    }
    let mut taken: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    images
        .iter()
        .map(|input| {
            let path = input.image.path.as_path();
            let stem = input.image.relative.with_extension("");
            let classes = settings.classes.len();
            let own = own_files(&output.kinds, &output.folder, &stem, classes);
            for file in &own {
                refuse_replacing(file, &read)?;
            }
            // Formats that have no file of their own for an image still name it by its stem.
            let names = if own.is_empty() {
                vec![output.folder.join(&stem)]
            } else {
                own
            };
            for file in names {
                if let Some(other) = taken.insert(file.clone(), path) {
                    anyhow::bail!(
                        "{} and {}: both results would be written to {}",
                        other.display(),
                        path.display(),
                        file.display()
                    );
                }
            }
            Ok(stem)
        })
        .collect()
}

/// Returns the files that the command reads, each by its path behind all links with the path that was given.
fn files_read<'a>(
    images: &'a [Input],
    settings: &'a SegmentSettings,
) -> HashMap<PathBuf, &'a Path> {
    let images = images.iter().map(|input| input.image.path.as_path());
    let others = settings.files.iter().map(PathBuf::as_path);
    images
        .chain(others)
        .filter_map(|path| Some((path.canonicalize().ok()?, path)))
        .collect()
}

/// Refuses to replace a file that the command reads, even with `--overwrite`.
fn refuse_replacing(result: &Path, read: &HashMap<PathBuf, &Path>) -> anyhow::Result<()> {
    let found = result.canonicalize().ok();
    if let Some(input) = found.and_then(|path| read.get(&path)) {
        anyhow::bail!(
            "{}: the results would replace {}, which this run reads; choose another folder with -o",
            result.display(),
            input.display()
        );
    }
    Ok(())
}
