//! Builds a graph: nodes under the names of the model's parts, parameters, constants and shapes.
//!
//! Every function that adds a node returns its output with its shape. The first fault is kept, and ends the export in
//! [`Graph::finish`]; what is added after it has no meaning.

use std::collections::HashMap;

use half::f16;

use crate::{
    OnnxError,
    params::{Parameter, ParameterSet},
    proto::{AttributeProto, NodeProto, ValueInfoProto, attribute_type},
    value::{Dim, Kind, Value},
};

/// Part of the names of the matrices that are stored in 8 bits: those of the towers' blocks, where nearly all the work is.
/// Everything else decides between classes whose scores are close.
const QUANTIZED: &str = "resblocks.";

/// The number format of parameters and of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats
    #[default]
    F32,
    /// 16-bit floats; inputs and outputs stay 32-bit floats
    F16,
    /// Matrices as 8-bit integers with a scale for every output (QDQ); the computation uses 32-bit floats
    Int8Qdq,
}

/// The values of a tensor that the file holds.
#[derive(Debug, Clone)]
pub struct Initializer {
    /// Name, kind and shape.
    pub value: Value,
    /// Values in little-endian order.
    pub bytes: Vec<u8>,
}

/// A finished graph.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The nodes, in an order in which they can be computed.
    pub nodes: Vec<NodeProto>,
    /// Parameters and constants.
    pub initializers: Vec<Initializer>,
    /// Inputs with their descriptions.
    pub inputs: Vec<(Value, String)>,
    /// Outputs with their descriptions.
    pub outputs: Vec<(Value, String)>,
    /// Shapes of the values between inputs and outputs.
    pub shapes: Vec<ValueInfoProto>,
}

/// A graph in the making.
#[derive(Debug)]
pub struct Graph<'a> {
    params: &'a ParameterSet,
    opset: i64,
    precision: Precision,
    scopes: Vec<String>,
    names: HashMap<String, usize>,
    nodes: Vec<NodeProto>,
    initializers: Vec<Initializer>,
    /// Parameters and constants that were added, by what they hold.
    known: HashMap<Content, Value>,
    /// The numbers of integer constants, by name.
    integers: HashMap<String, Vec<i64>>,
    inputs: Vec<(Value, String)>,
    outputs: Vec<(Value, String)>,
    shapes: Vec<ValueInfoProto>,
    failure: Option<OnnxError>,
}

/// What an initializer holds: a parameter in some form, or constant values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Content {
    Parameter(String),
    Constant(Kind, Vec<usize>, Vec<u8>),
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub(crate) enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, Vec<i64>),
    Float(&'a str, f32),
    Text(&'a str, &'a str),
}

impl Attribute<'_> {
    fn proto(self) -> AttributeProto {
        let empty = AttributeProto::default();
        let named = |name: &str, kind| AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(kind),
            ..empty.clone()
        };
        match self {
            Self::Int(name, i) => AttributeProto {
                i: Some(i),
                ..named(name, attribute_type::INT)
            },
            Self::Ints(name, ints) => AttributeProto {
                ints,
                ..named(name, attribute_type::INTS)
            },
            Self::Float(name, f) => AttributeProto {
                f: Some(f),
                ..named(name, attribute_type::FLOAT)
            },
            Self::Text(name, text) => AttributeProto {
                s: Some(text.as_bytes().to_vec()),
                ..named(name, attribute_type::STRING)
            },
        }
    }
}

impl<'a> Graph<'a> {
    /// Returns an empty graph.
    ///
    /// - `opset`: version of ONNX's operators
    pub fn new(params: &'a ParameterSet, opset: i64, precision: Precision) -> Self {
        Self {
            params,
            opset,
            precision,
            scopes: Vec::new(),
            names: HashMap::new(),
            nodes: Vec::new(),
            initializers: Vec::new(),
            known: HashMap::new(),
            integers: HashMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            shapes: Vec::new(),
            failure: None,
        }
    }

    /// Returns the version of ONNX's operators.
    pub(crate) fn opset(&self) -> i64 {
        self.opset
    }

    /// Returns the kind of floats that the model computes with.
    pub(crate) fn float(&self) -> Kind {
        match self.precision {
            Precision::F16 => Kind::Half,
            Precision::F32 | Precision::Int8Qdq => Kind::Float,
        }
    }

