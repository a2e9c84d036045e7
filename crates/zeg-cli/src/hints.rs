//! Hints: the action to take after an error.

mod classes;
mod commands;
mod examples;

use std::path::Path;

use zeg::{
    data::{DataError, datasets},
    eval::EvalError,
    examples::ExampleError,
    export::ExportError,
    image::{ImageError, InputError},
    loading::LoadError,
    model::{ModelError, weights::WeightsError},
    onnx::OnnxError,
    session::SessionError,
    vocab::classes::ClassArgumentError,
};
use zeg_base::{lock::LockError, ranks::RanksError};
use zeg_train::TrainError;

use crate::{
    commands::{
        run_files::{NoCheckpoint, RunExists},
        train,
    },
    numbers::WrongArgument,
    ranks::LaunchError,
};

/// Names that systems have for standard input.
const STANDARD_INPUT: [&str; 3] = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
/// Exit code if the command line is wrong.
const WRONG_ARGUMENT: u8 = 2;
/// Exit code if the work failed.
const FAILED: u8 = 1;

/// Prints an error, and a hint if there is one, to standard error.
pub(crate) fn print(error: &anyhow::Error) {
    print_notice!("error: {}", describe(error));
    if let Some(hint) = hint(error) {
        print_notice!("hint: {hint}");
    }
}

/// Returns the exit code of an error: 2 if an argument is wrong whatever the files hold, 1 otherwise.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    let first = error.chain().next();
    if first.is_some_and(is_unknown_name) || error.chain().any(is_of_argument) {
        return WRONG_ARGUMENT;
    }
    FAILED
}

/// Returns whether an error says that a name is unknown. An error about a name in a file has the file as its context,
/// so it is not the first of its chain.
fn is_unknown_name(error: &(dyn std::error::Error + 'static)) -> bool {
    use zeg::data::prepare::PrepareError;
    let data = error.downcast_ref::<DataError>();
    let prepare = error.downcast_ref::<PrepareError>();
    let hub = error.downcast_ref::<zeg_hub::HubError>();
    matches!(data, Some(DataError::UnknownDataset { .. }))
        || matches!(prepare, Some(PrepareError::UnknownDataset { .. }))
        || matches!(hub, Some(zeg_hub::HubError::UnknownModel { .. }))
}

fn is_of_argument(cause: &(dyn std::error::Error + 'static)) -> bool {
    match cause.downcast_ref::<ClassArgumentError>() {
        // The names in a class file are no argument.
        Some(ClassArgumentError::File(_)) => false,
        Some(_) => true,
        None => cause.is::<WrongArgument>(),
    }
}

/// Formats an error with its causes, and leaves out causes that the text contains already.
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

/// Returns the hint for an error: that of the first error in its chain that has one.
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
    if let Some(SessionError::Memory { .. }) = cause.downcast_ref::<SessionError>() {
        return Some(IMAGE_TOO_LARGE.into());
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
    if let Some(error) = cause.downcast_ref::<RanksError>() {
        return of_ranks(error);
    }
    if let Some(error) = cause.downcast_ref::<LaunchError>() {
        return Some(error.hint().into());
    }
    if let Some(error) = cause.downcast_ref::<ExampleError>() {
        return examples::hint(error);
    }
    if let Some(error) = cause.downcast_ref::<LoadError>() {
        return Some(of_loading(error).into());
    }
    if let Some(error) = cause.downcast_ref::<zeg_hub::HubError>() {
        return crate::commands::pull::hint(error);
    }
    if let Some(error) = cause.downcast_ref::<zeg::data::prepare::PrepareError>() {
        return crate::commands::data::hint(error);
    }
    if let Some(hint) = commands::of_commands(cause) {
        return Some(hint);
    }
    if let Some(error) = cause.downcast_ref::<ExportError>() {
        return of_export(error);
    }
    if let Some(error) = cause.downcast_ref::<OnnxError>() {
        return of_onnx(error);
    }
    if let Some(error) = cause.downcast_ref::<RunExists>() {
        return Some(error.hint());
    }
    if let Some(error) = cause.downcast_ref::<NoCheckpoint>() {
        return Some(error.hint().into());
    }
    if let Some(error) = cause.downcast_ref::<LockError>() {
        return of_lock(error);
    }
    if let Some(hint) = train::hint(cause) {
        return Some(hint);
    }
    if let Some(error) = cause.downcast_ref::<EvalError>() {
        return of_evaluation(error).map(str::to_owned);
    }
    if let Some(InputError::EmptyFolder { .. }) = cause.downcast_ref::<InputError>() {
        return Some("use -r to search the folders inside the folder as well".into());
    }
    if let Some(InputError::NotRegular { path }) = cause.downcast_ref::<InputError>()
        && STANDARD_INPUT.iter().any(|name| path == Path::new(name))
    {
        return Some("write `-` for an image from standard input".into());
    }
    if let Some(InputError::DeadLink { .. }) = cause.downcast_ref::<InputError>() {
        return Some("mount or restore what the link leads to, or remove the link".into());
    }
    classes::of_classes(cause)
}

/// Returns the hint for an error about an export as ONNX.
fn of_onnx(error: &OnnxError) -> Option<String> {
    match error {
        OnnxError::Write { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Some("use --overwrite to replace it".into())
        }
        OnnxError::Method { .. } => {
            Some("`zeg segment`, `zeg serve` and the library compute every method".into())
        }
        OnnxError::Model(error) => of_model(error),
        _ => error.hint().map(str::to_owned),
    }
}

/// Returns the hint for an error about the files of a model.
fn of_loading(error: &LoadError) -> &'static str {
    match error {
        LoadError::BaseMissing { .. } => "name it with --weights, or put it beside the checkpoint",
        LoadError::OtherSideFiles { .. } => {
            "restore the file that `zeg train` read, or name weights beside which it lies by --weights"
        }
        LoadError::OtherBase { .. } => {
            "name the weights that the model was trained with by --weights"
        }
        LoadError::OtherActivation { .. } => {
            "leave --activation out; a trained model has the activation of its training"
        }
        LoadError::UnusedWeights { .. } => "leave --weights out",
        LoadError::NotPlain { .. } => "leave --method out, or name plain CLIP weights with --model",
    }
}

/// Returns the hint for an error about records of evaluations.
fn of_evaluation(error: &EvalError) -> Option<&'static str> {
    match error {
        EvalError::OtherFact { .. } => {
            Some("score again what belongs together, with one data set file, model and settings")
        }
        EvalError::NotShared { .. } => Some(
            "choose an image that the page without --images shows side by side, or score the models with a larger --gallery",
        ),
        _ => None,
    }
}

