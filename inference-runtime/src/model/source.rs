//! Reads a model's files from where they are: object storage, a web server, or the local disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};

use super::uri::{ModelUri, Place};
use crate::failure::{LoadFailure, Reason};

/// Silence after which a transfer counts as broken.
const STALL: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);

/// Files of a folder that is listed: more are a mistake.
const MAX_LISTED: usize = 100_000;

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub path: String,
    /// Changes when the file changes, as far as its store tells without reading it.
    pub stamp: String,
}

pub struct Source {
    uri: String,
    base: Base,
}

enum Base {
    Store {
        store: Arc<dyn ObjectStore>,
        path: String,
    },
    Local(PathBuf),
}

/// The content of one file, block by block.
pub struct Content {
    pub size: u64,
    pub blocks: BoxStream<'static, Result<Bytes, LoadFailure>>,
}

impl Source {
    pub fn open(uri: &ModelUri) -> Result<Self, LoadFailure> {
        let plain_allowed = truthy("AWS_ALLOW_HTTP");
        let options = ClientOptions::new()
            .with_allow_http(plain_allowed)
            .with_connect_timeout(CONNECT)
            .with_timeout_disabled()
            .with_read_timeout(STALL);
        // One retry policy, and it is the caller's: it knows the time left, and tells the user what it waits for.
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let failed = |error: object_store::Error| {
            LoadFailure::permanent(
                Reason::ModelUnreachable,
                format!("{}: {}", uri.text, chain(&error)),
            )
        };
        let base = match &uri.place {
            Place::S3 { bucket, path } => {
                let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
                refuse_plain(endpoint.starts_with("http://") && !plain_allowed, &endpoint)?;
                let mut builder = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket);
                builder = builder.with_client_options(options).with_retry(retry);
                Base::Store {
                    store: Arc::new(builder.build().map_err(failed)?),
                    path: path.clone(),
                }
            }
            Place::Http { origin, path, plain } => {
                refuse_plain(*plain && !plain_allowed, origin)?;
                let builder = object_store::http::HttpBuilder::new().with_url(origin);
                let store = builder
                    .with_client_options(options)
                    .with_retry(retry)
                    .build()
                    .map_err(failed)?;
                Base::Store {
                    store: Arc::new(store),
                    path: path.clone(),
                }
            }
            Place::File { path } => Base::Local(path.clone()),
        };
        Ok(Self {
            uri: uri.text.clone(),
            base,
        })
    }

    /// Opens a file below the base, or the base itself when `relative` is empty.
    pub async fn read(&self, relative: &str) -> Result<Content, LoadFailure> {
        let name = [self.uri.trim_end_matches('/'), relative].join("/");
        let name = name.trim_end_matches('/').to_owned();
        match &self.base {
            Base::Store { store, path } => read_object(store.as_ref(), &join(path, relative), name).await,
            Base::Local(base) => read_local(base, relative, name).await,
        }
    }

    /// All files below a folder, by their paths in it.
    pub async fn files(&self, below: &str) -> Result<Vec<Found>, LoadFailure> {
        let mut found = match &self.base {
            Base::Store { store, path } => {
                list_objects(store.as_ref(), &join(path, below), &self.uri).await?
            }
            Base::Local(base) => list_local(&base.join(below))?,
        };
        if found.len() > MAX_LISTED {
            let message = format!(
                "{} has more than {MAX_LISTED} files; name a smaller folder",
                self.uri
            );
            return Err(LoadFailure::permanent(Reason::ModelInvalid, message));
        }
        found.sort();
        Ok(found)
    }

    /// What changes when the file at the base changes, as far as its store tells without reading it.
    pub async fn stamp(&self) -> Result<String, LoadFailure> {
        match &self.base {
            Base::Store { store, path } => {
                let path = object_path(path, &self.uri)?;
                let head = tokio::time::timeout(STALL, store.head(&path)).await;
                let head = head.map_err(|_| stalled(&self.uri))?;
                Ok(object_stamp(&head.map_err(|error| classify(&self.uri, &error))?))
            }
            Base::Local(path) => {
                let metadata = std::fs::metadata(path);
                Ok(local_stamp(
                    &metadata.map_err(|error| io_failure(&self.uri, &error))?,
                ))
            }
        }
    }

    /// A small file as a whole.
    pub async fn read_small(&self, relative: &str, limit: usize) -> Result<Vec<u8>, LoadFailure> {
        let mut content = self.read(relative).await?;
        let mut bytes = Vec::new();
        while let Some(block) = content.blocks.next().await {
            bytes.extend_from_slice(&block?);
            if bytes.len() > limit {
                let message = format!("{}: {relative} is larger than {limit} bytes", self.uri);
                return Err(LoadFailure::permanent(Reason::ModelInvalid, message));
            }
        }
        Ok(bytes)
    }
}

fn truthy(variable: &str) -> bool {
    std::env::var(variable)
        .is_ok_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}

fn refuse_plain(refused: bool, address: &str) -> Result<(), LoadFailure> {
    if !refused {
        return Ok(());
    }
    let message = format!("{address} is plain http; use https, or set AWS_ALLOW_HTTP=true");
    Err(LoadFailure::permanent(Reason::ModelUnreachable, message))
}

fn join(base: &str, relative: &str) -> String {
    match (base.is_empty(), relative.is_empty()) {
        (true, _) => relative.to_owned(),
        (_, true) => base.to_owned(),
        _ => format!("{base}/{relative}"),
    }
}

