//! `pinnace-runtime serve`: see the library's documentation for the flow.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use inference_runtime::args::{Cli, Command, LogFormat, Serve};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let Command::Serve(args) = Cli::parse().command;
    start_log(&args)?;
    // Without a default provider the first TLS connection would panic when two are compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.worker_count())
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let code = runtime.block_on(inference_runtime::lifecycle::run(*args))?;
    // A load that is still busy in ONNX Runtime must not hold the exit.
    runtime.shutdown_background();
    Ok(code)
}

fn start_log(args: &Serve) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("start the log: {error}"))
}
