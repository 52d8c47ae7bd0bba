use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser as _;
use prometheus_client::metrics::gauge::Gauge;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::*;
use crate::args::{Cli, Command};
use crate::catalog::Entry;
use crate::engine::{Batch, Chosen, Data, Datatype, Engine, Layout, Outputs, RunError, Signature, Tensor};
use crate::ids::IdRules;
use crate::items;
use crate::model::digest::Digest;
use crate::model::loading::Loaded;
use crate::model::top_k::TopK;
use crate::protocol::{metadata, request};
use crate::queue::Batching;
use crate::server::Serving;
use crate::server::score::{self, Counts};
use crate::worker;

const HEAVY: &str =
    "device: cpu\nrequestInputs: [user]\ntopK: {ids: item}\ncascade: {model: light, keep: 4}\n";
const LIGHT: &str = "device: cpu\nrequestInputs: [user]\ntopK: {ids: item}\n";

/// One row a candidate: its name, type, and width (0: none).
type Input = (&'static str, Datatype, usize);

const HEAVY_INPUTS: [Input; 4] = [
    ("user", Datatype::F32, 2),
    ("wide", Datatype::F32, 3),
    ("x", Datatype::F32, 2),
    ("item", Datatype::I64, 0),
];
const LIGHT_INPUTS: [Input; 4] = [
    ("user", Datatype::F32, 2),
    ("x", Datatype::F32, 2),
    ("hint", Datatype::F32, 0),
    ("item", Datatype::I64, 0),
];

fn served(name: &str, version: &str, inputs: &[Input], config: &str) -> ServedModel {
    let rows = || Dim::Named("n".into());
    let spec = |(name, datatype, width): &Input| {
        let dims = [rows()]
            .into_iter()
            .chain((*width > 0).then_some(Dim::Fixed(*width)));
        TensorSpec::new(name, *datatype, dims.collect())
    };
    let signature = Signature {
        inputs: inputs.iter().map(spec).collect(),
        outputs: vec![TensorSpec::new("score", Datatype::F32, vec![rows()])],
    };
    let config = ModelConfig::parse(config).unwrap();
    let layout = config.layout(&signature).unwrap();
    ServedModel {
        name: name.into(),
        version: version.into(),
        ids: Arc::new(IdRules::new(&config, (&signature, &layout), &[]).unwrap()),
        top_k: TopK::of(&config, &signature, &layout).unwrap(),
        signature: Arc::new(signature),
        layout: Arc::new(layout),
        chosen: Arc::new(Chosen::RANK),
        config: Arc::new(config),
        items: None,
        batching: Batching::NONE,
    }
}

/// Adds up what a pair has, weighted by input; runs until `until`.
struct Sums {
    layout: Arc<Layout>,
    weights: Vec<f32>,
    until: Option<Instant>,
    runs: Arc<AtomicUsize>,
}

impl Engine for Sums {
    fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), RunError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        while self.until.is_some_and(|until| Instant::now() < until) {
            std::thread::yield_now();
        }
        let mut scores = vec![0.0; batch.rows];
        for (tensor, weight) in self.layout.repeated(batch).iter().zip(&self.weights) {
            let Data::F32(values) = &tensor.data else { continue };
            let width = values.len() / scores.len();
            for (score, row) in scores.iter_mut().zip(values.chunks(width)) {
                *score += weight * row.iter().sum::<f32>();
            }
        }
        outputs.tensors = vec![Tensor {
            shape: vec![scores.len()],
            data: Data::F32(scores),
        }];
        Ok(())
    }
}

struct Bench {
    serving: Arc<Serving>,
    runs: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        let words = "pinnace-runtime serve --model-repository /m --workers 2".split(' ');
        let Command::Serve(args) = Cli::parse_from(words).command else {
            unreachable!("serve was said")
        };
        let serving = Arc::new(Serving::new(&args));
        worker::start(2, &serving.queue, &serving.load).unwrap();
        Self {
            serving,
            runs: Arc::default(),
        }
    }

    /// Both models.
    fn cascade(config: &str) -> Self {
        let bench = Self::new();
        bench.put(
            served("light", "1", &LIGHT_INPUTS, LIGHT),
            &[1.0, -1.0, 2.0],
            None,
        );
        bench.put(
            served("heavy", "1", &HEAVY_INPUTS, config),
            &[1.0, 0.5, 3.0],
            None,
        );
        bench
    }

    fn put(&self, model: ServedModel, weights: &[f32], until: Option<Instant>) {
        let name = model.name.clone();
        let engine = Sums {
            layout: Arc::clone(&model.layout),
            weights: weights.to_vec(),
            until,
            runs: Arc::clone(&self.runs),
        };
        let loaded = Loaded {
            model,
            engines: vec![Box::new(engine)],
            row: Duration::from_micros(1),
            part: None,
            inline: None,
        };
        let mut entry = Entry::default();
        entry.serve(vec![Arc::new(Ready::new(
            loaded,
            Digest::of(b""),
            Gauge::default(),
        ))]);
        self.serving.catalog.put(&name, entry);
    }

    fn stages(&self) -> Result<Stages, ApiError> {
        let catalog = &self.serving.catalog;
        Stages::of(catalog, catalog.find("heavy", None)?)
    }

    async fn ask(&self, model: &str, body: &Value) -> (Result<Outputs, ApiError>, Counts) {
        let mut counts = Counts::default();
        let outputs = self.outputs(model, body, &mut counts).await;
        (outputs, counts)
    }

    async fn outputs(&self, model: &str, body: &Value, counts: &mut Counts) -> Result<Outputs, ApiError> {
        let (catalog, hour) = (&self.serving.catalog, Duration::from_secs(3600));
        let stages = Stages::of(catalog, catalog.find(model, None)?)?;
        let request = request::parse(body.to_string().as_bytes(), None, stages.models())?;
        let admitted = (self.serving.admission.admit(1, hour)?, Instant::now());
        let answered = score::answer(&self.serving, &stages, request, admitted, counts).await?;
        assert_eq!(answered.outputs.tensors[0].shape[0] as u64, answered.items);
        Ok(answered.outputs)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.serving.queue.close();
    }
}