fn of_data(error: &DataError) -> Option<String> {
    Some(match error {
        DataError::Image(error) => return of_image(error),
        DataError::RootNotFound {
            dataset,
            root,
            looked_for,
        } => {
            let marker = looked_for.first().and_then(|path| path.strip_prefix(root).ok());
            match marker.filter(|marker| !marker.as_os_str().is_empty()) {
                Some(marker) => format!(
                    "name the folder of {dataset} that holds {} with --data",
                    marker.display()
                ),
                None => format!("name the folder of {dataset} with --data"),
            }
        }
        DataError::SplitNotFound { .. } => "name one of the splits that exist, or a text file with one id per line".into(),
        DataError::SizeMismatch { .. } => {
            "an image and its labels must have the same size; use files of the same download".into()
        }
        DataError::IllegalLabel { .. } | DataError::IllegalColour { .. } => {
            "the labels belong to another data set or numbering; convert them, or correct the data set in the experiment"
                .into()
        }
        DataError::MaskBelowThreshold { largest, .. } => format!(
            "set `threshold = {}` in the data set file if these pixels are the foreground, or save the masks in black and white",
            largest.div_ceil(2)
        ),
        DataError::SameId { .. } => {
            "rename one of the images, or list it once; only one image may have an id".into()
        }
        DataError::RawCocoLabels { .. } => {
            "convert them with `zeg data prepare coco-stuff164k --from … -o …`".into()
        }
        DataError::UnconvertedLabels { dataset, .. } => {
            let entry = datasets::all().find(|entry| entry.title == dataset);
            let name = entry.map_or("NAME", |entry| entry.name);
            format!("convert the download with `zeg data prepare {name} --from … -o …`")
        }
        DataError::Description { .. } => {
            "configs/datasets/folder-template.toml explains every key".into()
        }
        DataError::ClassList { .. } => {
            "choose one of these with --class-list or data.classes, or leave it out for the first".into()
        }
        DataError::WorldClasses { .. } => {
            "leave out --class-list, --unseen, data.classes and data.unseen for the mini world".into()
        }
        DataError::UnknownCategories { .. } => {
            "name the class of a category in `labels.map`, or list the category in `labels.ignore`".into()
        }
        DataError::UnknownDataset { .. } => {
            "`zeg data list` lists the data sets; describe your own in a .toml file".into()
        }
        DataError::LeftOut { .. } => {
            "only one image may have an id (a.png and a.jpg have the same), and upper and lower case count in a pattern; rename or remove the files, or, if only the case differs, give only the folder as `images`"
                .into()
        }
        DataError::NameNotUtf8 { .. } => "rename the file; ids are parts of file names".into(),
        DataError::MissingFiles { .. } => "unpack the data set completely, or correct the list of the split".into(),
        _ => return None,
    })
}

