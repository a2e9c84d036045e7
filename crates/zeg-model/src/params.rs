//! A model's parameters under the names of the reference checkpoints.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Gradients, Tensor},
};

/// Returns whether a component of a parameter's path is missing from the reference's names: the group of the prompts,
/// and variants of enumerations, which alone begin with a capital letter.
fn is_unnamed(part: &str) -> bool {
    part == "prompts" || part.starts_with(|first: char| first.is_ascii_uppercase())
}

/// A visitor of a model's float parameters.
pub trait ParamVisitor {
    /// Visits a parameter; `name` is as in the reference checkpoints, such as `decode_head.q_proj.weight`.
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>);
}

/// Visits the float parameters of a model in the order of its fields.
pub fn visit_params<M: Module, V: ParamVisitor>(model: &M, visitor: &mut V) {
    model.visit(&mut Walk {
        path: Vec::new(),
        visitor,
    });
}

/// A mapping of a model's float parameters.
pub trait ParamMapper {
    /// Returns the parameter that replaces `param`.
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Replaces the float parameters of a model.
pub fn map_params<M: Module, V: ParamMapper>(model: M, mapper: &mut V) -> M {
    model.map(&mut Walk {
        path: Vec::new(),
        visitor: mapper,
    })
}

/// Name, shape and training state of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamInfo {
    /// Name, as in the reference checkpoints.
    pub name: String,
    /// Shape, slowest axis first.
    pub shape: Vec<usize>,
    /// Whether the parameter is trained.
    pub trained: bool,
}

/// A parameter of any rank, for code that does not depend on it.
pub trait AnyParam {
    /// Returns the shape, slowest axis first; does not materialise the parameter.
    fn shape(&self) -> Vec<usize>;
    /// Returns whether the parameter is trained.
    fn is_trained(&self) -> bool;
    /// Returns the values without an autodiff graph: `[count]`
    fn flat(&self) -> Tensor<1>;
    /// Removes the parameter's gradient from `gradients`: `[count]`; `None` if the loss does not depend on the
    /// parameter.
    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>>;
}

impl<const D: usize> AnyParam for Param<Tensor<D>> {
    fn shape(&self) -> Vec<usize> {
        self.lazy_shape().to_vec()
    }
    fn is_trained(&self) -> bool {
        self.is_require_grad()
    }
    fn flat(&self) -> Tensor<1> {
        self.val().without_autodiff().flatten(0, D - 1)
    }
    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>> {
        let gradient = self.val().grad_remove(gradients)?;
        Some(gradient.flatten(0, D - 1))
    }
}

/// The parameters of a model of unknown type.
///
/// Every module implements it; the functions of this file build on it.
pub trait Parameters {
    /// Calls `visit` on every float parameter with its name, in the order of the fields.
    fn each(&self, visit: &mut dyn FnMut(&str, &dyn AnyParam));

    /// Replaces the values of float parameters, in the order of the fields.
    ///
    /// - `replace`: returns new values `[count]` without an autodiff graph, or `None` to leave the parameter unchanged
    fn replace(&mut self, replace: &mut dyn FnMut(&str, &dyn AnyParam) -> Option<Tensor<1>>);
}

impl<M: Module> Parameters for M {
    fn each(&self, visit: &mut dyn FnMut(&str, &dyn AnyParam)) {
        struct Each<'a>(&'a mut dyn FnMut(&str, &dyn AnyParam));
        impl ParamVisitor for Each<'_> {
            fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
                (self.0)(name, param);
            }
        }
        visit_params(self, &mut Each(visit));
    }

    fn replace(&mut self, replace: &mut dyn FnMut(&str, &dyn AnyParam) -> Option<Tensor<1>>) {
        struct Replace<'a>(&'a mut dyn FnMut(&str, &dyn AnyParam) -> Option<Tensor<1>>);
        impl ParamMapper for Replace<'_> {
            fn map<const D: usize>(
                &mut self,
                name: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                let Some(flat) = (self.0)(name, &param) else {
                    return param;
                };
                let trained = param.is_require_grad();
                param.map(|value| {
                    let shape = value.shape();
                    Tensor::<D>::from_inner(flat.reshape(shape)).set_require_grad(trained)
                })
            }
        }
        // Cloning a module only clones the handles of its tensors.
        *self = map_params(self.clone(), &mut Replace(replace));
    }
}

