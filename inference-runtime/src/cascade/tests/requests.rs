//! Requests to a cascade.

use super::*;

#[tokio::test]
async fn the_answer_is_that_of_two_requests() {
    let bench = Bench::cascade(HEAVY);
    // As a model of its own the heavy one has no cascade.
    let alone = HEAVY
        .lines()
        .filter(|line| !line.starts_with("cascade"))
        .collect::<Vec<_>>();
    let own = served("own", "1", &HEAVY_INPUTS, &alone.join("\n"));
    bench.put(own, &[1.0, 0.5, 3.0], None);
    let mut random = StdRng::seed_from_u64(5);
    for rows in (1..12).chain([60]) {
        let list = List::of(rows, &mut random);
        for (keep, k) in [(4, None), (1, None), (3, Some(2)), (4, Some(9))] {
            let parameters = match k {
                None => json!({ "keep": keep }),
                Some(k) => json!({"keep": keep, "top_k": k}),
            };
            let (found, counts) = bench.ask("heavy", &list.whole(parameters)).await;
            let places = list.places(keep);
            let first = bench.ask("light", &list.light(keep)).await.0.unwrap();
            let kept: Vec<i64> = places.iter().map(|place| list.ids[*place]).collect();
            assert_eq!(items(&first), kept);
            let second = list.heavy(&places, k.unwrap_or(keep));
            assert_eq!(found.unwrap(), bench.ask("own", &second).await.0.unwrap());
            let (light, pairs) = counts.light.unwrap();
            assert_eq!((light.model.name.as_str(), pairs), ("light", rows as u64));
            assert_eq!(counts.pairs, places.len() as u64);
        }
    }
    assert_eq!(bench.serving.admission.requests(), 0);
}

#[tokio::test]
async fn nothing_kept_is_nothing_answered() {
    let bench = Bench::cascade(HEAVY);
    let drops = format!("{LIGHT}outputs: {{score: {{nonFinite: dropCandidate}}}}\n");
    bench.put(
        served("light", "2", &LIGHT_INPUTS, &drops),
        &[1.0, f32::NAN, 2.0],
        None,
    );
    let list = List::of(5, &mut StdRng::seed_from_u64(1)).whole(json!({}));
    let by_utility = HEAVY.replace("ids: item", "ids: item, utility: {sum: {score: 1.0}}");
    for (run, config) in [HEAVY, &by_utility].into_iter().enumerate() {
        let heavy = served("heavy", "1", &HEAVY_INPUTS, config);
        bench.put(heavy, &[1.0], None);
        let (outputs, counts) = bench.ask("heavy", &list).await;
        let outputs = outputs.unwrap();
        assert_eq!(
            (outputs.tensors[0].shape.as_slice(), items(&outputs)),
            (&[0][..], vec![])
        );
        assert_eq!((counts.pairs, bench.runs.load(Ordering::Relaxed)), (0, run + 1));
    }
    // Without that, a score that is NaN is the light model's mistake, and said to be.
    bench.put(served("light", "3", &LIGHT_INPUTS, LIGHT), &[f32::NAN], None);
    let error = bench.ask("heavy", &list).await.0.unwrap_err();
    assert_eq!(error.status.as_u16(), 500);
    assert!(
        error
            .message
            .starts_with("light model \"light\" of the cascade: output \"score\""),
        "{error}"
    );
}

