//! Tests of all methods' key tables together.

use std::collections::HashMap;

use safetensors::{Dtype, tensor::TensorView};
use zeg_weights::StateDict;

use crate::methods::Methods;

/// Returns the family and the renamed keys of a file that holds these names.
fn read(names: &[&str]) -> (&'static str, Vec<String>) {
    let number = 1.0_f32.to_le_bytes();
    let tensor = || TensorView::new(Dtype::F32, vec![1], &number).unwrap();
    let tensors = names.iter().map(|name| (*name, tensor()));
    let bytes = safetensors::serialize(tensors, None::<HashMap<String, String>>).unwrap();
    let weights = StateDict::from_bytes("test", bytes, &Methods::default().key_tables()).unwrap();
    (
        weights.family(),
        weights.keys().map(str::to_owned).collect(),
    )
}

#[test]
fn a_released_zegformer_keeps_its_names_and_its_text_tower_is_found() {
    let head = "sem_seg_head.predictor.query_embed.weight";
    let backbone = "backbone.res2.0.conv1.weight";
    let clip = "sem_seg_head.predictor.clip_model.";
    let visual = format!("{clip}visual.conv1.weight");
    let text = [
        "transformer.resblocks.0.ln_1.weight",
        "token_embedding.weight",
        "positional_embedding",
        "ln_final.bias",
        "text_projection",
    ];
    let of_clip = text.map(|name| format!("{clip}{name}"));
    let mut names = vec![head, backbone, &visual, "criterion.empty_weight"];
    names.extend(of_clip.iter().map(String::as_str));
    let mut expected = vec![head.to_owned(), backbone.to_owned(), visual.clone()];
    expected.extend(text.map(|name| format!("text_encoder.{name}")));
    expected.sort();
    assert_eq!(read(&names), ("ZegFormer", expected));
}

#[test]
fn a_released_zsseg_gets_the_names_of_clip_and_of_its_vectors() {
    let own = [
        "sem_seg_head.predictor.class_embed.layers.0.weight",
        "clip_adapter.non_object_embedding",
        "backbone.stem.conv3.weight",
    ];
    let clip = "clip_adapter.clip_model.";
    let prompts = "clip_adapter.prompt_learner.";
    let renamed = [
        (
            format!("{clip}visual.conv1.weight"),
            "backbone.conv1.weight",
        ),
        (format!("{clip}ln_final.bias"), "text_encoder.ln_final.bias"),
        (
            format!("{clip}text_projection"),
            "text_encoder.text_projection",
        ),
        (
            format!("{prompts}prefix_prompt"),
            "prompt_learner.prefix_prompt",
        ),
    ];
    let dropped = [
        "criterion.empty_weight".to_owned(),
        format!("{clip}logit_scale"),
        format!("{prompts}dot_signal"),
        "clip_adapter.pixel_mean".to_owned(),
    ];
    let mut names: Vec<&str> = own.to_vec();
    names.extend(renamed.iter().map(|(name, _)| name.as_str()));
    names.extend(dropped.iter().map(String::as_str));
    let mut expected: Vec<String> = own.map(str::to_owned).to_vec();
    expected.extend(renamed.iter().map(|(_, name)| (*name).to_owned()));
    expected.sort();
    assert_eq!(read(&names), ("zsseg", expected));
}

#[test]
fn vectors_for_crops_alone_are_marked() {
    let adapter = "_region_clip_adapter.";
    let names = [
        format!("{adapter}clip_model.visual.conv1.weight"),
        format!("{adapter}prompt_learner.prefix_prompt"),
        format!("{adapter}prompt_learner.end_signal"),
        "clip_adapter.clip_model.visual.conv1.weight".to_owned(),
    ];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let expected = [
        "backbone.conv1.weight",
        "prompt_learner.for_regions",
        "prompt_learner.prefix_prompt",
    ];
    assert_eq!(
        read(&names),
        ("zsseg", expected.map(str::to_owned).to_vec())
    );
}

#[test]
fn reference_checkpoints_of_zegclip_and_clip_rc_have_our_names() {
    let buffer = "decode_head.loss_decode.criterion.empty_weight";
    let prompts = "backbone.prompt_embeddings";
    let regions = "backbone.region_level_bridge";
    let kept = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    assert_eq!(read(&[prompts, buffer]), ("ZegCLIP", kept(&[prompts])));
    assert_eq!(
        read(&[prompts, regions, buffer]),
        ("ZegCLIP", kept(&[prompts, regions]))
    );
    // A file that is no method's checkpoint is recognised as before.
    assert_eq!(read(&["visual.proj"]).0, "OpenAI CLIP");
}
