//! Tests that errors planted into the computation are found in every file that they concern.
//!
//! `src/result_tests.rs` tests errors of single results.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use zeg_parity::{
    Options,
    PlantedError::{
        self, MissingTerm, ScaledWeight, SwappedHeads, WrongAttentionMask, WrongLabelMask,
        ZeroedToken,
    },
    run,
};

/// Errors of every image encoder.
const ENCODER: [PlantedError; 5] = [
    ScaledWeight("conv1.weight"),
    ScaledWeight("resblocks.0.attn.out_proj.weight"),
    ScaledWeight("resblocks.0.mlp.c_proj.weight"),
    ZeroedToken,
    SwappedHeads,
];
/// Errors of every text encoder.
const TEXT: [PlantedError; 5] = [
    ScaledWeight("resblocks.0.mlp.c_proj.weight"),
    ScaledWeight("text_projection"),
    ZeroedToken,
    SwappedHeads,
    WrongAttentionMask,
];
/// Errors of the mask loss.
const LOSS: [PlantedError; 3] = [MissingTerm("focal"), MissingTerm("dice"), WrongLabelMask];
/// Errors of the parts that CLIP-RC adds.
const REGIONS: [PlantedError; 3] = [
    MissingTerm("recovery-queries"),
    MissingTerm("recovery-patches"),
    WrongAttentionMask,
];
/// Errors of ZegFormer's first stage.
const MASK_TRANSFORMER: [PlantedError; 5] = [
    ScaledWeight("backbone.stem.conv1.weight"),
    ScaledWeight("mask_features.weight"),
    ScaledWeight("decoder.layers.0.linear2.weight"),
    ZeroedToken,
    SwappedHeads,
];
/// Errors of ZegFormer's losses.
const SET_LOSS: [PlantedError; 4] = [
    MissingTerm("loss_ce"),
    MissingTerm("loss_mask"),
    MissingTerm("loss_dice"),
    WrongLabelMask,
];
/// Errors of ZegFormer's second stage.
const CROPS: [PlantedError; 4] = [
    ScaledWeight("visual.conv1.weight"),
    ZeroedToken,
    SwappedHeads,
    WrongLabelMask,
];

/// Errors of CAT-Seg's aggregator.
const AGGREGATOR: [PlantedError; 7] = [
    ScaledWeight("transformer.conv1.weight"),
    ScaledWeight("swin_block.block_2.attn.q.weight"),
    ScaledWeight("attention.padding_tokens"),
    ScaledWeight("attention.mlp.2.weight"),
    ScaledWeight("decoder1.up.weight"),
    ScaledWeight("double_conv.4.weight"),
    ScaledWeight("decoder_guidance_projection.1.0.weight"),
];
/// Errors of a residual tower that guides MaskCLIP+.
const RESIDUAL_GUIDE: [PlantedError; 4] = [
    ScaledWeight("clip.conv1.weight"),
    ScaledWeight("clip.layer4.2.conv3.weight"),
    ScaledWeight("attnpool.c_proj.weight"),
    ZeroedToken,
];
/// Errors of MaskCLIP+'s student. Batch normalisation in training undoes a factor on the kernel before it.
const STUDENT: [PlantedError; 5] = [
    ScaledWeight("student.layer4.2.bn3.weight"),
    ScaledWeight("aspp_modules.0.bn.weight"),
    ScaledWeight("clip.conv1.weight"),
    ZeroedToken,
    WrongLabelMask,
];

/// Returns the path of a file of the repository.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Returns the path of a file of the shared vectors.
fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/vectors")
        .join(name)
}

