//! Places of records and label maps: every model has its own, and none replaces what the evaluation reads.

use std::path::{Path, PathBuf};

use zeg::{data::SampleSource as _, eval::record::FILE_NAME};

use super::{
    args::{EvalSettings, RecordPlace},
    gallery,
    job::EvalJob,
    predictions::label_file,
    record, sweep,
};
use crate::{
    commands::journal::{Continuation, check_writable},
    numbers::WrongArgument,
};

/// A file of the data set stands where a label map or a panel of the gallery is to be written; it is never replaced.
#[derive(Debug, thiserror::Error)]
#[error("{}: the evaluation reads this file, so it is not replaced", .0.display())]
pub(crate) struct ReplacesInput(PathBuf);

/// Returns the folder of every model's record, or no folder if no record is written.
///
/// # Errors
/// Returns an error if two models have one place, or if a record exists already and may not be replaced; this is checked
/// before any model is opened.
pub(super) fn record_places(settings: &EvalSettings) -> anyhow::Result<Vec<PathBuf>> {
    let models = &settings.checkpoints;
    let folders: Vec<PathBuf> = match &settings.records {
        RecordPlace::Nowhere => return Ok(Vec::new()),
        RecordPlace::BesideModels(name) => {
            check_different(models, name)?;
            let beside = |model: &PathBuf| model.parent().unwrap_or(Path::new("")).join(name);
            models.iter().map(beside).collect()
        }
        RecordPlace::Folder(folder) => folders_of_models(folder, models),
    };
    for folder in &folders {
        check_writable(folder)?;
        if settings.continuation == Continuation::Resume {
            continue; // finished records are kept
        }
        for record in sweep::folders(folder, &settings.seen_offsets) {
            settings.existing.check(&record.join(FILE_NAME))?;
        }
    }
    Ok(folders)
}

/// Returns a folder for each model's results: the folder itself for one model, folders in it for several.
pub(super) fn folders_of_models(folder: &Path, models: &[PathBuf]) -> Vec<PathBuf> {
    match models {
        [_] => vec![folder.to_owned()],
        models => record::run_names(models)
            .iter()
            .map(|name| folder.join(name))
            .collect(),
    }
}

/// Checks that no two models are in one folder, where one record would replace the other.
///
/// - `name`: name of the folder beside each model
fn check_different(models: &[PathBuf], name: &Path) -> Result<(), WrongArgument> {
    let place = |model: &PathBuf| {
        let folder = model.parent().unwrap_or(Path::new(""));
        let here = folder.as_os_str().is_empty();
        let folder = if here { Path::new(".") } else { folder };
        let folder = folder.canonicalize();
        // A folder that does not exist has no model, which is told when the model is opened.
        folder.map_or_else(|_| model.join(name), |folder| folder.join(name))
    };
    let places: Vec<PathBuf> = models.iter().map(place).collect();
    for (number, (model, place)) in models.iter().zip(&places).enumerate() {
        let mut earlier = models.iter().zip(&places).take(number);
        if let Some((other, _)) = earlier.find(|(_, earlier)| *earlier == place) {
            return Err(WrongArgument(format!(
                "{} and {} are in one folder, so --in-runs has one place for both records; score each alone with another \
                 name, or all with -o",
                other.display(),
                model.display()
            )));
        }
    }
    Ok(())
}

/// Checks that neither a label map nor a panel of the gallery is to be written over a file that the evaluation reads,
/// such as the true labels.
///
/// # Errors
/// Returns [`ReplacesInput`], even for files that `--overwrite` would replace.
pub(super) fn check_inputs(settings: &EvalSettings, jobs: &[EvalJob]) -> anyhow::Result<()> {
    for job in jobs {
        let ids = (0..job.dataset.len()).map(|index| job.dataset.id(index));
        let ids: Vec<String> = ids.collect();
        let mut files = Vec::new();
        for output in job.outputs() {
            if let Some(folder) = &output.labels {
                files.extend(ids.iter().map(|id| label_file(folder, id)));
            }
            if let Some(folder) = output.record.filter(|_| settings.gallery > 0) {
                files.extend(gallery::panels_in(&folder, &ids)?);
            }
        }
        // The place of a link is the file that it leads to.
        let place = |file: PathBuf| Some((file.canonicalize().ok()?, file));
        let existing: Vec<(PathBuf, PathBuf)> = files.into_iter().filter_map(place).collect();
        if existing.is_empty() {
            continue;
        }
        let inputs = job.input_files(settings)?;
        let mut existing = existing.into_iter();
        if let Some((_, file)) = existing.find(|(place, _)| inputs.contains(place)) {
            return Err(ReplacesInput(file).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_of_one_folder_have_no_records_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("a")).unwrap();
        std::fs::create_dir(path("b")).unwrap();
        let check = |models: &[&str]| {
            let models: Vec<PathBuf> = models.iter().map(|model| path(model)).collect();
            check_different(&models, Path::new("scores"))
        };
        assert!(check(&["a/model.safetensors", "b/model.safetensors"]).is_ok());
        assert!(check(&["a/model.safetensors"]).is_ok());
        for other in ["a/other.safetensors", "b/../a/other.safetensors"] {
            let error = check(&["a/model.safetensors", other]).unwrap_err();
            assert!(error.to_string().contains("in one folder"), "{error}");
        }
    }
}
