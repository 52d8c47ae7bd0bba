//! Which models can be a cascade, and what is said of those that cannot.

use super::*;

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    for (cascade, named) in [
        ("{model: '', keep: 3}", "cascade.model is empty"),
        ("{model: light, keep: 0}", "cascade.keep is 0; it is at least 1"),
        ("{model: light, keep: 4097}", "at most maxBatchSize, 4096"),
        ("{model: light}", "missing field `keep`"),
        ("{model: light, keep: 3, k: 3}", "unknown field `k`"),
    ] {
        let text = format!("topK: {{ids: item}}\ncascade: {cascade}");
        let failure = ModelConfig::parse(&text).unwrap_err();
        assert!(failure.message.contains(named), "{failure}");
    }
    let failure = ModelConfig::parse("cascade: {model: light, keep: 3}").unwrap_err();
    assert!(failure.message.contains("cascade needs topK"), "{failure}");
}

#[tokio::test]
async fn models_that_do_not_fit_are_refused_and_named() {
    let bench = Bench::new();
    let heavy = || served("heavy", "1", &HEAVY_INPUTS, HEAVY);
    let catalog = &bench.serving.catalog;
    // The light one may come later.
    check(catalog, &heavy()).unwrap();
    let mut wide = LIGHT_INPUTS;
    wide[1].2 = 3;
    let mut long = LIGHT_INPUTS;
    long[0].1 = Datatype::F64;
    let parts = |config: &str| config.replace("[user]", "['user[0:1]']");
    for (light, named) in [
        (
            served("light", "1", &LIGHT_INPUTS, "device: cpu"),
            "does not say what ranks",
        ),
        (
            served("light", "1", &LIGHT_INPUTS, &format!("{LIGHT}maxBatchSize: 4\n")),
            "so all would be kept",
        ),
        (
            served("light", "1", &LIGHT_INPUTS, &HEAVY.replace("light", "lighter")),
            "has a cascade itself",
        ),
        (
            served("light", "1", &wide, LIGHT),
            "input \"x\" is FP32 [-1, 2] here and FP32 [-1, 3] in \"light\"",
        ),
        (
            served("light", "1", &long, LIGHT),
            "input \"user\" is FP32 [-1, 2] here and FP64 [-1, 2]",
        ),
    ] {
        bench.put(light, &[], None);
        let failure = check(catalog, &heavy()).unwrap_err();
        assert_eq!(failure.reason, Reason::ConfigInvalid);
        assert!(failure.message.contains(named), "{failure}");
        bench.put(heavy(), &[], None);
        let error = bench.stages().err().unwrap();
        assert_eq!((error.status.as_u16(), error.outcome), (503, "unavailable"));
        assert!(error.message.contains(named), "{error}");
        assert!(!all_fed(catalog, &["heavy".to_owned()]));
        // One that does not fit anyway is replaced by anything.
        check(catalog, &served("light", "2", &wide, LIGHT)).unwrap();
        catalog.remove("heavy");
    }
    bench.put(served("light", "1", &LIGHT_INPUTS, LIGHT), &[], None);
    check(catalog, &heavy()).unwrap();
    bench.put(heavy(), &[], None);
    assert!(bench.stages().is_ok() && all_fed(catalog, &["heavy".to_owned()]));
    let failure = check(catalog, &served("light", "2", &wide, LIGHT)).unwrap_err();
    assert!(
        failure.message.contains("the model feeds \"heavy\" (cascade)"),
        "{failure}"
    );
    check(catalog, &served("other", "2", &wide, LIGHT)).unwrap();
    for own in ["heavy", "7"] {
        let itself = served(
            "heavy",
            "7",
            &HEAVY_INPUTS,
            &HEAVY.replace("model: light", &format!("model: '{own}'")),
        );
        let failure = check(catalog, &itself).unwrap_err();
        assert!(failure.message.contains("it is the model itself"), "{failure}");
    }
    // The same columns come in the same parts.
    let split = served("heavy", "2", &HEAVY_INPUTS, &parts(HEAVY));
    check(catalog, &split).unwrap();
    let other = LIGHT.replace("[user]", "['user[1:2]']");
    bench.put(served("light", "1", &LIGHT_INPUTS, &other), &[], None);
    let failure = check(catalog, &split).unwrap_err();
    assert!(
        failure
            .message
            .contains("input \"user.user\" is FP32 [-1, 1], columns [0] here"),
        "{failure}"
    );
    bench.put(served("light", "1", &LIGHT_INPUTS, &parts(LIGHT)), &[], None);
    check(catalog, &split).unwrap();
}

