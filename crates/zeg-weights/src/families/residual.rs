//! Key tables of residual networks.

use crate::key_table::{IgnoredKeys, KeyTable, Rename};

/// The key table of torchvision's residual networks; in `zeg` they have detectron2's names.
pub(crate) const TORCHVISION_RESNET: KeyTable = KeyTable {
    family: "torchvision ResNet",
    recognised_by: &["layer1.0.conv1.weight"],
    renames: &[
        Rename::one(&["conv1.weight"], "backbone.stem.conv1.weight"),
        Rename::one(&["bn1.*"], "backbone.stem.conv1.norm.*"),
        Rename::one(&["layer1.#.conv1.weight"], "backbone.res2.#.conv1.weight"),
        Rename::one(&["layer1.#.conv2.weight"], "backbone.res2.#.conv2.weight"),
        Rename::one(&["layer1.#.conv3.weight"], "backbone.res2.#.conv3.weight"),
        Rename::one(&["layer1.#.bn1.*"], "backbone.res2.#.conv1.norm.*"),
        Rename::one(&["layer1.#.bn2.*"], "backbone.res2.#.conv2.norm.*"),
        Rename::one(&["layer1.#.bn3.*"], "backbone.res2.#.conv3.norm.*"),
        Rename::one(
            &["layer1.#.downsample.0.weight"],
            "backbone.res2.#.shortcut.weight",
        ),
        Rename::one(
            &["layer1.#.downsample.1.*"],
            "backbone.res2.#.shortcut.norm.*",
        ),
        Rename::one(&["layer2.#.conv1.weight"], "backbone.res3.#.conv1.weight"),
        Rename::one(&["layer2.#.conv2.weight"], "backbone.res3.#.conv2.weight"),
        Rename::one(&["layer2.#.conv3.weight"], "backbone.res3.#.conv3.weight"),
        Rename::one(&["layer2.#.bn1.*"], "backbone.res3.#.conv1.norm.*"),
        Rename::one(&["layer2.#.bn2.*"], "backbone.res3.#.conv2.norm.*"),
        Rename::one(&["layer2.#.bn3.*"], "backbone.res3.#.conv3.norm.*"),
        Rename::one(
            &["layer2.#.downsample.0.weight"],
            "backbone.res3.#.shortcut.weight",
        ),
        Rename::one(
            &["layer2.#.downsample.1.*"],
            "backbone.res3.#.shortcut.norm.*",
        ),
        Rename::one(&["layer3.#.conv1.weight"], "backbone.res4.#.conv1.weight"),
        Rename::one(&["layer3.#.conv2.weight"], "backbone.res4.#.conv2.weight"),
        Rename::one(&["layer3.#.conv3.weight"], "backbone.res4.#.conv3.weight"),
        Rename::one(&["layer3.#.bn1.*"], "backbone.res4.#.conv1.norm.*"),
        Rename::one(&["layer3.#.bn2.*"], "backbone.res4.#.conv2.norm.*"),
        Rename::one(&["layer3.#.bn3.*"], "backbone.res4.#.conv3.norm.*"),
        Rename::one(
            &["layer3.#.downsample.0.weight"],
            "backbone.res4.#.shortcut.weight",
        ),
        Rename::one(
            &["layer3.#.downsample.1.*"],
            "backbone.res4.#.shortcut.norm.*",
        ),
        Rename::one(&["layer4.#.conv1.weight"], "backbone.res5.#.conv1.weight"),
        Rename::one(&["layer4.#.conv2.weight"], "backbone.res5.#.conv2.weight"),
        Rename::one(&["layer4.#.conv3.weight"], "backbone.res5.#.conv3.weight"),
        Rename::one(&["layer4.#.bn1.*"], "backbone.res5.#.conv1.norm.*"),
        Rename::one(&["layer4.#.bn2.*"], "backbone.res5.#.conv2.norm.*"),
        Rename::one(&["layer4.#.bn3.*"], "backbone.res5.#.conv3.norm.*"),
        Rename::one(
            &["layer4.#.downsample.0.weight"],
            "backbone.res5.#.shortcut.weight",
        ),
        Rename::one(
            &["layer4.#.downsample.1.*"],
            "backbone.res5.#.shortcut.norm.*",
        ),
    ],
    ignored: &[IgnoredKeys {
        pattern: "fc.*",
        why: "the ImageNet classifier",
    }],
    extras: &[],
};