    /// Ends the graph.
    ///
    /// # Errors
    /// Returns the first fault of its making.
    pub fn finish(self) -> Result<Finished, OnnxError> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(Finished {
                nodes: self.nodes,
                initializers: self.initializers,
                inputs: self.inputs,
                outputs: self.outputs,
                shapes: self.shapes,
            }),
        }
    }

    /// Keeps a fault, if it is the first.
    pub(crate) fn fail(&mut self, error: OnnxError) {
        self.failure.get_or_insert(error);
    }

    /// Adds nodes under the name of a part of the model.
    pub fn scope<T>(&mut self, name: impl Into<String>, build: impl FnOnce(&mut Self) -> T) -> T {
        self.scopes.push(name.into());
        let built = build(self);
        self.scopes.pop();
        built
    }

    /// Returns a name that no other node has.
    fn unique(&mut self, last: &str) -> String {
        let mut name = self.scopes.join("/");
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(last);
        let count = self.names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            name = format!("{name}_{}", *count - 1);
        }
        name
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, kind: Kind, shape: Vec<Dim>, about: &str) -> Value {
        let value = Value {
            name: name.to_owned(),
            kind,
            shape,
        };
        self.inputs.push((value.clone(), about.to_owned()));
        value
    }

    /// Makes a value an output of the graph, under a name of its own.
    pub fn output(&mut self, name: &str, value: &Value, about: &str) {
        let node = NodeProto {
            input: vec![value.name.clone()],
            output: vec![name.to_owned()],
            name: Some(format!("output/{name}")),
            op_type: Some("Identity".to_owned()),
            attribute: Vec::new(),
        };
        self.nodes.push(node);
        let value = Value {
            name: name.to_owned(),
            ..value.clone()
        };
        self.outputs.push((value, about.to_owned()));
    }

    /// Adds a node with one output.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
        kind: Kind,
        shape: Vec<Dim>,
    ) -> Value {
        let outputs = vec![(kind, shape)];
        let mut found = self.node_of_several(operator, inputs, attributes, outputs);
        found.swap_remove(0)
    }

    /// Adds a node with some outputs.
    pub(crate) fn node_of_several(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
        outputs: Vec<(Kind, Vec<Dim>)>,
    ) -> Vec<Value> {
        let name = self.unique(operator);
        let several = outputs.len() > 1;
        let values: Vec<Value> = outputs
            .into_iter()
            .enumerate()
            .map(|(index, (kind, shape))| Value {
                name: if several {
                    format!("{name}:{index}")
                } else {
                    name.clone()
                },
                kind,
                shape,
            })
            .collect();
        self.shapes
            .extend(values.iter().map(|value| value.proto(None)));
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|value| value.name.clone()).collect(),
            output: values.iter().map(|value| value.name.clone()).collect(),
            name: Some(name),
            op_type: Some(operator.to_owned()),
            attribute: attributes.into_iter().map(Attribute::proto).collect(),
        });
        values
    }

    /// Keeps a fault in the shapes of a node's inputs.
    pub(crate) fn misfit(&mut self, operator: &str, inputs: &[&Value]) {
        let shape = |value: &&Value| {
            let dims: Vec<String> = value.shape.iter().map(ToString::to_string).collect();
            format!("[{}]", dims.join(", "))
        };
        let shapes: Vec<String> = inputs.iter().map(shape).collect();
        let node = format!("{}/{operator}", self.scopes.join("/"));
        self.fail(OnnxError::Graph {
            node,
            reason: format!("the shapes {} do not fit", shapes.join(" and ")),
        });
    }

    /// Returns whether the model has a parameter of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.params.contains(name)
    }

    /// Returns a copy of a parameter's values; an empty one, and a fault, if there is none.
    pub(crate) fn values(&mut self, name: &str) -> Parameter {
        match self.params.get(name) {
            Ok(parameter) => parameter.clone(),
            Err(error) => {
                self.fail(error);
                Parameter {
                    shape: vec![0, 0],
                    values: Vec::new(),
                }
            }
        }
    }

    /// Adds a parameter as it is.
    pub(crate) fn param(&mut self, name: &str) -> Value {
        self.param_as(name, |parameter| parameter)
    }

    /// Adds a parameter in another form; `name` names the result, and what comes before `@` in it is the parameter.
    pub(crate) fn param_as(
        &mut self,
        name: &str,
        form: impl FnOnce(Parameter) -> Parameter,
    ) -> Value {
        let content = Content::Parameter(name.to_owned());
        if let Some(value) = self.known.get(&content) {
            return value.clone();
        }
        let source = name.split('@').next().unwrap_or(name);
        let parameter = form(self.values(source));
        let value = self.floats(name, &parameter, self.float());
        self.known.insert(content, value.clone());
        value
    }

    /// Adds a matrix `[out, in]` as a factor at the right, `[in, out]`; in 8 bits, each column has a scale of its own.
    pub(crate) fn factor(
        &mut self,
        name: &str,
        form: impl FnOnce(Parameter) -> Parameter,
    ) -> Value {
        let content = Content::Parameter(name.to_owned());
        if let Some(value) = self.known.get(&content) {
            return value.clone();
        }
        let source = name.split('@').next().unwrap_or(name);
        let matrix = form(self.values(source)).transposed();
        let value = if self.precision == Precision::Int8Qdq && name.contains(QUANTIZED) {
            self.quantized(name, &matrix)
        } else {
            self.floats(name, &matrix, self.float())
        };
        self.known.insert(content, value.clone());
        value
    }

    /// Adds a matrix `[in, out]` in 8 bits and the node that turns it into floats.
    fn quantized(&mut self, name: &str, matrix: &Parameter) -> Value {
        let columns = matrix.shape.get(1).copied().unwrap_or(1).max(1);
        let mut most = vec![0.0_f32; columns];
        for row in matrix.values.chunks_exact(columns) {
            for (most, value) in most.iter_mut().zip(row) {
                *most = most.max(value.abs());
            }
        }
        let scales: Vec<f32> = most
            .into_iter()
            .map(|most| if most > 0.0 { most / 127.0 } else { 1.0 })
            .collect();
        let bytes = matrix.values.chunks_exact(columns).flat_map(|row| {
            let steps = row.iter().zip(&scales);
            steps.map(|(value, scale)| (value / scale).round().clamp(-127.0, 127.0) as i8 as u8)
        });
        let value = Value {
            name: format!("{name}@int8"),
            kind: Kind::SignedByte,
            shape: matrix.shape.iter().copied().map(Dim::Known).collect(),
        };
        let bytes = bytes.collect();
        let stored = value.clone();
        self.initializers.push(Initializer { value, bytes });
        let scales = Parameter {
            shape: vec![columns],
            values: scales,
        };
        let scales = self.floats(&format!("{name}@scale"), &scales, Kind::Float);
        let shape = stored.shape.clone();
        let axis = vec![Attribute::Int("axis", 1)];
        self.node(
            "DequantizeLinear",
            &[&stored, &scales],
            axis,
            Kind::Float,
            shape,
        )
    }

    /// Adds float values under a name.
    fn floats(&mut self, name: &str, parameter: &Parameter, kind: Kind) -> Value {
        let value = Value {
            name: name.to_owned(),
            kind,
            shape: parameter.shape.iter().copied().map(Dim::Known).collect(),
        };
        let bytes = float_bytes(&parameter.values, kind);
        self.initializers.push(Initializer {
            value: value.clone(),
            bytes,
        });
        value
    }

    /// Adds constant values; equal ones are stored once.
    fn constant(&mut self, name: &str, kind: Kind, shape: Vec<usize>, bytes: Vec<u8>) -> Value {
        let content = Content::Constant(kind, shape.clone(), bytes.clone());
        if let Some(value) = self.known.get(&content) {
            return value.clone();
        }
        let scopes = std::mem::take(&mut self.scopes);
        let name = self.unique(&format!("constant/{name}"));
        self.scopes = scopes;
        let value = Value {
            name,
            kind,
            shape: shape.into_iter().map(Dim::Known).collect(),
        };
        self.initializers.push(Initializer {
            value: value.clone(),
            bytes,
        });
        self.known.insert(content, value.clone());
        value
    }

    /// Returns constant floats of a kind.
    pub(crate) fn constants(
        &mut self,
        name: &str,
        values: &[f32],
        shape: &[usize],
        kind: Kind,
    ) -> Value {
        let bytes = float_bytes(values, kind);
        self.constant(name, kind, shape.to_vec(), bytes)
    }

    /// Returns one constant float of a kind, of rank 0.
    pub(crate) fn number(&mut self, value: f64, kind: Kind) -> Value {
        let name = format!("{value}");
        self.constants(&name, &[value as f32], &[], kind)
    }

    /// Returns constant integers: `[count]`.
    pub(crate) fn integers(&mut self, values: &[i64]) -> Value {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let name: Vec<String> = values.iter().take(6).map(ToString::to_string).collect();
        let value = self.constant(&name.join(","), Kind::Int, vec![values.len()], bytes);
        self.integers.insert(value.name.clone(), values.to_vec());
        value
    }

    /// Returns one constant integer, of rank 0.
    pub(crate) fn integer(&mut self, number: i64) -> Value {
        let bytes = number.to_le_bytes().to_vec();
        self.constant(&number.to_string(), Kind::Int, Vec::new(), bytes)
    }

    /// Returns the numbers of an integer constant; `None` if they are computed.
    pub(crate) fn numbers_of(&self, value: &Value) -> Option<&[i64]> {
        self.integers.get(&value.name).map(Vec::as_slice)
    }
}

/// Returns the bytes of floats of a kind.
fn float_bytes(values: &[f32], kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Half => values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}
