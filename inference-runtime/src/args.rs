//! The command line: every flag has an environment variable, so that a pod template needs no shell.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::Uri;
use rank::plan::InstructionSet;

#[derive(Debug, Parser)]
#[command(
    name = "pinnace-runtime",
    version,
    about = "Serves ranking models over the Open Inference Protocol V2",
    after_help = "A model is a folder with model.onnx, manifest.json, and optionally config.yaml and samples/.\n\
                  The way there: `inspect model.onnx`, `manifest FOLDER`, `check FOLDER`, `serve`."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load models and answer requests until SIGTERM.
    Serve(Box<Serve>),
    /// Show how a model would be served: its inputs, the engine and why that one, and the compiled plan.
    Inspect(Inspect),
    /// Load a model folder as `serve` would, and report everything that is wrong with it.
    ///
    /// Verifies digests, reads the configuration, runs the samples against their known answers, and compares both
    /// engines. Prints one line a problem; exits with 1 when there is any.
    Check(Check),
    /// Write the manifest.json of a model folder, and print its digest: the folder's.
    Manifest(ManifestOf),
    /// Rewrite an ONNX file so that what depends on the request alone is computed once, for any server.
    ///
    /// In the result the first dimension of the named inputs is 1. An input of which only columns are named
    /// becomes two inputs: NAME.user (1 row) and NAME.item (one row a pair).
    Optimize(Optimize),
    /// Send prepared requests to a server, and print rates and latencies as JSON.
    Bench(crate::bench::Bench),
}

#[derive(Clone, Debug, Args)]
pub struct Inspect {
    /// A model folder, or one .onnx file.
    pub model: PathBuf,
    /// What belongs to the request, instead of the configuration's requestInputs: NAME or NAME[START:END,...].
    #[arg(long, value_name = "INPUT")]
    pub once: Vec<String>,
    /// Where the model is to run, instead of what its config.yaml says; a lone .onnx file runs on the CPU.
    #[arg(long)]
    pub device: Option<crate::model::config::Device>,
}

#[derive(Clone, Debug, Args)]
pub struct Check {
    /// A model folder.
    pub folder: PathBuf,
    /// Where the model is to run, instead of what its config.yaml says.
    #[arg(long)]
    pub device: Option<crate::model::config::Device>,
}

