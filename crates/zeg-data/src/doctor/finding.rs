//! What the doctor can find, each with a name that stays, a severity and a way out.

use serde::{Serialize, Serializer};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training or scores would fail or be wrong.
    Error,
    /// Unusual; look at it.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its name, which does not change between versions.
    pub code: Code,
    /// What was found, with the first file and value.
    pub message: String,
    /// How many files, images, lines or classes it concerns.
    pub count: usize,
    /// The first few of them.
    pub examples: Vec<String>,
    /// What to do.
    pub remedy: &'static str,
}

/// Declares the codes: name, severity, headline with `{}` for the count, remedy.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $severity:ident $headline:literal $remedy:literal;)*) => {
        /// The name of a finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in words and hyphens.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)*
                }
            }

            /// What to do.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$variant => $remedy,)*
                }
            }

            /// What was found, with the count.
            pub(super) fn headline(self, count: usize) -> String {
                match self {
                    $(Self::$variant => $headline.replacen("{}", &count.to_string(), 1),)*
                }
            }
        }
    };
}

codes! {
    /// Label maps in COCO's raw ids.
    RawCocoIds "raw-coco-ids" Error
        "folders of label maps in raw COCO ids ({})"
        "Convert the label maps to the 171 train ids (*_labelTrainIds.png).";
    /// Label maps as they were downloaded.
    UnconvertedLabels "unconverted-labels" Error
        "label maps that were not converted; the first of them"
        "Make the *_labelTrainIds.png from the files of the download.";
    /// Images do not exist.
    MissingImage "missing-image" Error
        "images that do not exist ({})"
        "Unpack the data set completely, or take the ids out of the list.";
    /// Label files do not exist.
    MissingLabels "missing-labels" Error
        "label files that do not exist ({})"
        "Unpack or convert the label maps of this split completely, or take the ids out of the list.";
    /// A file exists under a name of other case.
    CaseMismatch "case-mismatch" Error
        "files whose names differ in upper and lower case only ({})"
        "Rename the files: names are told apart by case on most systems.";
    /// Images of training and of scoring are the same.
    TrainValOverlap "train-val-overlap" Error
        "ids that stand in a split for training and in one for scoring ({})"
        "Take them out of the training list; scores on images that were trained on say nothing.";
    /// An id stands twice in the list.
    RepeatedId "repeated-id" Error
        "repeated ids in the list ({})"
        "Keep one line of each; a repeated image counts twice.";
    /// Files without a byte.
    EmptyFile "empty-file" Error
        "files of zero bytes ({})"
        "Copy or download them again; a full disk or a broken transfer leaves such files.";
    /// An image cannot be decoded.
    UnreadableImage "unreadable-image" Error
        "images that cannot be decoded ({})"
        "Download them again; compare their sizes with the original.";
    /// A label file cannot be decoded.
    UnreadableLabels "unreadable-labels" Error
        "label files that cannot be decoded ({})"
        "Download or convert them again.";
    /// Index labels in a lossy format.
    LossyLabels "lossy-labels" Error
        "index label files in a format that changes values ({})"
        "Store index labels as PNG; JPEG changes the numbers. Masks that are black and white can be read as kind = \"binary\".";
    /// Index labels in three channels.
    ColourLabels "colour-labels" Error
        "label files stored in colour ({})"
        "Convert them to one channel of class numbers, or describe the colours (kind = \"palette\").";
    /// Index labels in grey of fewer than 8 bits.
    LabelBitDepth "label-bit-depth" Error
        "grey label files of a bit depth that does not keep class numbers ({})"
        "Store them with 8 or 16 bits a pixel, or with a palette.";
    /// Labels that were blurred.
    SmearedLabels "smeared-labels" Error
        "label files with values as after JPEG or a smooth resize ({})"
        "Make them again from the originals: resize labels with nearest neighbour, and never store them as JPEG.";
    /// Values that are no class.
    IllegalLabel "illegal-label" Error
        "label files with values that are no class ({})"
        "Check the numbering against the class list, or name the values of no class.";
    /// Colours that are no class.
    IllegalColour "illegal-colour" Error
        "label files with colours that are no class ({})"
        "Name the colours of all classes, and those of no class in `ignore-colours`.";
    /// A binary mask that never reaches the threshold.
    MaskBelowThreshold "mask-below-threshold" Error
        "masks that hold other values than 0, but none that reaches the threshold ({})"
        "Set `threshold = 1` for masks of 0 and 1.";
    /// Image and labels differ in size.
    SizeMismatch "size-mismatch" Error
        "pairs of which image and labels differ in size ({})"
        "Take both from the same download, or resize the labels with nearest neighbour.";
    /// A split that is not whole.
    NotTheOfficialSplit "not-the-official-split" Warning
        "the split is not the official one"
        "Complete it, or say beside every score how many images it is of.";
    /// Labels that seem to be one too low or too high.
    ShiftedLabels "shifted-labels" Warning
        "labels look shifted by one"
        "Compare a label map with its image; choose the class list with or without background that fits.";
    /// No border where there should be one.
    NoBorder "no-border" Warning
        "hardly a label map has the value 255, which marks the borders of objects in this data set"
        "Use the official label maps; where 0 took the place of 255, borders count as background.";
    /// Nothing is labelled.
    AllIgnored "all-ignored" Warning
        "label files without a single pixel of a class ({})"
        "Such images take part in nothing; take them out, or look whether their labels are those of the image.";
    /// Masks that are neither black nor white.
    GreyMask "grey-mask" Warning
        "masks with many pixels that are neither dark nor bright ({})"
        "Look at the masks: they may be blurred, or hold probabilities; choose the threshold on purpose.";
    /// Images with a note to be turned.
    ExifRotation "exif-rotation" Warning
        "images that their EXIF note turns by a quarter ({})"
        "Other programs may not turn them; store them upright, with labels of the same orientation.";
    /// Files of the same content.
    SameImage "same-image" Warning
        "images with the content of another ({})"
        "Keep one of each; if they stand in different splits, scores are too good.";
    /// Label files that belong to no image.
    OrphanLabels "orphan-labels" Warning
        "label files without an image ({})"
        "Unpack the images completely, or remove the label files.";
    /// No unseen class occurs.
    NoUnseenPixels "no-unseen-pixels" Warning
        "no pixel has an unseen class"
        "Scores of unseen classes will be undefined on this split.";
    /// Classes without a pixel.
    AbsentClass "absent-class" Note
        "classes without a pixel ({})"
        "Their scores are undefined on this split, and means leave them out.";
    /// Label files of one value.
    OneValue "one-value" Note
        "label files with one class everywhere ({})"
        "Expected for images without an object; otherwise look at them.";
    /// Images without colour.
    GreyImage "grey-image" Note
        "images without colour ({})"
        "They are read with three equal channels.";
    /// Images in printing colours.
    CmykImage "cmyk-image" Note
        "images in CMYK ({})"
        "They are converted to RGB; other programs may give other colours.";
    /// Indices with and without a palette.
    MixedStorage "mixed-storage" Note
        "label files are stored in more than one way"
        "Harmless here; it may show that they come from two sources.";
    /// A part was looked into.
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
