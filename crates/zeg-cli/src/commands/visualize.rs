//! `zeg visualize`: draws what a model computes on the patch grid of an image.

mod args;
mod draw;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde::Serialize;
use zeg::{
    EncodedClasses, Segmenter,
    image::{RgbImage, decode_rgb, write_rgb_png},
    model::patch_maps::{PatchMaps, range, to_unit_range},
};
use zeg_base::paths::path_text;

pub(crate) use self::args::VisualizeArgs;
use self::{
    args::VisualizeSettings,
    draw::{colour_map, heat_map},
};
use super::{
    model_file::{SegmenterSettings, open_segmenter, warn_of_text},
    write_result,
};
use crate::{Program, progress::Verbosity, say::StdoutError};

/// The maps of an image.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Maps {
    /// The image, as given.
    image: String,
    /// The method, as `ZegCLIP`.
    method: String,
    /// Rows and columns of the patch grid.
    grid: [usize; 2],
    /// File with the principal components of the patch features as red, green and blue.
    components: String,
    /// The maps of each class.
    classes: Vec<ClassMaps>,
}

/// The maps of a class.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ClassMaps {
    /// Name of the class.
    class: String,
    /// Logits of the class's mask.
    mask: HeatMap,
    /// Cosine of the class embedding with every patch feature.
    similarity: HeatMap,
}

/// A heat map and the values of its lowest and its highest colour.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct HeatMap {
    /// The image file.
    file: String,
    /// Smallest value.
    least: f32,
    /// Largest value.
    most: f32,
}

/// The files of the maps.
struct Files {
    components: PathBuf,
    /// Mask and similarity of each class.
    classes: Vec<ClassFiles>,
}

/// The files of a class.
struct ClassFiles {
    mask: PathBuf,
    similarity: PathBuf,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<Maps>("visualize")
}

pub(crate) fn run(
    program: &Program,
    args: VisualizeArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    visualize(program, &args.settings()?, verbosity)?;
    Ok(ExitCode::SUCCESS)
}

fn visualize(
    program: &Program,
    settings: &VisualizeSettings,
    verbosity: Verbosity,
) -> anyhow::Result<()> {
    let files = Files::of(settings)?;
    settings.compute.open_device()?;
    let image = decode_rgb(&settings.image)?;
    let segmenter = load(program, settings)?;
    let classes = embed(&segmenter, settings, verbosity)?;
    let maps = segmenter.patch_maps(&image, &classes)?;
    std::fs::create_dir_all(&settings.output)
        .with_context(|| settings.output.display().to_string())?;
    let components = colour_map(&image, &maps.components, maps.grid);
    write_map(settings, &files.components, &components)?;
    let result = Maps {
        image: path_text(&settings.image),
        method: segmenter.model().method.clone(),
        grid: maps.grid,
        components: path_text(&files.components),
        classes: class_maps(settings, &image, &maps, &classes, &files)?,
    };
    write_result(settings.json.as_ref(), &result, || print(&result))
}

/// Writes a map, unless something that must not be replaced has appeared at its path since the work began.
fn write_map(settings: &VisualizeSettings, file: &Path, map: &RgbImage) -> anyhow::Result<()> {
    Ok(write_rgb_png(&settings.existing.place(file)?, map)?)
}

/// Draws and writes the maps of every class.
fn class_maps(
    settings: &VisualizeSettings,
    image: &RgbImage,
    maps: &PatchMaps,
    classes: &EncodedClasses,
    files: &Files,
) -> anyhow::Result<Vec<ClassMaps>> {
    let write = |values: &[f32], file: &Path| -> anyhow::Result<HeatMap> {
        let map = heat_map(image, &to_unit_range(values), maps.grid);
        write_map(settings, file, &map)?;
        let (least, most) = range(values);
        Ok(HeatMap {
            file: path_text(file),
            least,
            most,
        })
    };
    let values = maps.masks.iter().zip(&maps.similarities);
    let of_class = classes.names().into_iter().zip(values).zip(&files.classes);
    of_class
        .map(|((class, (mask, similarity)), files)| {
            Ok(ClassMaps {
                class,
                mask: write(mask, &files.mask)?,
                similarity: write(similarity, &files.similarity)?,
            })
        })
        .collect()
}

/// Opens the model.
fn load(program: &Program, settings: &VisualizeSettings) -> anyhow::Result<Segmenter> {
    open_segmenter(
        program,
        &SegmenterSettings {
            model: &settings.model,
            templates: settings.templates.as_deref(),
            model_settings: &settings.model_settings,
            compute: &settings.compute,
            cache: settings.cache,
        },
    )
}

/// Embeds the class names.
fn embed(
    segmenter: &Segmenter,
    settings: &VisualizeSettings,
    verbosity: Verbosity,
) -> anyhow::Result<EncodedClasses> {
    let count = settings.classes.len() as u64;
    let bar = verbosity.progress("embedding", "class names", count);
    let encoded = segmenter.encode_classes_with(
        &settings.classes,
        Some(&|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }),
    );
    bar.finish();
    let encoded = encoded?;
    warn_of_text(encoded.notices());
    Ok(encoded)
}

impl Files {
    /// Returns the files, and checks that each may be written.
    ///
    /// # Errors
    /// Returns an error if a file exists and must not be replaced, or if a map would replace a file that the command
    /// reads.
    fn of(settings: &VisualizeSettings) -> anyhow::Result<Self> {
        let stem = settings.image.file_stem().unwrap_or_default();
        let read: Vec<PathBuf> = settings
            .files
            .iter()
            .filter_map(|file| file.canonicalize().ok())
            .collect();
        let place = |end: &str| -> anyhow::Result<PathBuf> {
            let mut name = stem.to_owned();
            name.push(end);
            let path = settings.output.join(name);
            settings.existing.place(&path)?;
            // A link may lead to the image itself.
            if let Some(input) = path.canonicalize().ok().filter(|file| read.contains(file)) {
                anyhow::bail!(
                    "{}: the map would replace {}, which this command reads; choose another folder with -o",
                    path.display(),
                    input.display()
                );
            }
            Ok(path)
        };
        let of_class = |(number, name): (usize, &str)| -> anyhow::Result<ClassFiles> {
            let name = in_file_name(name);
            Ok(ClassFiles {
                mask: place(&format!(".{number}-{name}.mask.png"))?,
                similarity: place(&format!(".{number}-{name}.similarity.png"))?,
            })
        };
        let names = settings.classes.iter().map(|class| class.name.as_str());
        Ok(Self {
            components: place(".pca.png")?,
            classes: names
                .enumerate()
                .map(of_class)
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

/// Returns a class name with only letters, digits and `-`, of at most 40 characters.
fn in_file_name(name: &str) -> String {
    let legal = |c: char| if c.is_alphanumeric() { c } else { '-' };
    name.chars().take(40).map(legal).collect()
}

/// Prints the files.
fn print(maps: &Maps) -> Result<(), StdoutError> {
    print_result!("{}", maps.components)?;
    for class in &maps.classes {
        print_result!("{}", class.mask.file)?;
        print_result!("{}", class.similarity.file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_become_parts_of_file_names() {
        assert_eq!(in_file_name("wall/../x"), "wall----x");
        assert_eq!(in_file_name("Größe 1"), "Größe-1");
        assert_eq!(in_file_name(&"a".repeat(300)).len(), 40);
    }
}
