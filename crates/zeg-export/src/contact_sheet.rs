//! The contact sheet: one HTML page with all segmented images.
//!
//! Each image has a card: a thumbnail, its name, and its classes with colours, shares and confidences. The page needs
//! no network and no other program. A script sorts and filters the cards; without it the page still shows everything.
//! Cards are kept in a temporary file, because the legend above them needs the counts of all images.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use askama::Template;
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::address::address;
use crate::formats::{ExportFormat, Needs, no_files};
use crate::output::{Folder, Spool, Target, file_name};
use crate::segmented_image::Mean;
use crate::summary::{ClassSummary, Summary, summarize};
use crate::{Classes, ExportError, Exporter, Overwrite, SegmentedImage};

mod thumbnail;

use thumbnail::Thumbnail;

/// Number of classes that a folded card shows.
const SHOWN_CLASSES: usize = 6;
/// Number of classes that the alternative text of an image names.
const NAMED_CLASSES: usize = 5;

/// Location of the thumbnails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thumbnails {
    /// Embedded in the page, which then is a single file; about 30 kB per image.
    #[default]
    Embedded,
    /// In a folder beside the page, named after the page with the suffix `_files`.
    Linked,
}

/// The format of the contact sheet.
pub(crate) static FORMAT: ExportFormat = ExportFormat {
    name: "html",
    about: "index.html: one page with all images",
    needs: Needs::Overlay,
    image_suffix: None,
    own_files: no_files,
    shared_files: &["index.html"],
    open: |classes, settings| {
        let options = ContactSheetOptions {
            path: settings.folder.join("index.html"),
            overwrite: settings.overwrite,
            title: format!("Segmented images · {}", settings.method),
            thumbnails: Thumbnails::Embedded,
            link_suffix: settings.link_suffix.map(str::to_owned),
        };
        Ok(Box::new(ContactSheet::create(classes, options)?))
    },
};

/// Settings of a [`ContactSheet`].
#[derive(Debug, Clone, PartialEq)]
pub struct ContactSheetOptions {
    /// The HTML file.
    pub path: PathBuf,
    /// Whether existing files are replaced.
    pub overwrite: Overwrite,
    /// Title of the page.
    pub title: String,
    /// Location of the thumbnails.
    pub thumbnails: Thumbnails,
    /// Suffix of the file that a thumbnail links to, such as `.overlay.png`: the file beside the page whose name is the
    /// image's stem with this suffix.
    pub link_suffix: Option<String>,
}

/// Writes all images as one page.
#[derive(Debug)]
pub struct ContactSheet {
    options: ContactSheetOptions,
    classes: Classes,
    target: Target,
    /// The folder of linked thumbnails and its name in URLs.
    folder: Option<(Folder, OsString)>,
    cards: Spool,
    images: usize,
    /// By label: the number of images in which the class occurs.
    found: BTreeMap<u16, usize>,
    confidence: Mean,
}

#[derive(Template)]
#[template(path = "contact_sheet/head.html")]
struct Head<'a> {
    title: &'a str,
    version: &'a str,
    style: &'a str,
    images: usize,
    confidence: Option<String>,
    legend: Vec<LegendEntry<'a>>,
}

struct LegendEntry<'a> {
    label: u16,
    name: &'a str,
    colour: String,
    images: usize,
}

#[derive(Template)]
#[template(path = "contact_sheet/card.html")]
struct Card<'a> {
    name: &'a str,
    /// Folder and file name of the image.
    folder: &'a str,
    file: &'a str,
    /// `label:share` of each class, for the script.
    shares: String,
    confidence: Option<String>,
    unlabelled_share: f64,
    link: Option<String>,
    image: String,
    image_width: u32,
    image_height: u32,
    alt: String,
    width: u32,
    height: u32,
    rows: Vec<Row<'a>>,
    shown: usize,
    unlabelled: Option<String>,
}

struct Row<'a> {
    name: &'a str,
    colour: &'a str,
    /// Percent of the bar, to three decimals.
    width: String,
    share: String,
    confidence: String,
}

#[derive(Template)]
#[template(path = "contact_sheet/tail.html")]
struct Tail<'a> {
    version: &'a str,
    script: &'a str,
    has_confidence: bool,
}

impl ContactSheet {
    /// Creates the page.
    ///
    /// # Errors
    /// Returns [`ExportError::Exists`] or [`ExportError::Unwritable`].
    pub fn create(classes: Classes, options: ContactSheetOptions) -> Result<Self, ExportError> {
        let target = Target::create(&options.path, options.overwrite)?;
        let folder = match options.thumbnails {
            Thumbnails::Embedded => None,
            Thumbnails::Linked => {
                let stem = options.path.file_stem().unwrap_or_default().to_owned();
                let mut name = stem;
                name.push("_files");
                let root = options.path.with_file_name(&name);
                let folder = Folder::create(&root, options.overwrite)?;
                Some((folder, name))
            }
        };
        let cards = Spool::create().map_err(ExportError::unwritable(&options.path))?;
        Ok(Self {
            options,
            classes,
            target,
            folder,
            cards,
            images: 0,
            found: BTreeMap::new(),
            confidence: Mean::default(),
        })
    }

