//! The way out of an error, where there is one.

use zeg::{
    data::DataError,
    export::ExportError,
    image::{ImageError, InputError},
    loading::LoadError,
    model::{ModelError, weights::WeightsError},
    text_sources::NoTextEncoder,
    vocab::{
        classes::{ClassArgumentError, ClassError, QueryError},
        tokenizer::TokenizeError,
    },
};
use zeg_train::TrainError;

use crate::commands::{
    import::OutputExists,
    json::JsonRefused,
    model_file::NotPulled,
    report::NoEvaluation,
    train::{NothingToStartFrom, RunExists},
};

/// An error with its causes, each said once: many of our errors already hold the words of their cause.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text {
            text if text.is_empty() => cause,
            text if text.contains(&cause) => text,
            text => format!("{text}: {cause}"),
        }
    })
}

/// A line of advice on an error, from the first cause in its chain that has one.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(of_cause)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<DataError>() {
        return of_data(error);
    }
    if let Some(error) = cause.downcast_ref::<ImageError>() {
        return of_image(error);
    }
    if let Some(error) = cause.downcast_ref::<ModelError>() {
        return of_model(error);
    }
    if let Some(error) = cause.downcast_ref::<WeightsError>() {
        return of_weights(error);
    }
    if let Some(error) = cause.downcast_ref::<TrainError>() {
        return of_train(error);
    }
    if let Some(error) = cause.downcast_ref::<LoadError>() {
        return Some(match error {
            LoadError::BaseMissing { .. } => {
                "say where it is with --weights, or put it beside the checkpoint".into()
            }
            LoadError::OtherBase { .. } => {
                "name the file the model was trained on with --weights".into()
            }
            LoadError::NotPlain { .. } => {
                "leave --method out, or give CLIP's weights to --model".into()
            }
        });
    }
    if let Some(error) = cause.downcast_ref::<zeg_hub::HubError>() {
        return crate::commands::pull::hint(error);
    }
    if let Some(error) = cause.downcast_ref::<zeg::data::prepare::PrepareError>() {
        return crate::commands::data::hint(error);
    }
    if cause.is::<NoEvaluation>() {
        return Some("`zeg eval … -o FOLDER` writes one".into());
    }
    if cause.is::<NoTextEncoder>() {
        return Some(
            "take weights with both towers, such as `zeg pull clip-vit-b-16`, or give a table with --text".into(),
        );
    }
    if let Some(NotPulled(name)) = cause.downcast_ref::<NotPulled>() {
        return Some(format!(
            "`zeg pull {name}` fetches them; `zeg models` says how large they are"
        ));
    }
    if let Some(refused) = cause.downcast_ref::<JsonRefused>() {
        return Some(refused.hint().into());
    }
    if cause.is::<OutputExists>() {
        return Some("--overwrite replaces it".into());
    }
    if let Some(error) = cause.downcast_ref::<ExportError>() {
        return of_export(error);
    }
    if cause.is::<RunExists>() {
        return Some("continue it with --resume, or choose another folder with -o".into());
    }
    if cause.is::<NothingToStartFrom>() {
        return Some("name a half-way inductive checkpoint with --init".into());
    }
    if cause.is::<TokenizeError>() {
        return Some("shorten the class name; CLIP's text encoder reads 77 tokens".into());
    }
    if let Some(ClassArgumentError::File(_)) = cause.downcast_ref::<ClassArgumentError>() {
        return Some(
            "a class file has a class a line, commas between its names: `sofa, couch`".into(),
        );
    }
    if cause.is::<QueryError>() || cause.is::<ClassArgumentError>() {
        return Some(
            "write class names separated by commas, such as --classes \"dog, sofa|couch\"".into(),
        );
    }
    if let Some(InputError::EmptyFolder { .. }) = cause.downcast_ref::<InputError>() {
        return Some("-r looks into the folder's folders, too".into());
    }
    if let Some(ClassError::UnknownClass {
        closest: Some(closest),
        ..
    }) = cause.downcast_ref::<ClassError>()
    {
        return Some(format!("did you mean {closest:?}?"));
    }
    None
}

