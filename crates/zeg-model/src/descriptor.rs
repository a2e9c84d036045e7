//! Relationship descriptor: tells each class query how the picture as a whole relates to it.
//!
//! ZegCLIP eq. 8: t̂ = [t ⊙ g, t]. The product carries the picture's evidence for the class, the plain embedding
//! keeps the word itself.

use burn::tensor::Tensor;

/// Joins every class embedding with its product with the image embedding.
///
/// - `text`: `[classes, dim]`, unit rows (as stored: `f16` tables are unit only to `f16` precision and are not
///   normalised again)
/// - `image`: `[batch, dim]`, unit rows
///
/// Returns `[batch, classes, 2·dim]`, the product first.
pub fn describe(text: Tensor<2>, image: Tensor<2>) -> Tensor<3> {
    let [classes, dim] = text.dims();
    let [batch, _] = image.dims();
    let text = text.unsqueeze::<3>().expand([batch, classes, dim]); // [batch, classes, dim]
    let image = image.unsqueeze_dim::<3>(1); //                        [batch, 1, dim]
    Tensor::cat(vec![text.clone() * image, text], 2) //                [batch, classes, 2·dim]
}
