//! Carries out what the account orders for nodes: a real node by the sandbox's control socket while it has
//! room, else a KWOK node by the Kubernetes API.
//!
//! ```text
//! effects -> one worker per instance, in order:
//!   Register -> POST /nodes, or a Node object (not ready) when the socket answers 429 or is not there
//!   Ready    -> KWOK takes the Node over; a real kubelet reports by itself
//!   Gpus     -> the Node is Ready, then PATCH of its status
//!   Stop     -> kubelet and containers end, or KWOK lets go; whatever was still under way is given up
//!   Delete   -> the Node object goes
//! ```

mod nodes;
mod sandbox;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::node::{NodeEffect, NodeSpec};
use sandbox::Started;

pub use nodes::ClusterError;

/// Calls to the Kubernetes API at once: a thousand nodes may come in one second of simulated time.
const CONCURRENCY: usize = 16;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("sandbox")]
    Sandbox(#[from] sandbox::SandboxError),
    #[error("kubernetes")]
    Kubernetes(#[from] nodes::ClusterError),
}

/// What nodes are made of.
#[derive(Clone)]
pub struct Cluster {
    nodes: nodes::Nodes,
    socket: Option<PathBuf>,
    limit: Arc<Semaphore>,
}

struct Worker {
    effects: mpsc::UnboundedSender<NodeEffect>,
    stopped: CancellationToken,
}

impl Cluster {
    pub async fn connect(
        kubeconfig: &std::path::Path,
        socket: Option<PathBuf>,
    ) -> Result<Self, ClusterError> {
        let nodes = nodes::Nodes::connect(kubeconfig).await?;
        Ok(Self {
            nodes,
            socket,
            limit: Arc::new(Semaphore::new(CONCURRENCY)),
        })
    }

    /// Hands each effect to the worker of its instance, until the channel closes.
    pub async fn run(self, mut effects: mpsc::UnboundedReceiver<NodeEffect>) {
        let mut workers: HashMap<String, Worker> = HashMap::new();
        while let Some(effect) = effects.recv().await {
            let id = effect.instance_id().to_owned();
            let worker = workers.entry(id.clone()).or_insert_with(|| self.start_worker());
            if matches!(effect, NodeEffect::Stop(_)) {
                worker.stopped.cancel();
            }
            let last = matches!(effect, NodeEffect::Delete(_));
            // A worker ends only after its last effect.
            let _ = worker.effects.send(effect);
            if last {
                workers.remove(&id);
            }
        }
    }

    fn start_worker(&self) -> Worker {
        let (sender, mut effects) = mpsc::unbounded_channel();
        let stopped = CancellationToken::new();
        let mut node = Node {
            cluster: self.clone(),
            spec: None,
            kind: Started::Unknown,
        };
        let token = stopped.clone();
        tokio::spawn(async move {
            while let Some(effect) = effects.recv().await {
                node.live_through(effect, &token).await;
            }
        });
        Worker {
            effects: sender,
            stopped,
        }
    }
}

/// The node of one instance.
struct Node {
    cluster: Cluster,
    spec: Option<NodeSpec>,
    kind: Started,
}

impl Node {
    async fn live_through(&mut self, effect: NodeEffect, stopped: &CancellationToken) {
        let ends = matches!(effect, NodeEffect::Stop(_) | NodeEffect::Delete(_));
        if let NodeEffect::Register(spec) = &effect {
            self.spec = Some((**spec).clone());
        }
        let Some(spec) = self.spec.clone() else { return };
        let mut wait = FIRST_RETRY;
        loop {
            let step = self.step(&spec, &effect);
            let outcome = if ends {
                step.await
            } else {
                match stopped.run_until_cancelled(step).await {
                    Some(outcome) => outcome,
                    None => return,
                }
            };
            match outcome {
                Ok(true) => {
                    tracing::info!(node = spec.name, step = name(&effect), kind = ?self.kind, "node");
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(node = spec.name, step = name(&effect), error = %chain(&error), "node step failed, trying again");
                }
            }
            if ends {
                tokio::time::sleep(wait).await;
            } else if stopped
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
            wait = (wait * 2).min(LONGEST_RETRY);
        }
    }

    /// One try of one step: done, not yet, or failed.
    async fn step(&mut self, spec: &NodeSpec, effect: &NodeEffect) -> Result<bool, StepError> {
        let limit = Arc::clone(&self.cluster.limit);
        let nodes = self.cluster.nodes.clone();
        match effect {
            NodeEffect::Register(_) => {
                self.kind = match &self.cluster.socket {
                    Some(socket) => sandbox::start(socket, spec).await?,
                    None => Started::NoRoom,
                };
                if self.kind == Started::NoRoom {
                    let _permit = limit.acquire().await;
                    nodes.create(spec).await?;
                }
                Ok(true)
            }
            NodeEffect::Ready(_) => {
                if self.kind == Started::NoRoom {
                    let _permit = limit.acquire().await;
                    nodes.hand_to_kwok(spec).await?;
                }
                Ok(true)
            }
            NodeEffect::GpusAllocatable(_) => {
                let _permit = limit.acquire().await;
                Ok(nodes.show_gpus(spec).await?)
            }
            NodeEffect::Stop(_) => {
                if let Some(socket) = self
                    .cluster
                    .socket
                    .as_deref()
                    .filter(|_| self.kind != Started::NoRoom)
                {
                    sandbox::stop(socket, &spec.name).await?;
                }
                if self.kind == Started::NoRoom {
                    let _permit = limit.acquire().await;
                    nodes.take_from_kwok(spec).await?;
                }
                Ok(true)
            }
            NodeEffect::Delete(_) => {
                let _permit = limit.acquire().await;
                nodes.delete(spec).await?;
                Ok(true)
            }
        }
    }
}

fn name(effect: &NodeEffect) -> &'static str {
    match effect {
        NodeEffect::Register(_) => "register",
        NodeEffect::Ready(_) => "ready",
        NodeEffect::GpusAllocatable(_) => "gpus",
        NodeEffect::Stop(_) => "stop",
        NodeEffect::Delete(_) => "delete",
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
