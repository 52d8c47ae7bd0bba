//! Where a model is.

use std::path::PathBuf;

/// A model's address; a path that ends in `.onnx` is one file, everything else a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUri {
    pub place: Place,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    S3 {
        bucket: String,
        path: String,
    },
    Http {
        origin: String,
        path: String,
        plain: bool,
    },
    File {
        path: PathBuf,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("model URI {0:?} is none of s3://bucket/path, https://host/path and file:///path")]
    Scheme(String),
    #[error("model URI {0:?} names no {1}")]
    Missing(String, &'static str),
    #[error("model URI {0:?} has a query or fragment, which is not supported")]
    Query(String),
    #[error(
        "model URI has user information in it; credentials come from the environment, never from the URI"
    )]
    Credentials,
    #[error("model URI {0:?} has `..` in its path")]
    Parent(String),
}

impl std::str::FromStr for ModelUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let owned = || text.to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| UriError::Scheme(owned()))?;
        if rest.contains(['?', '#']) {
            return Err(UriError::Query(owned()));
        }
        if rest.split('/').any(|part| part == "..") {
            return Err(UriError::Parent(owned()));
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/').to_owned();
        let place = match scheme {
            "s3" | "http" | "https" if host.contains('@') => return Err(UriError::Credentials),
            "s3" | "http" | "https" if host.is_empty() => {
                return Err(UriError::Missing(owned(), "bucket or host"));
            }
            "s3" => Place::S3 {
                bucket: host.to_owned(),
                path,
            },
            "http" | "https" => Place::Http {
                origin: format!("{scheme}://{host}"),
                path,
                plain: scheme == "http",
            },
            "file" if !host.is_empty() => {
                return Err(UriError::Missing(owned(), "absolute path (file:///...)"));
            }
            "file" => Place::File {
                path: PathBuf::from(format!("/{path}")),
            },
            _ => return Err(UriError::Scheme(owned())),
        };
        Ok(Self { place, text: owned() })
    }
}

impl ModelUri {
    /// A folder's address; also of a path on this machine.
    pub fn of_folder(text: &str) -> Result<Self, UriError> {
        if text.contains("://") {
            return text.parse();
        }
        let path = std::path::absolute(text).map_err(|_| UriError::Scheme(text.to_owned()))?;
        format!("file://{}", path.display()).parse()
    }

    /// A folder's folder of that name.
    pub fn join(&self, name: &str) -> Result<Self, UriError> {
        format!("{}/{name}", self.text.trim_end_matches('/')).parse()
    }

    pub fn is_single_file(&self) -> bool {
        self.text.ends_with(".onnx")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse::<ModelUri>().unwrap().place
    }

    #[test]
    fn addresses() {
        assert_eq!(
            place("s3://b/a/c/"),
            Place::S3 {
                bucket: "b".into(),
                path: "a/c".into()
            }
        );
        let http = Place::Http {
            origin: "http://h:9".into(),
            path: "m.onnx".into(),
            plain: true,
        };
        assert_eq!(place("http://h:9/m.onnx"), http);
        assert_eq!(place("file:///a/b"), Place::File { path: "/a/b".into() });
        assert!("s3://b/m.onnx".parse::<ModelUri>().unwrap().is_single_file());
        assert!(!"s3://b/m".parse::<ModelUri>().unwrap().is_single_file());
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "/a",
            "ftp://a/b",
            "s3:///x",
            "file://host/x",
            "https://h/x?y=1",
            "s3://b/../x",
            "https://u:p@h/x",
        ] {
            assert!(bad.parse::<ModelUri>().is_err(), "{bad}");
        }
        let secret = "https://user:secret@h/x".parse::<ModelUri>().unwrap_err();
        assert!(!secret.to_string().contains("secret@"));
    }
}