#[derive(Clone, Debug, Args)]
pub struct ManifestOf {
    /// A folder with model.onnx.
    pub folder: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct Optimize {
    /// The model as exported.
    pub input: PathBuf,
    /// Where the rewritten model goes.
    pub output: PathBuf,
    /// What belongs to the request: NAME for a whole input, NAME[START:END,...] for columns of one.
    #[arg(long, value_name = "INPUT")]
    pub once: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Where the model is: s3://bucket/path, https://host/path or file:///path; a folder, or one .onnx file.
    #[arg(long, env = "PINNACE_MODEL_URI", required_unless_present = "model_repository")]
    pub model_uri: Option<String>,
    /// Expected digest: of the folder's manifest.json, or of the .onnx file.
    #[arg(long, env = "PINNACE_MODEL_DIGEST", value_parser = optional_digest)]
    pub model_digest: Option<OptionalDigest>,
    /// Version name in the protocol and in metrics; by default the first digits of the model's digest.
    #[arg(long, env = "PINNACE_MODEL_VERSION")]
    pub model_version: Option<String>,
    /// Name in the protocol's paths.
    #[arg(
        long,
        env = "PINNACE_MODEL_NAME",
        required_unless_present = "model_repository"
    )]
    pub model_name: Option<String>,
    /// Instead: a folder of models, each in a folder of its name; on the disk, or s3://bucket/path.
    #[arg(long, env = "PINNACE_MODEL_REPOSITORY", conflicts_with_all = ["model_uri", "model_name", "model_digest", "model_version"])]
    pub model_repository: Option<String>,
    /// Models of the repository without which the replica is not ready; by default all that are there at the start.
    #[arg(
        long,
        env = "PINNACE_REQUIRE",
        value_delimiter = ',',
        requires = "model_repository"
    )]
    pub require: Vec<String>,
    /// How often the models' sources are looked at for new versions; 0s: only when the admin port is asked to.
    #[arg(long, env = "PINNACE_RELOAD_INTERVAL", default_value = "0s", value_parser = duration)]
    pub reload_interval: Duration,
    /// Memory of the process in bytes; by default what its cgroup allows. A load that would not fit beside what is
    /// served is refused.
    #[arg(long, env = "PINNACE_MEMORY_LIMIT")]
    pub memory_limit: Option<u64>,
    /// Address of the serving port for HTTP.
    #[arg(long, env = "PINNACE_LISTEN", default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,
    /// Address of the serving port for gRPC.
    #[arg(long, env = "PINNACE_GRPC_LISTEN", default_value = "0.0.0.0:8001")]
    pub grpc_listen: SocketAddr,
    /// Address of probes and metrics, which overload cannot starve.
    #[arg(long, env = "PINNACE_ADMIN_LISTEN", default_value = "0.0.0.0:8002")]
    pub admin_listen: SocketAddr,
    /// Requests admitted and not yet answered; more are refused with 429.
    #[arg(long, env = "PINNACE_MAX_QUEUE", default_value_t = 4096)]
    pub max_queue: usize,
    /// Bytes of request bodies that have arrived; more are refused with 429.
    #[arg(long, env = "PINNACE_MAX_QUEUE_BYTES", default_value_t = 256 << 20)]
    pub max_queue_bytes: usize,
    /// Bytes of one request body; more are refused with 413.
    #[arg(long, env = "PINNACE_MAX_BODY_BYTES", default_value_t = 16 << 20)]
    pub max_body_bytes: usize,
    /// Open connections on each serving port; more wait to be accepted.
    #[arg(long, env = "PINNACE_MAX_CONNECTIONS", default_value_t = 4096)]
    pub max_connections: usize,
    /// Deadline of a request that names none.
    #[arg(long, env = "PINNACE_REQUEST_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub request_timeout: Duration,
    /// Time for the header of a request, and how long an idle connection is kept.
    #[arg(long, env = "PINNACE_HEADER_TIMEOUT", default_value = "75s", value_parser = duration)]
    pub header_timeout: Duration,
    /// Time for the body of a request; of one that has sent 32 KiB, each further 32 KiB within 2 s.
    #[arg(long, env = "PINNACE_BODY_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub body_timeout: Duration,
    /// Age at which connections are asked to close, less up to a quarter, so that new replicas get load.
    #[arg(long, env = "PINNACE_CONNECTION_MAX_AGE", default_value = "5m", value_parser = duration)]
    pub connection_max_age: Duration,
    /// Engine threads; by default the cores available to the process.
    #[arg(long, env = "PINNACE_WORKERS")]
    pub workers: Option<usize>,
    /// Where the engine runs, instead of what the model's config.yaml says.
    #[arg(long, env = "PINNACE_DEVICE")]
    pub device: Option<crate::model::config::Device>,
    /// Instruction set of the engine `rank`: portable, avx2, avx512 or avx512-bf16; by default the best that the machine has.
    #[arg(long, env = "PINNACE_INSTRUCTION_SET", value_parser = instruction_set)]
    pub instruction_set: Option<InstructionSet>,
    /// Revision as the operator names it; `/load` tells it until another version is loaded in place.
    #[arg(long, env = "PINNACE_REVISION", default_value = "", value_parser = revision)]
    pub revision: String,
    /// NVML library that tells of the GPUs; by default libnvidia-ml.so.1, where the loader finds it.
    #[arg(long, env = "PINNACE_NVML_LIBRARY")]
    pub nvml_library: Option<PathBuf>,
    /// Verified models are kept here, by digest.
    #[arg(long, env = "PINNACE_CACHE_DIR", default_value = "/var/cache/pinnace")]
    pub cache_dir: PathBuf,
    /// After SIGTERM, how long new requests are still accepted.
    #[arg(long, env = "PINNACE_DRAIN_DELAY", default_value = "5s", value_parser = duration)]
    pub drain_delay: Duration,
    /// After that, how long accepted requests may take.
    #[arg(long, env = "PINNACE_DRAIN_TIMEOUT", default_value = "60s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// Time for fetching, loading and warming one model.
    #[arg(long, env = "PINNACE_STARTUP_TIMEOUT", default_value = "10m", value_parser = duration)]
    pub startup_timeout: Duration,
    /// Where the reason of a failed load is written, if the file exists.
    #[arg(long, env = "PINNACE_TERMINATION_LOG", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// Collector of traces, as http://host:4318 (OTLP over HTTP); by default requests are not traced.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", default_value = "", value_parser = collector)]
    pub otlp_endpoint: Collector,
    /// Share of requests that are traced, from 0 to 1; a request with a `traceparent` is traced if that says so.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value = "0.01", value_parser = share)]
    pub trace_sample: f64,
    /// How log lines look.
    #[arg(long, env = "PINNACE_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