#[tokio::test]
async fn a_deadline_that_passes_in_between_is_kept() {
    let bench = Bench::cascade(HEAVY);
    let list = List::of(5, &mut StdRng::seed_from_u64(1));
    // The light model's run ends after the request's time.
    let until = Instant::now() + Duration::from_millis(60);
    bench.put(served("light", "2", &LIGHT_INPUTS, LIGHT), &[1.0], Some(until));
    let (late, counts) = bench.ask("heavy", &list.whole(json!({"timeout": 40_000}))).await;
    let late = late.unwrap_err();
    assert_eq!((late.status.as_u16(), late.outcome), (429, "refused_deadline"));
    assert_eq!((counts.pairs, counts.light.unwrap().1), (0, 5));
    assert_eq!(bench.runs.load(Ordering::Relaxed), 1);
    assert_eq!(bench.serving.admission.requests(), 0);
    assert!(bench.ask("heavy", &list.whole(json!({}))).await.0.is_ok());
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let bench = Bench::cascade(HEAVY);
    let list = List::of(3, &mut StdRng::seed_from_u64(1));
    let changed = |place: usize, input: Value| {
        let mut body = list.whole(json!({}));
        body["inputs"][place] = input;
        body
    };
    let mut missing = list.whole(json!({}));
    missing["inputs"].as_array_mut().unwrap().remove(1);
    for (body, named) in [
        (
            changed(0, input("hints", 3, &[1.0; 3])),
            "input \"hints\" is not one of the cascade's: user, wide, x, item, hint",
        ),
        (
            changed(0, input("hint", 2, &[1.0; 2])),
            "light model \"light\" of the cascade: input \"hint\"",
        ),
        (
            changed(1, input("wide", 2, &[1.0; 6])),
            "input \"wide\": shape is [2, 3]; its first dimension is 3",
        ),
        (
            changed(1, input("wide", 3, &[1.0; 6])),
            "input \"wide\": shape is [3, 2]",
        ),
        (
            changed(2, input("user", 2, &[1.0; 4])),
            "input \"user\": shape is [2, 2]; its first dimension is 1, or 3",
        ),
        (missing, "input \"wide\" is missing"),
        (list.whole(json!({"top_k": 0})), "parameter \"top_k\" is 0"),
        (
            list.whole(json!({"keep": 0})),
            "parameter \"keep\" is 0; it is at least 1, and at most 4",
        ),
        (list.whole(json!({"keep": 5})), "parameter \"keep\" is 5"),
    ] {
        let error = bench.ask("heavy", &body).await.0.unwrap_err();
        assert_eq!(error.status.as_u16(), 400);
        assert!(error.message.contains(named), "{error}");
    }
    let error = bench
        .ask("light", &List::body(vec![], json!({"keep": 3})))
        .await
        .0
        .unwrap_err();
    assert!(
        error.message.contains("\"keep\": the model has no cascade"),
        "{error}"
    );
}

#[test]
fn a_table_has_for_one_model_what_the_other_is_sent() {
    let more = "topK: {ids: item}\ncascade: {model: light, keep: 2}\n";
    let (_folder, heavy) = items::tests::served(&[10, 20, 30], more);
    let inputs = [("vector", Datatype::F32, 2), ("item", Datatype::I64, 0)];
    let light = served("light", "1", &inputs, "device: cpu\ntopK: {ids: item}\n");
    fits(heavy.config.cascade.as_ref().unwrap(), &heavy, &light).unwrap();
    let tensor = |shape: &[usize], data| Tensor {
        shape: shape.to_vec(),
        data,
    };
    let vector = tensor(&[3, 2], Data::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let mut given = items::tests::own(3);
    given.push(("vector".into(), vector.clone()));
    given.push(("item".into(), tensor(&[3], Data::I64(vec![10, 20, 30]))));
    let (batch, _, rest) = split(given.clone(), (&heavy, &light), (Some(2), Some(2))).unwrap();
    assert_eq!(batch.inputs[0], vector);
    let (kept, asked) = rest.kept(&heavy, &[2, 0]).unwrap();
    assert_eq!(asked.unwrap().ids, Data::I64(vec![30, 10]));
    // Of the table, and of the request.
    assert_eq!(kept.inputs[3].data, Data::F32(vec![30.5, 0.0, 10.5, 0.0]));
    assert_eq!(kept.inputs[4].data, Data::F32(vec![2.0, 0.0]));
    // What nobody else takes is still there twice.
    given.push(("sparse.item".into(), tensor(&[3, 2], Data::I64(vec![0; 6]))));
    let (_, _, rest) = split(given, (&heavy, &light), (Some(2), Some(2))).unwrap();
    let error = rest.kept(&heavy, &[0]).unwrap_err();
    assert!(error.message.contains("send the ids, or the values"), "{error}");
}
