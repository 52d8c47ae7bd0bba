//! Metrics of item tables; all but the updates are read when they are asked for.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::Seconds;
use crate::model::ServedModel;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Labels {
    pub model: String,
    pub version: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Revision {
    pub model: String,
    pub version: String,
    pub revision: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    pub model: String,
    pub outcome: &'static str,
}

#[derive(Default)]
pub struct ItemTableMetrics {
    revision: Family<Revision, Gauge>,
    items: Family<Labels, Gauge>,
    age: Family<Labels, Seconds>,
    unknown: Family<Labels, Counter>,
    pub updates: Family<Outcome, Counter>,
}

impl ItemTableMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "item_table_info",
            "Revision of the item table",
            self.revision.clone(),
        );
        registry.register("item_table_items", "Items in the table", self.items.clone());
        registry.register_with_unit(
            "item_table_age",
            "Since the table was loaded or last changed",
            Unit::Seconds,
            self.age.clone(),
        );
        registry.register(
            "item_table_unknown_ids",
            "Ids of requests that were not in the item table",
            self.unknown.clone(),
        );
        registry.register(
            "item_table_updates",
            "Deltas by outcome: applied, repeated, conflict, invalid",
            self.updates.clone(),
        );
    }

    /// Forgets what was read: a revision may be gone, or a model.
    pub fn clear(&self) {
        self.revision.clear();
        self.items.clear();
        self.age.clear();
    }

    /// Reads a model's table, if it has one.
    pub fn observe(&self, model: &ServedModel) {
        let Some(table) = &model.items else {
            return;
        };
        let newest = table.newest();
        let labels = Labels {
            model: model.name.clone(),
            version: model.version.clone(),
        };
        let revision = Revision {
            model: model.name.clone(),
            version: model.version.clone(),
            revision: newest.stamp.revision.clone(),
        };
        self.revision.get_or_create(&revision).set(1);
        let items = i64::try_from(newest.count()).unwrap_or(i64::MAX);
        self.items.get_or_create(&labels).set(items);
        let age = newest.stamp.since.elapsed().as_secs_f64();
        self.age.get_or_create(&labels).set(age);
        let unknown = self.unknown.get_or_create(&labels);
        unknown.inc_by(table.unknown().saturating_sub(unknown.get()));
    }
}
