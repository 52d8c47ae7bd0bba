//! Loads, replaces and unloads models: one at a time, beside what is served, and requests see the new one at once or
//! not at all.
//!
//! `request` is what the admin port takes and gives, `layout` how a model lies in its folder, `memory` whether it fits.

pub mod layout;
pub mod memory;
pub mod request;
mod source;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;

use crate::args::Serve;
use crate::cascade;
use crate::catalog::{Entry, State};
use crate::failure::{LoadFailure, Reason};
use crate::metrics::{LoadLabels, Phase};
use crate::model::digest::Digest;
use crate::model::folder::{Cache, ModelFolder};
use crate::model::loading::{self, Wanted};
use crate::model::needs;
use crate::ready::Ready;
use crate::server::Serving;
use crate::worker;
use memory::Memory;
use request::{Ask, Report, Version};
use source::{Place, Sought};

/// Digits of a digest that make a version's name.
const VERSION_DIGITS: usize = 12;

pub struct Repository {
    args: Serve,
    serving: Arc<Serving>,
    place: Place,
    /// One load at a time: each has the memory that is free for itself.
    gate: Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    workers_run: bool,
    /// Whether the replica was ready once.
    was_ready: bool,
    /// What the sources were when they were last loaded from, if they are looked at for that.
    stamps: BTreeMap<String, String>,
}

impl Repository {
    /// Fails if the arguments name no place where models can be.
    pub fn new(args: &Serve, serving: Arc<Serving>) -> Result<Arc<Self>, LoadFailure> {
        Ok(Arc::new(Self {
            place: Place::of(args)?,
            args: args.clone(),
            serving,
            gate: Mutex::default(),
        }))
    }

    pub fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// Loads all models. Of a repository, one that fails does not stop the others.
    pub async fn start(&self) -> Result<(), LoadFailure> {
        let names = self.place.names().await?;
        let required: Vec<String> = self
            .args
            .require
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect();
        if let Some(missing) = required.iter().find(|name| !names.contains(name)) {
            let message = format!(
                "--require names {missing:?}, which is not in the repository; it has {}",
                names.join(", ")
            );
            return Err(LoadFailure::permanent(Reason::ModelNotFound, message));
        }
        for name in &names {
            self.serving.catalog.put(name, Entry::default());
        }
        self.serving.require(if required.is_empty() {
            names.clone()
        } else {
            required
        });
        for name in &names {
            let loaded = self.load(name, &Ask::default()).await;
            if self.place.is_one() {
                loaded?;
            }
        }
        Ok(())
    }

    /// Reads a model's source again, and serves what is new there. What was served goes on if that fails.
    pub async fn load(&self, name: &str, ask: &Ask) -> Result<Report, LoadFailure> {
        let mut gate = self.gate.lock().await;
        gate.stamps.remove(name);
        let stamp = match self.args.reload_interval.is_zero() {
            true => None,
            false => self.place.stamp(name).await.ok(),
        };
        let loading = tokio::time::timeout(self.args.startup_timeout, self.replace(&mut gate, name, ask));
        let result = loading.await.unwrap_or_else(|_| {
            let failure = self.too_slow(name);
            self.failed_as_a_whole(name, &failure);
            Err(failure)
        });
        // One that is broken is not tried again until it changes.
        if let Some(stamp) = stamp
            && result
                .as_ref()
                .map_or_else(|failure| !failure.transient, |_| true)
        {
            gate.stamps.insert(name.to_owned(), stamp);
        }
        let outcome = match &result {
            Ok(report) if report.is_unchanged() => "unchanged",
            Ok(_) => "loaded",
            Err(failure) => failure.reason.as_str(),
        };
        match &result {
            Ok(report) => tracing::info!(model = name, outcome, versions = ?report.versions, "load ended"),
            Err(failure) => tracing::error!(
                model = name,
                reason = outcome,
                message = failure.message,
                "load failed"
            ),
        }
        // A name that somebody made up is no label.
        if self.serving.catalog.get(name).is_some() {
            let model = name.to_owned();
            self.serving
                .metrics
                .loads
                .get_or_create(&LoadLabels { model, outcome })
                .inc();
        }
        if !gate.was_ready && self.serving.is_ready() {
            gate.was_ready = true;
            self.serving.load.model_ready(Instant::now());
        }
        result
    }

