//! What a load needs of memory, told from the sizes of the model's files before any of them is read.

use std::path::Path;

use super::folder::{self, ModelFolder};
use super::loading::{self, Wanted};
use crate::engine::EngineName;
use crate::failure::LoadFailure;
use crate::items;
use crate::model::config::{Device, EngineWish};

/// Threads, samples, and what engines keep for a run.
const BESIDES: u64 = 16 << 20;
/// ONNX Runtime itself, and what its sessions keep.
const LIBRARY: u64 = 32 << 20;

const MODEL: &str = "model.onnx";

/// Bytes of a model's files, by what a load makes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub model: u64,
    /// Weights that the model keeps beside it.
    pub external: u64,
    /// Rows of the item table, its deltas, and the ids of its items.
    pub rows: u64,
    pub deltas: u64,
    pub ids: u64,
}

impl Sizes {
    /// `ids` is the name of the item table's ids.
    fn of(folder: &ModelFolder, ids: Option<&str>) -> Self {
        let mut sizes = Self::default();
        let ids = ids.map(items::file);
        for name in folder::files(&folder.path).unwrap_or_default() {
            let size = std::fs::metadata(folder.path.join(&name)).map_or(0, |file| file.len());
            let kind = match Path::new(&name)
                .components()
                .next()
                .and_then(|part| part.as_os_str().to_str())
            {
                Some(MODEL) => &mut sizes.model,
                // A sample is read when the largest part of a load is over.
                Some("samples") => continue,
                _ if ids.as_ref() == Some(&name) => &mut sizes.ids,
                Some(items::FOLDER) => &mut sizes.rows,
                Some(items::DELTAS) => &mut sizes.deltas,
                _ => &mut sizes.external,
            };
            *kind += size;
        }
        sizes
    }

    /// The most that a load takes at a time, as measured (`tests/runtime/test_memory.py`).
    fn needed(&self, engine: EngineName, engines: usize) -> u64 {
        let Self {
            model,
            external,
            rows,
            deltas,
            ids,
        } = *self;
        let engine = match engine {
            // The file, the tensors in it, and what the plan makes of them are there together; of weights in other files there
            // is what was read and what the plan makes of it.
            EngineName::Rank => 3 * model + 2 * external,
            // A copy for each session, and one that is read; other files are mapped, and may come in once. Of weights that
            // are repacked sessions share one copy, but which these are is not known before.
            EngineName::OnnxRuntime => LIBRARY + (1 + engines as u64) * model + external,
        };
        // A table is read and then taken over. What deltas change is kept beside it, at most half of it, until all is packed
        // together again. The index has some fifty bytes an item.
        let rows = match deltas {
            0 => 2 * rows,
            _ => (5 * rows).div_ceil(2) + 3 * deltas,
        };
        BESIDES + engine + rows + 8 * ids
    }
}

/// Bytes that a load of the folder takes at most. Fails if the configuration is wrong.
pub fn needs(folder: &ModelFolder, wanted: &Wanted) -> Result<u64, LoadFailure> {
    let (config, triton) = loading::configuration(folder, &wanted.name)?;
    let ids = config.item_table.as_ref().map(|table| table.ids.as_str());
    // With `auto` on a CPU, as if `rank` took the model: whether it does is known when the model was read.
    let engine = match (config.engine, wanted.device.unwrap_or(config.device)) {
        (EngineWish::OnnxRuntime, _) | (EngineWish::Auto, Device::Gpu) => EngineName::OnnxRuntime,
        (EngineWish::Rank, _) | (EngineWish::Auto, Device::Cpu) => EngineName::Rank,
    };
    let instances = triton.and_then(|triton| triton.instances);
    let engines = instances.unwrap_or(usize::MAX).min(wanted.workers).max(1);
    Ok(Sizes::of(folder, ids).needed(engine, engines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    #[test]
    fn files_count_as_what_they_are() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, size: usize| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; size]).unwrap();
        };
        let text = "device: cpu\nengine: onnxruntime\nitemTable: {ids: item, fills: [vector]}\n";
        std::fs::write(root.path().join("config.yaml"), text).unwrap();
        for (name, size) in [
            ("model.onnx", 1000),
            ("weights/all.bin", 200),
            ("items/item.npy", 30),
            ("items/vector.npy", 400),
            ("deltas/1.delta", 5),
            ("samples/one.request.json", 6000),
        ] {
            write(name, size);
        }
        let folder = ModelFolder {
            path: root.path().to_owned(),
            digest: Digest::of(b""),
        };
        let sizes = Sizes::of(&folder, Some("item"));
        let expected = Sizes {
            model: 1000,
            external: 200 + text.len() as u64,
            rows: 400,
            deltas: 5,
            ids: 30,
        };
        assert_eq!(sizes, expected);
        let wanted = Wanted {
            name: "m".to_owned(),
            version: String::new(),
            device: None,
            instruction_set: None,
            workers: 4,
        };
        assert_eq!(
            needs(&folder, &wanted).unwrap(),
            sizes.needed(EngineName::OnnxRuntime, 4)
        );
        let rank = BESIDES + 3 * 1000 + 2 * expected.external + 8 * 30;
        assert_eq!(sizes.needed(EngineName::Rank, 4), rank + 1000 + 15);
        let sizes = Sizes { deltas: 0, ..sizes };
        assert_eq!(sizes.needed(EngineName::Rank, 4), rank + 800);
    }
}
