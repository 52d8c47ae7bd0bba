//! What is served under which name: a snapshot that requests look into, and that a load replaces as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;

use crate::protocol::ApiError;
use crate::ready::Ready;

/// A model of the process.
#[derive(Clone, Default)]
pub struct Entry {
    /// Its versions that are served, by number, then by name: the last is meant where a request names none.
    pub ready: Vec<Arc<Ready>>,
    /// What was wanted last and is not served: version (empty when it got no name) and reason.
    pub failed: BTreeMap<String, String>,
    pub state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Its first load is under way.
    #[default]
    Loading,
    Loaded,
    /// Taken out by hand, until it is loaded by hand.
    Unloaded,
}

impl Entry {
    /// Replaces versions of the same name, and puts all in order.
    pub fn serve(&mut self, ready: Vec<Arc<Ready>>) {
        self.ready = ready;
        self.ready
            .sort_by(|a, b| order(&a.model.version).cmp(&order(&b.model.version)));
        self.state = State::Loaded;
    }

    fn version(&self, version: &str) -> Option<&Arc<Ready>> {
        self.ready.iter().find(|ready| ready.model.version == version)
    }

    fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// Numbers by their value, then other names.
fn order(version: &str) -> (u64, &str) {
    (version.parse().unwrap_or(u64::MAX), version)
}

type Entries = BTreeMap<String, Entry>;

/// A line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub version: String,
    pub state: &'static str,
    pub reason: String,
}

/// Changed by one thread at a time: whoever loads holds the repository's lock.
#[derive(Default)]
pub struct Catalog {
    entries: ArcSwap<Entries>,
}

impl Catalog {
    /// The version that a request means. It stays as it is while the request holds it.
    pub fn find(&self, model: &str, version: Option<&str>) -> Result<Arc<Ready>, ApiError> {
        let entries = self.entries.load();
        if entries.is_empty() {
            return Err(loading());
        }
        let Some(entry) = entries.get(model) else {
            let names: Vec<String> = entries.keys().map(|name| format!("{name:?}")).collect();
            let is = if names.len() == 1 { "is" } else { "are" };
            return Err(ApiError::not_found(format!(
                "model {model:?} is not served here; {} {is}",
                names.join(", ")
            )));
        };
        let Some(newest) = entry.ready.last() else {
            return Err(unavailable(model, entry));
        };
        let Some(version) = version else {
            return Ok(Arc::clone(newest));
        };
        entry.version(version).map(Arc::clone).ok_or_else(|| {
            let ready = entry.ready.iter();
            let versions: Vec<String> = ready.map(|ready| format!("{:?}", ready.model.version)).collect();
            let is = if versions.len() == 1 { "is" } else { "are" };
            ApiError::not_found(format!(
                "model {model:?} has no version {version:?} here; {} {is} served",
                versions.join(", ")
            ))
        })
    }

    /// What a model's configuration means by `named`: another version of the model, or another model.
    pub fn other(&self, model: &str, named: &str) -> Result<Arc<Ready>, ApiError> {
        self.find(model, Some(named)).or_else(|_| self.find(named, None))
    }

    pub fn get(&self, model: &str) -> Option<Entry> {
        self.entries.load().get(model).cloned()
    }

    /// All that is served, or one model's.
    pub fn ready(&self, model: Option<&str>) -> Vec<Arc<Ready>> {
        let entries = self.entries.load();
        let wanted = entries
            .iter()
            .filter(|(name, _)| model.is_none_or(|model| model == *name));
        wanted
            .flat_map(|(_, entry)| entry.ready.iter().cloned())
            .collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.entries.load().keys().cloned().collect()
    }

    /// The one model of the process, and what is served of it: requests that got no further than to the process are
    /// counted under it.
    pub fn only(&self) -> Option<(String, Option<Arc<Ready>>)> {
        let entries = self.entries.load();
        let (name, entry) = entries.iter().next().filter(|_| entries.len() == 1)?;
        Some((name.clone(), entry.ready.last().cloned()))
    }

    pub fn any_ready(&self) -> bool {
        self.entries.load().values().any(Entry::is_ready)
    }

    /// Whether these models are served, but for those that were taken out by hand; and any at all.
    pub fn all_ready(&self, required: &[String]) -> bool {
        let entries = self.entries.load();
        let good = |name: &String| {
            let entry = entries.get(name);
            entry.is_some_and(|entry| entry.is_ready() || entry.state == State::Unloaded)
        };
        entries.values().any(Entry::is_ready) && required.iter().all(good)
    }

    pub fn index(&self) -> Vec<Listed> {
        let entries = self.entries.load();
        entries
            .iter()
            .flat_map(|(name, entry)| lines(name, entry))
            .collect()
    }

    /// Puts a model's new state in the place of the old one, for all requests from now on.
    pub fn put(&self, model: &str, entry: Entry) {
        self.change(|entries| {
            entries.insert(model.to_owned(), entry.clone());
        });
    }

    /// Forgets a model that is no longer in the repository.
    pub fn remove(&self, model: &str) {
        self.change(|entries| {
            entries.remove(model);
        });
    }

    fn change(&self, change: impl Fn(&mut Entries)) {
        self.entries.rcu(|entries| {
            let mut entries = Entries::clone(entries);
            change(&mut entries);
            entries
        });
    }
}

