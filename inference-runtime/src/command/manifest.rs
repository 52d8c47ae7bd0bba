//! `manifest FOLDER`: writes `manifest.json`, the digest of every other file of a model folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;

use crate::args::ManifestOf;
use crate::model::digest::{Digest, Manifest};

/// Files beneath `folder` by their path in it, without the manifest. Links are not followed: they are not served.
pub fn files(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((path, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
            } else if kind.is_file() && name != Manifest::FILE {
                files.push(name);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Writes the manifest; gives back its digest, which is the folder's.
pub fn manifest(args: &ManifestOf) -> anyhow::Result<String> {
    let folder = &args.folder;
    let names = files(folder).with_context(|| format!("read {}", folder.display()))?;
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
