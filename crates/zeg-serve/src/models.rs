//! The models of a server, by name, each with the class lists that it encoded last.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use zeg::{
    EncodedClasses, Segmenter,
    model::{Precision, inference::TestTime, method::Scoring},
    session::SessionSettings,
    vocab::classes::ClassQuery,
};
use zeg_base::names::did_you_mean;

use crate::problem::{Code, Problem};

/// Most bytes of the class lists that a model keeps, names and embeddings together.
const MOST_LISTS: usize = 64 << 20;
/// Most bytes of the embeddings of single class names that a model keeps: 12 000 names at 1024 channels.
const MOST_EMBEDDINGS: usize = 64 << 20;
/// Class names to begin with, for a model that does not say what it was trained on.
const SUGGESTIONS: [&str; 6] = ["person", "dog", "cat", "car", "tree", "sky"];
/// Class names of the mini world, which MiniCLIP knows.
const MINI_SUGGESTIONS: [&str; 6] = [
    "striped red",
    "plain blue",
    "dotted green",
    "checked yellow",
    "plain purple",
    "striped cyan",
];

/// A model under the name that requests call it by.
#[derive(Debug)]
pub struct ServedModel {
    name: String,
    segmenter: Segmenter,
    /// The class lists that were encoded last, the newest first.
    lists: Mutex<VecDeque<Arc<EncodedClasses>>>,
}

/// The models of a server; the first is used where a request names none.
#[derive(Debug)]
pub struct Models {
    models: Vec<Arc<ServedModel>>,
}

/// The models cannot be served together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelsError {
    /// There is none.
    #[error("there is no model to serve")]
    None,
    /// Two models have the same name.
    #[error("two models have the name {0:?}; name them with --model NAME=FILE")]
    SameName(String),
}

impl ServedModel {
    /// Names a model.
    ///
    /// Embeddings of class names are kept in memory from now on: a folder would grow with every name of every request.
    pub fn new(name: impl Into<String>, mut segmenter: Segmenter) -> Self {
        segmenter.keep_embeddings_in_memory(MOST_EMBEDDINGS);
        Self {
            name: name.into(),
            segmenter,
            lists: Mutex::default(),
        }
    }

    /// Returns the name that requests call it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the model with its settings.
    pub fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }

    /// Returns the kind of its scores as answers name it.
    pub(crate) fn scoring(&self) -> &'static str {
        match self.segmenter.model().model.scoring() {
            Scoring::Softmax => "softmax",
            Scoring::Sigmoid => "sigmoid",
            Scoring::MaskSum => "mask-sum",
        }
    }

    /// Returns the number format that it computes with, as `--precision` names it.
    pub(crate) fn precision(&self) -> &'static str {
        match self.segmenter.model().precision {
            Precision::Float => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// Returns class names to begin with.
    pub(crate) fn suggestions(&self) -> Vec<String> {
        let trained = &self.segmenter.model().trained_on;
        if !trained.is_empty() {
            let names = trained.iter().map(|class| class.name.clone());
            return names.take(SUGGESTIONS.len()).collect();
        }
        let is_mini = zeg::mini::is_mini(&self.segmenter.model().base);
        let names = if is_mini {
            MINI_SUGGESTIONS
        } else {
            SUGGESTIONS
        };
        names.map(str::to_owned).to_vec()
    }

    /// Returns the settings of a request: those of the model, with a threshold and test-time augmentation.
    ///
    /// - `threshold`: 0 for none; `None` for the model's default, as in `zeg segment`
    pub(crate) fn settings(&self, threshold: Option<f32>, test_time: TestTime) -> SessionSettings {
        let mut settings = self.segmenter.settings().clone();
        if let Some(threshold) = threshold.or(self.segmenter.default_threshold()) {
            settings.inference.threshold = (threshold > 0.0).then_some(threshold);
        }
        settings.test_time = test_time;
        settings
    }

    /// Returns the class embeddings of a list, encoded now or lately.
    ///
    /// # Errors
    /// Returns the errors of [`Segmenter::encode_classes_unless`].
    pub(crate) fn encode_classes(
        &self,
        classes: &[ClassQuery],
        stop: &AtomicBool,
    ) -> anyhow::Result<Arc<EncodedClasses>> {
        if let Some(found) = self.take_kept(classes) {
            return Ok(found);
        }
        // Encoded without the lock: another request with the same new list encodes it, too, which only costs time.
        let encoded = Arc::new(self.segmenter.encode_classes_unless(classes, stop)?);
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.push_front(Arc::clone(&encoded));
        keep_newest(&mut lists, MOST_LISTS);
        Ok(encoded)
    }

    /// Returns a kept list, which becomes the newest.
    fn take_kept(&self, classes: &[ClassQuery]) -> Option<Arc<EncodedClasses>> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let place = lists.iter().position(|list| list.classes() == classes)?;
        let found = lists.remove(place)?;
        lists.push_front(Arc::clone(&found));
        Some(found)
    }
}

