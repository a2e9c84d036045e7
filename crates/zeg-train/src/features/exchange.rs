//! Sends encoded augmented copies between ranks.

use std::sync::Arc;

use half::f16;
use zeg_base::ranks::Ranks;

use super::AugmentedCopy;
use crate::{TrainError, batch::Features};

/// Number of bytes after which a message is long enough.
const ENOUGH: usize = 32 << 20;

/// Sends the copies of every rank to all ranks; returns those of each, in their order.
///
/// # Errors
/// Returns an error if another rank has failed or does not answer.
pub(super) fn gather_copies(
    ranks: &Ranks,
    own: &[AugmentedCopy],
) -> Result<Vec<Vec<AugmentedCopy>>, TrainError> {
    let mut all: Vec<Vec<AugmentedCopy>> = vec![Vec::new(); ranks.size()];
    let mut own = own.iter();
    loop {
        let mut message = Vec::new();
        while message.len() < ENOUGH
            && let Some(copy) = own.next()
        {
            write(copy, &mut message);
        }
        let messages = ranks.gather("encoded augmented copies", &message)?;
        if messages.iter().all(Vec::is_empty) {
            return Ok(all);
        }
        for (copies, message) in all.iter_mut().zip(&messages) {
            let mut rest = &message[..];
            while !rest.is_empty() {
                let copy = read(&mut rest);
                copies.push(copy.ok_or_else(|| {
                    TrainError::Backend("an encoded copy was cut off on its way".into())
                })?);
            }
        }
    }
}

fn write(copy: &AugmentedCopy, message: &mut Vec<u8>) {
    let Features {
        patches,
        global,
        grid,
    } = &*copy.features;
    let lengths = [
        copy.id.len(),
        copy.labels.len(),
        patches.len(),
        global.len(),
        grid[0],
        grid[1],
    ];
    message.extend(lengths.iter().flat_map(|n| (*n as u64).to_le_bytes()));
    message.extend(copy.id.as_bytes());
    message.extend(copy.labels.iter().flat_map(|label| label.to_le_bytes()));
    message.extend(patches.iter().flat_map(|value| value.to_le_bytes()));
    message.extend(global.iter().flat_map(|value| value.to_le_bytes()));
}

fn read(rest: &mut &[u8]) -> Option<AugmentedCopy> {
    let mut lengths = [0; 6];
    for length in &mut lengths {
        let (number, others) = rest.split_first_chunk::<8>()?;
        *length = usize::try_from(u64::from_le_bytes(*number)).ok()?;
        *rest = others;
    }
    let [id, labels, patches, global, rows, columns] = lengths;
    let id = take(rest, id)?;
    let labels = words(take(rest, labels.checked_mul(2)?)?);
    let patches = words(take(rest, patches.checked_mul(2)?)?);
    let global = words(take(rest, global.checked_mul(2)?)?);
    let halves = |words: Vec<u16>| words.into_iter().map(f16::from_bits).collect();
    let features = Features {
        patches: halves(patches),
        global: halves(global),
        grid: [rows, columns],
    };
    Some(AugmentedCopy {
        features: Arc::new(features),
        labels,
        id: String::from_utf8(id.to_vec()).ok()?,
    })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, others) = rest.split_at_checked(length)?;
    *rest = others;
    Some(taken)
}

fn words(bytes: &[u8]) -> Vec<u16> {
    let pairs = bytes.as_chunks::<2>().0.iter();
    pairs.map(|pair| u16::from_le_bytes(*pair)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zeg_base::ranks::threads;

    use super::*;

    #[test]
    fn all_ranks_get_the_copies_of_each() {
        let copy = |number: u16| AugmentedCopy {
            features: Arc::new(Features {
                patches: (0..8).map(|v| f16::from_bits(v + number)).collect(),
                global: vec![f16::from_f32(-1.5), f16::NAN],
                grid: [2, 4],
            }),
            labels: vec![number, u16::MAX],
            id: format!("image-{number}"),
        };
        let results = threads::run(3, Duration::from_secs(20), |ranks| {
            let own: Vec<_> = (0..ranks.rank() as u16).map(copy).collect();
            gather_copies(&ranks, &own).map_err(|error| error.to_string())
        });
        for result in results {
            let all = result.unwrap().unwrap();
            let counts: Vec<usize> = all.iter().map(Vec::len).collect();
            assert_eq!(counts, [0, 1, 2]);
            for (found, number) in all[2].iter().zip(0..) {
                assert_eq!(format!("{found:?}"), format!("{:?}", copy(number)));
            }
        }
    }
}
