//! Relationship descriptor: relates each class embedding to the image embedding.
//!
//! ZegCLIP eq. 8: t̂ = [t ⊙ g, t]. The product carries the image's evidence for the class; the plain embedding keeps
//! the class itself. The paper's table 4 compares it with the other [`QueryFormat`]s.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The composition of a class query from the class embedding t and the image embedding g (ZegCLIP, table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum QueryFormat {
    /// t: no relationship descriptor.
    Text,
    /// t ⊙ g
    Product,
    /// |t − g|
    AbsDifference,
    /// t − g
    Difference,
    /// t + g
    Sum,
    /// [t, g]
    TextImage,
    /// [t ⊙ g, t], used by ZegCLIP.
    #[default]
    ProductText,
    /// [|t − g|, t]
    AbsDifferenceText,
    /// [t ⊙ g, t + g]
    ProductSum,
    /// [t + g, t]
    SumText,
    /// [t ⊙ g, |t − g|, t]
    ProductAbsDifferenceText,
    /// [t ⊙ g, t − g, t]
    ProductDifferenceText,
}

/// A part of a class query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Text,
    Image,
    Product,
    Difference,
    AbsDifference,
    Sum,
}

impl QueryFormat {
    /// All formats, in the order of the paper's table.
    pub const ALL: [Self; 12] = [
        Self::Text,
        Self::Product,
        Self::AbsDifference,
        Self::Difference,
        Self::Sum,
        Self::TextImage,
        Self::ProductText,
        Self::AbsDifferenceText,
        Self::ProductSum,
        Self::SumText,
        Self::ProductAbsDifferenceText,
        Self::ProductDifferenceText,
    ];

    /// Returns the length of a class query in widths of the joint space: 1, 2 or 3.
    pub fn widths(self) -> usize {
        self.parts().len()
    }

    /// Returns whether this is the default, which is omitted from files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn parts(self) -> &'static [Part] {
        use Part::{AbsDifference, Difference, Image, Product, Sum, Text};
        match self {
            Self::Text => &[Text],
            Self::Product => &[Product],
            Self::AbsDifference => &[AbsDifference],
            Self::Difference => &[Difference],
            Self::Sum => &[Sum],
            Self::TextImage => &[Text, Image],
            Self::ProductText => &[Product, Text],
            Self::AbsDifferenceText => &[AbsDifference, Text],
            Self::ProductSum => &[Product, Sum],
            Self::SumText => &[Sum, Text],
            Self::ProductAbsDifferenceText => &[Product, AbsDifference, Text],
            Self::ProductDifferenceText => &[Product, Difference, Text],
        }
    }
}

/// Combines every class embedding with the image embedding.
///
/// - `text`: `[classes, dim]`, unit rows (as stored: `f16` tables are unit only to `f16` precision and are not
///   normalised again)
/// - `image`: `[batch, dim]`, unit rows
///
/// Returns `[batch, classes, widths·dim]`, the parts in the format's order.
pub fn describe(format: QueryFormat, text: Tensor<2>, image: Tensor<2>) -> Tensor<3> {
    let [classes, dim] = text.dims();
    let [batch, _] = image.dims();
    let text = text.unsqueeze::<3>().expand([batch, classes, dim]); // [batch, classes, dim]
    let image = image.unsqueeze_dim::<3>(1); //                        [batch, 1, dim]
    let part = |part: &Part| match part {
        Part::Text => text.clone(),
        Part::Image => image.clone().expand([batch, classes, dim]),
        Part::Product => text.clone() * image.clone(),
        Part::Difference => text.clone() - image.clone(),
        Part::AbsDifference => (text.clone() - image.clone()).abs(),
        Part::Sum => text.clone() + image.clone(),
    };
    Tensor::cat(format.parts().iter().map(part).collect(), 2) // [batch, classes, widths·dim]
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Expected values computed by hand for t = (1, 2) and g = (3, −1).
    #[test]
    fn every_format_is_what_its_name_says() {
        let device = Device::flex();
        let expected: [&[f32]; 12] = [
            &[1., 2.],
            &[3., -2.],
            &[2., 3.],
            &[-2., 3.],
            &[4., 1.],
            &[1., 2., 3., -1.],
            &[3., -2., 1., 2.],
            &[2., 3., 1., 2.],
            &[3., -2., 4., 1.],
            &[4., 1., 1., 2.],
            &[3., -2., 2., 3., 1., 2.],
            &[3., -2., -2., 3., 1., 2.],
        ];
        for (format, expected) in QueryFormat::ALL.into_iter().zip(expected) {
            let text = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
            let image = Tensor::<2>::from_floats([[3.0, -1.0]], &device);
            let query = describe(format, text, image);
            assert_eq!(query.dims(), [1, 1, 2 * format.widths()]);
            let values: Vec<f32> = query.into_data().try_into_vec().unwrap();
            assert_eq!(values, expected, "{format:?}");
        }
    }
}
