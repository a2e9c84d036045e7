//! The methods and recipes that the program knows.

use zeg::model::methods::Methods;
use zeg_train::recipe::Recipes;

/// The lists that a caller of [`main_with`](crate::main_with) can extend.
#[derive(Clone, Default)]
pub struct Program {
    /// Methods of segmentation.
    pub methods: Methods,
    /// Recipes that train them.
    pub recipes: Recipes,
}
