//! Compares tensors with reference numbers.
#![allow(clippy::unwrap_used)] // a fixture may end a test

use burn::tensor::Tensor;
use zeg_model::weights::StateDict;

/// Largest allowed deviation, in units of the reference's root mean square.
const LIMIT: f32 = 3e-5;

/// Compares with the tensor `name` of a golden file; messages name the computed tensor `of`.
pub(crate) fn assert_close<const D: usize>(
    found: Tensor<D>,
    golden: &StateDict,
    name: &str,
    of: &str,
) {
    let reference = golden.read(name).unwrap().unwrap();
    assert_eq!(found.dims().to_vec(), reference.shape, "{of}: {name}");
    let found: Vec<f32> = found.into_data().try_to_vec().unwrap();
    let squares: f32 = reference.values.iter().map(|v| v * v).sum();
    let rms = (squares / reference.values.len() as f32).sqrt();
    let worst = found
        .iter()
        .zip(&reference.values)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    println!("{of}: {name}: {:.1e} of RMS", worst / rms);
    assert!(worst <= LIMIT * rms, "{of}: {name}: {} of RMS", worst / rms);
}
