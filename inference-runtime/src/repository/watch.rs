//! Looks at the models' sources now and then, and loads what is new.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::Repository;
use super::request::Ask;
use crate::catalog::State;

impl Repository {
    /// Looks every `interval` or so, for as long as the process lives.
    pub async fn watch(self: Arc<Self>, interval: Duration) {
        loop {
            // Replicas that started together do not ask together.
            let pause = interval.mul_f64(rand::rng().random_range(0.75..1.25));
            tokio::time::sleep(pause).await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let names = match self.place.names().await {
            Ok(names) => names,
            // What is served stays: a repository that cannot be read has lost nothing.
            Err(failure) => {
                tracing::warn!(message = failure.message, "models not looked at");
                return;
            }
        };
        for gone in self
            .serving
            .catalog
            .names()
            .iter()
            .filter(|name| !names.contains(name))
        {
            let mut gate = self.gate.lock().await;
            self.serving.catalog.remove(gone);
            gate.stamps.remove(gone);
            tracing::info!(model = gone, "no longer in the repository, and no longer served");
        }
        for name in names {
            let entry = self.serving.catalog.get(&name);
            if entry.is_some_and(|entry| entry.state == State::Unloaded) {
                continue;
            }
            let stamp = match self.place.stamp(&name).await {
                Ok(stamp) => stamp,
                Err(failure) => {
                    tracing::warn!(model = name, message = failure.message, "model not looked at");
                    continue;
                }
            };
            let before = self.gate.lock().await.stamps.get(&name).cloned();
            if before != Some(stamp) {
                // How it ends is in the log, the metric and the index.
                let _ = self.load(&name, &Ask::default()).await;
            }
        }
    }
}
