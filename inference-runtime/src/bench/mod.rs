//! `pinnace-runtime bench`: a load client for any server that answers prepared bodies over HTTP/1.1 or gRPC.
//!
//! [`bodies`] reads the file of prepared requests -> [`load`] sends them, in a closed loop (each connection sends when it
//! has its answer) or an open one (Poisson arrivals, latency from the time a request was due) over [`connection`]s ->
//! [`record`] counts -> one JSON object on standard output. One thread does it all, so that a benchmark can give the
//! client one core and the server another.

mod bodies;
mod connection;
mod grpc;
mod http;
mod load;
mod record;
mod timer;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::args::duration;

#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// Address of the server.
    #[arg(long)]
    pub address: SocketAddr,
    /// How the bodies are sent.
    #[arg(long, value_enum, default_value = "http")]
    pub protocol: Protocol,
    /// File of prepared requests, sent in turn: for each, the length of a JSON head (4 bytes, little endian), the head
    /// {"path": ..., "headers": {...}, "pairs": N}, the length of the body (4 bytes), the body. Over gRPC the body is the
    /// message.
    #[arg(long)]
    pub bodies: PathBuf,
    /// Requests a second of an open loop with Poisson arrivals; without it, a closed loop.
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Connections; each carries one request at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// How long requests are sent, warm-up included.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// What is answered (closed loop) or due (open loop) in this time at the start is not in rates and latencies.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub warm_up: Duration,
    /// How long answers are waited for after the last request was sent.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub patience: Duration,
    /// Seed of the arrivals of an open loop.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Http,
    Grpc,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("--warm-up {warm_up:?} must be shorter than --duration {duration:?}")]
    Window { warm_up: Duration, duration: Duration },
    #[error("--bodies {path:?}: {reason}")]
    Bodies { path: PathBuf, reason: String },
    #[error("cannot connect to {address}: {reason}; is the server up?")]
    Connect { address: SocketAddr, reason: String },
    #[error("cannot make a timer")]
    Timer { source: std::io::Error },
    #[error("cannot start the async runtime")]
    Start { source: std::io::Error },
    #[error("cannot write the result")]
    Write { source: std::io::Error },
}

/// Sends the load and prints what came back as JSON.
pub fn run(args: &Bench) -> Result<(), BenchError> {
    if args.warm_up >= args.duration {
        return Err(BenchError::Window {
            warm_up: args.warm_up,
            duration: args.duration,
        });
    }
    let prepared = bodies::read(&args.bodies, args.address, args.protocol)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| BenchError::Start { source })?;
    let report = tokio::task::LocalSet::new().block_on(&runtime, load::run(args, prepared))?;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)
        .map_err(std::io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(|source| BenchError::Write { source })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=10e6).contains(&rate) => Ok(rate),
        _ => Err("a rate is between 0.001 and 10000000 requests a second".to_owned()),
    }
}

#[cfg(test)]
mod tests;
