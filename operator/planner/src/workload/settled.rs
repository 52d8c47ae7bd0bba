//! What is known of a model whose objects were found to be as wanted, so that they need not be made and compared again on
//! every tick: in a fleet at rest that is nearly all of a plan's time.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Shape;

/// Found on an earlier plan: with these inputs there is nothing to apply and nothing to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Hash of everything that [`super::objects`] looks at.
    pub inputs: u64,
    pub revision: String,
}

/// Hash of everything that the objects of a model follow from, those that exist included, by their resource versions.
/// `None` where one has none: then nothing may be remembered.
pub fn inputs(shape: &Shape) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let settings = shape.settings;
    (
        &settings.runtime_image,
        &settings.runtime_env,
        &settings.operator_namespace,
    )
        .hash(&mut hasher);
    (shape.key, shape.replicas, shape.surge).hash(&mut hasher);
    for (name, pool) in shape
        .pools
        .iter()
        .filter(|(name, _)| shape.replicas.contains_key(name))
    {
        // What the pods take from a pool stands in its spec.
        (name, &pool.metadata.uid, pool.metadata.generation?).hash(&mut hasher);
    }
    let model = shape.model;
    version(&model.spec.metadata, &mut hasher)?;
    versions(&model.deployments, &mut hasher)?;
    versions(&model.services, &mut hasher)?;
    versions(&model.service_accounts, &mut hasher)?;
    versions(&model.budgets, &mut hasher)?;
    versions(&model.network_policies, &mut hasher)?;
    Some(hasher.finish())
}

fn versions<K: Metadata<Ty = ObjectMeta>>(objects: &[K], hasher: &mut DefaultHasher) -> Option<()> {
    objects.len().hash(hasher);
    objects
        .iter()
        .try_for_each(|object| version(object.metadata(), hasher))
}

fn version(meta: &ObjectMeta, hasher: &mut DefaultHasher) -> Option<()> {
    (meta.uid.as_ref()?, meta.resource_version.as_ref()?).hash(hasher);
    Some(())
}
