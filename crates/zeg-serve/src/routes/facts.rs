//! `/v1/models` and `/v1/class-lists`: what can be asked for.

use axum::{
    Json,
    extract::{Path, State},
};
use zeg::{export::find_format, vocab::classes::ClassSet};

use crate::{
    answers::{
        FormatAnswer, LimitsAnswer, ListAnswer, ListClassAnswer, ListClassesAnswer, ListsAnswer,
        ModelAnswer, ModelsAnswer, TrainedAnswer,
    },
    models::ServedModel,
    options::Output,
    problem::{Code, Problem, ProblemDocument},
    state::AppState,
};

/// Lists the models, the results that a request can ask for, and the limits.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "What can be asked for",
    operation_id = "get_models",
    responses(
        (status = 200, description = "The models", body = ModelsAnswer),
        (status = 503, description = "They are being loaded", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn models(State(state): State<AppState>) -> Result<Json<ModelsAnswer>, Problem> {
    let models = state.models()?.iter().enumerate();
    let config = state.config();
    Ok(Json(ModelsAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        models: models
            .map(|(number, model)| describe(model, number == 0))
            .collect(),
        formats: Output::names().map(format).collect(),
        limits: LimitsAnswer {
            max_pixels: config.max_pixels,
            max_body: config.max_body,
            queue: config.queue,
            cache_memory: config.cache_memory,
            max_classes: config.max_classes,
            timeout_s: config.request_time.as_secs(),
        },
    }))
}

fn describe(model: &ServedModel, is_default: bool) -> ModelAnswer {
    let segmenter = model.segmenter();
    let trained = segmenter.model().trained_on.iter();
    ModelAnswer {
        name: model.name().to_owned(),
        default: is_default,
        method: segmenter.model().method.clone(),
        scoring: model.scoring().to_owned(),
        default_threshold: segmenter.default_threshold(),
        precision: model.precision().to_owned(),
        window: segmenter.inference().crop,
        trained_on: trained
            .map(|class| TrainedAnswer {
                name: class.name.clone(),
                seen: class.seen,
            })
            .collect(),
        suggestions: model.suggestions(),
    }
}

fn format(name: &'static str) -> FormatAnswer {
    let (about, file) = match name {
        "confidence" => (
            "the confidence of every pixel as a grey PNG, 255 for 1",
            true,
        ),
        "runs" => (
            "the label map as runs of equal labels, in the document",
            false,
        ),
        "rle" => (
            "COCO annotations with run-length codes, in the document",
            false,
        ),
        "polygons" => ("COCO annotations with polygons, in the document", false),
        "regions" => (
            "the best classes of each large region, in the document",
            false,
        ),
        name => (find_format(name).map_or("", |format| format.about), true),
    };
    FormatAnswer {
        name: name.to_owned(),
        about: about.to_owned(),
        file,
    }
}

/// Lists the built-in class lists.
#[utoipa::path(
    get,
    path = "/v1/class-lists",
    tag = "What can be asked for",
    operation_id = "get_class_lists",
    responses((status = 200, description = "The lists", body = ListsAnswer)),
)]
pub(crate) async fn class_lists() -> Json<ListsAnswer> {
    let lists = ClassSet::names().iter();
    let sets = lists.filter_map(|name| ClassSet::by_name(name).ok());
    Json(ListsAnswer {
        lists: sets
            .map(|set| ListAnswer {
                classes: set.len(),
                name: set.name,
            })
            .collect(),
    })
}

/// Lists the classes of a built-in class list.
#[utoipa::path(
    get,
    path = "/v1/class-lists/{name}",
    tag = "What can be asked for",
    operation_id = "get_class_list",
    params(("name" = String, Path, description = "Name of the list")),
    responses(
        (status = 200, description = "The classes", body = ListClassesAnswer),
        (status = 404, description = "There is no such list", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn class_list(
    Path(name): Path<String>,
) -> Result<Json<ListClassesAnswer>, Problem> {
    let shown: String = name.chars().take(64).collect();
    let set = ClassSet::by_name(&shown)
        .map_err(|error| Problem::new(Code::NotFound, error.to_string()))?;
    let class = |label| {
        let mut names = set.names_of(label).into_iter();
        ListClassAnswer {
            name: names.next().unwrap_or_default(),
            synonyms: names.collect(),
            unseen: set.is_unseen(label),
        }
    };
    Ok(Json(ListClassesAnswer {
        classes: (0..set.len()).map(class).collect(),
        name: set.name.clone(),
    }))
}
