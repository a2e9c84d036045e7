//! What the program works with beyond its arguments.

use zeg::model::methods::Methods;
use zeg_train::recipe::Recipes;

/// The parts of the program that a caller of [`main_with`](crate::main_with) may choose.
#[derive(Clone, Default)]
pub struct Program {
    /// The methods that it knows.
    pub methods: Methods,
    /// How they are trained.
    pub recipes: Recipes,
}