fn object_path(path: &str, name: &str) -> Result<ObjectPath, LoadFailure> {
    ObjectPath::parse(path).map_err(|error| {
        let message = format!("{name}: {error}; correct the model URI");
        LoadFailure::permanent(Reason::ModelNotFound, message)
    })
}

fn object_stamp(meta: &object_store::ObjectMeta) -> String {
    format!(
        "{} {} {}",
        meta.size,
        meta.last_modified,
        meta.e_tag.as_deref().unwrap_or_default()
    )
}

fn local_stamp(metadata: &std::fs::Metadata) -> String {
    format!("{} {:?}", metadata.len(), metadata.modified().ok())
}

async fn list_objects(store: &dyn ObjectStore, prefix: &str, name: &str) -> Result<Vec<Found>, LoadFailure> {
    let prefix = object_path(prefix, name)?;
    let mut objects = store.list(Some(&prefix));
    let mut found = Vec::new();
    while found.len() <= MAX_LISTED {
        let next = tokio::time::timeout(STALL, objects.next()).await;
        let Some(object) = next.map_err(|_| stalled(name))? else {
            break;
        };
        let object = object.map_err(|error| classify(name, &error))?;
        let parts: Option<Vec<String>> = object
            .location
            .prefix_match(&prefix)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
        found.extend(parts.map(|parts| Found {
            path: parts.join("/"),
            stamp: object_stamp(&object),
        }));
    }
    Ok(found)
}

/// A link counts as what it leads to; who reads it is refused, and told of the link.
fn list_local(folder: &Path) -> Result<Vec<Found>, LoadFailure> {
    let failed = |path: &Path, error: std::io::Error| io_failure(&path.display().to_string(), &error);
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((path, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&path).map_err(|error| failed(&path, error))? {
            let entry = entry.map_err(|error| failed(&path, error))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // Gone again, or a link to nowhere.
            let Ok(metadata) = std::fs::metadata(entry.path()) else {
                continue;
            };
            if metadata.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
            } else {
                found.push(Found {
                    path: name,
                    stamp: local_stamp(&metadata),
                });
            }
            // A link to a folder above would never end.
            if found.len() + folders.len() > MAX_LISTED {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

fn io_failure(name: &str, error: &std::io::Error) -> LoadFailure {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => not_found(name),
        _ => LoadFailure::permanent(Reason::ModelUnreachable, format!("{name}: {error}")),
    }
}

async fn read_object(store: &dyn ObjectStore, path: &str, name: String) -> Result<Content, LoadFailure> {
    let path = object_path(path, &name)?;
    let result = tokio::time::timeout(STALL, store.get(&path))
        .await
        .map_err(|_| stalled(&name))?;
    let result = result.map_err(|error| classify(&name, &error))?;
    let size = result.meta.size;
    let blocks = result
        .into_stream()
        .map(move |block| block.map_err(|error| classify(&name, &error)));
    Ok(Content {
        size,
        blocks: blocks.boxed(),
    })
}

fn stalled(name: &str) -> LoadFailure {
    let message = format!(
        "{name}: no answer within {} s; check the endpoint and the network",
        STALL.as_secs()
    );
    LoadFailure::transient(Reason::ModelUnreachable, message)
}

fn not_found(name: &str) -> LoadFailure {
    let message = format!("{name} does not exist; correct the model URI, or upload the model there");
    LoadFailure::permanent(Reason::ModelNotFound, message)
}

fn classify(name: &str, error: &object_store::Error) -> LoadFailure {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => not_found(name),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => LoadFailure::permanent(
            Reason::ModelUnreachable,
            format!(
                "{name}: access denied; allow the service account of the model to read it (s3:GetObject)"
            ),
        ),
        _ => LoadFailure::transient(
            Reason::ModelUnreachable,
            format!("{name}: {}; check the endpoint and the network", chain(error)),
        ),
    }
}

/// An error with its causes, without those that only repeat it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Opens a local file with no link on the way from the base to it.
fn local_file(base: &Path, relative: &str, name: &str) -> Result<(std::fs::File, u64), LoadFailure> {
    let failed = |error: std::io::Error| io_failure(name, &error);
    let mut path = base.to_owned();
    for part in relative.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        if path.symlink_metadata().map_err(failed)?.is_symlink() {
            let message = format!("{name}: {} is a link; replace it by the file", path.display());
            return Err(LoadFailure::permanent(Reason::ModelInvalid, message));
        }
    }
    let file = std::fs::File::open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let message = format!("{name} is not a regular file");
        return Err(LoadFailure::permanent(Reason::ModelInvalid, message));
    }
    Ok((file, metadata.len()))
}

async fn read_local(base: &Path, relative: &str, name: String) -> Result<Content, LoadFailure> {
    let (file, size) = local_file(base, relative, &name)?;
    let file = tokio::fs::File::from_std(file);
    let blocks = futures::stream::try_unfold((file, name), |(mut file, name)| async move {
        use tokio::io::AsyncReadExt;
        let mut block = vec![0; 1 << 18];
        let count = file
            .read(&mut block)
            .await
            .map_err(|error| LoadFailure::transient(Reason::ModelUnreachable, format!("{name}: {error}")))?;
        block.truncate(count);
        Ok((count > 0).then(|| (Bytes::from(block), (file, name))))
    });
    Ok(Content {
        size,
        blocks: blocks.boxed(),
    })
}
