use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_sim::account::Account;
use aws_sim::args::{Cli, Command, Serve};
use aws_sim::clock::Clock;
use aws_sim::cluster::Cluster;
use aws_sim::iam::Policy;
use aws_sim::journal::Journal;
use aws_sim::server::{self, Access, Sim};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    // One TLS provider for the process, before anything makes a client.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Serve(args) => serve(*args).await,
    }
}

async fn serve(args: Serve) -> Result<()> {
    let settings = args.settings();
    let text = fs::read_to_string(&args.iam_policy)
        .with_context(|| format!("read the policy {}", args.iam_policy.display()))?;
    let policy = Policy::parse(&text, &server::policy_values(&settings))
        .with_context(|| format!("parse the policy {}", args.iam_policy.display()))?;
    let access = Access {
        operator: args.operator_access_key,
        admin: args.admin_access_key,
        policy,
    };
    let (effects, mut orders) = mpsc::unbounded_channel();
    match &args.kubeconfig {
        Some(kubeconfig) => {
            let cluster = Cluster::connect(kubeconfig, args.control_socket)
                .await
                .context("reach Kubernetes")?;
            tokio::spawn(cluster.run(orders));
        }
        // No cluster: the account lives on its own, and nodes are nobody's business.
        None => {
            tokio::spawn(async move { while orders.recv().await.is_some() {} });
        }
    }
    let mut sim = Sim::new(
        Account::open(settings),
        Clock::start(args.time_scale),
        access,
        args.s3_root,
        effects,
    );
    if let Some(path) = &args.journal_file {
        let journal =
            Journal::with_file(path).with_context(|| format!("open the journal {}", path.display()))?;
        sim = sim.with_journal(journal);
    }
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let sim = Arc::new(sim);
    let stopping = Arc::clone(&sim);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Calls still held would keep their connections open for ever.
        stopping.stop();
    };
    server::serve(sim, args.listen, stop)
        .await
        .with_context(|| format!("serve on {}", args.listen))
}
