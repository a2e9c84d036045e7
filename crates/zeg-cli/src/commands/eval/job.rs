//! A model that is scored, with its data set and settings.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use zeg::{
    data::{Item, OpenSet, SampleSource as _, is_description, is_same_dataset},
    embedding_cache::EmbeddingCache,
    eval::{NanRule, Shard},
    evaluation::EvaluationSetup,
    loading::LoadedModel,
    mini::weights_sha256,
    model::{
        checkpoint::trained_classes,
        inference::{ClassQueries, TestTime},
        stop::StopSign,
        weights::image_facts,
    },
    session::{Confidence, Session},
    text_sources::{Embedded, EmbeddingOrigin, TableSource, Templates, TextSources, class_queries},
    vocab::{classes::ClassQuery, templates::TemplateSet},
};

use zeg_base::fingerprint::Fingerprint;

use super::{
    args::EvalSettings,
    confidence, examples,
    places::folders_of_models,
    plan::{Plan, PlanFile},
    sweep,
};
use crate::{
    Program,
    commands::{
        data_folder,
        facts::class_embeddings,
        file_contents::{self, FileContents},
        journal::model_values,
        model_file::{
            warn_of_architecture, warn_of_assumptions, warn_of_single_class, warn_of_text,
        },
        same_images::warn_of_same_images,
    },
};
use anyhow::Context as _;

/// A model with the plan and the data set of its evaluation.
pub(super) struct EvalJob<'a> {
    pub(super) checkpoint: &'a Path,
    loaded: LoadedModel,
    plan: Plan,
    pub(super) dataset: OpenSet,
    classes: ClassQueries,
    /// Origin of the class embeddings.
    origin: EmbeddingOrigin,
    /// Digest of the files of every image; empty for a mini world.
    pub(super) contents: Vec<String>,
    /// Everything that the scores follow from besides the other fields of the record.
    fingerprint: Fingerprint,
    /// Digest of the examples of classes, if there are any.
    examples: Option<String>,
    /// Labels that are left out of the classes, ascending.
    left_out: Vec<u16>,
    /// Whether the confidence is measured.
    confidence: Confidence,
    /// Seen offsets to score with; empty for the offset of the plan.
    seen_offsets: &'a [f32],
    /// Folder of the record.
    record: Option<PathBuf>,
    /// Folder of the label maps.
    labels: Option<PathBuf>,
}

/// One outcome of a job: for its plan, or for one of its seen offsets.
pub(super) struct EvalOutput<'a> {
    pub(super) checkpoint: &'a Path,
    pub(super) loaded: &'a LoadedModel,
    /// Origin of the class embeddings.
    pub(super) origin: &'a EmbeddingOrigin,
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) plan: Plan,
    /// Folder of the record.
    pub(super) record: Option<PathBuf>,
    /// Folder of the label maps.
    pub(super) labels: Option<PathBuf>,
}

