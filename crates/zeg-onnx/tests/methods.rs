//! Every method has graphs, or stands in a list of those without.
#![allow(clippy::unwrap_used)] // in tests

use zeg_model::{method::Method, methods::Methods};
use zeg_onnx::methods::by_name;

/// Methods whose models have no graph yet; an export of them is an error that names those with one.
const WITHOUT: [&str; 2] = ["zsseg", "maskclip-plus"];

#[test]
fn every_method_has_graphs_or_is_listed_as_one_without() {
    for method in Methods::default().iter().map(Method::name) {
        match by_name(method) {
            Ok(graphs) => {
                assert!(graphs.methods().contains(&method));
                assert!(!WITHOUT.contains(&method), "{method}");
            }
            Err(error) => {
                assert!(WITHOUT.contains(&method), "{error}");
                assert!(error.to_string().contains("zegclip"), "{error}");
            }
        }
    }
}
