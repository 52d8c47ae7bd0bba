//! The table of a model's folder: `items/NAME.npy` for the ids and each filled input, then the deltas of `deltas/` in
//! the order of their names.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::snapshot::{Items, RowType, Snapshot, Stamp};
use super::{Fill, ItemTable, fills, ids_spec, npy};
use crate::engine::{Layout, Signature, Tensor, tensor};
use crate::failure::{LoadFailure, Reason};
use crate::ids::IdRules;
use crate::model::config::ModelConfig;
use crate::model::digest::{Digest, confined};
use crate::model::folder::ModelFolder;

pub const FOLDER: &str = "items";
pub const DELTAS: &str = "deltas";

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ModelInvalid, message)
}

/// Where the rows of an input are, or the ids.
pub fn file(name: &str) -> String {
    format!("{FOLDER}/{name}.npy")
}

impl ItemTable {
    /// The table that the configuration asks for, if it asks for one. Reads all of it.
    pub fn load(
        config: &ModelConfig,
        (signature, layout): (&Signature, &Layout),
        rules: &Arc<IdRules>,
        folder: &ModelFolder,
    ) -> Result<Option<Arc<Self>>, LoadFailure> {
        let Some(own) = &config.item_table else {
            return Ok(None);
        };
        let wrong = |error| {
            let message = format!("config.yaml: itemTable{error}");
            LoadFailure::permanent(Reason::ConfigInvalid, message)
        };
        let fills = fills(own, signature, layout).map_err(wrong)?;
        let stamp = |revision: &str| Stamp {
            revision: revision.to_owned(),
            digest: None,
            since: Instant::now(),
        };
        let kinds: Vec<RowType> = fills.iter().map(|fill| fill.row).collect();
        let nothing = Snapshot::new(stamp(&own.revision), &kinds, &Items::default());
        let table = Self {
            ids: ids_spec(&own.ids),
            fills,
            default_id: own.default_id,
            rules: Arc::clone(rules),
            newest: ArcSwap::from_pointee(nothing),
            updating: Mutex::new(()),
            unknown: AtomicU64::new(0),
        };
        let names = std::iter::once(own.ids.as_str()).chain(table.fills.iter().map(Fill::name));
        let given = names
            .map(|name| read(folder, name, rules))
            .collect::<Result<_, _>>()?;
        let items = table.verified(config, given, file).map_err(invalid)?;
        let snapshot = Snapshot::new(stamp(&own.revision), &kinds, &items);
        if let Some(id) = own.default_id
            && snapshot.place(id).is_none()
        {
            return Err(wrong(format!(
                ".defaultId: {id} is not in {}; add its row, or name another item",
                file(&own.ids)
            )));
        }
        drop(items);
        table.newest.store(Arc::new(snapshot));
        table.catch_up(config, folder)?;
        let newest = table.newest();
        tracing::info!(
            revision = newest.stamp.revision,
            items = newest.count(),
            "item table loaded"
        );
        Ok(Some(Arc::new(table)))
    }

    fn catch_up(&self, config: &ModelConfig, folder: &ModelFolder) -> Result<(), LoadFailure> {
        let Ok(entries) = std::fs::read_dir(folder.path.join(DELTAS)) else {
            return Ok(());
        };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for path in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let failed = |error: String| invalid(format!("{DELTAS}/{name}: {error}"));
            let body = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
            let updated = self.update(config, &body, &Digest::of(&body));
            updated.map_err(|error| failed(error.message))?;
        }
        Ok(())
    }
}

fn read(folder: &ModelFolder, name: &str, rules: &IdRules) -> Result<(String, Tensor), LoadFailure> {
    let file = file(name);
    let failed = |error: String| invalid(format!("{file}: {error}"));
    if !confined(&file) {
        return Err(failed("is no path below the folder; rename the input".to_owned()));
    }
    let array = npy::read(&folder.path.join(&file)).map_err(failed)?;
    let data = tensor::from_bytes(array.datatype, &array.bytes);
    let mut data = data.ok_or_else(|| failed("a boolean is neither 0 nor 1; save it again".to_owned()))?;
    if let Some(rules) = rules.of(name) {
        rules.hash_numbers(&mut data);
    }
    let shape = array.shape;
    Ok((name.to_owned(), Tensor { shape, data }))
}