fn of_lock(error: &LockError) -> Option<String> {
    Some(match error {
        LockError::InUse { .. } => {
            "wait until that process has ended, or choose another place with -o".into()
        }
        LockError::OtherHost { lock, owner, .. } => format!(
            "if process {} has ended on {}, remove {} and try again",
            owner.process,
            owner.host,
            lock.display()
        ),
        LockError::Foreign { .. } => "choose another place with -o".into(),
        LockError::Write { .. } => return None,
    })
}

fn of_export(error: &ExportError) -> Option<String> {
    Some(match error {
        ExportError::Exists { .. } => {
            "use --overwrite to replace files, or choose another folder with -o".into()
        }
        ExportError::TooManyRegions { .. } => {
            "leave out small regions with a larger --min-area".into()
        }
        _ => return None,
    })
}

/// The hint for an image that memory cannot hold.
const IMAGE_TOO_LARGE: &str =
    "scale the image down or cut it into parts; `ulimit -v unlimited` lifts a limit of the shell";

fn of_image(error: &ImageError) -> Option<String> {
    Some(match error {
        ImageError::LabelsInColour { .. } => {
            "label files hold class indices in an indexed or grey PNG, not colours; use the original files of the data set"
                .into()
        }
        ImageError::LabelsLossy { .. } => {
            "make the label files again as PNG; masks of two classes can be read with kind = \"binary\" in a data set file"
                .into()
        }
        ImageError::UnsupportedVariety { .. } => {
            "the file may be intact; convert it to PNG with another program".into()
        }
        ImageError::MaskInAlpha { .. } => "save the alpha channel as a grey image of 8 bits".into(),
        ImageError::SampleRange { .. } => {
            "divide the samples by the value of white, for instance by 255, or save the image with 8 or 16 bits".into()
        }
        ImageError::SampleNotFinite { .. } => "replace samples without a value, for instance by 0".into(),
        ImageError::Memory { .. } => IMAGE_TOO_LARGE.into(),
        ImageError::MaskBelowUpperBits { .. } => "save the masks with 8 bits per sample".into(),
        ImageError::MaskInPalette { .. } => "save the masks in grey, or give the palette different colours".into(),
        ImageError::Corrupt { .. } => "the file is damaged or incomplete; copy or download it again".into(),
        _ => return None,
    })
}

/// The hint for weights with values that no model has.
const BAD_VALUES: &str = "the training of these weights failed, or the file is damaged; use an earlier checkpoint, or copy or \
                          download it again";

fn of_model(error: &ModelError) -> Option<String> {
    Some(match error {
        ModelError::UnknownClass { .. } => {
            "use names of the table, name another table with --text, or use weights with CLIP's text encoder".into()
        }
        ModelError::TensorShape { .. } => {
            "the weights have another architecture than the model; compare both with `zeg info`".into()
        }
        ModelError::MissingTensor { .. } => {
            "the file lacks a part of the model, or names it otherwise; `zeg info FILE` shows what the file holds".into()
        }
        ModelError::NotFiniteTensor { .. } | ModelError::ZeroTensor { .. } => BAD_VALUES.into(),
        ModelError::NotFiniteScore { .. } => {
            "the weights hold values that are too large; use an earlier checkpoint".into()
        }
        ModelError::Format { .. } => "the file is damaged or has another format; copy or download it again".into(),
        ModelError::Table { .. } => {
            "a table of class embeddings is a matrix [classes, dim]: a .npy file, or the tensor `embeddings` in a .safetensors \
             file; `zeg embed` writes one"
                .into()
        }
        ModelError::FixedSize { .. } => {
            "leave the setting out; --crop and --stride change the canvas, and --flip works with every model".into()
        }
        ModelError::WindowSide { multiple, .. } => {
            format!("use another --crop, a multiple of {multiple}, or --mode whole")
        }
        ModelError::Memory { .. } => "use a smaller --short-side or --crop".into(),
        ModelError::UnknownWord { .. } => {
            "name classes with words that the model knows, such as \"striped red\", or use a larger model from `zeg models`".into()
        }
        ModelError::Weights(error) => return of_weights(error),
        ModelError::Text(_) => "shorten the class name; CLIP's text encoder reads 77 tokens".into(),
        _ => return None,
    })
}

