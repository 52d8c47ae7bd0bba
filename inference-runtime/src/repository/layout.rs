//! How a model lies in a repository: as a folder of our own, or with Triton's version folders.

use std::collections::BTreeMap;

use crate::model::config::ModelConfig;
use crate::model::digest::Manifest;
use crate::model::folder::Files;
use crate::model::triton;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// With a manifest: only what it lists is read.
    Manifest,
    Folder(Files),
    /// Files of each version, and whether there is a config.pbtxt.
    Versions {
        config: bool,
        versions: BTreeMap<u64, Files>,
    },
}

const MODEL: &str = "model.onnx";

/// Finds out by the paths of a model's files.
pub fn of<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Result<Layout, String> {
    let has = |name: &str| paths.clone().any(|path| path == name);
    if has(Manifest::FILE) {
        return Ok(Layout::Manifest);
    }
    if has(MODEL) {
        let files = paths.map(|path| (path.to_owned(), path.to_owned()));
        return Ok(Layout::Folder(files.collect()));
    }
    if has(ModelConfig::FILE) {
        return Err(format!("there is {} and no {MODEL}; add it", ModelConfig::FILE));
    }
    let mut versions: BTreeMap<u64, Files> = BTreeMap::new();
    for path in paths.clone() {
        if let Some((version, name)) = versioned(path) {
            let files = versions.entry(version).or_default();
            files.insert(name.to_owned(), path.to_owned());
        }
    }
    if versions.is_empty() {
        return Err(format!(
            "there is neither {MODEL} nor VERSION/{MODEL}; add one of them"
        ));
    }
    if let Some(version) = versions.iter().find(|(_, files)| !files.contains_key(MODEL)) {
        return Err(format!(
            "version {} has no {MODEL}; add it, or remove the folder",
            version.0
        ));
    }
    let config = has(triton::FILE);
    if config {
        for files in versions.values_mut() {
            files.insert(triton::FILE.to_owned(), triton::FILE.to_owned());
        }
    }
    Ok(Layout::Versions { config, versions })
}

/// As Triton has it: folders whose names are numbers without a zero in front. Others are not its versions.
fn versioned(path: &str) -> Option<(u64, &str)> {
    let (folder, name) = path.split_once('/')?;
    let number = folder.parse().ok().filter(|_| !folder.starts_with(['0', '+']))?;
    Some((number, name))
}

/// Names of the models of a repository. What lies beside the folders, and what begins with a dot, is none.
pub fn names<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let folders = paths
        .filter_map(|path| path.split_once('/'))
        .map(|(folder, _)| folder);
    let mut names: Vec<String> = folders
        .filter(|folder| !folder.starts_with('.'))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(paths: &[&str]) -> Result<Layout, String> {
        of(paths.iter().copied())
    }

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs
            .iter()
            .map(|(name, path)| ((*name).to_owned(), (*path).to_owned()))
            .collect()
    }

    #[test]
    fn folders_of_our_own() {
        assert_eq!(
            layout(&["manifest.json", "model.onnx", "1/model.onnx"]),
            Ok(Layout::Manifest)
        );
        let own = files(&[("model.onnx", "model.onnx"), ("samples/a", "samples/a")]);
        assert_eq!(layout(&["model.onnx", "samples/a"]), Ok(Layout::Folder(own)));
        assert!(layout(&["config.yaml"]).unwrap_err().contains("no model.onnx"));
    }

    #[test]
    fn tritons_versions() {
        let config = ("config.pbtxt", "config.pbtxt");
        let versions = [
            (
                2,
                files(&[("model.onnx", "2/model.onnx"), ("w/data", "2/w/data"), config]),
            ),
            (10, files(&[("model.onnx", "10/model.onnx"), config])),
        ];
        let expected = Layout::Versions {
            config: true,
            versions: versions.into(),
        };
        let paths = [
            "10/model.onnx",
            "2/model.onnx",
            "2/w/data",
            "config.pbtxt",
            "01/x",
            "notes/x",
            "labels.txt",
        ];
        assert_eq!(layout(&paths), Ok(expected));
        assert!(
            layout(&["1/model.plan"])
                .unwrap_err()
                .contains("version 1 has no model.onnx")
        );
        assert!(
            layout(&["01/model.onnx"])
                .unwrap_err()
                .contains("VERSION/model.onnx")
        );
        assert!(layout(&[]).is_err());
    }

    #[test]
    fn names_are_of_folders() {
        let paths = [
            "b/model.onnx",
            "a/1/model.onnx",
            "a/config.pbtxt",
            "README",
            ".git/config",
        ];
        assert_eq!(names(paths.into_iter()), ["a", "b"]);
    }
}
