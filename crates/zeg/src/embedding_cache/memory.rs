//! Class embeddings in memory, within a bound.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Digests of the prompt templates and of the class's names.
type Key = [String; 2];

/// Bytes of an entry beside its numbers: two digests of 64 digits, in the map and in the order, and the entries there.
const ENTRY: usize = 512;

/// The embeddings that were stored last.
#[derive(Debug)]
pub(super) struct MemoryCache {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    embeddings: HashMap<Key, Vec<f32>>,
    /// The keys, the one that was stored first in front.
    order: VecDeque<Key>,
    bytes: usize,
}

impl MemoryCache {
    /// - `most`: most bytes of all entries
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Vec<f32>> {
        self.kept().embeddings.get(key).cloned()
    }

    pub(super) fn put(&self, key: Key, embedding: &[f32]) {
        let mut kept = self.kept();
        // Another thread may have encoded the same class meanwhile, to the same numbers.
        if kept.embeddings.contains_key(&key) {
            return;
        }
        kept.bytes += bytes(embedding);
        kept.order.push_back(key.clone());
        kept.embeddings.insert(key, embedding.to_vec());
        while kept.bytes > self.most
            && let Some(oldest) = kept.order.pop_front()
        {
            let removed = kept.embeddings.remove(&oldest);
            kept.bytes = kept
                .bytes
                .saturating_sub(removed.as_deref().map_or(0, bytes));
        }
    }
}

fn bytes(embedding: &[f32]) -> usize {
    ENTRY + size_of_val(embedding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_the_oldest_make_room() {
        let key = |number: usize| [String::new(), number.to_string()];
        let cache = MemoryCache::new(10 * (ENTRY + 16));
        for number in 0..100 {
            cache.put(key(number), &[number as f32; 4]);
            cache.put(key(number), &[number as f32; 4]);
            assert!(cache.kept().bytes <= cache.most);
        }
        assert_eq!(cache.kept().order.len(), 10);
        assert_eq!(cache.get(&key(89)), None);
        assert_eq!(cache.get(&key(90)), Some(vec![90.0; 4]));
        cache.put(key(200), &vec![0.0; cache.most]);
        assert_eq!(cache.kept().bytes, 0);
    }
}
