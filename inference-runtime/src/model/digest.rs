//! Digests and the manifest: nothing is loaded that was not verified.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Component, Path};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::failure::{LoadFailure, Reason};

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Digest of a file, read in blocks.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = Sha256::new();
        let mut block = vec![0; 1 << 18];
        loop {
            match file.read(&mut block)? {
                0 => return Ok(Self(hasher.finalize().into())),
                count => hasher.update(&block[..count]),
            }
        }
    }

    /// Digest of what a hasher was fed.
    pub fn of_finished(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a digest: sha256: and 64 hexadecimal digits");
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// `manifest.json`: every file of the folder but itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub files: BTreeMap<String, ManifestFile>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    pub digest: Digest,
    pub size: u64,
}

/// Files of a folder: a list longer than this is a mistake, or an attack.
const MAX_FILES: usize = 10_000;

impl Manifest {
    pub const FILE: &str = "manifest.json";
    /// No manifest is larger.
    pub const MAX_BYTES: usize = 4 << 20;

    /// Reads a manifest whose digest is `expected`, if one is.
    pub fn parse(bytes: &[u8], expected: Option<&Digest>) -> Result<Self, LoadFailure> {
        verify(Self::FILE, &Digest::of(bytes), expected)?;
        let invalid = |message: String| LoadFailure::permanent(Reason::ModelInvalid, message);
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| {
            invalid(format!(
                "manifest.json is not a manifest: {error}; write it again"
            ))
        })?;
        if manifest.version != 1 {
            return Err(invalid(format!(
                "manifest.json has version {}, this runtime reads 1",
                manifest.version
            )));
        }
        if manifest.files.len() > MAX_FILES {
            return Err(invalid(format!(
                "manifest.json lists more than {MAX_FILES} files"
            )));
        }
        if !manifest.files.contains_key("model.onnx") {
            return Err(invalid("manifest.json lists no model.onnx".to_owned()));
        }
        if let Some(path) = manifest.files.keys().find(|path| !confined(path)) {
            return Err(invalid(format!(
                "manifest.json lists {path:?}; paths are relative, below the folder, without `.` and `..`"
            )));
        }
        Ok(manifest)
    }
}

/// A relative path with plain names only.
pub fn confined(path: &str) -> bool {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    plain
        && !path.is_empty()
        && !path.contains(['\\', '\0'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// `DigestMismatch`, naming the file and both digests.
pub fn verify(file: &str, actual: &Digest, expected: Option<&Digest>) -> Result<(), LoadFailure> {
    match expected {
        Some(expected) if expected != actual => Err(LoadFailure::permanent(
            Reason::DigestMismatch,
            format!(
                "{file} has digest {actual}, expected {expected}; upload the file again, or correct the expected digest"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_text() {
        let digest = Digest::of(b"abc");
        assert!(digest.to_string().starts_with("sha256:ba7816bf"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in [
            "",
            "sha256:",
            "md5:ba7816bf",
            &"z".repeat(64),
            &format!("sha256:{}", "ä".repeat(32)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_stay_below_the_folder() {
        for good in ["model.onnx", "samples/one.request.json"] {
            assert!(confined(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "a/../b",
            "../a",
            "a//b",
            "./a",
            "a/.",
            "a\\b",
            "a/",
        ] {
            assert!(!confined(bad), "{bad}");
        }
    }

    #[test]
    fn hostile_manifests() {
        let digest = Digest::of(b"");
        let file =
            |path: &str| format!(r#"{{"version":1,"files":{{"{path}":{{"digest":"{digest}","size":0}}}}}}"#);
        assert!(Manifest::parse(file("model.onnx").as_bytes(), None).is_ok());
        let cases = [
            (file("../model.onnx"), Reason::ModelInvalid),
            (file("other.onnx"), Reason::ModelInvalid),
            (
                file("model.onnx").replace("\"version\":1", "\"version\":2"),
                Reason::ModelInvalid,
            ),
            (file("model.onnx").replace("size", "bytes"), Reason::ModelInvalid),
            ("[".repeat(100_000), Reason::ModelInvalid),
        ];
        for (text, reason) in cases {
            assert_eq!(Manifest::parse(text.as_bytes(), None).unwrap_err().reason, reason);
        }
        let mismatch = Manifest::parse(file("model.onnx").as_bytes(), Some(&digest)).unwrap_err();
        assert_eq!(mismatch.reason, Reason::DigestMismatch);
        assert!(mismatch.message.contains("manifest.json"));
    }
}