/// The key table of detectron2's residual networks, as `convert-torchvision-to-d2.py` writes them.
pub(crate) const DETECTRON2_RESNET: KeyTable = KeyTable {
    family: "detectron2 ResNet",
    recognised_by: &["res2.0.conv1.weight"],
    renames: &[
        Rename::one(&["stem.*"], "backbone.stem.*"),
        Rename::one(&["res2.*"], "backbone.res2.*"),
        Rename::one(&["res3.*"], "backbone.res3.*"),
        Rename::one(&["res4.*"], "backbone.res4.*"),
        Rename::one(&["res5.*"], "backbone.res5.*"),
    ],
    ignored: &[
        IgnoredKeys {
            pattern: "stem.fc.*",
            why: "the ImageNet classifier",
        },
        IgnoredKeys {
            pattern: "linear.*",
            why: "the ImageNet classifier",
        },
        IgnoredKeys {
            pattern: "fc.*",
            why: "the ImageNet classifier",
        },
    ],
    extras: &[],
};

/// The key table of MSRA's residual networks with Caffe2's names, such as detectron2's `R-101.pkl`.
///
/// Each normalisation is stored as a scale and a bias, into which mean and variance are folded.
pub(crate) const CAFFE2_RESNET: KeyTable = KeyTable {
    family: "Caffe2 ResNet",
    recognised_by: &["res2_0_branch2a_w"],
    renames: &[
        Rename::one(&["conv1_w"], "backbone.stem.conv1.weight"),
        Rename::one(&["res_conv1_bn_s"], "backbone.stem.conv1.norm.weight"),
        Rename::one(&["res_conv1_bn_b"], "backbone.stem.conv1.norm.bias"),
        Rename::one(&["res2_#_branch2a_w"], "backbone.res2.#.conv1.weight"),
        Rename::one(
            &["res2_#_branch2a_bn_s"],
            "backbone.res2.#.conv1.norm.weight",
        ),
        Rename::one(&["res2_#_branch2a_bn_b"], "backbone.res2.#.conv1.norm.bias"),
        Rename::one(&["res2_#_branch2b_w"], "backbone.res2.#.conv2.weight"),
        Rename::one(
            &["res2_#_branch2b_bn_s"],
            "backbone.res2.#.conv2.norm.weight",
        ),
        Rename::one(&["res2_#_branch2b_bn_b"], "backbone.res2.#.conv2.norm.bias"),
        Rename::one(&["res2_#_branch2c_w"], "backbone.res2.#.conv3.weight"),
        Rename::one(
            &["res2_#_branch2c_bn_s"],
            "backbone.res2.#.conv3.norm.weight",
        ),
        Rename::one(&["res2_#_branch2c_bn_b"], "backbone.res2.#.conv3.norm.bias"),
        Rename::one(&["res2_#_branch1_w"], "backbone.res2.#.shortcut.weight"),
        Rename::one(
            &["res2_#_branch1_bn_s"],
            "backbone.res2.#.shortcut.norm.weight",
        ),
        Rename::one(
            &["res2_#_branch1_bn_b"],
            "backbone.res2.#.shortcut.norm.bias",
        ),
        Rename::one(&["res3_#_branch2a_w"], "backbone.res3.#.conv1.weight"),
        Rename::one(
            &["res3_#_branch2a_bn_s"],
            "backbone.res3.#.conv1.norm.weight",
        ),
        Rename::one(&["res3_#_branch2a_bn_b"], "backbone.res3.#.conv1.norm.bias"),
        Rename::one(&["res3_#_branch2b_w"], "backbone.res3.#.conv2.weight"),
        Rename::one(
            &["res3_#_branch2b_bn_s"],
            "backbone.res3.#.conv2.norm.weight",
        ),
        Rename::one(&["res3_#_branch2b_bn_b"], "backbone.res3.#.conv2.norm.bias"),
        Rename::one(&["res3_#_branch2c_w"], "backbone.res3.#.conv3.weight"),
        Rename::one(
            &["res3_#_branch2c_bn_s"],
            "backbone.res3.#.conv3.norm.weight",
        ),
        Rename::one(&["res3_#_branch2c_bn_b"], "backbone.res3.#.conv3.norm.bias"),
        Rename::one(&["res3_#_branch1_w"], "backbone.res3.#.shortcut.weight"),
        Rename::one(
            &["res3_#_branch1_bn_s"],
            "backbone.res3.#.shortcut.norm.weight",
        ),
        Rename::one(
            &["res3_#_branch1_bn_b"],
            "backbone.res3.#.shortcut.norm.bias",
        ),
        Rename::one(&["res4_#_branch2a_w"], "backbone.res4.#.conv1.weight"),
        Rename::one(
            &["res4_#_branch2a_bn_s"],
            "backbone.res4.#.conv1.norm.weight",
        ),
        Rename::one(&["res4_#_branch2a_bn_b"], "backbone.res4.#.conv1.norm.bias"),
        Rename::one(&["res4_#_branch2b_w"], "backbone.res4.#.conv2.weight"),
        Rename::one(
            &["res4_#_branch2b_bn_s"],
            "backbone.res4.#.conv2.norm.weight",
        ),
        Rename::one(&["res4_#_branch2b_bn_b"], "backbone.res4.#.conv2.norm.bias"),
        Rename::one(&["res4_#_branch2c_w"], "backbone.res4.#.conv3.weight"),
        Rename::one(
            &["res4_#_branch2c_bn_s"],
            "backbone.res4.#.conv3.norm.weight",
        ),
        Rename::one(&["res4_#_branch2c_bn_b"], "backbone.res4.#.conv3.norm.bias"),
        Rename::one(&["res4_#_branch1_w"], "backbone.res4.#.shortcut.weight"),
        Rename::one(
            &["res4_#_branch1_bn_s"],
            "backbone.res4.#.shortcut.norm.weight",
        ),
        Rename::one(
            &["res4_#_branch1_bn_b"],
            "backbone.res4.#.shortcut.norm.bias",
        ),
        Rename::one(&["res5_#_branch2a_w"], "backbone.res5.#.conv1.weight"),
        Rename::one(
            &["res5_#_branch2a_bn_s"],
            "backbone.res5.#.conv1.norm.weight",
        ),
        Rename::one(&["res5_#_branch2a_bn_b"], "backbone.res5.#.conv1.norm.bias"),
        Rename::one(&["res5_#_branch2b_w"], "backbone.res5.#.conv2.weight"),
        Rename::one(
            &["res5_#_branch2b_bn_s"],
            "backbone.res5.#.conv2.norm.weight",
        ),
        Rename::one(&["res5_#_branch2b_bn_b"], "backbone.res5.#.conv2.norm.bias"),
        Rename::one(&["res5_#_branch2c_w"], "backbone.res5.#.conv3.weight"),
        Rename::one(
            &["res5_#_branch2c_bn_s"],
            "backbone.res5.#.conv3.norm.weight",
        ),
        Rename::one(&["res5_#_branch2c_bn_b"], "backbone.res5.#.conv3.norm.bias"),
        Rename::one(&["res5_#_branch1_w"], "backbone.res5.#.shortcut.weight"),
        Rename::one(
            &["res5_#_branch1_bn_s"],
            "backbone.res5.#.shortcut.norm.weight",
        ),
        Rename::one(
            &["res5_#_branch1_bn_b"],
            "backbone.res5.#.shortcut.norm.bias",
        ),
    ],
    ignored: &[
        IgnoredKeys {
            pattern: "conv1_b",
            why: "zeros, because the normalisation after it has a bias",
        },
        IgnoredKeys {
            pattern: "fc1000_*",
            why: "the ImageNet classifier",
        },
        IgnoredKeys {
            pattern: "pred_*",
            why: "the ImageNet classifier",
        },
    ],
    extras: &[],
};
