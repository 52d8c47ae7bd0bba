//! From start to exit: ports at once, the model behind them, ready after warm-up, drained at SIGTERM.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::args::Serve;
use crate::failure::{LoadFailure, Reason};
use crate::inline::Inline;
use crate::metrics::{EngineLabels, Phase};
use crate::model::folder::{self, ModelFolder};
use crate::model::loading::{self, Loaded, Wanted};
use crate::model::uri::ModelUri;
use crate::server::grpc::door::Door;
use crate::server::listener::{self, Connection, Limits};
use crate::server::route;
use crate::server::state::{Ready, Serving};
use crate::worker::Workers;
use crate::{load, nvml};

/// Connections on the admin port: a kubelet, an operator and a few scrapers.
const ADMIN_CONNECTIONS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot start the thread that watches GPUs")]
    Nvml { source: std::io::Error },
    #[error("cannot watch for signals")]
    Signal { source: std::io::Error },
}

/// Serves until a signal ends it; the exit code is 1 when the model cannot be served.
pub async fn run(args: Serve) -> Result<ExitCode, StartError> {
    let serving = Arc::new(Serving::new(&args));
    let (stop, stopping) = watch::channel(false);
    let mut signals = Signals::new()?;
    watch_load(&args, &serving)?;
    let served = tokio::spawn(open_ports(&args, &serving, stopping).await?);
    tracing::info!(listen = %args.listen, grpc = %args.grpc_listen, admin = %args.admin_listen, uri = args.model_uri, "starting");

    let loading = tokio::time::timeout(args.startup_timeout, load(&args, &serving));
    let loaded = tokio::select! {
        loaded = loading => loaded.unwrap_or_else(|_| Err(too_slow(&args))),
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before the model was loaded");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Err(failure) = loaded {
        tracing::error!(reason = ?failure.reason, message = failure.message, "the model cannot be served");
        failure.write_termination_message(&args.termination_log);
        return Ok(ExitCode::FAILURE);
    }
    tracing::info!(model = args.model_name, version = args.model_version, "ready");

    let name = signals.next().await;
    tracing::info!(signal = name, delay = ?args.drain_delay, "draining: not ready, still accepting");
    serving.drain();
    tokio::select! {
        () = tokio::time::sleep(args.drain_delay) => {}
        _ = signals.next() => tracing::info!("second signal: no longer accepting"),
    }
    let _ = stop.send(true);
    tokio::select! {
        _ = served => tracing::info!("drained"),
        () = tokio::time::sleep(args.drain_timeout) => {
            tracing::warn!(in_flight = serving.admission.requests(), "drain timeout: leaving with requests unanswered");
        }
        _ = signals.next() => tracing::warn!("another signal: leaving at once"),
    }
    if let Some(ready) = serving.model() {
        ready.workers.queue.close();
    }
    Ok(ExitCode::SUCCESS)
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
    serving: &Arc<Serving>,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>, StartError> {
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
    let own = Arc::clone(serving);
    tokio::spawn(async move {
        let _never_stop = never_stop;
        let serve = |connection: Connection, stream| connection.http(stream, route::admin);
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

fn too_slow(args: &Serve) -> LoadFailure {
    let message = format!(
        "{} was not ready within {:?}; raise --startup-timeout, or use a smaller or nearer model",
        args.model_uri, args.startup_timeout
    );
    LoadFailure::permanent(Reason::ModelUnreachable, message)
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

/// Times of the phases of a load.
struct Clock<'a> {
    serving: &'a Serving,
    since: Instant,
}

impl Clock<'_> {
    fn phase(&mut self, phase: &'static str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.serving
            .metrics
            .load_seconds
            .get_or_create(&Phase { phase })
            .set(seconds);
        tracing::info!(phase, seconds, "loading");
        self.since = Instant::now();
    }
}

/// Makes the model ready: fetched, verified, loaded once a worker, warm.
async fn load(args: &Serve, serving: &Arc<Serving>) -> Result<(), LoadFailure> {
    let uri: ModelUri = args
        .model_uri
        .parse()
        .map_err(|error: crate::model::uri::UriError| {
            LoadFailure::permanent(Reason::ModelNotFound, error.to_string())
        })?;
    let mut clock = Clock {
        serving,
        since: Instant::now(),
    };
    let folder = folder::fetch(&uri, args.digest(), &args.cache_dir).await?;
    clock.phase("fetch");
    tracing::info!(digest = %folder.digest, "model verified");
    let (args, shared) = (args.clone(), Arc::clone(serving));
    let loading = tokio::task::spawn_blocking(move || build(&args, &folder, &shared));
    let ready = loading.await.map_err(|error| {
        LoadFailure::permanent(Reason::ModelInvalid, format!("loading the model failed: {error}"))
    })??;
    serving.set_model(ready);
    Ok(())
}

/// Loads and warms one engine a worker. Blocks.
fn build(args: &Serve, folder: &ModelFolder, serving: &Serving) -> Result<Ready, LoadFailure> {
    let mut clock = Clock {
        serving,
        since: Instant::now(),
    };
    let wanted = Wanted {
        name: args.model_name.clone(),
        version: args.model_version.clone(),
        device: args.device,
        instruction_set: args.instruction_set,
        workers: args.worker_count(),
    };
    let Loaded {
        model,
        engines,
        inline,
    } = loading::load(folder, &wanted, |phase| clock.phase(phase))?;
    let engine = model.chosen.engine.as_str();
    let not_rank = model.chosen.not_rank.as_ref();
    tracing::info!(
        engine,
        not_rank = not_rank.map(|not| not.reason.as_str()),
        "engine chosen"
    );
    let labels = EngineLabels {
        model: args.model_name.clone(),
        version: args.model_version.clone(),
        engine,
        not_rank: not_rank.map_or("", |not| not.class.as_str()),
    };
    serving.metrics.engine.get_or_create(&labels).set(1);
    let (statistics, load) = (Arc::clone(&serving.statistics), Arc::clone(&serving.load));
    let inline = inline.map(|(engines, pace)| {
        tracing::info!(request = ?pace.request, row = ?pace.row, "short requests run at once");
        Inline::new(engines, pace, Arc::clone(&statistics), Arc::clone(&load))
    });
    let workers = Workers::start(engines, model.batching, statistics, load).map_err(|error| {
        LoadFailure::permanent(
            Reason::ModelInvalid,
            format!("engine threads do not start: {error}"),
        )
    })?;
    Ok(Ready {
        model,
        workers,
        inline,
    })
}
