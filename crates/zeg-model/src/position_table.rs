//! The position table of an image encoder, read for the grid that a configuration asks for.

use burn::{module::Param, tensor::Tensor};

use crate::{
    ModelError,
    config::VisionConfig,
    resize::bilinear_grid,
    weights::{HostTensor, Init, ParamBuilder},
};

/// Reads the position table; a table of another grid than the configuration's is resized.
pub(crate) fn position_table(
    params: &ParamBuilder,
    config: &VisionConfig,
) -> Result<Param<Tensor<2>>, ModelError> {
    const NAME: &str = "positional_embedding";
    let (grid, width) = (config.grid(), config.width);
    let shape = [1 + grid * grid, width];
    let key = params.key(NAME);
    match params.weights().shape(&key) {
        Some(stored) if stored.len() == 2 && stored[1] == width && stored[0] != shape[0] => {
            let side = stored[0].saturating_sub(1).isqrt();
            if side == 0 || side * side + 1 != stored[0] {
                return Err(ModelError::TensorShape {
                    key,
                    found: stored,
                    expected: shape.to_vec(),
                    origin: params.weights().origin(),
                });
            }
            let table = params.weights().read(&key)?.unwrap_or(HostTensor {
                shape: vec![0, width],
                values: vec![],
            });
            params.given(NAME, shape, resize_positions(&table, grid))
        }
        _ => params.param(NAME, shape, Init::Required),
    }
}

/// Resizes the patch rows of a position table `[1 + s·s, width]` to a grid of `side`: `[1 + side·side, width]`.
///
/// The resize is bilinear with half-pixel centres; the first row, the class token's, is copied.
pub fn resize_positions(table: &HostTensor, side: usize) -> HostTensor {
    let width = table.shape[1];
    let stored = (table.shape[0] - 1).isqrt();
    let (class, patches) = table.values.split_at(width);
    let patches = HostTensor {
        shape: vec![stored * stored, width],
        values: patches.to_vec(),
    };
    let resized = bilinear_grid(&patches, [stored, stored], [side, side]);
    HostTensor {
        shape: vec![1 + side * side, width],
        values: [class, &resized.values].concat(),
    }
}
