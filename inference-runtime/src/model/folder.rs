//! The verified copy of a model on the local disk, by digest: `CACHE/sha256/HEX/`.
//!
//! A model is written to a folder of its own, verified while it is written, and renamed to its digest at last;
//! so a folder with a digest's name is complete, and a bad download never replaces a good one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use rand::RngExt;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::digest::{Digest, Manifest, confined, verify};
use super::source::Source;
use super::uri::ModelUri;
use crate::failure::{LoadFailure, Reason};

/// How long transient causes are retried before the process gives up (and the kubelet starts it again).
const RETRY_FOR: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Verified models kept besides those that are served: the version before, for a way back.
const KEPT_BESIDES: usize = 1;

/// Where verified models are.
#[derive(Clone, Debug)]
pub struct Cache<'a> {
    pub path: &'a Path,
    /// Those that are served, which stay.
    pub keep: Vec<Digest>,
}

/// A verified model on the local disk.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    pub path: PathBuf,
    pub digest: Digest,
}

impl ModelFolder {
    pub fn model(&self) -> PathBuf {
        self.path.join("model.onnx")
    }

    /// The text of a file of the folder, `None` when there is none.
    pub fn read(&self, name: &str) -> Result<Option<String>, LoadFailure> {
        match std::fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LoadFailure::permanent(
                Reason::ModelInvalid,
                format!("{name}: {error}"),
            )),
        }
    }
}

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

/// Fetches a model into the cache, retrying transient causes with back-off for up to 30 s.
pub async fn fetch(
    uri: &ModelUri,
    digest: Option<&Digest>,
    cache: &Cache<'_>,
) -> Result<ModelFolder, LoadFailure> {
    retried(|| attempt(uri, digest, cache)).await
}

/// Files of a model as they lie elsewhere, by their names in its folder. For folders without a manifest.
pub type Files = BTreeMap<String, String>;

/// Fetches files that no manifest lists into a folder of the cache, and writes its manifest.
pub async fn fetch_files(
    source: &Source,
    files: &Files,
    cache: &Cache<'_>,
) -> Result<ModelFolder, LoadFailure> {
    retried(|| attempt_files(source, files, cache)).await
}

