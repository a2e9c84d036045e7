//! Compares the scores of classes with example images with an independent NumPy computation.
//!
//! Golden file: `python reference/example_classes.py` (float64, on random patches).

#![allow(clippy::unwrap_used)] // helper functions of a test

mod common;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use common::assert_close;
use zeg_model::{
    examples::{ClassExamples, ExampleFeatures, ExampleOptions, ExampleScores},
    weights::StateDict,
};

fn golden() -> StateDict {
    let path = "tests/golden/example_classes.safetensors";
    StateDict::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &[]).unwrap()
}

fn values(golden: &StateDict, name: &str) -> Vec<f32> {
    golden.read(name).unwrap().unwrap().values
}

fn tensor<const D: usize>(golden: &StateDict, name: &str) -> Tensor<D> {
    let host = golden.read(name).unwrap().unwrap();
    Tensor::from_data(TensorData::new(host.values, host.shape), &Device::flex())
}

/// Returns the examples of every class of the golden file.
fn examples(golden: &StateDict, classes: usize, dim: usize) -> Vec<Vec<ExampleFeatures>> {
    let of_class = |class: usize| {
        let key = |index: usize, place: &str| format!("class{class}.example{index}.{place}");
        let count =
            (0..).take_while(|&index| golden.keys().any(|name| name == key(index, "inside")));
        count
            .map(|index| {
                let rows = |place: &str| {
                    let read = golden.read(&key(index, place)).unwrap();
                    read.map_or_else(Vec::new, |host| host.values)
                };
                ExampleFeatures::new(dim, rows("inside"), rows("outside"))
            })
            .collect()
    };
    (0..classes).map(of_class).collect()
}

#[test]
fn scores_are_those_of_the_reference() {
    let golden = golden();
    let text: Tensor<2> = tensor(&golden, "text");
    let [count, dim] = text.dims();
    let examples = examples(&golden, count, dim);
    assert_eq!(
        examples.iter().map(Vec::len).collect::<Vec<_>>(),
        [2, 0, 1, 1, 3]
    );
    let named = values(&golden, "named");
    let classes: Vec<ClassExamples> = named
        .iter()
        .zip(&examples)
        .map(|(&named, examples)| ClassExamples {
            is_named: named > 0.5,
            examples,
        })
        .collect();
    let patches: Tensor<2> = tensor(&golden, "patches");
    for (name, options) in [("usual", [0.1, 1.0, 0.5]), ("other", [0.4, 0.25, 0.2])] {
        let [weight, shrinkage, outside] = options;
        let options = ExampleOptions {
            weight: 2.0 * weight as f32,
            mixed_weight: weight as f32, // the second class has no examples
            shrinkage,
            outside,
        };
        let fitted = ExampleScores::fit(&text, &classes, options).unwrap();
        let part = |part: &str| format!("{name}.{part}");
        assert_close(
            fitted.patch_rows.clone(),
            &golden,
            &part("patch_rows"),
            name,
        );
        assert_close(fitted.image_rows, &golden, "image_rows", name);
        assert_close::<1>(
            fitted.bias.clone().reshape([count]),
            &golden,
            &part("bias"),
            name,
        );
        let scores = patches.clone().matmul(fitted.patch_rows.transpose());
        let scores = scores + fitted.bias.reshape([1, count]);
        assert_close(scores, &golden, &part("scores"), name);
    }
}

#[test]
fn a_class_needs_a_name_or_an_example() {
    let text = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &Device::flex());
    let fit = |second: ClassExamples| {
        let first = ClassExamples {
            is_named: true,
            examples: &[],
        };
        ExampleScores::fit(&text, &[first, second], ExampleOptions::default())
    };
    let nothing = ClassExamples {
        is_named: false,
        examples: &[],
    };
    let error = fit(nothing).unwrap_err().to_string();
    assert!(
        error.contains("class 1") && error.contains("neither"),
        "{error}"
    );
    let wide = [ExampleFeatures::new(3, vec![1.0, 0.0, 0.0], Vec::new())];
    let error = fit(ClassExamples {
        is_named: true,
        examples: &wide,
    })
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("3 channels") && error.contains("have 2"),
        "{error}"
    );
}
