//! A model's parameters under the names of the reference checkpoints.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Gradients, Tensor},
};

/// Fields that group parameters in our structs, and variants of [`crate::method::Model`], which have no place in the
/// reference's names.
const UNNAMED_GROUPS: [&str; 4] = ["prompts", "ZegClip", "ClipRc", "ZegFormer"];

/// Something to do with each float parameter.
pub trait ParamVisitor {
    /// `name` as in the reference checkpoints, such as `decode_head.q_proj.weight`.
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>);
}

/// Visits the float parameters of a model in the order of its fields.
pub fn visit_params<M: Module, V: ParamVisitor>(model: &M, visitor: &mut V) {
    model.visit(&mut Walk {
        path: Vec::new(),
        visitor,
    });
}

/// Something to make of each float parameter.
pub trait ParamMapper {
    /// The parameter that takes the place of `param`.
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
    /// As in the reference checkpoints.
    pub name: String,
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
    /// Whether it learns.
    pub trained: bool,
}

/// All float parameters of a model; does not materialise them.
///
/// `trained` tells by name, because a model on a device without autodiff does not know.
pub fn list_params<M: Module>(model: &M, trained: impl Fn(&str) -> bool) -> Vec<ParamInfo> {
    struct List<F>(Vec<ParamInfo>, F);
    impl<F: Fn(&str) -> bool> ParamVisitor for List<F> {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            self.0.push(ParamInfo {
                name: name.to_owned(),
                shape: param.lazy_shape().to_vec(),
                trained: (self.1)(name),
            });
        }
    }
    let mut list = List(Vec::new(), trained);
    visit_params(model, &mut list);
    list.0
}

/// Whether a parameter that does not learn is a model's own all the same: the statistics of ZegFormer's backbone, which no
/// other file has.
fn is_kept(name: &str) -> bool {
    name.starts_with("backbone.") && name.contains(".norm.")
}

/// Values of the trained parameters, and of those that belong to them: name, shape and row-major values.
pub fn trained_values<M: Module>(model: &M) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    struct Values(Vec<(String, Vec<usize>, Vec<f32>)>);
    impl ParamVisitor for Values {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            if param.is_require_grad() || is_kept(name) {
                let tensor = param.val().without_autodiff();
                let shape = tensor.dims().to_vec();
                self.0.push((
                    name.to_owned(),
                    shape,
                    tensor
                        .into_data()
                        .convert::<f32>()
                        .try_to_vec()
                        .unwrap_or_default(),
                ));
            }
        }
    }
    let mut values = Values(Vec::new());
    visit_params(model, &mut values);
    values.0
}

/// Gradients of the trained parameters as flat tensors, in the order of the fields; parameters that the loss does
/// not reach are left out.
pub fn flat_gradients<M: Module>(model: &M, gradients: &mut Gradients) -> Vec<(String, Tensor<1>)> {
    struct Collect<'a>(&'a mut Gradients, Vec<(String, Tensor<1>)>);
    impl ParamVisitor for Collect<'_> {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            if param.is_require_grad()
                && let Some(gradient) = param.val().grad_remove(self.0)
            {
                self.1.push((name.to_owned(), gradient.flatten(0, D - 1)));
            }
        }
    }
    let mut collect = Collect(gradients, Vec::new());
    visit_params(model, &mut collect);
    collect.1
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
            .filter(|part| !UNNAMED_GROUPS.contains(part))
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
