#[test]
fn dump() {
    for (name, schema) in [
        ("experiment", schemars::schema_for!(zeg_train::experiment::Experiment)),
        ("zegclip", zeg_model::methods::zegclip::config::section_schema()),
        ("zegformer", zeg_model::methods::zegformer::entry::section_schema()),
        ("tf", zeg_model::methods::training_free::section_schema()),
        ("suite", zeg_cli::schema::suite()),
        ("plan", zeg_cli::schema::evaluation_plan()),
    ] {
        std::fs::write(format!("/tmp/schema-{name}.json"), serde_json::to_string_pretty(&schema).unwrap()).unwrap();
    }
}
