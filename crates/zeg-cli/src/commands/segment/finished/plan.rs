//! What is to be done with every image: its result is kept, or it is segmented, or its result stands in the way.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use zeg::{export::Overwrite, model::weights::file_sha256};
use zeg_base::paths::path_text;

use super::{Finished, ImageState, Plan, exists, own_files, shared_files};
use crate::commands::{
    journal::{Continuation, ResultsError},
    segment::{
        args::SegmentSettings,
        inputs::{Input, STANDARD},
    },
};

impl Finished {
    /// Decides what is to be done with every image, before any is computed.
    ///
    /// - `stems`: as [`zeg::export::SegmentedImage::stem`], one for each image
    ///
    /// # Errors
    /// Returns a [`ResultsError`] for the first result that may be neither kept nor replaced.
    pub(in crate::commands::segment) fn plan(
        &self,
        settings: &SegmentSettings,
        inputs: &[Input],
        stems: &[PathBuf],
    ) -> Result<Vec<Plan>, ResultsError> {
        let output = &settings.output;
        let classes = settings.classes.len();
        let shared = shared_files(output);
        if output.continuation == Continuation::Resume
            && output.overwrite == Overwrite::Refuse
            && !shared.is_empty()
        {
            for file in &shared {
                self.check_shared(file)?;
            }
            self.refuse_left_out(stems)?;
        }
        let pairs = inputs.iter().zip(stems);
        pairs
            .map(|(input, stem)| {
                let own = own_files(&output.kinds, &output.folder, stem, classes);
                match (output.continuation, output.overwrite) {
                    (Continuation::Resume, Overwrite::Refuse) => {
                        self.plan_resumed(input, stem, &own)
                    }
                    (Continuation::Resume, Overwrite::Replace) => {
                        Ok(match self.plan_resumed(input, stem, &own) {
                            Ok(Plan::Keep(span)) => Plan::Keep(span),
                            Ok(Plan::Compute(_)) | Err(_) => Plan::Compute(Overwrite::Replace),
                        })
                    }
                    (Continuation::Fresh, Overwrite::Replace) => {
                        Ok(Plan::Compute(Overwrite::Replace))
                    }
                    (Continuation::Fresh, Overwrite::Refuse) => self.plan_fresh(stem, &own),
                }
            })
            .collect()
    }

    /// Refuses to write shared files without a finished image that the journal holds.
    fn refuse_left_out(&self, stems: &[PathBuf]) -> Result<(), ResultsError> {
        let named: HashSet<String> = stems.iter().map(|stem| path_text(stem)).collect();
        let finished = self
            .images
            .iter()
            .filter(|(_, state)| state.settings == self.settings && state.done.is_some());
        let left_out = finished
            .map(|(image, _)| image)
            .filter(|image| !named.contains(*image));
        match left_out.min() {
            Some(image) => Err(ResultsError::ImageLeftOut {
                folder: self.folder.clone(),
                image: image.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses to compute what the journal holds already, where no file shows that it is finished.
    fn plan_fresh(&self, stem: &Path, own: &[PathBuf]) -> Result<Plan, ResultsError> {
        let is_finished = |state: &ImageState| {
            state.settings == self.settings && state.done.is_some() && own.is_empty()
        };
        if self.images.get(&path_text(stem)).is_some_and(is_finished) {
            return Err(ResultsError::Unfinished(self.folder.clone()));
        }
        Ok(Plan::Compute(Overwrite::Refuse))
    }

    fn plan_resumed(
        &self,
        input: &Input,
        stem: &Path,
        own: &[PathBuf],
    ) -> Result<Plan, ResultsError> {
        let there: Vec<&PathBuf> = own.iter().filter(|path| exists(path)).collect();
        let Some(state) = self.images.get(&path_text(stem)) else {
            return match there.first() {
                Some(path) => Err(ResultsError::Unknown((*path).clone())),
                None => Ok(Plan::Compute(Overwrite::Refuse)),
            };
        };
        if state.settings != self.settings {
            return match there.first() {
                Some(path) => Err(self
                    .journal
                    .other_settings(path, state.settings, &self.present)),
                None => Ok(Plan::Compute(Overwrite::Refuse)),
            };
        }
        if let Some(path) = there
            .iter()
            .find(|path| self.written(state, path).is_none())
        {
            return Err(ResultsError::Unknown((*path).clone()));
        }
        if let Some(image) = other_image(state, input)
            && (state.done.is_some() || !there.is_empty())
        {
            let path = there.first().copied().or(own.first());
            let path = path.cloned().unwrap_or_else(|| self.folder.join(stem));
            return Err(ResultsError::OtherImage { path, image });
        }
        let Some((span, source)) = &state.done else {
            return Ok(Plan::Compute(Overwrite::Replace)); // begun by a run that was killed
        };
        let changed: Vec<&&PathBuf> = there
            .iter()
            .filter(|path| self.is_changed(state, path))
            .collect();
        if there.len() == own.len() && input.digest().as_ref() == Some(source) {
            for path in changed {
                print_notice!(
                    "warning: {}: was changed after it was written; it is kept, and files that all images share hold \
                     what was written at first",
                    path.display()
                );
            }
            return Ok(Plan::Keep(*span));
        }
        match changed.first() {
            Some(path) => Err(ResultsError::Changed((**path).clone())),
            None => Ok(Plan::Compute(Overwrite::Replace)),
        }
    }

    /// Checks that a shared file is not there, or was written with these settings and not changed since.
    fn check_shared(&self, path: &Path) -> Result<(), ResultsError> {
        if !exists(path) {
            return Ok(());
        }
        let Some(state) = self.shared.get(&self.name(path)) else {
            return Err(ResultsError::Unknown(path.to_owned()));
        };
        if state.settings != self.settings {
            return Err(self
                .journal
                .other_settings(path, state.settings, &self.present));
        }
        if state.sha256.is_some() && file_sha256(path).ok() != state.sha256 {
            return Err(ResultsError::Changed(path.to_owned()));
        }
        Ok(())
    }
}

/// Returns the image that results belong to, if neither its path nor its bytes are those of this image.
///
/// What comes from standard input has no path, so that only its bytes count.
fn other_image(state: &ImageState, input: &Input) -> Option<String> {
    let known = state.origin.as_ref()?;
    let has_same_path = *known == input.origin();
    let is_same = match &state.done {
        Some((_, source)) => {
            (has_same_path && known != STANDARD) || input.digest().as_ref() == Some(source)
        }
        None => has_same_path,
    };
    let name = || match known.as_str() {
        STANDARD => "which came from standard input".to_owned(),
        path => path.to_owned(),
    };
    (!is_same).then(name)
}
