//! Every call of an AWS API, and what faults and other hands did, in order: the witness that end-to-end tests
//! ask.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::fault::mark::{Event, Mark};

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub n: u64,
    /// Wall clock, RFC 3339.
    pub time: String,
    /// Simulated seconds since the account was opened.
    pub sim_seconds: f64,
    pub service: &'static str,
    pub action: String,
    /// Access key of the caller, or `anonymous`.
    pub principal: String,
    pub resource: String,
    pub parameters: Value,
    /// `OK`, the error code of the service, or `NotPerformed`: a fault swallowed the call.
    pub outcome: String,
    pub status: u16,
    pub mutation: bool,
    pub denied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The fault that the call met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Mark>,
    /// With a fault: whether the call changed anything, whatever the caller was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<bool>,
}

impl Entry {
    /// Something a fault did by itself; no call, and nobody's.
    pub fn of_fault(event: Event) -> Self {
        Self {
            service: "sim",
            action: event.action.to_owned(),
            principal: "fault".to_owned(),
            resource: event.resource,
            outcome: "OK".to_owned(),
            message: Some(event.message),
            fault: Some(event.mark),
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Entries after this sequence number.
    pub since: u64,
    /// Only calls that change something, or only reads.
    pub mutation: Option<bool>,
}

#[derive(Debug, Default)]
pub struct Journal {
    entries: Vec<Entry>,
    file: Option<File>,
}

impl Journal {
    /// A journal that also appends each entry to `path` as a line of JSON.
    pub fn with_file(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            entries: Vec::new(),
            file: Some(file),
        })
    }

    /// Numbers and keeps the entry. A file that cannot be written loses lines, never the call.
    pub fn record(&mut self, mut entry: Entry) -> u64 {
        entry.n = self.entries.len() as u64 + 1;
        if let Some(file) = &mut self.file
            && let Ok(mut line) = serde_json::to_vec(&entry)
        {
            line.push(b'\n');
            if let Err(error) = file.write_all(&line) {
                tracing::error!(%error, "journal file not written");
                self.file = None;
            }
        }
        self.entries.push(entry);
        self.entries.len() as u64
    }

    pub fn select(&self, query: Query) -> Vec<Entry> {
        let first = usize::try_from(query.since)
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        self.entries[first..]
            .iter()
            .filter(|e| query.mutation.is_none_or(|wanted| e.mutation == wanted))
            .cloned()
            .collect()
    }

    pub fn last_seq(&self) -> u64 {
        self.entries.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(action: &str, mutation: bool) -> Entry {
        Entry {
            service: "eks",
            action: action.to_owned(),
            mutation,
            ..Entry::default()
        }
    }

    #[test]
    fn since_is_exclusive_and_filters_combine() {
        let mut journal = Journal::default();
        assert_eq!(journal.record(entry("CreateNodegroup", true)), 1);
        journal.record(entry("DescribeNodegroup", false));
        journal.record(entry("DeleteNodegroup", true));
        let after_first = journal.select(Query {
            since: 1,
            mutation: None,
        });
        assert_eq!(after_first.iter().map(|e| e.n).collect::<Vec<_>>(), [2, 3]);
        let mutations = journal.select(Query {
            since: 1,
            mutation: Some(true),
        });
        assert_eq!(
            mutations.iter().map(|e| e.action.as_str()).collect::<Vec<_>>(),
            ["DeleteNodegroup"]
        );
        assert!(
            journal
                .select(Query {
                    since: 99,
                    mutation: None
                })
                .is_empty()
        );
    }
}