fn input(name: &str, rows: usize, values: &[f32]) -> Value {
    let shape = if values.len() == rows {
        vec![rows]
    } else {
        vec![rows, values.len() / rows]
    };
    json!({"name": name, "shape": shape, "datatype": "FP32", "data": values})
}

fn ids(values: &[i64]) -> Value {
    json!({"name": "item", "shape": [values.len()], "datatype": "INT64", "data": values})
}

/// A request of some candidates, whose scores are whole numbers and often the same.
struct List {
    ids: Vec<i64>,
    x: Vec<f32>,
    wide: Vec<f32>,
    hint: Vec<f32>,
    user: Vec<f32>,
}

impl List {
    fn of(rows: usize, random: &mut StdRng) -> Self {
        let mut ids: Vec<i64> = (0..rows as i64).map(|id| id / 2).collect();
        ids.shuffle(random);
        let mut whole =
            |count| -> Vec<f32> { (0..count).map(|_| random.random_range(-3..4) as f32).collect() };
        Self {
            ids,
            x: whole(2 * rows),
            wide: whole(3 * rows),
            hint: whole(rows),
            user: whole(2),
        }
    }

    fn body(inputs: Vec<Value>, parameters: Value) -> Value {
        json!({"inputs": inputs, "parameters": parameters})
    }

    /// To the cascade.
    fn whole(&self, parameters: Value) -> Value {
        let rows = self.ids.len();
        let inputs = vec![
            input("hint", rows, &self.hint),
            input("wide", rows, &self.wide),
            input("user", 1, &self.user),
            input("x", rows, &self.x),
            ids(&self.ids),
        ];
        Self::body(inputs, parameters)
    }

    fn light(&self, keep: usize) -> Value {
        let rows = self.ids.len();
        let inputs = vec![
            input("user", 1, &self.user),
            input("x", rows, &self.x),
            input("hint", rows, &self.hint),
            ids(&self.ids),
        ];
        Self::body(inputs, json!({ "top_k": keep }))
    }

    /// To the model that answers, of the candidates at `places`.
    fn heavy(&self, places: &[usize], k: usize) -> Value {
        let of = |values: &[f32], width: usize| -> Vec<f32> {
            let row = |place: &usize| values[place * width..(place + 1) * width].to_vec();
            places.iter().flat_map(row).collect()
        };
        let own: Vec<i64> = places.iter().map(|place| self.ids[*place]).collect();
        let rows = places.len();
        let inputs = vec![
            input("user", 1, &self.user),
            input("wide", rows, &of(&self.wide, 3)),
            input("x", rows, &of(&self.x, 2)),
            ids(&own),
        ];
        Self::body(inputs, json!({ "top_k": k }))
    }

    /// Where the light model's best are, by its scores: an answer has ids only, and some are there twice.
    fn places(&self, keep: usize) -> Vec<usize> {
        let score = |place: &usize| {
            let x = self.x[2 * place] + self.x[2 * place + 1];
            self.user.iter().sum::<f32>() - x + 2.0 * self.hint[*place]
        };
        let mut places: Vec<usize> = (0..self.ids.len()).collect();
        places.sort_by(|a, b| {
            let by_score = score(b).total_cmp(&score(a));
            by_score.then(self.ids[*a].cmp(&self.ids[*b])).then(a.cmp(b))
        });
        places.truncate(keep);
        places
    }
}

fn items(outputs: &Outputs) -> Vec<i64> {
    match &outputs.tensors[1].data {
        Data::I64(ids) => ids.clone(),
        other => panic!("{other:?}"),
    }
}

mod fits;
mod requests;
