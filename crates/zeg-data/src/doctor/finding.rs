//! Findings of the doctor: each kind has a stable name, a severity and a remedy.

use serde::{Serialize, Serializer};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training or scores would fail or be wrong.
    Error,
    /// The data are unusual and should be looked at.
    Warning,
    /// Something good to know that needs no action.
    Note,
}

impl Severity {
    /// Returns `error`, `warning` or `note`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A finding of the doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The name of its kind, which does not change between versions.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub code: Code,
    /// A description with the first file and value.
    pub message: String,
    /// Number of files, images, lines or classes it concerns.
    pub count: usize,
    /// The first few of them.
    pub examples: Vec<String>,
    /// The action to take.
    pub remedy: &'static str,
}

/// Declares the codes, each with its name, severity, headline (`{}` stands for the count) and remedy.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $severity:ident $headline:literal $remedy:literal;)*) => {
        /// The kind of a finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name, in lower-case words with hyphens.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns the severity of findings of this kind.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)*
                }
            }

            /// Returns the action to take.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$variant => $remedy,)*
                }
            }

            /// Returns the description of the finding, with the count.
            pub(super) fn headline(self, count: usize) -> String {
                match self {
                    $(Self::$variant => $headline.replacen("{}", &count.to_string(), 1),)*
                }
            }
        }
    };
}