impl<'a> EvalJob<'a> {
    /// Opens the model and the data set, and embeds the class names.
    ///
    /// - `file`: the file of `--plan`
    /// - `record`: folder of the record
    /// - `files`: digests of the files that earlier jobs have read
    pub(super) fn new(
        program: &Program,
        settings: &'a EvalSettings,
        checkpoint: &'a Path,
        file: Option<&PlanFile>,
        record: Option<PathBuf>,
        device: &Device,
        files: &mut FileContents,
    ) -> anyhow::Result<Self> {
        let model = &settings.model;
        let mut loaded = LoadedModel::open(checkpoint, &model.options(program, device))?;
        warn_of_assumptions(&loaded);
        warn_of_architecture(&loaded)?;
        let plan = Plan::new(&settings.changes, file, checkpoint, &loaded)?;
        warn_of_training(checkpoint, &loaded, &plan);
        loaded.model.set_options(&plan.session.inference.method)?;
        let root = data_folder(settings.data.as_deref(), &plan.data.dataset)?;
        let mut dataset = plan.open_dataset(root)?;
        if let Some(limit) = settings.limit {
            dataset.retain(|position| position < limit);
        }
        // All parts of a divided evaluation state the images of the whole.
        let contents = files.of_samples(&dataset, settings.verbosity);
        let data = dataset
            .fingerprint()
            .and(file_contents::fingerprint(&contents));
        if let Some(Shard { index, count }) = settings.shard {
            dataset.retain(|position| position as u64 % count == index - 1);
        }
        let contents = files.of_samples(&dataset, settings.verbosity); // those of the part
        warn_of_seen(&dataset, &loaded);
        let is_of_training = loaded
            .data
            .as_ref()
            .is_some_and(|trained| is_same_dataset(&trained.dataset, &plan.data.dataset));
        if is_of_training && file.is_none() {
            warn_of_other_classes(&plan, &dataset, &loaded);
        }
        if let Some(trained) = loaded.data.as_ref().filter(|_| is_of_training) {
            warn_of_same_images(&plan.data, root, &trained.train_split);
        }
        let Embedded {
            embeddings: mut classes,
            origin,
            notices,
        } = embed_classes(settings, &plan, &dataset, &loaded, device)?;
        warn_of_text(&notices);
        let mut fingerprint = data.and(model_facts(settings, &plan, checkpoint, &loaded, &origin)?);
        let examples = examples::fit(settings, &plan, &dataset, &loaded, &mut classes, device)?;
        if let Some(examples) = &examples {
            fingerprint = fingerprint.with("class examples", examples);
        }
        warn_of_single_class(
            dataset.classes().len(),
            loaded.model.scoring(),
            "the class list needs a class for the other pixels",
        );
        let left_out = confidence::left_out(&settings.left_out, &dataset)?;
        confidence::check(settings, &plan)?;
        if !left_out.is_empty() {
            classes = confidence::without(&classes, &left_out, device);
            let names: Vec<&str> = left_out
                .iter()
                .filter_map(|&label| dataset.classes().classes.get(usize::from(label)))
                .map(String::as_str)
                .collect();
            fingerprint = fingerprint.with("classes left out", names.join(", "));
        }
        let labels = settings.labels.as_deref().and_then(|folder| {
            let place = settings
                .checkpoints
                .iter()
                .position(|other| other == checkpoint)?;
            folders_of_models(folder, &settings.checkpoints)
                .into_iter()
                .nth(place)
        });
        Ok(Self {
            checkpoint,
            loaded,
            plan,
            dataset,
            classes,
            origin,
            contents,
            fingerprint,
            examples,
            left_out,
            confidence: settings.confidence,
            seen_offsets: &settings.seen_offsets,
            record,
            labels,
        })
    }

    /// Returns the folder of the record; for several seen offsets, the folder of their records.
    pub(super) fn record_folder(&self) -> Option<&Path> {
        self.record.as_deref()
    }

    /// Returns all files that the evaluation reads, behind all symbolic links, and those of the images that the model was
    /// trained on.
    ///
    /// All images of the splits count, even those that a limit or a shard leaves out.
    pub(super) fn input_files(&self, settings: &EvalSettings) -> anyhow::Result<HashSet<PathBuf>> {
        let data = &self.plan.data;
        let root = data_folder(settings.data.as_deref(), &data.dataset)?;
        // Splits whose files are not there cannot be replaced either.
        let splits = [&data.eval_split, &data.train_split];
        let opened: Vec<OpenSet> = splits
            .into_iter()
            .filter_map(|split| data.open(root, split).ok())
            .collect();
        let mut files = vec![self.checkpoint, Path::new(&data.dataset)];
        files.extend(splits.map(Path::new));
        files.extend(settings.plan.as_deref());
        for set in opened.iter().chain([&self.dataset]) {
            if let OpenSet::Files(set) = set {
                files.extend(set.items.iter().flat_map(Item::files).map(PathBuf::as_path));
            }
        }
        let places = files
            .into_iter()
            .filter_map(|file| file.canonicalize().ok());
        Ok(places.collect())
    }

    /// Returns everything that the scores follow from, for a comparison of several ranks.
    pub(super) fn facts(&self) -> anyhow::Result<Fingerprint> {
        let inference = serde_json::to_string(&self.plan.session.inference)?;
        let test_time = serde_json::to_string(&self.plan.session.test_time)?;
        Ok(self
            .fingerprint
            .clone()
            .with("file: SHA-256", weights_sha256(self.checkpoint)?)
            .with("inference", inference)
            .with("test-time augmentation", test_time)
            .with("precision", self.loaded.precision))
    }