    /// Takes a model out, until it is loaded again. Its last requests are still answered.
    pub async fn unload(&self, name: &str) -> Result<(), LoadFailure> {
        let _gate = self.gate.lock().await;
        if self.serving.catalog.get(name).is_none() {
            let message =
                format!("model {name:?} is not here; POST /v2/repository/index lists those that are");
            return Err(LoadFailure::permanent(Reason::ModelNotFound, message));
        }
        let entry = Entry {
            state: State::Unloaded,
            ..Entry::default()
        };
        self.serving.catalog.put(name, entry);
        tracing::info!(model = name, "unloaded");
        Ok(())
    }

    fn too_slow(&self, name: &str) -> LoadFailure {
        let message = format!(
            "model {name:?} was not ready within {:?}; raise --startup-timeout, or use a smaller or nearer model",
            self.args.startup_timeout
        );
        LoadFailure::permanent(Reason::ModelUnreachable, message)
    }

    /// Notes why the last load failed, and leaves what is served.
    fn failed_as_a_whole(&self, name: &str, failure: &LoadFailure) {
        if let Some(mut entry) = self.serving.catalog.get(name) {
            entry.failed = [(String::new(), failure.to_string())].into();
            entry.state = State::Loaded;
            self.serving.catalog.put(name, entry);
        }
    }

    async fn replace(&self, gate: &mut Gate, name: &str, ask: &Ask) -> Result<Report, LoadFailure> {
        let catalog = &self.serving.catalog;
        let sought = match self.place.sought(name, ask).await {
            Ok(sought) => sought,
            Err(failure) => {
                self.failed_as_a_whole(name, &failure);
                return Err(failure);
            }
        };
        let before = catalog.get(name).unwrap_or_default();
        if before.ready.is_empty() {
            catalog.put(name, Entry::default());
        }
        let (mut entry, mut first_failure) = (Entry::default(), None);
        let (mut served, mut versions): (Vec<Arc<Ready>>, Vec<Version>) = (Vec::new(), Vec::new());
        for sought in sought {
            let named = sought.version.clone().unwrap_or_default();
            match self.version(gate, name, sought, &before).await {
                Ok((ready, unchanged)) => {
                    versions.push(Version {
                        version: ready.model.version.clone(),
                        digest: ready.digest.to_string(),
                        unchanged,
                    });
                    served.push(ready);
                }
                Err(failure) => {
                    entry.failed.insert(named, failure.to_string());
                    first_failure.get_or_insert(failure);
                }
            }
        }
        if first_failure.is_some() {
            // What was served goes on, but where a new one has its name.
            let replaced = |old: &Arc<Ready>| served.iter().any(|new| new.model.version == old.model.version);
            let left: Vec<_> = before
                .ready
                .iter()
                .filter(|old| !replaced(old))
                .cloned()
                .collect();
            served.extend(left);
        }
        entry.serve(served);
        catalog.put(name, entry);
        if catalog.names().len() > 1 {
            self.serving.admission.displace();
        }
        let report = Report {
            name: name.to_owned(),
            versions,
        };
        if let Some(failure) = first_failure {
            return Err(failure);
        }
        self.tell_revision(ask, &report, !before.ready.is_empty());
        Ok(report)
    }

    /// `/load` tells of what is served: as asked, or once the one model is another than at the start, its version.
    fn tell_revision(&self, ask: &Ask, report: &Report, replaced: bool) {
        if let Some(revision) = &ask.revision {
            self.serving.load.set_revision(revision);
        } else if let [version] = report.versions.as_slice()
            && self.place.is_one()
            && replaced
            && !version.unchanged
        {
            self.serving.load.set_revision(&version.version);
        }
    }

