//! A model from its address to engines that are warm: fetched, verified, configured, loaded, tried.

pub mod config;
pub mod digest;
pub mod folder;
pub mod loading;
pub mod needs;
pub mod pbtxt;
pub mod ranking;
pub mod source;
pub mod top_k;
pub mod triton;
pub mod uri;
pub mod utility;
pub mod warmup;

use std::sync::Arc;

use crate::engine::layout::Slot;
use crate::engine::{Chosen, Layout, Signature, TensorSpec};
use crate::ids::IdRules;
use crate::items::ItemTable;
use crate::queue::Batching;

/// What requests need to know of the model that serves them.
#[derive(Clone, Debug)]
pub struct ServedModel {
    pub name: String,
    pub version: String,
    pub signature: Arc<Signature>,
    /// How requests' inputs reach the engine.
    pub layout: Arc<Layout>,
    /// The engine, and why that one.
    pub chosen: Arc<Chosen>,
    pub config: Arc<config::ModelConfig>,
    /// Which ids requests may have, and what becomes of others.
    pub ids: Arc<IdRules>,
    /// Where the ids of the candidates are, if the configuration says so.
    pub top_k: Option<top_k::TopK>,
    /// What requests may name by the items' ids.
    pub items: Option<Arc<ItemTable>>,
    /// How its requests are joined.
    pub batching: Batching,
}

impl ServedModel {
    /// All that a request may send: inputs whole, parts of them, and the items' ids.
    pub fn accepted(&self) -> impl Iterator<Item = &TensorSpec> {
        let inputs = &self.signature.inputs;
        let ids = self.items.as_ref().map(|items| items.ids());
        inputs
            .iter()
            .chain(self.parts().map(|slot| &slot.spec))
            .chain(ids)
    }

    pub fn accepts(&self, name: &str) -> bool {
        self.accepted().any(|spec| spec.name == name)
    }

    /// Whether the item table has this input, or a part of it.
    pub fn fills(&self, name: &str) -> bool {
        self.items.as_ref().is_some_and(|items| items.fills(name))
    }

    /// Whether an input, or a part of one, may come once a request.
    pub fn is_once(&self, name: &str) -> bool {
        let slots = &self.layout.slots;
        slots.iter().any(|slot| slot.spec.name == name && slot.once)
    }

    /// The columns of an input that a part of it has.
    pub fn columns(&self, part: &str) -> Option<Vec<usize>> {
        self.parts().find(|slot| slot.spec.name == part).map(Slot::places)
    }

    fn parts(&self) -> impl Iterator<Item = &Slot> {
        let whole = |slot: &&Slot| {
            self.signature
                .inputs
                .iter()
                .any(|spec| spec.name == slot.spec.name)
        };
        self.layout.slots.iter().filter(move |slot| !whole(slot))
    }
}
