//! Examples of the data set's classes.

use burn::tensor::Device;
use zeg::{
    data::{OpenSet, SampleSource as _},
    examples::{ExampleError, ExampleFolder, ExampleSet},
    loading::LoadedModel,
    model::{classes::ClassQueries, examples::ExampleOptions},
};
use zeg_base::names::did_you_mean;

use super::{args::EvalSettings, plan::Plan};
use crate::commands::shared::warn_of_masks;

/// Gives classes the scores that follow from the examples of `--examples`, and returns the digest of these; `None` without
/// examples.
///
/// # Errors
/// Returns an error if an example cannot be encoded, or its folder has the name of no class of the data set.
pub(super) fn fit(
    settings: &EvalSettings,
    plan: &Plan,
    dataset: &OpenSet,
    loaded: &LoadedModel,
    classes: &mut ClassQueries,
    device: &Device,
) -> anyhow::Result<Option<String>> {
    let Some(folder) = &settings.examples else {
        return Ok(None);
    };
    let folder = ExampleFolder::open(folder)?;
    warn_of_masks(&folder)?;
    let bar = settings
        .verbosity
        .progress("encoding", "examples", folder.pairs() as u64);
    let cache = settings.cache.folder();
    let inference = &plan.session.inference;
    let encoded = ExampleSet::encode(
        &folder,
        loaded,
        inference,
        cache.as_deref(),
        device,
        &|done, _| {
            bar.set_position(done as u64);
        },
    );
    bar.finish();
    let encoded = encoded?;
    let set = dataset.classes();
    let names: Vec<Vec<String>> = (0..set.len()).map(|class| set.names_of(class)).collect();
    if let Some(name) = encoded.not_in(&names).first() {
        return Err(ExampleError::NoClass {
            name: (*name).to_owned(),
            advice: did_you_mean(name, set.classes.iter().map(String::as_str)),
        }
        .into());
    }
    encoded.fit(classes, &names, ExampleOptions::default())?;
    Ok(Some(encoded.digest().to_owned()))
}