    /// Makes a version ready; gives back the one that is served if it is the same, and says so.
    async fn version(
        &self,
        gate: &mut Gate,
        name: &str,
        sought: Sought,
        before: &Entry,
    ) -> Result<(Arc<Ready>, bool), LoadFailure> {
        let mut clock = Clock::new(&self.serving, name);
        let version = sought.version.clone();
        let folder = sought.fetch(&self.cache(&self.args.cache_dir)).await?;
        clock.phase("fetch");
        let version = version.unwrap_or_else(|| folder.digest.hex()[..VERSION_DIGITS].to_owned());
        let same = |ready: &&Arc<Ready>| ready.digest == folder.digest && ready.model.version == version;
        if let Some(ready) = before.ready.iter().find(same) {
            return Ok((Arc::clone(ready), true));
        }
        let wanted = Wanted {
            name: name.to_owned(),
            version,
            device: self.args.device,
            instruction_set: self.args.instruction_set,
            workers: self.args.worker_count(),
        };
        let needed = needs::needs(&folder, &wanted)?;
        tracing::info!(model = name, digest = %folder.digest, needed, "model verified");
        if self.serving.catalog.any_ready()
            && let Some(memory) = Memory::now(self.args.memory_limit)
        {
            memory.has_room(needed)?;
        }
        let serving = Arc::clone(&self.serving);
        let building = tokio::task::spawn_blocking(move || build(&serving, &folder, &wanted));
        let ready = building
            .await
            .map_err(|error| invalid(format!("loading the model failed: {error}")))??;
        if self.place.is_one() && ready.model.config.cascade.is_some() {
            let message = "config.yaml: cascade: its light model is served beside it; serve both with --model-repository";
            return Err(LoadFailure::permanent(Reason::ConfigInvalid, message));
        }
        cascade::check(&self.serving.catalog, &ready.model)?;
        self.start_workers(gate)?;
        Ok((Arc::new(ready), false))
    }

    fn cache<'a>(&self, path: &'a Path) -> Cache<'a> {
        let keep: Vec<Digest> = self
            .serving
            .catalog
            .ready(None)
            .iter()
            .map(|ready| ready.digest.clone())
            .collect();
        Cache { path, keep }
    }

    fn start_workers(&self, gate: &mut Gate) -> Result<(), LoadFailure> {
        if !gate.workers_run {
            let started = worker::start(self.args.worker_count(), &self.serving.queue, &self.serving.load);
            started.map_err(|error| invalid(format!("engine threads do not start: {error}")))?;
            gate.workers_run = true;
        }
        Ok(())
    }
}

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ModelInvalid, message)
}

/// Loads and warms the engines. Blocks.
fn build(serving: &Serving, folder: &ModelFolder, wanted: &Wanted) -> Result<Ready, LoadFailure> {
    let mut clock = Clock::new(serving, &wanted.name);
    let mut loaded = loading::load(folder, wanted, |phase| clock.phase(phase))?;
    let inline = loaded.inline.take();
    let chosen = &loaded.model.chosen;
    let not_rank = chosen.not_rank.as_ref().map(|not| not.reason.as_str());
    tracing::info!(
        model = wanted.name,
        engine = chosen.engine.as_str(),
        not_rank,
        "engine chosen"
    );
    let ready = Ready::new(loaded, folder.digest.clone(), serving.metrics.in_memory.clone());
    Ok(match inline {
        Some((engines, pace)) => {
            tracing::info!(model = wanted.name, request = ?pace.request, row = ?pace.row, "short requests run at once");
            ready.with_inline(engines, pace, &serving.load, &serving.reader_clocks)
        }
        None => ready,
    })
}

/// Times of the phases of a load.
struct Clock<'a> {
    serving: &'a Serving,
    model: &'a str,
    since: Instant,
}

impl<'a> Clock<'a> {
    fn new(serving: &'a Serving, model: &'a str) -> Self {
        Self {
            serving,
            model,
            since: Instant::now(),
        }
    }

    fn phase(&mut self, phase: &'static str) {
        let seconds = self.since.elapsed().as_secs_f64();
        let model = self.model.to_owned();
        let metrics = &self.serving.metrics;
        metrics
            .load_seconds
            .get_or_create(&Phase { model, phase })
            .set(seconds);
        tracing::info!(model = self.model, phase, seconds, "loading");
        self.since = Instant::now();
    }
}
