//! The operator's process: stores, election, ticks, and an orderly end.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser as _;
use kube::runtime::events::Reporter;
use operator::admin::{self, Health};
use operator::apply::Applier;
use operator::args::Args;
use operator::cloud::eks::{Eks, Settings};
use operator::fleet::Fleet;
use operator::inventory::Inventory;
use operator::launch::LaunchBucket;
use operator::lease::{Election, Permission};
use operator::load::{self, Loads, RuntimeLoad};
use operator::metrics::Metrics;
use operator::{observe, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Before any TLS: two providers are linked, and rustls refuses to guess.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let args = Args::parse();
    telemetry::init(args.log_format);
    let mut stop = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stopped = async move {
        tokio::select! { _ = stop.recv() => {} _ = interrupt.recv() => {} }
    };
    run(args, stopped).await
}

async fn run(args: Args, stopped: impl Future<Output = ()>) -> anyhow::Result<()> {
    let client = kube::Client::try_default()
        .await
        .context("connect to the Kubernetes API")?;
    let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
    let mut tasks = JoinSet::new();
    let (served, watched) = (Arc::clone(&metrics), Arc::clone(&health));
    let listen = args.listen;
    tasks.spawn(async move {
        if let Err(error) = admin::serve(listen, served, watched).await {
            tracing::error!(%error, %listen, "cannot serve metrics and probes");
            std::process::exit(1);
        }
    });
    let changed = Arc::new(Notify::new());
    let stores = observe::start(&client, Arc::clone(&changed), &mut tasks);
    let permission = if args.leader_elect {
        Permission::default()
    } else {
        Permission::always()
    };
    let fleet = assemble(
        &args,
        &client,
        stores,
        changed,
        (metrics, health, permission.clone()),
    )
    .await;
    let mut stopped = std::pin::pin!(stopped);
    tokio::select! {
        synced = fleet.stores.wait_until_synced() => synced.context("list the cluster's objects")?,
        () = &mut stopped => return Ok(()),
    }
    fleet.health.synced();
    let mut election = Election::new(
        client,
        &args.namespace,
        &args.lease_name,
        &args.pod_name,
        permission,
    );
    let elect = args.leader_elect && !args.dry_run;
    if elect {
        tokio::select! {
            () = election.acquire() => {}
            () = &mut stopped => return Ok(()),
        }
    }
    tracing::info!(holder = args.pod_name, dry_run = args.dry_run, "leading");
    fleet.metrics.leader.set(1);
    fleet.health.leads();
    let (inventory, cloud) = (Arc::clone(&fleet.inventory), Arc::clone(&fleet.applier.cloud));
    let (told, counted) = (Arc::clone(&fleet.changed), Arc::clone(&fleet.metrics));
    tasks.spawn(async move { inventory.run(&*cloud, args.cloud_poll, &told, &counted).await });
    let (loads, told) = (Arc::clone(&fleet.loads), Arc::clone(&fleet.changed));
    tasks.spawn(async move { loads.run(args.load_period, &told).await });
    if !elect {
        fleet.run(stopped).await;
        return Ok(());
    }
    tokio::select! {
        () = fleet.run(stopped) => {}
        // What is in flight carries absolute values and derived tokens: it is harmless beside a new leader.
        () = election.hold() => anyhow::bail!("the lease was lost; another replica leads now"),
        _ = tasks.join_next() => anyhow::bail!("a task that runs for ever ended"),
    }
    election.release().await;
    Ok(())
}

async fn assemble(
    args: &Args,
    client: &kube::Client,
    stores: observe::Stores,
    changed: Arc<Notify>,
    (metrics, health, permission): (Arc<Metrics>, Arc<Health>, Permission),
) -> Fleet<Eks, RuntimeLoad> {
    let settings = Settings {
        cluster: args.cluster_name.clone(),
        region: args.region.clone(),
        endpoint_url: args.aws_endpoint_url.clone(),
    };
    let guard = permission.clone();
    let cloud = Arc::new(Eks::connect(settings, Arc::new(move || guard.may_send())).await);
    let inventory = Arc::new(Inventory::default());
    let bucket = Arc::new(LaunchBucket::new(
        args.launch_burst,
        args.launch_per_second,
        Instant::now(),
    ));
    let applier = Applier {
        client: client.clone(),
        cloud,
        inventory: Arc::clone(&inventory),
        bucket: Arc::clone(&bucket),
        permission,
        metrics: Arc::clone(&metrics),
        reporter: Reporter {
            controller: "pinnace.dev/operator".to_owned(),
            instance: Some(args.pod_name.clone()),
        },
        sent: std::sync::Mutex::default(),
    };
    Fleet {
        stores,
        loads: Loads::new(RuntimeLoad::default(), Arc::clone(&metrics), load::DEADLINE),
        inventory,
        bucket,
        settings: args.settings(),
        applier: Arc::new(applier),
        metrics,
        health,
        changed,
        dry_run: args.dry_run,
    }
}
