//! How the tensors of files become those of a state dict: pieces joined, matrices transposed, compact values read.

use std::collections::BTreeMap;

use half::f16;
use safetensors::Dtype;

use super::{Entry, Piece};
use crate::{
    WeightsError, container::StoredTensor, convert, key_table::StoredLayout, source::Source,
};

/// Suffix of the name of a compact matrix's row scales.
pub(super) const SCALE_SUFFIX: &str = ".scale";

/// Matrices that the reference applies as `x @ M` and stores as `[in, out]`. The rows of a compact matrix are output
/// channels, so the compact form of these is transposed.
const COMPACT_TRANSPOSED: [&str; 3] = ["visual.proj", "backbone.proj", "text_projection"];

/// Returns the row scales of a compact matrix, which must be in the same file.
pub(super) fn scale_of<'t>(
    tensors: &'t BTreeMap<String, (usize, StoredTensor)>,
    matrix: &str,
) -> Option<&'t StoredTensor> {
    let (file, stored) = tensors.get(matrix)?;
    let (beside, scale) = tensors.get(&format!("{matrix}{SCALE_SUFFIX}"))?;
    (stored.dtype == Dtype::I8 && file == beside).then_some(scale)
}

pub(super) fn is_integer(dtype: Dtype) -> bool {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(dtype, BOOL | U8 | I8 | I16 | U16 | I32 | U32 | I64 | U64)
}

/// Combines pieces to one tensor, or returns `None` if their shapes do not fit together.
pub(super) fn entry(pieces: Vec<Piece>, layout: StoredLayout) -> Option<Entry> {
    let first = pieces.first()?;
    let mut shape = first.stored.shape.clone();
    let mut transposed = layout == StoredLayout::Transposed;
    if let [piece] = pieces.as_slice() {
        transposed ^= piece.scale.is_some() && COMPACT_TRANSPOSED.contains(&piece.name.as_str());
    } else {
        let rest = shape.get(1..)?;
        if pieces
            .iter()
            .any(|piece| piece.stored.shape.get(1..) != Some(rest))
        {
            return None;
        }
        let rows = pieces.iter().try_fold(0_usize, |sum, piece| {
            sum.checked_add(*piece.stored.shape.first()?)
        })?;
        *shape.first_mut()? = rows;
    }
    if transposed {
        if shape.len() != 2 {
            return None;
        }
        shape.reverse();
    }
    Some(Entry {
        pieces,
        transposed,
        shape,
    })
}

/// Reads the values of a compact matrix, in the stored order.
pub(super) fn compact_values(
    source: &Source,
    piece: &Piece,
    scale: &StoredTensor,
) -> Result<Vec<f32>, WeightsError> {
    let format = |reason: String| WeightsError::Format {
        path: source.path().to_owned(),
        reason,
    };
    let (name, shape) = (&piece.name, &piece.stored.shape);
    let [rows, columns] = shape[..] else {
        return Err(format(format!(
            "compact tensor {name:?} has shape {shape:?}; it must be a matrix"
        )));
    };
    if scale.dtype != Dtype::F32 || scale.shape != [rows] {
        return Err(format(format!(
            "tensor {:?} is {:?} {:?}, expected F32 [{rows}]",
            format!("{name}{SCALE_SUFFIX}"),
            scale.dtype,
            scale.shape
        )));
    }
    let scales = convert::values(source, name, scale)?;
    let bytes = convert::bytes(source, &piece.stored)?.ok_or_else(|| {
        format(format!(
            "compact tensor {name:?} must be stored contiguously"
        ))
    })?;
    Ok(bytes
        .chunks_exact(columns.max(1))
        .zip(&scales)
        .flat_map(|(row, &scale)| {
            row.iter()
                .map(move |&byte| f16::from_f32(f32::from(byte.cast_signed()) * scale).to_f32())
        })
        .collect()) // [rows, columns]
}
