//! Images with the predictions of several evaluations side by side.
//!
//! A record holds predictions of the images of its gallery alone, so an image can be shown if at least two galleries
//! have it.

use std::collections::BTreeSet;

use super::gallery::{LegendEntry, NAMED, Panel, kind, present};
use super::text::{percent, share};
use super::{ReportInput, RunInput};
use crate::{ClassRef, EvalError, GalleryEntry};

/// Largest number of images that are shown if none is chosen.
const MOST: usize = 12;

/// Images that several galleries have.
pub(super) struct ComparedImages {
    pub(super) images: Vec<ComparedImage>,
    /// Number of images that several galleries have as well, but that are not shown.
    pub(super) more: usize,
}

/// One image: the image, the prediction of every evaluation that has it, and the ground truth.
pub(super) struct ComparedImage {
    pub(super) id: String,
    pub(super) panels: Vec<Panel>,
    pub(super) legend: Vec<LegendEntry>,
    /// Number of classes that are not in the legend.
    pub(super) more: usize,
}

/// An image in the gallery of one evaluation.
struct Shown<'a> {
    run: &'a RunInput,
    name: &'a str,
    entry: &'a GalleryEntry,
}

impl ComparedImages {
    /// Returns the chosen images, or else the first that several galleries have.
    ///
    /// - `names`: the name of every evaluation
    /// - `classes`: the classes, of an evaluation that tells which are unseen
    /// - `budget`: remaining size of the thumbnails of the page in bytes
    ///
    /// # Errors
    /// Returns [`EvalError::NotShared`] for a chosen image that fewer than two galleries have.
    pub(super) fn of(
        input: &ReportInput,
        names: &[String],
        classes: &[ClassRef],
        budget: &mut usize,
    ) -> Result<Self, EvalError> {
        let shared = shared(input);
        let is_missing = |id: &&String| !shared.contains(&id.as_str());
        if let Some(id) = input.images.iter().find(is_missing) {
            return Err(EvalError::NotShared { id: id.clone() });
        }
        let (chosen, more): (Vec<&str>, usize) = if input.images.is_empty() {
            let first = shared.iter().copied().take(MOST).collect();
            (first, shared.len().saturating_sub(MOST))
        } else {
            (input.images.iter().map(String::as_str).collect(), 0)
        };
        let mut images = Vec::with_capacity(chosen.len());
        for id in chosen {
            let galleries = input.runs.iter().zip(names).filter_map(|(run, name)| {
                let entry = run.evaluation.gallery.iter().find(|entry| entry.id == id)?;
                Some(Shown {
                    run,
                    name: name.as_str(),
                    entry,
                })
            });
            let galleries: Vec<Shown<'_>> = galleries.collect();
            images.push(ComparedImage::of(id, &galleries, classes, budget));
        }
        Ok(Self { images, more })
    }
}

/// Returns the ids of the images that at least two galleries have, in the order of the galleries.
fn shared(input: &ReportInput) -> Vec<&str> {
    let galleries = input
        .runs
        .iter()
        .map(|run| ids(run).collect::<BTreeSet<&str>>());
    let galleries: Vec<BTreeSet<&str>> = galleries.collect();
    let mut listed = BTreeSet::new();
    let all = input.runs.iter().flat_map(ids);
    all.filter(|id| {
        let holders = galleries.iter().filter(|ids| ids.contains(id));
        holders.count() > 1 && listed.insert(*id)
    })
    .collect()
}

/// Returns the ids of the images in the gallery of an evaluation.
fn ids(run: &RunInput) -> impl Iterator<Item = &str> {
    run.evaluation.gallery.iter().map(|entry| entry.id.as_str())
}

impl ComparedImage {
    fn of(id: &str, galleries: &[Shown<'_>], classes: &[ClassRef], budget: &mut usize) -> Self {
        let mut panels = Vec::with_capacity(galleries.len() + 2);
        let first = galleries.first();
        panels.extend(first.map(|shown| {
            let alt = format!("Image {id}");
            Panel::of("image", alt, &shown.run.folder, &shown.entry.image, budget)
        }));
        for Shown { run, name, entry } in galleries {
            let found = present(entry, classes, |share| share.prediction);
            let alt = format!("Classes of {id} predicted by {name}{found}");
            panels.push(Panel {
                score: Some(percent(Some(entry.score))),
                ..Panel::of(name, alt, &run.folder, &entry.prediction, budget)
            });
        }
        panels.extend(first.map(|Shown { run, entry, .. }| {
            let found = present(entry, classes, |share| share.truth);
            let alt = format!("True classes of {id}{found}");
            Panel::of("ground truth", alt, &run.folder, &entry.truth, budget)
        }));
        let mut labels: Vec<usize> = Vec::new();
        for of in galleries.iter().flat_map(|shown| &shown.entry.classes) {
            if !labels.contains(&of.class) {
                labels.push(of.class);
            }
        }
        let legend = labels.iter().take(NAMED);
        Self {
            id: id.to_owned(),
            panels,
            legend: legend
                .filter_map(|&label| legend_entry(label, galleries, classes))
                .collect(),
            more: labels.len().saturating_sub(NAMED),
        }
    }
}

/// Returns the shares of a class in the ground truth and in every prediction.
fn legend_entry(
    label: usize,
    galleries: &[Shown<'_>],
    classes: &[ClassRef],
) -> Option<LegendEntry> {
    let class = classes.get(label)?;
    let of_class = |shown: &Shown<'_>| {
        let mut shares = shown.entry.classes.iter();
        shares.find(|share| share.class == label).copied()
    };
    let truth = galleries.iter().find_map(of_class)?.truth;
    let predictions = galleries.iter().map(|shown| match of_class(shown) {
        Some(of) => share(of.prediction),
        // The classes of this prediction were not counted.
        None if shown.entry.classes.is_empty() => percent(None),
        None => share(0.0),
    });
    let predictions: Vec<String> = predictions.collect();
    Some(LegendEntry {
        name: class.name.clone(),
        colour: class.colour,
        kind: kind(label, classes),
        truth: share(truth),
        prediction: predictions.join(", "),
    })
}
