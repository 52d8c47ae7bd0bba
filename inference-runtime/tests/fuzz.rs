//! The targets of the fuzzers without a fuzzer: every seed of the corpus, and mutations of it from fixed seeds. No panic, and
//! no more memory than the bytes that were given warrant.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../fuzz/targets.rs"]
mod targets;

use targets::{TARGETS, Target};

const MUTATIONS: u64 = 10_000;
const MANY_MUTATIONS: u64 = 200_000;
const LARGEST_SEED: u64 = 16 << 10;

/// What parsers of numbers, shapes, JSON, YAML and paths may stumble over.
const TOKENS: [&[u8]; 24] = [
    b"-1",
    b"0",
    b"1e999",
    b"9223372036854775808",
    b"18446744073709551615",
    b"4611686018427387904",
    b"NaN",
    b"null",
    b"true",
    b"[[[[[[[[[[[[[[[[",
    b"{}",
    b"\"\"",
    b"\\ud800",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x10",
    b"\x00\x00\x00\x00",
    b"..",
    b"/",
    b"[0:18446744073709551615]",
    b"INT64",
    b"BYTES",
    b"\"binary_data_size\":",
    b"*a",
    b"&a [*a,*a]",
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = files(&here.join("fuzz/corpus").join(target.name));
    if target.name == "model" {
        let models = files(&here.join("rank/tests/corpus"));
        paths.extend(models.into_iter().filter(|path| {
            path.extension().is_some_and(|extension| extension == "onnx")
                && path.metadata().expect("a file").len() <= LARGEST_SEED
        }));
    }
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a file"))
        .collect()
}

fn mutated(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=data.len());
        let count = random.random_range(0..=16).min(data.len() - at);
        match random.random_range(0..7) {
            0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            1 if at < data.len() => data[at] = random.random(),
            2 => drop(data.drain(at..at + count)),
            3 => data.truncate(at),
            4 => {
                let again = data[at..at + count].to_vec();
                data.splice(at..at, again);
            }
            5 => {
                let other = &seeds[random.random_range(0..seeds.len())];
                data.truncate(at);
                data.extend_from_slice(&other[at.min(other.len())..]);
            }
            _ => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                data.splice(at..at + count, token.iter().copied());
            }
        }
    }
    data
}

fn check(target: &Target, data: &[u8]) -> Result<(), String> {
    let mut result = Ok(());
    let memory = allocation_counter::measure(|| {
        result = catch_unwind(AssertUnwindSafe(|| targets::run(target.name, data)))
            .map_err(|_| "panicked".to_owned());
    });
    let allowed = target.allowance + target.factor * data.len() as u64;
    if result.is_ok() && memory.bytes_max > allowed {
        result = Err(format!(
            "took {} bytes of memory for {}",
            memory.bytes_max,
            data.len()
        ));
    }
    result
}

fn run(name: &str, seed: u64, mutations: u64) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let seeds = seeds(target);
    // Tables that are made once are not the input's.
    (target.run)(&seeds[0]);
    let mut random = StdRng::seed_from_u64(seed);
    let mutations = (0..mutations).map(|_| mutated(&mut random, &seeds));
    for data in seeds.iter().cloned().chain(mutations) {
        if let Err(what) = check(target, &data) {
            let path = std::env::temp_dir().join(format!("pinnace-fuzz-{name}"));
            std::fs::write(&path, &data).expect("a temporary file");
            panic!(
                "{name} {what}: put {} into fuzz/corpus/{name} once it is mended",
                path.display()
            );
        }
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), 1, MUTATIONS);
        })*

        #[test]
        fn every_target_is_run() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

#[test]
#[ignore = "takes minutes"]
fn many_mutations() {
    for target in TARGETS {
        run(target.name, 2, MANY_MUTATIONS);
    }
}

tests! { json_request binary_request grpc_request text_values answer config manifest paths model model_edits }
