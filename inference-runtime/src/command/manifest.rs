//! `manifest FOLDER`: writes `manifest.json`, the digest of every other file of a model folder.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::json;

use crate::args::ManifestOf;
use crate::model::digest::{Digest, Manifest};
use crate::model::folder as model_folder;

/// Writes the manifest; gives back its digest, which is the folder's.
pub fn manifest(args: &ManifestOf) -> anyhow::Result<String> {
    let folder = &args.folder;
    let names = model_folder::files(folder).with_context(|| format!("read {}", folder.display()))?;
    if !names.iter().any(|name| name == "model.onnx") {
        bail!(
            "{} has no model.onnx; put the exported model there under that name",
            folder.display()
        );
    }
    let mut listed = BTreeMap::new();
    for name in names {
        let path = folder.join(&name);
        let digest = Digest::of_file(&path).with_context(|| format!("read {}", path.display()))?;
        let size = std::fs::metadata(&path)
            .with_context(|| format!("read {}", path.display()))?
            .len();
        listed.insert(name, json!({"digest": digest.to_string(), "size": size}));
    }
    let text = serde_json::to_string_pretty(&json!({"version": 1, "files": listed}))? + "\n";
    let path = folder.join(Manifest::FILE);
    std::fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
    Ok(format!("{}\n", Digest::of(text.as_bytes())))
}