/// An empty environment variable means no digest: a template can always set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalDigest(pub Option<crate::model::digest::Digest>);

fn optional_digest(text: &str) -> Result<OptionalDigest, String> {
    if text.is_empty() {
        return Ok(OptionalDigest(None));
    }
    text.parse().map(|digest| OptionalDigest(Some(digest)))
}

/// An empty environment variable means no collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(pub Option<Uri>);

fn collector(text: &str) -> Result<Collector, String> {
    if text.is_empty() {
        return Ok(Collector(None));
    }
    let is_base = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    match text.parse() {
        Ok(uri) if is_base(&uri) => Ok(Collector(Some(uri))),
        _ => Err("a collector is named as http://host:4318 or https://host:4318".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is a number from 0 to 1".to_owned())
}

fn instruction_set(text: &str) -> Result<InstructionSet, String> {
    text.parse::<InstructionSet>()?.here()
}

/// What Kubernetes takes as the value of a label; `/load` has room for no more.
pub fn revision(text: &str) -> Result<String, String> {
    const MAX_BYTES: usize = 63;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > MAX_BYTES || !text.chars().all(fits) {
        return Err(format!(
            "a revision is at most {MAX_BYTES} letters, digits, '-', '_' and '.'"
        ));
    }
    Ok(text.to_owned())
}

impl Serve {
    pub fn digest(&self) -> Option<&crate::model::digest::Digest> {
        self.model_digest.as_ref().and_then(|digest| digest.0.as_ref())
    }

    /// Engine threads, at least one.
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.filter(|count| *count > 0).unwrap_or_else(cores)
    }
}

/// `500ms`, `5s`, `10m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration like 500ms, 5s or 10m"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{text:?} needs a unit: ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        for bad in ["5", "s", "-1s", "1d", ""] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instruction_sets() {
        assert_eq!(instruction_set("portable"), Ok(InstructionSet::Portable));
        assert!(
            instruction_set("sse9")
                .unwrap_err()
                .contains("none of portable, avx2")
        );
        for set in InstructionSet::ALL {
            let here = InstructionSet::available().contains(&set);
            assert_eq!(instruction_set(&set.to_string()).is_ok(), here);
        }
    }

    #[test]
    fn revisions() {
        assert_eq!(revision(""), Ok(String::new()));
        assert_eq!(revision("2fd69ee6fc67b240"), Ok("2fd69ee6fc67b240".to_owned()));
        assert!(revision(&"x".repeat(63)).is_ok());
        for bad in ["x".repeat(64).as_str(), "a b", "\"", "ä"] {
            assert!(revision(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn collectors() {
        assert_eq!(collector(""), Ok(Collector(None)));
        for good in ["http://localhost:4318", "https://otel.example/tenant/"] {
            assert!(collector(good).unwrap().0.is_some(), "{good}");
        }
        for bad in [
            "localhost:4318",
            "grpc://localhost:4317",
            "http://",
            "http://x/?a=b",
            "http://a b",
        ] {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(
            (share("0"), share("0.25"), share("1")),
            (Ok(0.0), Ok(0.25), Ok(1.0))
        );
        for bad in ["", "-0.1", "1.01", "NaN", "all"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn empty_digest_is_none() {
        assert_eq!(optional_digest(""), Ok(OptionalDigest(None)));
        assert!(optional_digest("sha256:12").is_err());
    }
}
