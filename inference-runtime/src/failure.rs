//! Why a model cannot be served: one reason and its remedy, told to the kubelet as termination message.

use std::path::Path;

/// What the operator shows as the reason of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Reason {
    ModelNotFound,
    ModelUnreachable,
    DigestMismatch,
    ModelInvalid,
    ConfigInvalid,
    NoGpuProvider,
    NoMemory,
}

impl Reason {
    /// A label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::ModelNotFound => "ModelNotFound",
            Reason::ModelUnreachable => "ModelUnreachable",
            Reason::DigestMismatch => "DigestMismatch",
            Reason::ModelInvalid => "ModelInvalid",
            Reason::ConfigInvalid => "ConfigInvalid",
            Reason::NoGpuProvider => "NoGpuProvider",
            Reason::NoMemory => "NoMemory",
        }
    }
}

/// A model that cannot be loaded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason:?}: {message}")]
pub struct LoadFailure {
    pub reason: Reason,
    /// What is wrong and what to do about it.
    pub message: String,
    /// Whether the same attempt may succeed a moment later.
    pub transient: bool,
}

impl LoadFailure {
    pub fn permanent(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            transient: false,
        }
    }

    pub fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            transient: true,
        }
    }

    /// `{"reason": .., "message": ..}` in at most 2 KB (the kubelet keeps 4 KB for a whole pod's message).
    pub fn termination_message(&self) -> String {
        const MESSAGE_BYTES: usize = 2048;
        let mut message = self.message.as_str();
        loop {
            let text = serde_json::json!({"reason": self.reason, "message": message}).to_string();
            if text.len() <= MESSAGE_BYTES {
                return text;
            }
            // Escapes make the text longer than the message, so the cut is found by halving the excess.
            let excess = (text.len() - MESSAGE_BYTES).div_ceil(2).max(1);
            let mut end = message.len().saturating_sub(excess);
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message = &message[..end];
        }
    }

    /// Writes the termination message, if the file is there (the kubelet makes it).
    pub fn write_termination_message(&self, path: &Path) {
        if !path.exists() {
            return;
        }
        if let Err(error) = std::fs::write(path, self.termination_message()) {
            tracing::warn!(%error, path = %path.display(), "termination message not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_fits_and_stays_json() {
        for text in [
            "x".repeat(9000),
            "\"\n".repeat(5000),
            "ä\u{1}".repeat(4000),
            "short".to_owned(),
        ] {
            let message = LoadFailure::permanent(Reason::ModelInvalid, text).termination_message();
            assert!(message.len() <= 2048);
            let value: serde_json::Value = serde_json::from_str(&message).unwrap();
            assert_eq!(value["reason"], "ModelInvalid");
        }
    }
}
