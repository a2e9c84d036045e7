//! PASCAL VOC 2012: 20 classes without background, 15 seen and 5 unseen.
//!
//! The usual alphabetical order of the data set; spelling as in its class list, spaces left out. The published split is
//! that of SPNet (CVPR 2019).

/// Class names in label order.
pub(super) const CLASSES: [&str; 20] = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];