    /// Returns the URL of a thumbnail; writes its file if thumbnails are linked.
    fn place(&mut self, thumbnail: &Thumbnail) -> Result<String, ExportError> {
        let Some((folder, name)) = &mut self.folder else {
            let data = BASE64_STANDARD.encode(&thumbnail.bytes);
            return Ok(format!("data:{};base64,{data}", thumbnail.media_type));
        };
        // Thumbnails are numbered, because the name of an image may not be a valid file name on other systems.
        let stem = format!("{:05}", self.images + 1);
        let mut target = folder.target(Path::new(&stem), thumbnail.extension)?;
        target.fill(|file| file.write_all(&thumbnail.bytes))?;
        folder.finish(target)?;
        let file = format!("/{stem}{}", thumbnail.extension);
        Ok(address(
            &[name.as_encoded_bytes(), file.as_bytes()].concat(),
        ))
    }

    fn link(&self, segmented: &SegmentedImage<'_>) -> Result<Option<String>, ExportError> {
        let Some(suffix) = &self.options.link_suffix else {
            return Ok(None);
        };
        // The name is checked as an output name. Slashes separate its components on every system.
        let path = file_name(segmented.stem, suffix)?;
        let parts = path.components();
        let parts: Vec<_> = parts
            .map(|part| part.as_os_str().as_encoded_bytes())
            .collect();
        Ok(Some(address(&parts.join(&b'/'))))
    }
}

impl Exporter for ContactSheet {
    fn add(&mut self, segmented: &SegmentedImage<'_>) -> Result<(), ExportError> {
        let summary = summarize(segmented, &self.classes)?;
        let link = self.link(segmented)?;
        let thumbnail = Thumbnail::of(segmented, &self.classes)
            .map_err(ExportError::unwritable(&self.options.path))?;
        let image = self.place(&thumbnail)?;
        let card = card(&summary, image, &thumbnail, link);
        write_template(&mut self.cards, &card)
            .map_err(ExportError::unwritable(&self.options.path))?;
        self.images += 1;
        for class in &summary.classes {
            *self.found.entry(class.label).or_default() += 1;
        }
        if let Some(confidence) = summary.confidence {
            self.confidence.add(confidence as f32);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        let Self {
            options,
            classes,
            mut target,
            folder,
            cards,
            images,
            found,
            confidence,
        } = *self;
        let entry = |(label, images): (u16, usize)| LegendEntry {
            label,
            name: classes.name(label),
            colour: classes.hex_colour(label),
            images,
        };
        let mut legend: Vec<_> = found.into_iter().map(entry).collect();
        legend.sort_by_key(|entry| std::cmp::Reverse(entry.images)); // stable: ties by label
        let version = env!("CARGO_PKG_VERSION");
        let confidence = confidence.rounded().map(decimals);
        let tail = Tail {
            version,
            script: include_str!("../templates/contact_sheet/script.js"),
            has_confidence: confidence.is_some(),
        };
        let head = Head {
            title: &options.title,
            version,
            style: include_str!("../templates/contact_sheet/style.css"),
            images,
            confidence,
            legend,
        };
        target.fill(|file| {
            write_template(file, &head)?;
            cards.copy_to(file)?;
            write_template(file, &tail)
        })?;
        let mut files = vec![target.finish()?];
        files.extend(
            folder
                .into_iter()
                .flat_map(|(folder, _)| folder.into_files()),
        );
        Ok(files)
    }
}

fn card<'a>(
    summary: &'a Summary,
    image: String,
    thumbnail: &Thumbnail,
    link: Option<String>,
) -> Card<'a> {
    let pair = |class: &ClassSummary| format!("{}:{}", class.label, class.share);
    let shares: Vec<_> = summary.classes.iter().map(pair).collect();
    let row = |class: &'a ClassSummary| Row {
        name: &class.name,
        colour: &class.colour,
        width: format!("{:.3}", class.share * 100.0),
        share: percentage(class.share),
        confidence: class.confidence.map(decimals).unwrap_or_default(),
    };
    let name = summary.image.as_str();
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    Card {
        name,
        folder,
        file,
        shares: shares.join(" "),
        confidence: summary.confidence.map(decimals),
        unlabelled_share: summary.unlabelled,
        link,
        image,
        image_width: thumbnail.width,
        image_height: thumbnail.height,
        alt: alternative_text(summary),
        width: summary.width,
        height: summary.height,
        rows: summary.classes.iter().map(row).collect(),
        shown: SHOWN_CLASSES,
        unlabelled: (summary.unlabelled > 0.0).then(|| percentage(summary.unlabelled)),
    }
}

/// Returns the alternative text of a thumbnail.
fn alternative_text(summary: &Summary) -> String {
    let named = summary.classes.iter().take(NAMED_CLASSES);
    let mut parts: Vec<_> = named
        .map(|class| format!("{} {}", class.name, percentage(class.share)))
        .collect();
    let others = summary.classes.len().saturating_sub(NAMED_CLASSES);
    if others > 0 {
        parts.push(format!("{others} more"));
    }
    if parts.is_empty() {
        return "Image without classes".into();
    }
    format!("Image with its classes in colour: {}", parts.join(", "))
}

/// Returns a share in percent to one decimal. A share above 0 is never shown as 0, and one below 1 never as 100.
fn percentage(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.05 {
        "< 0.1 %".into()
    } else if (99.95..100.0).contains(&percent) {
        "> 99.9 %".into()
    } else {
        format!("{percent:.1} %")
    }
}

fn decimals(confidence: f64) -> String {
    format!("{confidence:.2}")
}

fn write_template(file: &mut impl Write, template: &impl Template) -> std::io::Result<()> {
    Template::write_into(template, file)
}