#[tokio::test]
async fn what_is_taken_out_by_hand_leaves_the_replica_ready() {
    let bench = Bench::cascade(HEAVY);
    let (catalog, heavy) = (&bench.serving.catalog, ["heavy".to_owned()]);
    catalog.remove("light");
    assert!(!all_fed(catalog, &heavy));
    let error = bench.stages().err().unwrap();
    assert_eq!(error.status.as_u16(), 503);
    assert!(
        error
            .message
            .contains("is fed by \"light\" (cascade.model), which does not answer"),
        "{error}"
    );
    let unloaded = Entry {
        state: State::Unloaded,
        ..Entry::default()
    };
    catalog.put("light", unloaded);
    assert!(all_fed(catalog, &heavy));
    assert!(bench.stages().err().unwrap().message.contains("unloaded"));
}

#[tokio::test]
async fn an_input_of_both_is_hashed_alike() {
    let bench = Bench::new();
    let with = |inputs: &[Input]| [inputs, &[("genre", Datatype::I64, 0)]].concat();
    let hashed = |config: &str, rows: u64| {
        format!("{config}inputs: {{genre: {{vocabularies: [{rows}], policies: [{{hash: xxh64}}]}}}}\n")
    };
    let heavy = served("heavy", "1", &with(&HEAVY_INPUTS), &hashed(HEAVY, 7));
    for (config, alike) in [
        (hashed(LIGHT, 7), true),
        (hashed(LIGHT, 8), false),
        (LIGHT.to_owned(), false),
    ] {
        bench.put(served("light", "1", &with(&LIGHT_INPUTS), &config), &[], None);
        match check(&bench.serving.catalog, &heavy) {
            Ok(()) => assert!(alike, "{config}"),
            Err(failure) => assert!(
                !alike
                    && failure
                        .message
                        .contains("\"genre\" is hashed in another way in \"light\""),
                "{failure}"
            ),
        }
    }
    // What only the light model has is hashed as it says.
    let both = Models {
        model: &served("heavy", "1", &HEAVY_INPUTS, HEAVY),
        light: Some(&served("light", "1", &with(&LIGHT_INPUTS), &hashed(LIGHT, 7))),
    };
    let genre = metadata::model(both, &[]).inputs.pop().unwrap();
    assert_eq!((genre.name.as_str(), genre.datatype.as_str()), ("genre", "BYTES"));
}

#[test]
fn metadata_lists_what_both_take() {
    let (heavy, light) = (
        served("heavy", "1", &HEAVY_INPUTS, HEAVY),
        served(
            "light",
            "1",
            &LIGHT_INPUTS,
            &format!("{LIGHT}maxBatchSize: 900\n"),
        ),
    );
    let both = Models {
        model: &heavy,
        light: Some(&light),
    };
    let names: Vec<String> = metadata::model(both, &[])
        .inputs
        .into_iter()
        .map(|input| input.name)
        .collect();
    assert_eq!(names, ["user", "wide", "x", "item", "hint"]);
    let config = metadata::config(both);
    assert_eq!((config.max_batch_size, config.input.len()), (900, 5));
    assert_eq!(config.parameters["cascade"].string_value, "light: 4");
    assert_eq!(metadata::model(&heavy, &[]).inputs.len(), 4);
}