/// Plants each of these errors into a file, if the file exists.
fn plant(path: &Path, errors: &[&[PlantedError]]) {
    if !path.exists() {
        use std::io::Write as _;
        // Writes directly to standard error, because the test harness captures `eprintln!`.
        let line = format!("skipped: {} does not exist\n", path.display());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    for error in errors.iter().copied().flatten() {
        let options = Options {
            device: Device::flex(),
            assets: None,
            planted: Some(*error),
        };
        let mut report = Vec::new();
        let summary = run(&[path.to_owned()], &options, &mut report).unwrap();
        let report = String::from_utf8(report).unwrap();
        let found = summary.failed > 0 && summary.unreadable == 0 && summary.tensors > 0;
        assert!(
            found,
            "{error:?} in {} is not found:\n{report}",
            path.display()
        );
    }
}

#[test]
fn errors_are_found_in_small_models_of_the_repository() {
    let zegclip: [&[_]; 3] = [&ENCODER, &LOSS, &[WrongAttentionMask]];
    let clip_rc: [&[_]; 3] = [&ENCODER, &LOSS, &REGIONS];
    plant(&golden("zegclip_eps_a.safetensors"), &zegclip);
    plant(&golden("cliprc_eps_a.safetensors"), &clip_rc);
    plant(&golden("cliprc_st_a.safetensors"), &clip_rc);
}

#[test]
fn errors_are_found_in_single_parts_of_the_repository() {
    plant(&golden("variants_a.safetensors"), &[&ENCODER]);
    plant(&golden("text_encoder_a.safetensors"), &[&TEXT]);
    plant(&golden("misc_zegclip.safetensors"), &[&LOSS]);
}

#[test]
fn errors_are_found_in_zegformer_of_the_repository() {
    let file = |part: &str| golden(&format!("zegformer/a_{part}.safetensors"));
    plant(&file("train"), &[&MASK_TRANSFORMER, &SET_LOSS]);
    // This shortened file has no binary masks, of which the last error of the second stage changes one pixel.
    let [crops @ .., WrongLabelMask] = &CROPS else {
        panic!("the last error of the second stage must be WrongLabelMask");
    };
    plant(&file("infer"), &[&MASK_TRANSFORMER, crops]);
    plant(&file("cliptext"), &[&TEXT]);
}

#[test]
fn errors_are_found_in_cat_seg_of_the_repository() {
    // A factor on the text projection would vanish, since class embeddings have unit length.
    let text = [WrongAttentionMask, ScaledWeight("token_embedding.weight")];
    let middle = [
        ScaledWeight("upsample1.weight"),
        ScaledWeight("upsample2.weight"),
    ];
    plant(
        &golden("catseg_eps_a.safetensors"),
        &[&ENCODER, &AGGREGATOR, &text, &middle],
    );
}

#[test]
fn errors_are_found_in_shared_numbers_of_cat_seg() {
    let training = [MissingTerm("bce"), WrongLabelMask];
    let file = |name: &str| shared(&format!("cat-seg/{name}.safetensors"));
    plant(&file("catseg_a"), &[&ENCODER, &AGGREGATOR, &training]);
    // No variant has padding tokens.
    let padding = ScaledWeight("attention.padding_tokens");
    let variants = AGGREGATOR.iter().filter(|&error| *error != padding);
    plant(
        &file("variants_a"),
        &[&variants.copied().collect::<Vec<_>>()],
    );
}

#[test]
fn errors_are_found_in_shared_small_models() {
    let zegclip: [&[_]; 3] = [&ENCODER, &LOSS, &[WrongAttentionMask]];
    let clip_rc: [&[_]; 3] = [&ENCODER, &LOSS, &REGIONS];
    plant(&shared("zegclip/zegclip_inductive_a.safetensors"), &zegclip);
    plant(&shared("zegclip/zegclip_st_a.safetensors"), &zegclip);
    plant(&shared("clip-rc/cliprc_inductive_a.safetensors"), &clip_rc);
}

#[test]
fn errors_are_found_in_shared_numbers_of_zegformer() {
    let file = |part: &str| shared(&format!("zegformer/a_{part}.safetensors"));
    plant(&file("train"), &[&MASK_TRANSFORMER, &SET_LOSS]);
    plant(&file("grads"), &[&MASK_TRANSFORMER, &SET_LOSS]);
    plant(&file("infer"), &[&MASK_TRANSFORMER, &CROPS]);
    plant(&file("clipbranch"), &[&CROPS]);
}

/// Errors of zsseg's prompt stage. A factor on the text projection would vanish, since class embeddings have unit length.
const PROMPTS: [PlantedError; 4] = [
    ScaledWeight("visual.conv1.weight"),
    WrongAttentionMask,
    ZeroedToken,
    WrongLabelMask,
];

/// Returns errors without the first, a factor on a weight. Class embeddings of the small zsseg are nearly one direction, and
/// its crops are large, so that the factor changes them by less than the limit.
fn without_first(errors: &[PlantedError]) -> &[PlantedError] {
    errors.get(1..).unwrap_or_default()
}

#[test]
fn errors_are_found_in_zsseg_of_the_repository() {
    let file = |part: &str| golden(&format!("zsseg/a_{part}.safetensors"));
    plant(&file("train"), &[&MASK_TRANSFORMER, &SET_LOSS]);
    plant(&file("infer"), &[&MASK_TRANSFORMER, &CROPS]);
    plant(&file("prompt"), &[&PROMPTS]);
    plant(&file("text"), &[without_first(&TEXT)]);
}

#[test]
fn errors_are_found_in_shared_numbers_of_zsseg() {
    let file = |part: &str| shared(&format!("zsseg/a_{part}.safetensors"));
    plant(&file("train"), &[&MASK_TRANSFORMER, &SET_LOSS]);
    // One pixel of each mask changes the gradients by less than their limit.
    let terms = SET_LOSS.iter().filter(|&error| *error != WrongLabelMask);
    let terms: Vec<_> = terms.copied().collect();
    plant(&file("grads"), &[&MASK_TRANSFORMER, &terms]);
    plant(&file("infer"), &[&MASK_TRANSFORMER, &CROPS]);
    plant(&file("regions"), &[without_first(&CROPS)]);
    plant(&file("prompt"), &[&PROMPTS]);
    plant(&file("text"), &[without_first(&TEXT)]);
}

#[test]
fn errors_are_found_in_shared_numbers_of_maskclip_plus() {
    let file = |part: &str| shared(&format!("maskclip-plus/a_{part}.safetensors"));
    plant(&file("maskclip_vit"), &[&ENCODER]);
    plant(&file("maskclip_rn"), &[&RESIDUAL_GUIDE]);
    plant(&file("vit_guided"), &[&ENCODER]);
    // Class embeddings have unit length, whatever the factor of the projection.
    plant(&file("text"), &[&TEXT[..1], &TEXT[2..4]]);
    for student in ["v2", "v3p"] {
        plant(&file(&format!("{student}_train")), &[&STUDENT]);
        let errors = [ZeroedToken, WrongLabelMask];
        plant(&file(&format!("{student}_grads")), &[&errors]);
    }
}

#[test]
fn errors_are_found_in_shared_models_of_published_size() {
    plant(
        &shared("zegclip/full_zegclip_voc.safetensors"),
        &[&ENCODER, &LOSS],
    );
    plant(
        &shared("clip-rc/full_cliprc_voc.safetensors"),
        &[&ENCODER, &LOSS, &REGIONS],
    );
}

/// Scaled weights are left out: the limits allow for two builds of the reference that differ by 3e-4, and a factor of
/// 1.001 is within them.
#[test]
fn errors_are_found_in_the_shared_training_run() {
    plant(
        &shared("training/zegclip_trajectory_a.safetensors"),
        &[&[ZeroedToken, SwappedHeads], &LOSS],
    );
}
