//! `bench MODEL [--ids=500] [--set=avx2] [NAME|NAME[START:END,...] ...]`: microseconds a pair on one core, in f32 and in
//! bf16, for each instruction set, of a model file or folder on random inputs. What is named comes once a request; ids
//! are below the number given.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use rank::onnx::NoExternalData;
use rank::plan::{InstructionSet, Options, Plan, Precision};
use rank::tensor::{Element, Tensor};
use rank::{Model, parse_once};

const ROWS: [usize; 3] = [1, 64, 1024];
const ROUNDS: usize = 9;
/// Each contender, each round.
const SLICE: Duration = Duration::from_millis(40);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 33
    }
}

fn inputs(plan: &Plan, rows: usize, ids: u64) -> Result<Vec<Tensor>, String> {
    let mut random = Random(7);
    let mut tensors = Vec::new();
    for input in plan.inputs() {
        let rows = if input.once { 1 } else { rows };
        let shape: Option<Vec<usize>> = input.shape.iter().map(|extent| extent.resolve(rows)).collect();
        let shape = shape.ok_or("a shape is out of range")?;
        let count = shape.iter().product();
        tensors.push(match input.element {
            Element::F32 => Tensor::f32(
                shape,
                (0..count).map(|_| random.next() as f32 / 2e9 - 0.5).collect(),
            ),
            Element::Bool => Tensor::bool(
                shape,
                (0..count).map(|_| random.next().is_multiple_of(2)).collect(),
            ),
            element => {
                let id = |_| i64::try_from(random.next() % ids).unwrap_or(0);
                Tensor::int(element, shape, (0..count).map(id).collect())
            }
        });
    }
    Ok(tensors)
}

/// Nanoseconds that this thread has had a core for: neighbours on the machine take time, but no core time of ours.
fn core_time() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Microseconds of a core a run, over a slice of time.
fn time(mut run: impl FnMut()) -> f64 {
    let (start, core, mut runs) = (Instant::now(), core_time(), 0_u32);
    while start.elapsed() < SLICE {
        run();
        runs += 1;
    }
    let used = match (core, core_time()) {
        (Some(before), Some(after)) => (after - before) as f64 / 1e3,
        _ => start.elapsed().as_secs_f64() * 1e6,
    };
    used / f64::from(runs)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, arguments): (Vec<String>, Vec<String>) = arguments
        .into_iter()
        .partition(|argument| argument.starts_with("--"));
    let option = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let ids = option("--ids=").unwrap_or("500");
    let ids = ids.parse().map_err(|_| format!("--ids={ids} is not a number"))?;
    let [path, once @ ..] = arguments.as_slice() else {
        return Err(
            "usage: bench MODEL.onnx|FOLDER [--ids=500] [--set=avx2] [NAME|NAME[START:END,...] ...]".into(),
        );
    };
    let path = Path::new(path);
    let file = if path.is_dir() {
        path.join("model.onnx")
    } else {
        path.to_owned()
    };
    let model = Model::load(&std::fs::read(file)?, &NoExternalData)?;
    let once: Vec<&str> = once.iter().map(String::as_str).collect();
    let once = parse_once(&once)?;
    let mut plans = Vec::new();
    let sets = match option("--set=") {
        Some(name) => vec![name.parse::<InstructionSet>()?],
        None => InstructionSet::available(),
    };
    for precision in [Precision::F32, Precision::Bf16] {
        for instruction_set in &sets {
            let options = Options {
                once: once.clone(),
                instruction_set: *instruction_set,
                precision,
            };
            match Plan::compile(&model, &options) {
                Ok(plan) => plans.push(plan),
                Err(reason) if precision == Precision::Bf16 => {
                    println!("no plan in bf16: {reason}");
                    break;
                }
                Err(reason) => return Err(reason.into()),
            }
        }
    }
    if let Some(plan) = plans.last() {
        println!("{}", plan.describe());
    }
    for rows in ROWS {
        let mut times = vec![Vec::new(); plans.len()];
        let inputs = inputs(&plans[0], rows, ids)?;
        let segments = vec![0; rows];
        let mut scratches: Vec<_> = plans.iter().map(Plan::scratch).collect();
        let mut outputs = Vec::new();
        // Interleaved: neighbours on the machine slow all contenders alike.
        for _ in 0..ROUNDS {
            for (at, plan) in plans.iter().enumerate() {
                let scratch = &mut scratches[at];
                plan.run(&inputs, &segments, scratch, &mut outputs)?;
                times[at].push(time(|| {
                    // Checked by the run before.
                    let _ = plan.run(&inputs, &segments, scratch, &mut outputs);
                }));
            }
        }
        for (plan, times) in plans.iter().zip(times) {
            let time = median(times);
            let pair = time / rows as f64;
            println!(
                "{:11} {} {rows:5} rows {time:10.2} us a run {pair:9.3} us a pair {:10.0} pairs/s {:6.1} GFLOP/s",
                plan.instruction_set().to_string(),
                plan.precision(),
                1e6 / pair,
                (plan.cost().request as f64 / rows as f64 + plan.cost().pair as f64) / pair / 1e3,
            );
        }
    }
    Ok(())
}
