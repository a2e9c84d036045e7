//! PASCAL VOC 2012: 20 classes without background, 15 seen and 5 unseen.
//!
//! The order is the usual alphabetical one; names are spelled as in the data set's class list, without spaces. The
//! published split is that of SPNet (CVPR 2019).
//!
//! ZegFormer (CVPR 2022) spells one name otherwise, so text embeddings of its class differ a little.

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

/// Class names in label order, as ZegFormer spells them.
pub(super) const ZEGFORMER_CLASSES: [&str; 20] = [
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
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];