/// Returns the hint for a file that could not be written.
fn of_write(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "the folder does not exist; create it, or choose another folder",
        ErrorKind::NotADirectory => "a file stands where a folder is needed; choose another folder",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "choose a folder that you may write to"
        }
        _ => "free some disk space, or choose another folder",
    }
}

fn of_weights(error: &WeightsError) -> Option<String> {
    Some(match error {
        WeightsError::Format { .. } => "the file is damaged or has another format; copy or download it again".into(),
        WeightsError::UnknownHeads { .. } => {
            "state the number with --heads, such as --heads 16, or put the configuration of the weights beside them".into()
        }
        WeightsError::NotFinite { .. } | WeightsError::AllZero { .. } => BAD_VALUES.into(),
        WeightsError::ForbiddenCall { .. } => {
            "do not open this file with Python either; download the weights from their publisher, if possible as safetensors"
                .into()
        }
        WeightsError::Unsupported { .. } => {
            "use weights of a CLIP vision transformer, such as ViT-B/16 from OpenAI, open_clip or Hugging Face"
                .into()
        }
        WeightsError::UnknownTensor { .. } => {
            "merge adapters such as LoRA into the weights before saving them, or use weights of a plain CLIP vision transformer"
                .into()
        }
        WeightsError::NumberType { .. } => {
            "save the weights as 32-bit or 16-bit floating-point numbers".into()
        }
        WeightsError::OwnCheckpoint { .. } => {
            "every command takes the file as it is, such as `zeg segment … --model FILE` and `zeg eval FILE`".into()
        }
        WeightsError::Write { source, .. } => of_write(source).into(),
        WeightsError::Read { path, source } if looks_like_a_name(path, source) => {
            "`zeg models` lists the names of published weights; a file needs its whole path".into()
        }
        WeightsError::Read { .. } | WeightsError::TarFile { .. } => return None,
    })
}

/// Returns whether a path that leads nowhere may have been meant as the name of weights.
fn looks_like_a_name(path: &Path, error: &std::io::Error) -> bool {
    let is_word = path.components().count() == 1 && path.extension().is_none();
    is_word && error.kind() == std::io::ErrorKind::NotFound
}

fn of_train(error: &TrainError) -> Option<String> {
    Some(match error {
        TrainError::NotFinite { .. } => {
            "lower training.schedule.base, or check the labels of these images".into()
        }
        TrainError::NotFiniteWeight { .. } => {
            "lower training.schedule.base; an earlier checkpoint is unchanged".into()
        }
        TrainError::Unlabelled { .. } => {
            "check the label rule and the unseen classes of the data set with `zeg data doctor`"
                .into()
        }
        TrainError::Memory { .. } => {
            "lower training.batch, training.micro-batch or the size in training.preprocess".into()
        }
        TrainError::Write { source, .. } => of_write(source).into(),
        TrainError::Checkpoint { .. } => {
            "use a checkpoint that `zeg train` wrote; name CLIP weights with --weights".into()
        }
        TrainError::PretrainCheckpoint { .. } => {
            "the file is damaged or of another kind; start anew with --overwrite".into()
        }
        TrainError::Ranks(error) => return of_ranks(error),
        TrainError::Data(error) => return of_data(error),
        TrainError::Model(error) => return of_model(error),
        _ => return None,
    })
}

fn of_ranks(error: &RanksError) -> Option<String> {
    match error {
        RanksError::Missing { .. } => Some(
            "see whether the process was killed or stopped, or its host is down; a longer --rank-timeout waits for slow ones"
                .into(),
        ),
        RanksError::OutOfStep { .. } => {
            Some("start all processes with the same program and the same arguments".into())
        }
        RanksError::Other { .. } | RanksError::Transport(_) => None,
    }
}

#[cfg(test)]
mod tests;
