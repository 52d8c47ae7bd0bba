//! The server: one account behind one lock, its clock, and the connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Response, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

use crate::account::Account;
use crate::clock::Clock;
use crate::control;
use crate::error::ApiError;
use crate::hold::Holds;
use crate::iam::{Context, Policy};
use crate::journal::{Entry, Journal};
use crate::node::NodeEffect;
use crate::s3;
use crate::wire::{self, Cut, Service, sigv4};

/// Bodies of the APIs are small; user data of a template is 16 KiB at most.
const MAX_BODY: usize = 1 << 20;
/// Longest sleep of the ticker.
const LONGEST_TICK: Duration = Duration::from_secs(1);
/// Wait after a connection could not be accepted: too many are open.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Who may do what.
#[derive(Debug)]
pub struct Access {
    pub operator: String,
    pub admin: String,
    pub policy: Policy,
}

impl Access {
    pub fn knows(&self, access_key: &str) -> bool {
        access_key == self.operator || access_key == self.admin
    }

    pub fn allows(&self, access_key: &str, action: &str, resource: &str, context: &Context) -> bool {
        access_key == self.admin
            || (access_key == self.operator && self.policy.allows(action, resource, context))
    }
}

/// Everything a request can reach.
#[derive(Debug)]
pub struct Sim {
    account: Mutex<Account>,
    clock: Clock,
    journal: Mutex<Journal>,
    effects: mpsc::UnboundedSender<NodeEffect>,
    /// Rung when a call may have set an earlier timer.
    changed: Notify,
    requests: AtomicU64,
    /// Rung when faults were removed, or the server stops; true: it stops.
    removed: watch::Sender<bool>,
    pub holds: Holds,
    pub access: Access,
    pub region: String,
    pub s3_root: Option<PathBuf>,
}

impl Sim {
    pub fn new(
        account: Account,
        clock: Clock,
        access: Access,
        s3_root: Option<PathBuf>,
        effects: mpsc::UnboundedSender<NodeEffect>,
    ) -> Self {
        Self {
            region: account.settings.region.clone(),
            account: Mutex::new(account),
            clock,
            journal: Mutex::new(Journal::default()),
            effects,
            changed: Notify::new(),
            requests: AtomicU64::new(0),
            removed: watch::Sender::new(false),
            holds: Holds::default(),
            access,
            s3_root,
        }
    }

    /// Uses another journal, such as one with a file.
    #[must_use]
    pub fn with_journal(self, journal: Journal) -> Self {
        Self {
            journal: Mutex::new(journal),
            ..self
        }
    }

    /// Runs `f` on the account as it is now, and hands on what the nodes have to go through.
    pub fn with_account<T>(&self, f: impl FnOnce(&mut Account, &Clock) -> T) -> T {
        let result = self.locked(|account, clock| {
            account.remember(account.now());
            f(account, clock)
        });
        self.changed.notify_one();
        result
    }

    fn locked<T>(&self, f: impl FnOnce(&mut Account, &Clock) -> T) -> T {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.advance(self.clock.now());
        let result = f(&mut account, &self.clock);
        for effect in account.take_effects() {
            // A closed channel is a server that is going down.
            let _ = self.effects.send(effect);
        }
        for event in account.faults.take_events() {
            self.record(Entry::of_fault(event));
        }
        result
    }

    /// Lets go of the calls that wait in vain because of faults that are not there any more.
    pub fn faults_removed(&self) {
        self.removed.send_modify(|_| {});
    }

    /// Lets go of everything that is held, for ever.
    pub fn stop(&self) {
        self.holds.release();
        self.removed.send_replace(true);
    }

    /// Returns when the fault is removed, or the server stops.
    pub async fn until_removed(&self, fault: u64) {
        let mut removed = self.removed.subscribe();
        while !*removed.borrow_and_update() && self.with_account(|account, _| account.faults.contains(fault))
        {
            if removed.changed().await.is_err() {
                return;
            }
        }
    }

    pub fn record(&self, mut entry: Entry) {
        let now = self.clock.now();
        entry.time = self.clock.wall(now).to_string();
        entry.sim_seconds = now.since(crate::clock::SimTime::default()).as_secs_f64();
        self.journal().record(entry);
    }

    pub fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next_request_id(&self) -> String {
        let n = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        format!("00000000-0000-4000-8000-{n:012x}")
    }

    /// Lives through the timers as they come due; never returns.
    pub async fn tick(&self) {
        loop {
            let wait = self.locked(|account, clock| {
                account
                    .next_due()
                    .map_or(LONGEST_TICK, |due| clock.real_until(due).min(LONGEST_TICK))
            });
            // Whichever comes first: the timer is due, or a call set an earlier one.
            let _ = tokio::time::timeout(wait.max(Duration::from_millis(1)), self.changed.notified()).await;
        }
    }
}

/// Serves until `stop` completes.
pub async fn serve(
    sim: Arc<Sim>,
    listen: SocketAddr,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let ticker = tokio::spawn({
        let sim = Arc::clone(&sim);
        async move { sim.tick().await }
    });
    let connections = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connect(&sim, stream, &connections),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            () = &mut stop => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
    ticker.abort();
    Ok(())
}

/// Serves one connection. An error of the service closes it without an answer: that is what a fault may want,
/// and why this is not `axum::serve`.
fn connect(sim: &Arc<Sim>, stream: TcpStream, connections: &GracefulShutdown) {
    // Without it small answers may wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let sim = Arc::clone(sim);
    let service = service_fn(move |request| handle(Arc::clone(&sim), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection");
        }
    });
}

async fn handle(sim: Arc<Sim>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (parts, body) = request.into_parts();
    let body = match to_bytes(Body::new(body), MAX_BODY).await {
        Ok(body) => body,
        Err(_) => return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")),
    };
    if parts.uri.path().starts_with("/_sim/") {
        return Ok(control::answer(&sim, &parts, &body));
    }
    match sigv4::credential(&parts.headers) {
        Err(message) => Ok(unsigned(
            &sim,
            &ApiError::new(403, "IncompleteSignature", message),
        )),
        Ok(Some(credential)) if credential.service == "s3" => {
            Ok(s3::answer(&sim, &credential.access_key, &parts).await)
        }
        Ok(Some(credential)) => wire::answer(&sim, credential, parts, body).await,
        Ok(None) if is_anonymous_read(&parts.method, parts.uri.path()) => {
            Ok(s3::answer(&sim, "anonymous", &parts).await)
        }
        Ok(None) => Ok(unsigned(
            &sim,
            &ApiError::new(403, "MissingAuthenticationToken", "Missing Authentication Token"),
        )),
    }
}

/// Only S3 answers without a signature; the paths of EKS are no buckets.
fn is_anonymous_read(method: &Method, path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(*method, Method::GET | Method::HEAD) && !matches!(first, "" | "clusters" | "tags")
}

fn unsigned(sim: &Sim, error: &ApiError) -> Response<Body> {
    sim.record(Entry {
        service: "unknown",
        action: "unsigned".to_owned(),
        principal: "anonymous".to_owned(),
        outcome: error.code.to_owned(),
        status: error.status,
        denied: true,
        message: Some(error.message.clone()),
        ..Entry::default()
    });
    wire::error_response(Service::Eks, error, &sim.next_request_id())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::from(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}

/// The values of the policy's placeholders.
pub fn policy_values(account: &crate::account::Settings) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("cluster", account.cluster.clone()),
        ("account", account.account_id.clone()),
        ("region", account.region.clone()),
        (
            "node_role",
            account.node_roles.first().cloned().unwrap_or_default(),
        ),
    ])
}