codes! {
    /// Label maps hold COCO's raw ids.
    RawCocoIds "raw-coco-ids" Error
        "folders with label maps of raw COCO ids ({})"
        "Convert the label maps to the 171 train ids (*_labelTrainIds.png).";
    /// Label maps are those of the download and not converted to class indices.
    UnconvertedLabels "unconverted-labels" Error
        "label maps that were not converted; the first is"
        "Convert the download with `zeg data prepare`, which makes *_labelTrainIds.png.";
    /// Images do not exist.
    MissingImage "missing-image" Error
        "images that do not exist ({})"
        "Unpack the data set completely, or remove the ids from the list.";
    /// Label files do not exist.
    MissingLabels "missing-labels" Error
        "label files that do not exist ({})"
        "Unpack or convert the label maps of this split completely, or remove the ids from the list.";
    /// A file exists under a name that differs in upper and lower case only.
    CaseMismatch "case-mismatch" Error
        "files whose names differ in upper and lower case only ({})"
        "Rename the files; most systems distinguish upper and lower case in file names.";
    /// Images of the folder are not part of the data set.
    LeftOutImages "left-out-images" Error
        "files in the folder of images that would be left out ({})"
        "Only one image may have an id (a.png and a.jpg have the same), and upper and lower case count in a pattern: rename or remove the files; if only the case differs, give only the folder.";
    /// A training split and a validation split share images.
    TrainValOverlap "train-val-overlap" Error
        "ids that are both in a training split and in a validation split ({})"
        "Remove them from the training list; scores on training images are meaningless.";
    /// An id is listed more than once, or two images have the same id.
    RepeatedId "repeated-id" Error
        "repeated ids ({})"
        "Keep one line of each, because a repeated image counts twice; rename images whose names differ in their extension only.";
    /// Files are empty.
    EmptyFile "empty-file" Error
        "files of zero bytes ({})"
        "Copy or download them again; a full disk or a broken transfer leaves such files.";
    /// Images cannot be decoded.
    UnreadableImage "unreadable-image" Error
        "images that cannot be decoded ({})"
        "Download them again, and compare their sizes with the originals.";
    /// Label files cannot be decoded.
    UnreadableLabels "unreadable-labels" Error
        "label files that cannot be decoded ({})"
        "Download or convert them again.";
    /// Index labels are stored in a lossy format.
    LossyLabels "lossy-labels" Error
        "index label files in a format that changes values ({})"
        "Store index labels as PNG, because JPEG and lossy WebP change the values. Black and white masks can be read with kind = \"binary\".";
    /// Index labels are stored in three channels.
    ColourLabels "colour-labels" Error
        "label files stored in colour ({})"
        "Convert them to one channel of class indices, or list the colours of the classes (kind = \"palette\").";
    /// Index labels are stored in grey with fewer than 8 or more than 16 bits.
    LabelBitDepth "label-bit-depth" Error
        "grey label files with fewer than 8 bits per pixel, or with 32-bit or float values ({})"
        "Store them with 8 or 16 bits per pixel, or with a palette.";
    /// Only the alpha channel of masks holds something.
    MaskInAlpha "mask-in-alpha" Error
        "masks in the alpha channel, with one colour in every pixel ({})"
        "Save the alpha channel as a grey image; alpha is not read.";
    /// Masks have 16 bits per sample and small values.
    MaskBelowUpperBits "mask-below-upper-bits" Error
        "masks of 16 bits per sample with values below 256 ({})"
        "Save them with 8 bits per sample; of 16 bits only the upper 8 are read.";
    /// Labels have the many values that JPEG or a smooth resize leaves.
    SmearedLabels "smeared-labels" Error
        "label files with blurred values, as JPEG or a smooth resize leaves them ({})"
        "Make them again from the originals: resize labels with nearest neighbour, and never store them as JPEG.";
    /// Label values are neither a class nor ignored.
    IllegalLabel "illegal-label" Error
        "label files with values that are neither a class nor ignored ({})"
        "Compare the numbering with the class list, or declare the values that should be ignored.";
    /// Label colours are neither a class nor ignored.
    IllegalColour "illegal-colour" Error
        "label files with colours that are neither a class nor ignored ({})"
        "List the colours of all classes, and the colours to ignore in `ignore-colours`.";
    /// Binary masks never reach the threshold.
    MaskBelowThreshold "mask-below-threshold" Error
        "masks with nonzero values that are all below the threshold ({})"
        "Set `threshold = 1` for masks of 0 and 1; save coloured masks in black and white.";
    /// An image and its label map differ in size.
    SizeMismatch "size-mismatch" Error
        "pairs of an image and a label map that differ in size ({})"
        "Take both from the same download, or resize the labels with nearest neighbour.";
    /// The split has more or fewer images than the official one.
    NotTheOfficialSplit "not-the-official-split" Warning
        "the split is not the official one"
        "Complete the split, or report its number of images with every score.";
    /// Labels seem to be one too low or too high.
    ShiftedLabels "shifted-labels" Warning
        "labels look shifted by one"
        "Compare a label map with its image; choose the class list with or without background that fits.";
    /// Label maps that should have a border have none.
    NoBorder "no-border" Warning
        "fewer than 1 in 10 label maps have the value 255, which marks the borders of objects in this data set"
        "Use the official label maps; if 255 was replaced by 0, borders count as background.";
    /// Label files have ignored pixels only.
    AllIgnored "all-ignored" Warning
        "label files in which every pixel is ignored ({})"
        "Such images add nothing to training or scores; remove them, or check that the labels belong to the image.";
    /// Masks have many grey pixels.
    GreyMask "grey-mask" Warning
        "masks with many pixels that are neither dark nor bright ({})"
        "Look at the masks: they may be blurred or hold probabilities; set `threshold` to fit them.";
    /// Images are rotated or mirrored by their EXIF orientation.
    ExifRotation "exif-rotation" Warning
        "images that are rotated or mirrored by their EXIF orientation ({})"
        "Look at them with their labels, which may have been drawn on the stored pixels; store both upright and remove the EXIF orientation.";
    /// Images of 16 bits per sample use only the lower bits.
    UnusedBits "unused-bits" Warning
        "images of 16 bits per sample that use at most 12, so they are read nearly black ({})"
        "Multiply the values so that they use all 16 bits, or save the images with 8 bits per sample.";
    /// Image files have the same content.
    SameImage "same-image" Warning
        "images with the same content as another image ({})"
        "Keep one of each; if they are in different splits, scores are too high.";
    /// Label files belong to no image.
    OrphanLabels "orphan-labels" Warning
        "label files without an image ({})"
        "Unpack the images completely, or remove the label files.";
    /// No pixel has an unseen class.
    NoUnseenPixels "no-unseen-pixels" Warning
        "no pixel has an unseen class"
        "Scores of unseen classes will be undefined on this split.";
    /// All labelled pixels of the split have the same class.
    OneClass "one-class" Warning
        "all label files have the same class in every labelled pixel"
        "Compare a label file with its image: its values may be read wrongly; scores on one class mean little.";
    /// Classes have no pixel.
    AbsentClass "absent-class" Note
        "classes without a pixel ({})"
        "Their scores are undefined on this split, and mean scores leave them out.";
    /// Label files have the same class in every pixel.
    OneValue "one-value" Note
        "label files with the same class in every pixel ({})"
        "Expected for images without an object; look at them otherwise.";
    /// Images have one grey channel.
    GreyImage "grey-image" Note
        "grey images ({})"
        "They are read with three equal channels.";
    /// Images are stored in CMYK.
    CmykImage "cmyk-image" Note
        "images in CMYK ({})"
        "They are converted to RGB; other programs may convert to other colours.";
    /// Some label files have a palette and some are grey.
    MixedStorage "mixed-storage" Note
        "label files are stored in more than one way"
        "Harmless here, but the files may come from two sources.";
    /// Only a part of the images was examined.
    Limited "limited" Note
        "the contents of {} images were not examined"
        "Examine the rest before a long run.";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_words_and_differ() {
        let names: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(code.as_str().chars().all(plain), "{}", code.as_str());
            assert!(code.remedy().ends_with('.'), "{}", code.as_str());
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
        }
    }
}
