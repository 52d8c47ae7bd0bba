//! What the admin port is asked for, and what it answers.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::args;
use crate::failure::{LoadFailure, Reason};
use crate::model::digest::Digest;
use crate::protocol::ApiError;

/// Parameters of a load: what it should be, where the folder itself does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// Instead of the one given at the start.
    pub digest: Option<Digest>,
    /// Name of the new version, instead of its digest's first digits.
    pub version: Option<String>,
    /// What `/load` tells from then on.
    pub revision: Option<String>,
    /// Triton's clients send it with an unload; a cascade's light model goes alone.
    #[serde(rename = "unload_dependents")]
    _unload_dependents: Option<bool>,
}

impl Ask {
    /// Reads the body of a request; it may be empty.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        #[derive(Default, Deserialize)]
        struct Body {
            #[serde(default)]
            parameters: Option<Ask>,
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            ApiError::invalid(format!(
                "the body is not {{\"parameters\": {{\"digest\": .., \"version\": .., \"revision\": ..}}}}, all of them \
                 optional: {error}"
            ))
        })?;
        let ask = body.parameters.unwrap_or_default();
        if let Some(revision) = &ask.revision {
            args::revision(revision)
                .map_err(|error| ApiError::invalid(format!("parameter \"revision\": {error}")))?;
        }
        if ask
            .version
            .as_deref()
            .is_some_and(|version| version.is_empty() || version.contains('/'))
        {
            return Err(ApiError::invalid(
                "parameter \"version\" is part of paths: it is not empty, and has no '/'",
            ));
        }
        Ok(ask)
    }
}

/// A load that ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub name: String,
    pub versions: Vec<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    pub version: String,
    pub digest: String,
    /// Whether it was there before, and nothing was done.
    pub unchanged: bool,
}

impl Report {
    pub fn is_unchanged(&self) -> bool {
        self.versions.iter().all(|version| version.unchanged)
    }
}

/// What is answered when a load fails.
pub fn refusal(failure: &LoadFailure) -> ApiError {
    let status = match failure.reason {
        Reason::ModelNotFound => StatusCode::NOT_FOUND,
        Reason::ModelUnreachable => StatusCode::BAD_GATEWAY,
        Reason::NoMemory => StatusCode::INSUFFICIENT_STORAGE,
        Reason::DigestMismatch | Reason::ModelInvalid | Reason::ConfigInvalid | Reason::NoGpuProvider => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
    };
    ApiError::new(status, "failed", failure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        for empty in [
            "",
            " \n",
            "{}",
            r#"{"parameters": {}}"#,
            r#"{"parameters": null}"#,
            r#"{"parameters": {"unload_dependents": false}}"#,
        ] {
            let ask = Ask::parse(empty.as_bytes()).unwrap();
            assert_eq!(
                (ask.digest, ask.version, ask.revision),
                (None, None, None),
                "{empty}"
            );
        }
        let digest = Digest::of(b"x");
        let text = format!(r#"{{"parameters": {{"digest": "{digest}", "version": "8", "revision": "r2"}}}}"#);
        let ask = Ask::parse(text.as_bytes()).unwrap();
        assert_eq!(ask.digest, Some(digest));
        assert_eq!(
            (ask.version.as_deref(), ask.revision.as_deref()),
            (Some("8"), Some("r2"))
        );
        for (bad, named) in [
            ("[", "parameters"),
            (r#"{"parameters": {"config": "{}"}}"#, "unknown field `config`"),
            (r#"{"parameters": {"digest": "sha256:1"}}"#, "is not a digest"),
            (r#"{"parameters": {"revision": "a b"}}"#, "revision"),
            (r#"{"parameters": {"version": "a/b"}}"#, "version"),
        ] {
            let error = Ask::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
            assert!(error.message.contains(named), "{}", error.message);
        }
    }
}
