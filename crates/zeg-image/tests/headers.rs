//! Tests of reading colour model and orientation from the header alone; each golden image is named after its variety.

#![allow(clippy::unwrap_used, reason = "test helpers may panic, like the tests")]

use std::fs;
use std::path::Path;

use zeg_image::{ColourModel, image_header, image_size};

#[test]
fn colour_model_and_orientation_are_read_from_the_header() {
    for (name, colours) in [
        ("baseline.jpg", ColourModel::Rgb),
        ("grey.jpg", ColourModel::Grey),
        ("cmyk.jpg", ColourModel::Cmyk),
        ("orientation6.jpg", ColourModel::Rgb),
        ("rgb.png", ColourModel::Rgb),
        ("alpha.png", ColourModel::Rgb),
        ("indexed4.png", ColourModel::Rgb),
        ("grey1.png", ColourModel::Grey),
        ("grey8.png", ColourModel::Grey),
        ("grey16.png", ColourModel::Grey),
        ("grey_alpha.png", ColourModel::Grey),
        ("rgb.tiff", ColourModel::Rgb),
        ("rgb.webp", ColourModel::Rgb),
        ("rgb.bmp", ColourModel::Rgb),
        ("rgb.gif", ColourModel::Rgb),
        ("label_tiffs/grey16_pillow.tif", ColourModel::Grey),
        ("label_tiffs/palette8.tif", ColourModel::Rgb),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        let header = image_header(&fs::read(&path).unwrap(), &path).unwrap();
        assert_eq!(header.colours, colours, "{name}");
        assert_eq!(header.upright, image_size(&path).unwrap(), "{name}");
        let (width, height) = header.stored;
        let rotated = name == "orientation6.jpg";
        assert_eq!(header.upright == (height, width), rotated, "{name}");
        assert_eq!(header.turn.is_some(), rotated, "{name}");
    }
}