    /// Whether label maps are written.
    pub(super) fn writes_labels(&self) -> bool {
        self.labels.is_some()
    }

    /// Returns everything of the model that its scores follow from.
    pub(super) fn values(&self, settings: &EvalSettings) -> anyhow::Result<serde_json::Value> {
        let device = settings.compute.device.to_string();
        let model = model_values(self.checkpoint, &self.loaded, &settings.model, &device)?;
        let mut values = serde_json::json!({
            "model": model,
            "data": self.plan.data,
            "protocol": self.plan.protocol,
            "inference": self.plan.session.inference,
            "test_time": self.plan.session.test_time,
            "asks_for_templates": self.plan.asks_for_templates,
        });
        // Journals of before were written by this rule alone, and do not name it.
        if self.plan.nan_rule != NanRule::default() {
            values["nan_rule"] = serde_json::to_value(self.plan.nan_rule)?;
        }
        if let Some(examples) = &self.examples {
            values["examples"] = serde_json::Value::from(examples.clone());
        }
        if self.confidence == Confidence::Keep {
            values["confidence"] = true.into();
            values["left_out"] = self.left_out.clone().into();
        }
        Ok(values)
    }

    pub(super) fn setup<'b>(&'b self, device: &'b Device) -> EvaluationSetup<'b> {
        EvaluationSetup {
            session: Session::new(self.loaded.model.as_ref(), &self.plan.session, device),
            classes: &self.classes,
            seen_offsets: self.seen_offsets,
            confidence: self.confidence,
            left_out: &self.left_out,
        }
    }

    /// Returns every outcome with its plan and its folders.
    pub(super) fn outputs(&self) -> Vec<EvalOutput<'_>> {
        let output = |offset: Option<f32>| {
            let mut plan = self.plan.clone();
            if let Some(offset) = offset {
                plan.session.inference.seen_offset = offset;
            }
            let of_offset = |folder: &PathBuf| match offset {
                Some(offset) => sweep::folder(folder, offset),
                None => folder.clone(),
            };
            EvalOutput {
                checkpoint: self.checkpoint,
                loaded: &self.loaded,
                origin: &self.origin,
                fingerprint: &self.fingerprint,
                plan,
                record: self.record.as_ref().map(of_offset),
                labels: self.labels.as_ref().map(of_offset),
            }
        };
        match self.seen_offsets {
            [] => vec![output(None)],
            offsets => offsets.iter().map(|&offset| output(Some(offset))).collect(),
        }
    }

    /// Whether two jobs can share encoded images: both models have the same frozen encoder and read the same windows of
    /// the same images.
    pub(super) fn shares_encoding(&self, other: &Self) -> bool {
        let windows = |job: &Self| {
            let inference = &job.plan.session.inference;
            (
                inference.short_side,
                inference.crop,
                inference.stride,
                inference.mode,
                inference.longest_side,
                // Only encodings for a refinement keep the pixels.
                inference.refine,
            )
        };
        match (self.loaded.frozen_encoder(), other.loaded.frozen_encoder()) {
            (Some(one), Some(two)) => {
                one == two
                    && self.dataset == other.dataset
                    && windows(self) == windows(other)
                    // With test-time augmentation, all scales of a large image would be in memory at once.
                    && [self, other]
                        .iter()
                        .all(|job| job.plan.session.test_time == TestTime::default())
            }
            _ => false,
        }
    }
}

/// Warns if the description of the data set that the model was trained on has other classes now.
fn warn_of_other_classes(plan: &Plan, dataset: &OpenSet, loaded: &LoadedModel) {
    let names = loaded.trained_on.iter().map(|class| &class.name);
    if is_description(&plan.data.dataset) && !names.eq(&dataset.classes().classes) {
        print_notice!(
            "warning: {}: the classes are not those that the model was trained on, so it may describe another data set; \
             --dataset names the right file",
            plan.data.dataset
        );
    }
}

