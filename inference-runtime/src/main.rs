//! `pinnace-runtime`: see the library's documentation for the flow of `serve`, and `command` for the other commands.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use inference_runtime::args::{Cli, Command, LogFormat, Serve};
use inference_runtime::bench;
use inference_runtime::command::{check, inspect, manifest, optimize};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Serve(args) => serve(*args),
        Command::Inspect(args) => print(&inspect::inspect(&args)?),
        Command::Manifest(args) => print(&manifest::manifest(&args)?),
        Command::Optimize(args) => print(&optimize::optimize(&args)?),
        Command::Bench(args) => {
            bench::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => {
            let report = check::check(&args);
            print(&report.to_string())?;
            Ok(ExitCode::from(u8::from(!report.problems.is_empty())))
        }
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn serve(args: Serve) -> anyhow::Result<ExitCode> {
    start_log(&args)?;
    // Without a default provider the first TLS connection would panic when two are compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.worker_count())
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let code = runtime.block_on(inference_runtime::lifecycle::run(args))?;
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
