//! Where the process's models are: one at an address, or a folder of many.

use super::layout::{self, Layout};
use super::request::Ask;
use crate::args::Serve;
use crate::failure::{LoadFailure, Reason};
use crate::model::digest::Digest;
use crate::model::folder::{self, Cache, Files, ModelFolder};
use crate::model::source::{Found, Source};
use crate::model::triton::{self, Policy, TritonConfig};
use crate::model::uri::{ModelUri, Place as Scheme, UriError};

/// A config.pbtxt is a page or two.
const MAX_CONFIG_BYTES: usize = 1 << 20;

pub enum Place {
    One {
        name: String,
        uri: ModelUri,
        /// As given at the start.
        digest: Option<Digest>,
        version: Option<String>,
    },
    Many {
        uri: ModelUri,
    },
}

/// A version that is to be served.
pub struct Sought {
    /// Its name, if it has one before its digest is known.
    pub version: Option<String>,
    what: What,
}

enum What {
    /// A folder with a manifest, or one file.
    Listed {
        uri: ModelUri,
        digest: Option<Digest>,
    },
    Files {
        source: Source,
        files: Files,
    },
}

impl Sought {
    pub async fn fetch(self, cache: &Cache<'_>) -> Result<ModelFolder, LoadFailure> {
        match self.what {
            What::Listed { uri, digest } => folder::fetch(&uri, digest.as_ref(), cache).await,
            What::Files { source, files } => folder::fetch_files(&source, &files, cache).await,
        }
    }
}

fn address(error: &UriError) -> LoadFailure {
    LoadFailure::permanent(Reason::ModelNotFound, error.to_string())
}

fn not_there(name: &str, place: &str) -> LoadFailure {
    let message = format!("there is no model {name:?} at {place}; correct the name, or put it there");
    LoadFailure::permanent(Reason::ModelNotFound, message)
}

impl Place {
    pub fn of(args: &Serve) -> Result<Self, LoadFailure> {
        if let Some(text) = &args.model_repository {
            let uri = ModelUri::of_folder(text).map_err(|error| address(&error))?;
            if let Scheme::Http { .. } = uri.place {
                let message = format!(
                    "--model-repository {text}: a web server cannot be listed; use a folder or s3://, or --model-uri"
                );
                return Err(LoadFailure::permanent(Reason::ModelNotFound, message));
            }
            return Ok(Place::Many { uri });
        }
        let uri = args.model_uri.as_deref().unwrap_or_default();
        let digest = args.digest().cloned();
        if digest.is_some() && !args.reload_interval.is_zero() {
            let message =
                "--model-digest allows one version, and --reload-interval looks for others; leave one out";
            return Err(LoadFailure::permanent(Reason::ConfigInvalid, message));
        }
        Ok(Place::One {
            name: args.model_name.clone().unwrap_or_default(),
            uri: uri.parse().map_err(|error| address(&error))?,
            digest,
            version: args.model_version.clone().filter(|version| !version.is_empty()),
        })
    }

    pub fn is_one(&self) -> bool {
        matches!(self, Place::One { .. })
    }

    /// Names of all models.
    pub async fn names(&self) -> Result<Vec<String>, LoadFailure> {
        match self {
            Place::One { name, .. } => Ok(vec![name.clone()]),
            Place::Many { uri } => {
                let files = Source::open(uri)?.files("").await?;
                let names = layout::names(paths(&files));
                if names.is_empty() {
                    let message = format!("{} has no folders; a repository has one for each model", uri.text);
                    return Err(LoadFailure::permanent(Reason::ModelNotFound, message));
                }
                Ok(names)
            }
        }
    }

