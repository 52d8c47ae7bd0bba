//! From start to exit: ports at once, the models behind them, ready after warm-up, drained at SIGTERM.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::args::Serve;
use crate::failure::LoadFailure;
use crate::repository::Repository;
use crate::server::grpc::door::Door;
use crate::server::listener::{self, Connection, Limits};
use crate::server::{Serving, admin, route};
use crate::{load, nvml, trace};

/// Connections on the admin port: a kubelet, an operator and a few scrapers.
const ADMIN_CONNECTIONS: usize = 64;
/// How long a collector of traces may hold the exit, at most.
const FLUSH: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot start the thread that watches GPUs")]
    Nvml { source: std::io::Error },
    #[error("requests cannot be traced")]
    Traces(#[from] trace::StartError),
    #[error("cannot watch for signals")]
    Signal { source: std::io::Error },
}

/// Serves until a signal ends it; the exit code is 1 when the model, or no repository, can be served.
pub async fn run(args: Serve) -> Result<ExitCode, StartError> {
    let mut serving = Serving::new(&args);
    let collector = args.otlp_endpoint.0.as_ref();
    let traces =
        collector.map(|collector| trace::start(collector, args.trace_sample, &serving.metrics.traces));
    let (traces, exporter) = traces.transpose()?.unzip();
    serving.traces = traces;
    let serving = Arc::new(serving);
    let (stop, stopping) = watch::channel(false);
    let mut signals = Signals::new()?;
    watch_load(&args, &serving)?;
    let repository = match Repository::new(&args, Arc::clone(&serving)) {
        Ok(repository) => repository,
        Err(failure) => return Ok(fail(&args, &failure)),
    };
    let served = tokio::spawn(open_ports(&args, &repository, stopping).await?);
    let from = args.model_repository.as_ref().or(args.model_uri.as_ref());
    tracing::info!(listen = %args.listen, grpc = %args.grpc_listen, admin = %args.admin_listen, from, "starting");

    let started = tokio::select! {
        started = repository.start() => started,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before the models were loaded");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Err(failure) = started {
        return Ok(fail(&args, &failure));
    }
    tracing::info!(ready = serving.is_ready(), "loaded");
    if !args.reload_interval.is_zero() {
        tokio::spawn(Arc::clone(&repository).watch(args.reload_interval));
    }

    let name = signals.next().await;
    tracing::info!(signal = name, delay = ?args.drain_delay, "draining: not ready, still accepting");
    serving.drain();
    tokio::select! {
        () = tokio::time::sleep(args.drain_delay) => {}
        _ = signals.next() => tracing::info!("second signal: no longer accepting"),
    }
    let _ = stop.send(true);
    let stopped = Instant::now();
    let left = tokio::select! {
        _ = served => {
            tracing::info!("drained");
            args.drain_timeout.saturating_sub(stopped.elapsed())
        }
        () = tokio::time::sleep(args.drain_timeout) => {
            tracing::warn!(in_flight = serving.admission.requests(), "drain timeout: leaving with requests unanswered");
            Duration::ZERO
        }
        _ = signals.next() => {
            tracing::warn!("another signal: leaving at once");
            Duration::ZERO
        }
    };
    serving.queue.close();
    if let Some(exporter) = exporter {
        exporter.flush(left.min(FLUSH)).await;
    }
    Ok(ExitCode::SUCCESS)
}

fn fail(args: &Serve, failure: &LoadFailure) -> ExitCode {
    tracing::error!(reason = ?failure.reason, message = failure.message, "nothing can be served");
    failure.write_termination_message(&args.termination_log);
    ExitCode::FAILURE
}

/// Starts what `/load` needs: a tick a second, and the GPUs.
fn watch_load(args: &Serve, serving: &Arc<Serving>) -> Result<(), StartError> {
    nvml::start(args.nvml_library.clone(), Arc::clone(&serving.gpus))
        .map_err(|source| StartError::Nvml { source })?;
    let serving = Arc::clone(serving);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(load::TICK);
        // Late ticks are not made up for: snapshots carry their own times.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let threads = tokio::runtime::Handle::current().metrics();
            let busy = |thread| threads.worker_total_busy_duration(thread);
            let readers = threads.num_workers();
            serving.load.reading((0..readers).map(busy).sum(), readers);
            serving.load.advance(now);
            serving.gpus.watch(now);
        }
    });
    Ok(())
}

/// Opens the ports; what is given back ends when `stopping` said so and every serving connection has ended.
async fn open_ports(
    args: &Serve,
    repository: &Arc<Repository>,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>, StartError> {
    let serving = repository.serving();
    let admin = listen(args.admin_listen).await?;
    let http = listen(args.listen).await?;
    let grpc = listen(args.grpc_listen).await?;
    let limits = |connections, max_age| Limits {
        connections,
        header_timeout: args.header_timeout,
        max_age,
    };
    let admin_limits = limits(ADMIN_CONNECTIONS, Duration::from_secs(3600));
    // The admin port answers until the very end: a probe that fails would look like a crash.
    let (never_stop, never_stopping) = watch::channel(false);
    let (own, repository) = (Arc::clone(serving), Arc::clone(repository));
    tokio::spawn(async move {
        let _never_stop = never_stop;
        let serve = move |connection: Connection, stream| {
            let repository = Arc::clone(&repository);
            connection.http(stream, move |_, request| {
                admin::admin(Arc::clone(&repository), request)
            })
        };
        listener::run(admin, own, admin_limits, never_stopping, serve).await;
    });
    let limits = limits(args.max_connections, args.connection_max_age);
    let serve = |connection: Connection, stream| connection.http(stream, route::serve);
    let http = listener::run(http, Arc::clone(serving), limits, stopping.clone(), serve);
    let door = Door::new(Arc::clone(serving));
    let serve = move |connection: Connection, stream| connection.grpc(stream, door.clone());
    let grpc = listener::run(grpc, Arc::clone(serving), limits, stopping, serve);
    Ok(async { _ = tokio::join!(tokio::spawn(http), tokio::spawn(grpc)) })
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        let watch = |kind| signal(kind).map_err(|source| StartError::Signal { source });
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