fn of_data(error: &DataError) -> Option<String> {
    Some(match error {
        DataError::Image(error) => return of_image(error),
        DataError::RootNotFound { .. } => "point --data at the data set's folder, such as VOCdevkit/VOC2012".into(),
        DataError::SplitNotFound { .. } => "name one of the splits that exist, or a text file with an id a line".into(),
        DataError::SizeMismatch { .. } => {
            "image and labels must be of one size; take both from the same download".into()
        }
        DataError::IllegalLabel { .. } | DataError::IllegalColour { .. } => {
            "the labels are of another data set or numbering; convert them, or correct the data set in the experiment"
                .into()
        }
        DataError::RawCocoLabels { .. } => {
            "`zeg data prepare coco-stuff164k --from … -o …` converts them".into()
        }
        DataError::UnconvertedLabels { .. } => {
            "`zeg data prepare` makes what is needed from the download".into()
        }
        DataError::Description { .. } => {
            "configs/datasets/folder-template.toml explains every key".into()
        }
        DataError::ClassList { .. } | DataError::UnknownDataset { .. } => {
            "`zeg data list` lists them; a .toml file describes one's own".into()
        }
        DataError::MissingFiles { .. } => "unpack the data set completely, or correct the split's list".into(),
        _ => return None,
    })
}

fn of_export(error: &ExportError) -> Option<String> {
    Some(match error {
        ExportError::Exists { .. } => "--overwrite replaces files, -o names another folder".into(),
        ExportError::TooManyRegions { .. } => {
            "leave small regions out with a larger --min-area".into()
        }
        _ => return None,
    })
}

fn of_image(error: &ImageError) -> Option<String> {
    Some(match error {
        ImageError::LabelsInColour { .. } => {
            "label files hold class indices: an indexed or grey PNG, not colours; take the data set's original files"
                .into()
        }
        ImageError::Corrupt { .. } => "the file is damaged or cut off; copy or download it again".into(),
        _ => return None,
    })
}

fn of_model(error: &ModelError) -> Option<String> {
    Some(match error {
        ModelError::UnknownClass { .. } => {
            "use names of the table, give another table with --text, or weights that hold CLIP's text tower".into()
        }
        ModelError::TensorShape { .. } | ModelError::MissingTensor { .. } => {
            "the weights are of another architecture than the experiment; compare with `zeg info`".into()
        }
        ModelError::Format { .. } => "the file is damaged or of another kind; copy or download it again".into(),
        ModelError::UnknownWord { .. } => {
            "name classes with words it knows, such as \"striped red\", or take a larger model: `zeg models`".into()
        }
        ModelError::Weights(error) => return of_weights(error),
        ModelError::Text(_) => "shorten the class name; CLIP's text encoder reads 77 tokens".into(),
        _ => return None,
    })
}

fn of_weights(error: &WeightsError) -> Option<String> {
    Some(match error {
        WeightsError::Format { .. } => "the file is damaged or of another kind; copy or download it again".into(),
        WeightsError::ForbiddenCall { .. } => {
            "do not open this file with Python either; take the weights from their publisher, as safetensors if there are any"
                .into()
        }
        WeightsError::Unsupported { .. } => {
            "weights of CLIP's vision transformers are read: OpenAI's, open_clip's and Hugging Face's ViT-B/16 and their like"
                .into()
        }
        WeightsError::Write { .. } => "make room or choose another place".into(),
        WeightsError::Read { .. } | WeightsError::TarFile { .. } => return None,
    })
}

fn of_train(error: &TrainError) -> Option<String> {
    Some(match error {
        TrainError::NotFinite { .. } => "lower training.schedule.base, or look at these images' labels".into(),
        TrainError::Write { .. } => {
            "make room or choose another folder; the last checkpoint is intact, and --resume continues from it".into()
        }
        TrainError::Checkpoint { .. } => "`zeg train` writes checkpoints; CLIP weights go to --weights".into(),
        TrainError::Data(error) => return of_data(error),
        TrainError::Model(error) => return of_model(error),
        _ => return None,
    })
}