async fn retried<F>(attempt: impl Fn() -> F) -> Result<ModelFolder, LoadFailure>
where
    F: Future<Output = Result<ModelFolder, LoadFailure>>,
{
    let started = Instant::now();
    let mut wait = FIRST_WAIT;
    loop {
        let failure = match attempt().await {
            Ok(folder) => return Ok(folder),
            Err(failure) => failure,
        };
        // Full jitter: replicas that start together do not ask together.
        let pause = wait.mul_f64(rand::rng().random_range(0.5..1.0));
        if !failure.transient || started.elapsed() + pause > RETRY_FOR {
            return Err(failure);
        }
        tracing::warn!(reason = ?failure.reason, message = failure.message, "model not fetched yet, trying again");
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn root(cache: &Cache<'_>) -> Result<PathBuf, LoadFailure> {
    let root = cache.path.join("sha256");
    let made = tokio::fs::create_dir_all(&root).await;
    made.map_err(|error| disk(&root, &error))?;
    Ok(root)
}

async fn attempt_files(
    source: &Source,
    files: &Files,
    cache: &Cache<'_>,
) -> Result<ModelFolder, LoadFailure> {
    if let Some(bad) = files.keys().find(|name| !confined(name)) {
        let message = format!("{bad:?} is no path below the model's folder; rename it");
        return Err(LoadFailure::permanent(Reason::ModelInvalid, message));
    }
    let root = root(cache).await?;
    let staging = Staging::new(cache.path)?;
    let mut listed = BTreeMap::new();
    for (name, place) in files {
        let to = staging.path.join(name);
        let digest = download(source, place, &to, None).await?;
        let size = tokio::fs::metadata(&to)
            .await
            .map_err(|error| disk(&to, &error))?
            .len();
        listed.insert(
            name,
            serde_json::json!({"digest": digest.to_string(), "size": size}),
        );
    }
    let text = serde_json::json!({"version": 1, "files": listed}).to_string();
    let digest = Manifest::parse(text.as_bytes(), None).map(|_| Digest::of(text.as_bytes()))?;
    if let Some(folder) = cached(&root, &digest) {
        return Ok(folder);
    }
    let path = staging.path.join(Manifest::FILE);
    tokio::fs::write(&path, &text)
        .await
        .map_err(|error| disk(&path, &error))?;
    staging.commit(&root, digest, &cache.keep)
}

async fn attempt(
    uri: &ModelUri,
    digest: Option<&Digest>,
    cache: &Cache<'_>,
) -> Result<ModelFolder, LoadFailure> {
    let root = root(cache).await?;
    if let Some(digest) = digest
        && let Some(folder) = cached(&root, digest)
    {
        return Ok(folder);
    }
    let source = Source::open(uri)?;
    let staging = Staging::new(cache.path)?;
    let digest = if uri.is_single_file() {
        let actual = download(&source, "", &staging.path.join("model.onnx"), None).await?;
        verify(&uri.text, &actual, digest)?;
        actual
    } else {
        let bytes = source
            .read_small(Manifest::FILE, Manifest::MAX_BYTES)
            .await
            .map_err(no_manifest)?;
        let manifest = Manifest::parse(&bytes, digest)?;
        let actual = Digest::of(&bytes);
        if let Some(folder) = cached(&root, &actual) {
            return Ok(folder);
        }
        for (name, file) in &manifest.files {
            let found = download(&source, name, &staging.path.join(name), Some(file.size)).await?;
            verify(name, &found, Some(&file.digest))?;
        }
        let path = staging.path.join(Manifest::FILE);
        tokio::fs::write(&path, &bytes)
            .await
            .map_err(|error| disk(&path, &error))?;
        actual
    };
    staging.commit(&root, digest, &cache.keep)
}

fn no_manifest(failure: LoadFailure) -> LoadFailure {
    let hint = "a model is a folder with manifest.json, or one file that ends in .onnx";
    match failure.reason {
        Reason::ModelNotFound => LoadFailure {
            message: format!("{} ({hint})", failure.message),
            ..failure
        },
        _ => failure,
    }
}

fn disk(path: &Path, error: &std::io::Error) -> LoadFailure {
    let message = format!(
        "cache {}: {error}; give --cache-dir a writable folder with room",
        path.display()
    );
    LoadFailure::permanent(Reason::ModelUnreachable, message)
}

/// Copies one file, hashing it on the way.
async fn download(source: &Source, name: &str, to: &Path, size: Option<u64>) -> Result<Digest, LoadFailure> {
    let mut content = source.read(name).await?;
    let wrong_size = |actual: u64| {
        let expected = size.unwrap_or_default();
        let message =
            format!("{name} has {actual} bytes, the manifest says {expected}; upload the folder again");
        LoadFailure::permanent(Reason::DigestMismatch, message)
    };
    if size.is_some_and(|size| size != content.size) {
        return Err(wrong_size(content.size));
    }
    if let Some(parent) = to.parent() {
        tokio::fs::create_dir_all(parent)
            .await
            .map_err(|error| disk(parent, &error))?;
    }
    let mut file = tokio::fs::File::create(to)
        .await
        .map_err(|error| disk(to, &error))?;
    let mut hasher = Sha256::new();
    let mut written = 0;
    while let Some(block) = content.blocks.next().await {
        let block = block?;
        written += block.len() as u64;
        if written > content.size {
            return Err(wrong_size(written));
        }
        hasher.update(&block);
        file.write_all(&block).await.map_err(|error| disk(to, &error))?;
    }
    if written < content.size {
        let message = format!(
            "{name}: the transfer ended after {written} of {} bytes",
            content.size
        );
        return Err(LoadFailure::transient(Reason::ModelUnreachable, message));
    }
    file.flush().await.map_err(|error| disk(to, &error))?;
    Ok(Digest::of_finished(hasher))
}

/// The model from the cache if it is there and still what its digest says.
fn cached(root: &Path, digest: &Digest) -> Option<ModelFolder> {
    let path = root.join(digest.hex());
    if !path.is_dir() {
        return None;
    }
    match still_valid(&path, digest) {
        Ok(()) => {
            tracing::info!(%digest, "model found in the cache");
            Some(ModelFolder {
                path,
                digest: digest.clone(),
            })
        }
        Err(failure) => {
            tracing::warn!(%digest, message = failure.message, "cached model is damaged and fetched again");
            let _ = std::fs::remove_dir_all(&path);
            None
        }
    }
}

fn still_valid(path: &Path, digest: &Digest) -> Result<(), LoadFailure> {
    let manifest_path = path.join(Manifest::FILE);
    let of_file =
        |name: &str| Digest::of_file(&path.join(name)).map_err(|error| disk(&path.join(name), &error));
    if !manifest_path.exists() {
        return verify("model.onnx", &of_file("model.onnx")?, Some(digest));
    }
    let bytes = std::fs::read(&manifest_path).map_err(|error| disk(&manifest_path, &error))?;
    let manifest = Manifest::parse(&bytes, Some(digest))?;
    manifest
        .files
        .iter()
        .try_for_each(|(name, file)| verify(name, &of_file(name)?, Some(&file.digest)))
}

/// A folder that disappears unless it is committed.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn new(cache: &Path) -> Result<Self, LoadFailure> {
        let path = cache.join(format!(
            "staging-{}-{:08x}",
            std::process::id(),
            rand::rng().random::<u32>()
        ));
        std::fs::create_dir_all(&path).map_err(|error| disk(&path, &error))?;
        Ok(Self { path })
    }

    fn commit(self, root: &Path, digest: Digest, keep: &[Digest]) -> Result<ModelFolder, LoadFailure> {
        let path = root.join(digest.hex());
        if let Err(error) = std::fs::rename(&self.path, &path)
            && !path.is_dir()
        {
            return Err(disk(&path, &error));
        }
        evict(root, &path, keep);
        Ok(ModelFolder { path, digest })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes the oldest models, so that a node's disk holds a bounded number of them.
fn evict(root: &Path, current: &Path, keep: &[Digest]) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    let mut others: Vec<(std::time::SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path() != current)
        .filter(|entry| keep.iter().all(|digest| entry.path() != root.join(digest.hex())))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort();
    let surplus = others.len().saturating_sub(KEPT_BESIDES);
    for (_, path) in others.into_iter().take(surplus) {
        tracing::info!(path = %path.display(), "model removed from the cache");
        let _ = std::fs::remove_dir_all(path);
    }
}