/// Says what a released checkpoint is taken for, because it decides the protocol and the seen offset.
fn warn_of_training(checkpoint: &Path, loaded: &LoadedModel, plan: &Plan) {
    if let Some(released) = &loaded.released
        && released.protocol == plan.protocol
    {
        print_notice!(
            "warning: {}: {} says that the training was {}, so the model is scored with a seen offset of {}; --protocol and \
             --seen-offset override it",
            checkpoint.display(),
            released.evidence,
            released.protocol.title(),
            plan.session.inference.seen_offset
        );
    }
}

/// Warns of classes that count as unseen although the model was trained on their masks.
fn warn_of_seen(dataset: &OpenSet, loaded: &LoadedModel) {
    let trained = trained_classes(&loaded.trained_on, dataset.classes());
    let was_trained = |label: &&usize| {
        let class = trained.get(**label).copied().flatten();
        class.is_some_and(|class| class.seen)
    };
    let names: Vec<String> = dataset
        .classes()
        .unseen
        .iter()
        .filter(was_trained)
        .filter_map(|&label| dataset.classes().classes.get(label).cloned())
        .collect();
    // Fully supervised models are scored on the published split, as in the papers.
    let all_trained = loaded.trained_on.iter().all(|class| class.seen);
    if !names.is_empty() && !all_trained {
        print_notice!(
            "warning: the model was trained on masks of classes that count as unseen here: {}",
            names.join(", ")
        );
    }
}

/// Returns everything about model and class embeddings that scores follow from, besides the file of the model.
fn model_facts(
    settings: &EvalSettings,
    plan: &Plan,
    checkpoint: &Path,
    loaded: &LoadedModel,
    origin: &EmbeddingOrigin,
) -> anyhow::Result<Fingerprint> {
    let templates = TemplateSet::by_name(&plan.data.templates)?;
    let row_classes = settings.model.text_classes.as_deref();
    let facts =
        image_facts(&loaded.weights).and(class_embeddings(origin, row_classes, &templates)?);
    let base = match &loaded.base_sha256 {
        Some(sha256) => Some(sha256.clone()),
        // The weights are the file of the model itself, unless --weights names them.
        None if loaded.base == checkpoint => None,
        None => Some(weights_sha256(&loaded.base)?),
    };
    Ok(match base {
        Some(sha256) => facts.with("weights: SHA-256", sha256),
        None => facts,
    })
}

/// Embeds the classes of the data set for the model.
fn embed_classes(
    settings: &EvalSettings,
    plan: &Plan,
    dataset: &OpenSet,
    loaded: &LoadedModel,
    device: &Device,
) -> anyhow::Result<Embedded<ClassQueries>> {
    let templates = TemplateSet::by_name(&plan.data.templates)?;
    let row_classes: Option<Vec<Vec<String>>> =
        settings.model.text_classes.as_ref().map(|classes| {
            let names = |class: &ClassQuery| class.names().map(str::to_owned).collect();
            classes.iter().map(names).collect()
        });
    let cache = settings.cache.folder();
    let cache =
        cache.and_then(|folder| EmbeddingCache::of_weights(&folder, &loaded.base, &loaded.weights));
    let classes = dataset.classes();
    let bar = settings
        .verbosity
        .progress("embedding", "class names", classes.len() as u64);
    let sources = TextSources {
        table: settings.model.text.as_deref().map(|path| TableSource {
            path,
            row_classes: row_classes.as_deref(),
        }),
        stored: loaded.stored.as_ref(),
        weights: &loaded.weights,
        templates: if plan.asks_for_templates {
            Templates::Asked(&templates)
        } else {
            Templates::Usual(&templates)
        },
        cache: cache.as_ref(),
        progress: Some(&|done, _| bar.set_position(done as u64)),
        stop: StopSign::default(),
    };
    let names: Vec<Vec<String>> = (0..classes.len()).map(|c| classes.names_of(c)).collect();
    let seen = plan.lowered(dataset, loaded);
    let queries = class_queries(&names, seen, loaded.model.as_ref(), &sources, device)
        .context("embedding the data set's class names")?;
    bar.finish();
    Ok(queries)
}