/// Lists all float parameters of a model; does not materialise them.
///
/// - `trained`: returns whether the parameter of a name is trained; a model on a device without autodiff does not store
///   this
pub fn list_params(
    model: &(impl Parameters + ?Sized),
    trained: impl Fn(&str) -> bool,
) -> Vec<ParamInfo> {
    let mut list = Vec::new();
    model.each(&mut |name, param| {
        list.push(ParamInfo {
            name: name.to_owned(),
            shape: param.shape(),
            trained: trained(name),
        });
    });
    list
}

/// A new observation of a quantity whose running mean is a parameter, such as the statistics of batch normalisation.
#[derive(Debug, Clone)]
pub struct RunningValue {
    /// Full name of the parameter.
    pub name: String,
    /// The observation, flat and without an autodiff graph: `[count]`
    pub value: Tensor<1>,
    /// Weight of the observation in the mean, 0 to 1.
    pub momentum: f64,
}

/// Adds observations to the running means of a model, one after the other.
pub fn add_observations(model: &mut (impl Parameters + ?Sized), observed: Vec<RunningValue>) {
    let mut by_name: BTreeMap<String, Vec<RunningValue>> = BTreeMap::new();
    for value in observed {
        by_name.entry(value.name.clone()).or_default().push(value);
    }
    if by_name.is_empty() {
        return;
    }
    model.replace(&mut |name, param| {
        let observed = by_name.remove(name)?;
        let add = |mean: Tensor<1>, observation: RunningValue| {
            mean * (1.0 - observation.momentum) + observation.value * observation.momentum
        };
        Some(observed.into_iter().fold(param.flat(), add))
    });
}

/// A parameter's values in main memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamValues {
    /// Name, as in the reference checkpoints.
    pub name: String,
    /// Shape, slowest axis first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// Reads the values of the trained parameters.
pub fn trained_values(model: &(impl Parameters + ?Sized)) -> Vec<ParamValues> {
    kept_values(model, |_| false)
}

/// Reads the values of the trained parameters, and of those that a checkpoint stores in addition.
///
/// - `keeps`: returns by name whether a checkpoint stores a parameter although it is not trained
pub fn kept_values(
    model: &(impl Parameters + ?Sized),
    keeps: impl Fn(&str) -> bool,
) -> Vec<ParamValues> {
    let mut kept = Vec::new();
    model.each(&mut |name, param| {
        if param.is_trained() || keeps(name) {
            let data = param.flat().into_data().convert::<f32>();
            kept.push(ParamValues {
                name: name.to_owned(),
                shape: param.shape(),
                values: data.try_to_vec().unwrap_or_default(),
            });
        }
    });
    kept
}

/// Removes the gradients of the trained parameters from `gradients`; returns them flat, in the order of the fields.
/// Parameters on which the loss does not depend are left out.
pub fn flat_gradients(
    model: &(impl Parameters + ?Sized),
    gradients: &mut Gradients,
) -> Vec<(String, Tensor<1>)> {
    let mut found = Vec::new();
    model.each(&mut |name, param| {
        if param.is_trained()
            && let Some(gradient) = param.take_gradient(gradients)
        {
            found.push((name.to_owned(), gradient));
        }
    });
    found
}

struct Walk<'a, V> {
    path: Vec<String>,
    visitor: &'a mut V,
}

impl<V> Walk<'_, V> {
    fn enter(&mut self, name: &str) {
        self.path.push(name.to_owned());
    }

    fn exit(&mut self) {
        self.path.pop();
    }

    fn name(&self) -> String {
        let parts: Vec<_> = self
            .path
            .iter()
            .map(String::as_str)
            .filter(|part| !is_unnamed(part))
            .collect();
        parts.join(".")
    }
}

impl<V: ParamVisitor> ModuleVisitor for Walk<'_, V> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visitor.visit(&self.name(), param);
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.exit();
    }
}

impl<V: ParamMapper> ModuleMapper for Walk<'_, V> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.name();
        self.visitor.map(&name, param)
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.exit();
    }
}
