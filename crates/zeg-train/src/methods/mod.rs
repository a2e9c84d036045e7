//! Lists the training recipes of the built-in methods.

pub mod cat_seg;
pub mod clip_rc;
pub mod maskclip_plus;
pub mod zegclip;
pub mod zegformer;
pub mod zsseg;

use crate::recipe::Recipe;

/// The recipes of the built-in methods; a test compares them with the list of methods.
pub static BUILTIN: [&dyn Recipe; 6] = [
    &zegclip::ZegClipRecipe,
    &clip_rc::ClipRcRecipe,
    &zegformer::ZegFormerRecipe,
    &zsseg::ZssegRecipe,
    &cat_seg::CatSegRecipe,
    &maskclip_plus::MaskClipPlusRecipe,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use zeg_model::{
        method::{Method, StartingPoint},
        methods::Methods,
    };

    use super::*;

    #[test]
    fn every_method_that_is_trained_has_a_recipe() {
        let methods = Methods::default();
        let trained = methods.starting_from(StartingPoint::Masks);
        let trained: BTreeSet<_> = trained.map(Method::name).collect();
        let recipes: BTreeSet<_> = BUILTIN.iter().map(|recipe| recipe.method()).collect();
        assert_eq!(trained, recipes);
    }
}
