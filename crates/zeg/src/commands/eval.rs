//! `zeg eval`: scores of a trained model on a data set.

use std::process::ExitCode;

use zeg::{
    eval::Report,
    evaluation::evaluate,
    loading::LoadedModel,
    model::inference::ClassQueries,
    vocab::templates::TemplateSet,
    words::{WordSources, class_set_of, embed_class_set},
};

use super::{JsonTarget, change_inference, open_device};
use crate::{cli::EvalArgs, progress};

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let device = open_device(&args.compute)?;
    let loaded = LoadedModel::open(&args.checkpoint, args.model.weights.as_deref(), &device)?;
    let experiment = &loaded.checkpoint.info.experiment;
    let mut settings = experiment.inference;
    change_inference(&mut settings, &args.inference)?;

    let split = args.split.as_deref().unwrap_or(&experiment.data.eval_split);
    let dataset = zeg::data::open(&experiment.data.dataset, &args.data, split)?;
    let classes = class_set_of(&experiment.data, &dataset)?;
    let stored = loaded.checkpoint.embeddings()?;
    let templates = TemplateSet::by_name(&experiment.data.templates)?;
    let sources = WordSources {
        table: args.model.text.as_deref(),
        table_names: Some(&classes.classes),
        stored: Some(&stored),
        weights: &loaded.weights,
        templates: &templates,
    };
    let embeddings = embed_class_set(&classes, &sources, &device)?;
    let unseen = classes.unseen_flags();
    let queries = ClassQueries {
        text: embeddings.to_tensor(&device),
        seen: unseen.iter().map(|unseen| !unseen).collect(),
    };

    let bar = progress::bar(dataset.len() as u64, "scoring");
    let confusion = evaluate(
        &loaded.model,
        &dataset,
        &queries,
        &settings,
        (&device, rayon::current_num_threads()),
        |_| {
            bar.inc(1);
            Ok(())
        },
    )?;
    bar.finish_and_clear();
    let report = Report::new(&confusion, &classes.classes, &unseen, dataset.len() as u64)?;
    let target = args.json.as_deref().map(JsonTarget::new);
    if let Some(target) = &target {
        target.write(&report)?;
    }
    if !matches!(target, Some(JsonTarget::Stdout)) {
        println!("{}", report.to_table());
    }
    Ok(ExitCode::SUCCESS)
}
