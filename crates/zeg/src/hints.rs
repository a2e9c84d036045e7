//! The way out of an error, where there is one.

use zeg::{
    data::DataError,
    image::ImageError,
    loading::BaseError,
    model::ModelError,
    train::TrainError,
    vocab::{
        classes::{ClassError, QueryError},
        tokenizer::TokenizeError,
    },
};

use crate::commands::train::RunExists;

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
    if let Some(error) = cause.downcast_ref::<TrainError>() {
        return of_train(error);
    }
    if let Some(error) = cause.downcast_ref::<BaseError>() {
        return Some(match error {
            BaseError::Missing { .. } => {
                "say where it is with --weights, or put it beside the checkpoint".into()
            }
            BaseError::Other { .. } => {
                "name the file the model was trained on with --weights".into()
            }
        });
    }
    if cause.is::<RunExists>() {
        return Some("continue it with --resume, or choose another folder with -o".into());
    }
    if cause.is::<TokenizeError>() {
        return Some("shorten the class name; CLIP's text encoder reads 77 tokens".into());
    }
    if cause.is::<QueryError>() {
        return Some(
            "write class names separated by commas, such as --classes \"dog, sofa|couch\"".into(),
        );
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
            "picture and labels must be of one size; take both from the same download".into()
        }
        DataError::IllegalLabel { .. } => {
            "the labels are of another data set or numbering; convert them, or correct the data set in the experiment"
                .into()
        }
        DataError::MissingFiles { .. } => "unpack the data set completely, or correct the split's list".into(),
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
        ModelError::Text(_) => "shorten the class name; CLIP's text encoder reads 77 tokens".into(),
        _ => return None,
    })
}

fn of_train(error: &TrainError) -> Option<String> {
    Some(match error {
        TrainError::NotFinite { .. } => "lower training.schedule.base, or look at these pictures' labels".into(),
        TrainError::Write { .. } => {
            "make room or choose another folder; the last checkpoint is intact, and --resume continues from it".into()
        }
        TrainError::Checkpoint { .. } => "`zeg train` writes checkpoints; CLIP weights go to --weights".into(),
        TrainError::Data(error) => return of_data(error),
        TrainError::Model(error) => return of_model(error),
        _ => return None,
    })
}
