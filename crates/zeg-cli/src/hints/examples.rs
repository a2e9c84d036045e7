//! Hints for errors of example images.

use zeg::examples::ExampleError;

/// Returns the hint for an error of a folder of examples.
pub(super) fn hint(error: &ExampleError) -> Option<String> {
    let text = match error {
        ExampleError::Image(error) => return super::of_image(error),
        ExampleError::Encode { source, .. } => return super::of_model(source),
        ExampleError::Read { .. } => return None,
        ExampleError::NoClasses { .. } | ExampleError::NoPairs { .. } => {
            "put the images of a class and their masks into a folder with the name of the class"
        }
        ExampleError::NoMask { .. } | ExampleError::NoImage { .. } | ExampleError::Twice { .. } => {
            "`zeg data doctor --examples DIR` checks a folder; 1_mask.png is the mask of 1.jpg"
        }
        ExampleError::Size { .. } => "write the mask at the size of its image",
        ExampleError::Empty { .. } => "draw the mask, or remove the image with its mask",
        ExampleError::NotUsed { .. } => {
            "use plain CLIP weights with a training-free method, such as --method combined"
        }
        ExampleError::NoClass { .. } => "rename the folder, or remove it",
    };
    Some(text.to_owned())
}