    /// The versions of a model that are to be served.
    pub async fn sought(&self, model: &str, ask: &Ask) -> Result<Vec<Sought>, LoadFailure> {
        match self {
            Place::One {
                name,
                uri,
                digest,
                version,
            } => {
                if name != model {
                    return Err(not_there(model, &uri.text));
                }
                let what = What::Listed {
                    uri: uri.clone(),
                    digest: ask.digest.clone().or_else(|| digest.clone()),
                };
                let version = ask.version.clone().or_else(|| version.clone());
                Ok(vec![Sought { version, what }])
            }
            Place::Many { uri } => {
                if ask.version.is_some() {
                    let message = "parameter \"version\": versions of a repository are named by their folders; leave it out";
                    return Err(LoadFailure::permanent(Reason::ConfigInvalid, message));
                }
                in_repository(uri, model, ask.digest.clone()).await
            }
        }
    }

    /// What changes when a model's source changes, as far as it can be told without reading the model.
    pub async fn stamp(&self, model: &str) -> Result<String, LoadFailure> {
        match self {
            Place::One { uri, .. } if uri.is_single_file() => Source::open(uri)?.stamp().await,
            Place::One { uri, .. } => manifest_stamp(uri).await,
            Place::Many { uri } => {
                let uri = of_model(uri, model)?;
                let found = Source::open(&uri)?.files("").await?;
                match layout::of(paths(&found)) {
                    Ok(Layout::Manifest) => manifest_stamp(&uri).await,
                    _ => Ok(format!("{found:?}")),
                }
            }
        }
    }
}

async fn manifest_stamp(uri: &ModelUri) -> Result<String, LoadFailure> {
    use crate::model::digest::Manifest;
    let bytes = Source::open(uri)?
        .read_small(Manifest::FILE, Manifest::MAX_BYTES)
        .await?;
    Ok(Digest::of(&bytes).to_string())
}

fn paths(found: &[Found]) -> impl Iterator<Item = &str> + Clone {
    found.iter().map(|found| found.path.as_str())
}

/// A model's folder in a repository: one name, and nothing that leads elsewhere.
fn of_model(repository: &ModelUri, model: &str) -> Result<ModelUri, LoadFailure> {
    if model.is_empty() || model.starts_with('.') || model.contains(['/', '\\', '?', '#', '%']) {
        return Err(not_there(model, &repository.text));
    }
    repository.join(model).map_err(|error| address(&error))
}

async fn in_repository(
    repository: &ModelUri,
    model: &str,
    digest: Option<Digest>,
) -> Result<Vec<Sought>, LoadFailure> {
    let uri = of_model(repository, model)?;
    let source = Source::open(&uri)?;
    let found = source.files("").await?;
    if found.is_empty() {
        return Err(not_there(model, &repository.text));
    }
    let invalid = |error| LoadFailure::permanent(Reason::ModelInvalid, format!("{}: {error}", uri.text));
    let layout = layout::of(paths(&found)).map_err(invalid)?;
    if digest.is_some() && layout != Layout::Manifest {
        let message =
            "parameter \"digest\": the model has no manifest.json; write one, or leave the parameter out";
        return Err(LoadFailure::permanent(Reason::ConfigInvalid, message));
    }
    let (config, mut versions) = match layout {
        Layout::Manifest => {
            let what = What::Listed { uri, digest };
            return Ok(vec![Sought { version: None, what }]);
        }
        Layout::Folder(files) => {
            let what = What::Files { source, files };
            return Ok(vec![Sought { version: None, what }]);
        }
        Layout::Versions { config, versions } => (config, versions),
    };
    let policy = match config {
        true => {
            let text = source.read_small(triton::FILE, MAX_CONFIG_BYTES).await?;
            TritonConfig::parse(&String::from_utf8_lossy(&text), model)?.policy
        }
        false => Policy::default(),
    };
    let there: Vec<u64> = versions.keys().copied().collect();
    let mut sought = Vec::new();
    for version in policy.choose(&there)? {
        let files = versions.remove(&version).unwrap_or_default();
        let what = What::Files {
            source: Source::open(&uri)?,
            files,
        };
        sought.push(Sought {
            version: Some(version.to_string()),
            what,
        });
    }
    Ok(sought)
}
