//! Sizes, through Auto Scaling only: an absolute desired size, and protection from scale-in that leaves the group no
//! choice of victims.

use std::collections::BTreeSet;

use planner::observed::{GroupState, Lifecycle, ScalingObserved};
use planner::plan::GroupName;

use super::{Eks, convert, error};
use crate::cloud::CloudError;

/// Instances of one SetInstanceProtection call (its limit).
const PROTECT_AT_ONCE: usize = 50;

const SET_SIZE: &str = "SetDesiredCapacity";

impl Eks {
    /// Never lowers: a size that is reached already, or higher, is left alone.
    pub(super) async fn grow(
        &self,
        name: &GroupName,
        pool_uid: &str,
        desired: u32,
    ) -> Result<(), CloudError> {
        let scaling = self.owned_scaling(name, pool_uid).await?;
        if scaling.desired >= desired {
            return Ok(());
        }
        self.set_size(name, &scaling, desired).await
    }

    /// Ends exactly `victims`: everything else that lives is protected first. Without victims it withdraws what was
    /// ordered above `desired` and has not come.
    ///
    /// The new size is derived from what is read here, not from the plan's snapshot: an instance that died, or arrived,
    /// in between would otherwise shift the number, and cost a healthy one.
    pub(super) async fn remove(
        &self,
        name: &GroupName,
        pool_uid: &str,
        victims: &[String],
        desired: u32,
    ) -> Result<(), CloudError> {
        let scaling = self.owned_scaling(name, pool_uid).await?;
        let cut = Cut::new(&scaling, victims);
        if !victims.is_empty() && cut.victims.is_empty() {
            return Ok(());
        }
        if let Some(pending) = cut.pending {
            // It cannot be protected yet, and counts: a lower size now could end a healthy one when it arrives.
            let message = format!("{pending} is on its way: waiting until it is in service");
            return Err(error::conflict(SET_SIZE, &name.0, message));
        }
        // In this order: whatever is lost in between, no healthy instance is without protection while victims are.
        self.set_protection(name, &scaling.name, &cut.unprotected, true)
            .await?;
        self.set_protection(name, &scaling.name, &cut.protected_victims, false)
            .await?;
        let staying = cut.staying;
        let size = if victims.is_empty() {
            staying.max(desired).min(scaling.desired)
        } else {
            staying
        };
        if size == scaling.desired {
            return Ok(());
        }
        self.set_size(name, &scaling, size).await
    }

    /// The Auto Scaling group of a group that is this pool's and not on its way out. Read now.
    async fn owned_scaling(&self, name: &GroupName, pool_uid: &str) -> Result<ScalingObserved, CloudError> {
        let group = self
            .owned_group(SET_SIZE, name, pool_uid)
            .await?
            .ok_or_else(|| error::not_found(SET_SIZE, &name.0))?;
        let state = convert::group_state(&group);
        if matches!(
            state,
            GroupState::Deleting | GroupState::DeleteFailed | GroupState::CreateFailed
        ) {
            return Err(error::conflict(
                SET_SIZE,
                &name.0,
                format!("the group is {state:?}"),
            ));
        }
        let waiting = || error::conflict(SET_SIZE, &name.0, "the group has no Auto Scaling group yet");
        let scaling = convert::scaling_name(&group).ok_or_else(waiting)?;
        self.read_scaling(scaling).await?.ok_or_else(waiting)
    }

    async fn set_size(
        &self,
        name: &GroupName,
        scaling: &ScalingObserved,
        desired: u32,
    ) -> Result<(), CloudError> {
        let call = self
            .autoscaling
            .set_desired_capacity()
            .auto_scaling_group_name(&scaling.name)
            .desired_capacity(i32::try_from(desired).unwrap_or(i32::MAX))
            .honor_cooldown(false);
        call.customize()
            .interceptor(self.fence.clone())
            .send()
            .await
            .map(drop)
            .map_err(error::failed(SET_SIZE, &name.0))
    }

    async fn set_protection(
        &self,
        name: &GroupName,
        scaling_name: &str,
        instances: &[String],
        protected: bool,
    ) -> Result<(), CloudError> {
        for chunk in instances.chunks(PROTECT_AT_ONCE) {
            let call = self
                .autoscaling
                .set_instance_protection()
                .auto_scaling_group_name(scaling_name)
                .set_instance_ids(Some(chunk.to_vec()))
                .protected_from_scale_in(protected);
            call.customize()
                .interceptor(self.fence.clone())
                .send()
                .await
                .map_err(error::failed("SetInstanceProtection", &name.0))?;
        }
        Ok(())
    }
}

/// What a removal does to the instances that are there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cut {
    /// Victims that still live.
    victims: Vec<String>,
    /// Those of them whose protection has to go.
    protected_victims: Vec<String>,
    /// Others in service that have to be protected.
    unprotected: Vec<String>,
    /// Others in service.
    staying: u32,
    /// One that is not in service yet.
    pending: Option<String>,
}

impl Cut {
    fn new(scaling: &ScalingObserved, victims: &[String]) -> Self {
        let victims: BTreeSet<&String> = victims.iter().collect();
        let mut cut = Self::default();
        for instance in &scaling.instances {
            let (id, is_victim) = (instance.id.clone(), victims.contains(&instance.id));
            match instance.lifecycle {
                Lifecycle::Pending => {
                    if is_victim {
                        cut.victims.push(id.clone());
                    }
                    cut.pending.get_or_insert(id);
                }
                Lifecycle::InService if is_victim => {
                    if instance.protected {
                        cut.protected_victims.push(id.clone());
                    }
                    cut.victims.push(id);
                }
                Lifecycle::InService => {
                    cut.staying += 1;
                    if !instance.protected {
                        cut.unprotected.push(id);
                    }
                }
                Lifecycle::Terminating | Lifecycle::Other => {}
            }
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planner::observed::InstanceObserved;

    fn group(instances: &[(&str, Lifecycle, bool)]) -> ScalingObserved {
        ScalingObserved {
            name: "asg".to_owned(),
            desired: 3,
            max: 9,
            instances: instances
                .iter()
                .map(|(id, lifecycle, protected)| InstanceObserved {
                    id: (*id).to_owned(),
                    lifecycle: *lifecycle,
                    protected: *protected,
                })
                .collect(),
            launch_failure: None,
            unfilled: None,
        }
    }

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn only_what_differs_is_touched() {
        use Lifecycle::{InService, Terminating};
        let scaling = group(&[
            ("a", InService, true),
            ("b", InService, false),
            ("c", InService, true),
            ("d", InService, false),
            ("e", Terminating, false),
        ]);
        let cut = Cut::new(&scaling, &ids(&["a", "b", "gone"]));
        let expected = Cut {
            victims: ids(&["a", "b"]),
            protected_victims: ids(&["a"]),
            unprotected: ids(&["d"]),
            staying: 2,
            pending: None,
        };
        assert_eq!(cut, expected);
    }

    #[test]
    fn an_arriving_instance_makes_it_wait() {
        use Lifecycle::{InService, Pending};
        let scaling = group(&[("a", InService, false), ("new", Pending, false)]);
        assert_eq!(Cut::new(&scaling, &ids(&["a"])).pending.as_deref(), Some("new"));
    }

    #[test]
    fn dying_victims_are_gone() {
        let scaling = group(&[
            ("a", Lifecycle::Terminating, false),
            ("b", Lifecycle::InService, true),
        ]);
        assert!(Cut::new(&scaling, &ids(&["a"])).victims.is_empty());
    }
}
