//! The journal of a part of a divided run.

use std::path::Path;

use zeg_base::fingerprint::Fingerprint;

use super::{Done, Entry, Finished, JOURNAL, open_journal};
use crate::commands::{journal::difference, segment::part::Part};

impl Finished {
    /// Opens the journal of a part without a change to it; `None` if the folder holds no part.
    ///
    /// # Errors
    /// As for [`Journal::open`](crate::commands::journal::Journal::open).
    pub(in crate::commands::segment) fn open_part(
        folder: &Path,
    ) -> anyhow::Result<Option<(Self, Part)>> {
        if !folder.join(JOURNAL).is_file() {
            return Ok(None); // opening would create it
        }
        let (journal, known) = open_journal(folder)?;
        let Some((number, part)) = known.part else {
            return Ok(None);
        };
        let Some(present) = journal.settings(number).cloned() else {
            return Ok(None);
        };
        let finished = Self {
            journal,
            folder: folder.to_owned(),
            images: known.images,
            shared: known.shared,
            settings: number,
            present,
        };
        Ok(Some((finished, *part)))
    }

    /// States which part of a divided run this is.
    pub(in crate::commands::segment) fn state_part(&self, part: Part) -> anyhow::Result<()> {
        self.journal.append(&Entry::<()>::Part(Box::new(part)))
    }

    /// Returns the settings that the results were made with.
    pub(in crate::commands::segment) fn present(&self) -> &Fingerprint {
        &self.present
    }

    /// Returns the first settings that another run has otherwise; `None` if both have the same.
    pub(in crate::commands::segment) fn difference(&self, other: &Self) -> Option<String> {
        let found = difference(&self.present, &other.present);
        (!found.is_empty()).then_some(found)
    }

    /// Returns what the journal says about an image, if it is finished with the present settings.
    ///
    /// - `image`: path of its results in the folder, without an extension
    pub(in crate::commands::segment) fn done(&self, image: &str) -> Option<Done<'_>> {
        let state = self.images.get(image)?;
        let (span, source) = state.done.as_ref()?;
        let files = state.files.iter();
        let files = files.map(|file| Some((file.path.as_str(), file.sha256.as_deref()?)));
        (state.settings == self.settings).then_some(())?;
        Some(Done {
            span: *span,
            origin: state.origin.as_deref(),
            source,
            files: files.collect::<Option<_>>()?,
        })
    }
}