/// Forgets all lists but the newest ones that have this many bytes together.
fn keep_newest(lists: &mut VecDeque<Arc<EncodedClasses>>, most: usize) {
    let mut bytes = 0_usize;
    lists.retain(|list| {
        bytes = bytes.saturating_add(list.bytes());
        bytes <= most
    });
}

impl Models {
    /// Creates the list of models, the default first.
    ///
    /// # Errors
    /// Returns an error if there is no model, or two have the same name.
    pub fn new(models: Vec<ServedModel>) -> Result<Self, ModelsError> {
        if models.is_empty() {
            return Err(ModelsError::None);
        }
        for (number, model) in models.iter().enumerate() {
            let mut others = models.iter().skip(number + 1);
            if others.any(|other| other.name == model.name) {
                return Err(ModelsError::SameName(model.name.clone()));
            }
        }
        Ok(Self {
            models: models.into_iter().map(Arc::new).collect(),
        })
    }

    /// Returns the models, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ServedModel>> {
        self.models.iter()
    }

    /// Returns the model of a name, or the default.
    ///
    /// # Errors
    /// Returns a problem if there is no model of the name.
    pub fn get(&self, name: Option<&str>) -> Result<&Arc<ServedModel>, Problem> {
        let mut models = self.models.iter();
        let found = match name {
            None => models.next(),
            Some(name) => models.find(|model| model.name == name),
        };
        found.ok_or_else(|| {
            let name = name.unwrap_or_default();
            let names: Vec<&str> = self.models.iter().map(|model| model.name()).collect();
            let like = did_you_mean(name, names.iter().copied());
            let shown: String = name.chars().take(80).collect();
            Problem::new(
                Code::UnknownModel,
                format!("there is no model {shown:?}{like}"),
            )
            .with_hint(format!("this server has {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A few classes may have as many bytes of names as a request may.
    #[test]
    fn kept_lists_are_bounded_by_their_bytes() {
        let segmenter = Segmenter::load(Path::new("mini")).unwrap();
        let list = |name: &str, synonyms: usize| {
            // MiniCLIP knows few words.
            let words = [
                "blue", "cyan", "disc", "heart", "plain", "ring", "square", "star",
            ];
            let each = words.iter().flat_map(|a| words.map(|b| (a, b)));
            let synonyms = each.map(|(a, b)| format!("{name} {a} {b}")).take(synonyms);
            let class = ClassQuery {
                synonyms: synonyms.collect(),
                ..ClassQuery::new(name)
            };
            let other = ClassQuery::new("plain blue");
            Arc::new(segmenter.encode_classes(&[class, other]).unwrap())
        };
        let (short, long) = (list("red", 0), list("striped red", 60));
        assert!(long.bytes() > short.bytes() + 60 * "striped red blue blue".len());
        let mut lists = VecDeque::from([Arc::clone(&short), long, Arc::clone(&short)]);
        keep_newest(&mut lists, 4 * short.bytes());
        assert_eq!(lists.len(), 1);
        keep_newest(&mut lists, 0);
        assert!(lists.is_empty());
    }
}
