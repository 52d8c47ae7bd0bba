//! Owners: are they still who the plan was made for, and their finalizers.

use std::collections::BTreeSet;
use std::fmt::Debug;

use crds::GpuPool;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use planner::plan::CloudAction;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::kubernetes::{answered, is_code};
use super::{Applier, ApplyError, identity};
use crate::fleet::Round;

impl<C> Applier<C> {
    /// The owner, uncached: does it still have the uid and the generation that the plan was made for?
    pub(super) async fn check_owner<K>(&self, api: &Api<K>, planned: &K) -> Result<bool, ApplyError>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let object = identity(planned);
        let now = answered("get", &object, api.get(&planned.name_any())).await?;
        let same = now.uid() == planned.uid() && now.meta().generation == planned.meta().generation;
        let same =
            same && now.meta().deletion_timestamp.is_some() == planned.meta().deletion_timestamp.is_some();
        if same {
            Ok(false)
        } else {
            Err(ApplyError::OwnerMoved { object })
        }
    }

    /// The pools, uncached: nothing is swept whose owner lives after all, and nothing when pools are missing that the plan
    /// still saw.
    pub(super) async fn check_unowned(
        &self,
        round: &Round,
        sweep: &[CloudAction],
    ) -> Result<bool, ApplyError> {
        let api: Api<GpuPool> = Api::all(self.client.clone());
        let listed = answered("list", "gpupools", api.list(&ListParams::default())).await?;
        let living: BTreeSet<_> = listed.items.iter().filter_map(|pool| pool.uid()).collect();
        let seen = round.observed.pools.values().filter_map(|pool| pool.uid());
        let owned = sweep.iter().find(|action| living.contains(action.owner_uid()));
        match owned {
            Some(action) => Err(ApplyError::OwnerMoved {
                object: format!("pool with uid {}", action.owner_uid()),
            }),
            None if seen.into_iter().any(|uid| !living.contains(&uid)) => Err(ApplyError::OwnerMoved {
                object: "the list of pools".to_owned(),
            }),
            None => Ok(false),
        }
    }

    /// Adds or removes a finalizer. The list is written whole, so the resource version guards what others put into it.
    pub(super) async fn set_finalizer<K>(
        &self,
        api: &Api<K>,
        object: &K,
        (finalizer, present): (&str, bool),
    ) -> Result<bool, ApplyError>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let mut finalizers = object.finalizers().to_vec();
        finalizers.retain(|f| f != finalizer);
        finalizers.extend(present.then(|| finalizer.to_owned()));
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
        }});
        let (name, params) = (object.name_any(), PatchParams::default());
        let patch = Patch::Merge(patch);
        let call = api.patch_metadata(&name, &params, &patch);
        match self.send("write finalizers of", &identity(object), call).await {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, &[404, 409]) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
