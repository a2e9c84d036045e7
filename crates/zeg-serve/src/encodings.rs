//! The encoded images that the server keeps: within a bound of memory, the least lately used are forgotten first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use zeg::{model::inference::TestTime, session::EncodedImage};
use zeg_base::{hex, memory::amount};

use crate::{
    models::ServedModel,
    problem::{Code, Problem},
};

/// An encoded image.
#[derive(Debug)]
pub(crate) struct StoredEncoding {
    pub(crate) id: String,
    pub(crate) model: Arc<ServedModel>,
    pub(crate) encoded: EncodedImage,
    /// The augmentation that it was encoded with.
    pub(crate) test_time: TestTime,
    /// The file as it was sent, from which overlays are drawn.
    pub(crate) upload: Bytes,
    pub(crate) image_name: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Memory that all of it takes.
    pub(crate) bytes: u64,
}

/// The encoded images by their ids.
#[derive(Debug)]
pub(crate) struct Encodings {
    limit: u64,
    time: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<String, Entry>,
    bytes: u64,
    /// Number of uses so far, which orders the entries.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    stored: Arc<StoredEncoding>,
    last_use: u64,
    used: Instant,
}

/// Number and memory of the encoded images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
    pub(crate) limit: u64,
}

impl Kept {
    fn remove(&mut self, id: &str) -> Option<Arc<StoredEncoding>> {
        let entry = self.entries.remove(id)?;
        self.bytes = self.bytes.saturating_sub(entry.stored.bytes);
        Some(entry.stored)
    }

    /// Removes what was not used for a time; the removed are dropped by the caller, without the lock.
    fn forget_old(&mut self, time: Duration) -> Vec<Arc<StoredEncoding>> {
        let old =
            |(id, entry): (&String, &Entry)| (entry.used.elapsed() >= time).then(|| id.clone());
        let old: Vec<String> = self.entries.iter().filter_map(old).collect();
        old.iter().filter_map(|id| self.remove(id)).collect()
    }

    fn oldest(&self) -> Option<String> {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use);
        oldest.map(|(id, _)| id.clone())
    }
}

impl Encodings {
    /// - `limit`: most bytes of all encodings
    /// - `time`: time after its last use when an encoding is forgotten
    pub(crate) fn new(limit: u64, time: Duration) -> Self {
        Self {
            limit,
            time,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time after its last use when an encoding is forgotten.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    /// Keeps an encoding; the least lately used ones make room.
    ///
    /// # Errors
    /// Returns a problem if it alone needs more memory than all may.
    pub(crate) fn insert(&self, stored: StoredEncoding) -> Result<Arc<StoredEncoding>, Problem> {
        if stored.bytes > self.limit {
            return Err(Problem::new(
                Code::EncodingTooLarge,
                format!(
                    "the encoded image takes {}; encodings may take {} together",
                    amount(stored.bytes),
                    amount(self.limit)
                ),
            )
            .with_hint("send a smaller image, or start the server with a larger --cache-memory"));
        }
        let stored = Arc::new(stored);
        let mut kept = self.kept();
        let mut forgotten = kept.forget_old(self.time);
        while kept.bytes + stored.bytes > self.limit {
            let Some(oldest) = kept.oldest() else { break };
            forgotten.extend(kept.remove(&oldest));
        }
        kept.uses += 1;
        kept.bytes += stored.bytes;
        let entry = Entry {
            stored: Arc::clone(&stored),
            last_use: kept.uses,
            used: Instant::now(),
        };
        kept.entries.insert(stored.id.clone(), entry);
        drop(kept);
        drop(forgotten);
        Ok(stored)
    }

    /// Returns an encoding and renews its time.
    ///
    /// # Errors
    /// Returns a problem if there is none of this id.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<StoredEncoding>, Problem> {
        let mut kept = self.kept();
        let forgotten = kept.forget_old(self.time);
        kept.uses += 1;
        let uses = kept.uses;
        let found = kept.entries.get_mut(id).map(|entry| {
            entry.last_use = uses;
            entry.used = Instant::now();
            Arc::clone(&entry.stored)
        });
        drop(kept);
        drop(forgotten);
        found.ok_or_else(|| unknown(id))
    }

    /// Forgets an encoding.
    ///
    /// # Errors
    /// Returns a problem if there is none of this id.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Problem> {
        let removed = self.kept().remove(id);
        removed.map(drop).ok_or_else(|| unknown(id))
    }

    /// Returns number and memory of the encodings, without those whose time is over.
    pub(crate) fn usage(&self) -> Usage {
        let mut kept = self.kept();
        let forgotten = kept.forget_old(self.time);
        let usage = Usage {
            count: kept.entries.len(),
            bytes: kept.bytes,
            limit: self.limit,
        };
        drop(kept);
        drop(forgotten);
        usage
    }
}

fn unknown(id: &str) -> Problem {
    let shown: String = id.chars().take(40).collect();
    Problem::new(
        Code::UnknownEncoding,
        format!("there is no encoded image {shown:?}"),
    )
    .with_hint("send the image to POST /v1/encodings again; it is forgotten after a while, or when memory is needed")
}

/// Returns a new id, which nobody can guess: 32 hexadecimal digits.
///
/// # Errors
/// Returns a problem if the system has no random numbers.
pub(crate) fn new_id() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::internal(format_args!("random numbers: {error}")))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use zeg::{Segmenter, image::RgbImage};

    use super::*;

    fn stored(model: &Arc<ServedModel>, bytes: u64) -> StoredEncoding {
        let image = RgbImage::new(64, 64);
        StoredEncoding {
            id: new_id().unwrap(),
            model: Arc::clone(model),
            encoded: model.segmenter().encode(&image).unwrap(),
            test_time: TestTime::default(),
            upload: Bytes::new(),
            image_name: "a.png".into(),
            width: 64,
            height: 64,
            bytes,
        }
    }

    #[test]
    fn the_least_lately_used_make_room_and_the_bound_holds() {
        let model = Segmenter::load(Path::new("mini")).unwrap();
        let model = Arc::new(ServedModel::new("mini", model));
        let encoded = model.segmenter().encode(&RgbImage::new(64, 64)).unwrap();
        let own = model.segmenter().model().model.as_ref();
        assert!(encoded.bytes(own).unwrap() > 1000);

        let encodings = Encodings::new(100, Duration::from_mins(1));
        let add = |bytes| encodings.insert(stored(&model, bytes)).unwrap().id.clone();
        let (first, second) = (add(40), add(40));
        encodings.get(&first).unwrap();
        let third = add(60);
        assert!(encodings.get(&second).is_err());
        assert!(encodings.get(&first).is_ok() && encodings.get(&third).is_ok());
        assert_eq!(encodings.usage().bytes, 100);
        let problem = encodings.insert(stored(&model, 101)).unwrap_err();
        assert_eq!(problem.code(), Code::EncodingTooLarge);
        encodings.remove(&first).unwrap();
        assert!(encodings.remove(&first).is_err());
        assert_eq!(encodings.usage().count, 1);
    }

    #[test]
    fn an_encoding_is_forgotten_after_its_time() {
        let model = Segmenter::load(Path::new("mini")).unwrap();
        let model = Arc::new(ServedModel::new("mini", model));
        let encodings = Encodings::new(100, Duration::ZERO);
        let id = encodings.insert(stored(&model, 10)).unwrap().id.clone();
        assert!(encodings.get(&id).is_err());
        assert_eq!(encodings.usage().count, 0);
    }
}