fn lines(name: &str, entry: &Entry) -> Vec<Listed> {
    let line = |version: &str, state, reason: &str| Listed {
        name: name.to_owned(),
        version: version.to_owned(),
        state,
        reason: reason.to_owned(),
    };
    let served = |version: &str| entry.version(version).is_some();
    // A reason without a version of its own goes to what is served in its place.
    let whole = entry.failed.get("").map_or("", String::as_str);
    let reason = |version: &str| entry.failed.get(version).map_or(whole, String::as_str);
    let mut lines: Vec<Listed> = entry
        .ready
        .iter()
        .map(|ready| line(&ready.model.version, "READY", reason(&ready.model.version)))
        .collect();
    let failed = entry.failed.iter().filter(|(version, _)| !served(version));
    let failed = failed.filter(|(version, _)| !version.is_empty() || !entry.is_ready());
    lines.extend(failed.map(|(version, reason)| line(version, "UNAVAILABLE", reason)));
    if lines.is_empty() {
        lines.push(match entry.state {
            State::Unloaded => line("", "UNAVAILABLE", "unloaded"),
            State::Loading | State::Loaded => line("", "LOADING", ""),
        });
    }
    lines
}

fn unavailable(model: &str, entry: &Entry) -> ApiError {
    let reason = entry.failed.values().next();
    match (entry.state, reason) {
        (State::Unloaded, _) => {
            let message = format!("model {model:?} is unloaded; load it on the admin port");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
        (_, Some(reason)) => {
            let message = format!("model {model:?} is not served: {reason}");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
        (_, None) => loading(),
    }
}

pub fn loading() -> ApiError {
    let message = "the model is not loaded yet; wait for /v2/health/ready";
    ApiError {
        retry_after: Some(1),
        ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "loading", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Batching;
    use crate::ready::tests::named;

    fn entry(versions: &[&str]) -> Entry {
        let mut entry = Entry::default();
        let ready = |version: &&str| named("m", version, Batching::NONE);
        entry.serve(versions.iter().map(ready).collect());
        entry
    }

    fn found(catalog: &Catalog, version: Option<&str>) -> Result<String, (u16, String)> {
        let ready = catalog.find("m", version);
        ready
            .map(|ready| ready.model.version.clone())
            .map_err(|error| (error.status.as_u16(), error.message))
    }

    #[test]
    fn the_newest_is_meant_where_none_is_named() {
        let catalog = Catalog::default();
        catalog.put("m", entry(&["10", "9"]));
        assert_eq!(found(&catalog, None), Ok("10".into()));
        assert_eq!(found(&catalog, Some("9")), Ok("9".into()));
        let (status, message) = found(&catalog, Some("8")).unwrap_err();
        assert_eq!(status, 404);
        assert!(message.contains("\"9\", \"10\" are served"), "{message}");
        assert_eq!(catalog.find("x", None).err().unwrap().status.as_u16(), 404);
    }

    #[test]
    fn what_is_held_outlives_its_replacement() {
        let catalog = Catalog::default();
        catalog.put("m", entry(&["1"]));
        let held = catalog.find("m", None).unwrap();
        catalog.put("m", entry(&["2"]));
        assert_eq!(held.model.version, "1");
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(found(&catalog, None), Ok("2".into()));
    }

    #[test]
    fn not_yet_failed_and_unloaded() {
        let catalog = Catalog::default();
        let line = || {
            let line = catalog.index().remove(0);
            (line.version, line.state, line.reason)
        };
        catalog.put("m", Entry::default());
        assert_eq!(line(), (String::new(), "LOADING", String::new()));
        assert_eq!(catalog.find("m", None).err().unwrap().outcome, "loading");
        let mut failed = Entry::default();
        failed.failed.insert("3".into(), "it is broken".into());
        catalog.put("m", failed.clone());
        assert_eq!(line(), ("3".into(), "UNAVAILABLE", "it is broken".into()));
        assert!(found(&catalog, None).unwrap_err().1.contains("it is broken"));
        failed.serve(entry(&["3"]).ready);
        catalog.put("m", failed);
        assert_eq!(line(), ("3".into(), "READY", "it is broken".into()));
        let unloaded = Entry {
            state: State::Unloaded,
            ..Entry::default()
        };
        catalog.put("m", unloaded);
        assert_eq!(line().2, "unloaded");
        assert!(found(&catalog, None).unwrap_err().1.contains("unloaded"));
    }

    #[test]
    fn ready_when_all_that_are_required_are() {
        let catalog = Catalog::default();
        let required = ["a".to_owned(), "b".to_owned()];
        assert!(!catalog.all_ready(&[]));
        assert_eq!(catalog.find("a", None).err().unwrap().outcome, "loading");
        catalog.put("a", entry(&["1"]));
        catalog.put("b", Entry::default());
        assert!(!catalog.all_ready(&required));
        assert!(catalog.all_ready(&required[..1]));
        catalog.put("b", entry(&["1"]));
        assert!(catalog.all_ready(&required));
        assert!(catalog.only().is_none());
        catalog.remove("b");
        assert_eq!(catalog.only().unwrap().0, "a");
    }
}
