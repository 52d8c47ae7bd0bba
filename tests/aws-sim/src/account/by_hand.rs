//! What somebody else does in the console while the operator looks elsewhere.

use super::{Account, Tags, Timer, check_tags};
use crate::assumptions as aws;
use crate::error::ApiError;

/// A change by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sizes of the Auto Scaling group of a node group.
    Size {
        group: String,
        min: Option<i64>,
        max: Option<i64>,
        desired: Option<i64>,
    },
    /// Tags of a node group by name, of a launch template by name or id, or of an instance by id.
    Tags {
        resource: String,
        set: Tags,
        remove: Vec<String>,
    },
    Terminate {
        instance: String,
    },
}

impl Change {
    /// The call by which somebody would make it.
    pub fn call(&self) -> (&'static str, &'static str) {
        match self {
            Change::Size { .. } => ("autoscaling", "UpdateAutoScalingGroup"),
            Change::Tags { .. } => ("sim", "ChangeTags"),
            Change::Terminate { .. } => ("ec2", "TerminateInstances"),
        }
    }

    pub fn resource(&self) -> &str {
        match self {
            Change::Size { group, .. } => group,
            Change::Tags { resource, .. } => resource,
            Change::Terminate { instance } => instance,
        }
    }
}

impl Account {
    pub fn change_by_hand(&mut self, change: Change) -> Result<(), String> {
        let words = |e: ApiError| e.message;
        match change {
            Change::Size {
                group,
                min,
                max,
                desired,
            } => self.resize_by_hand(&group, min, max, desired),
            Change::Tags {
                resource,
                set,
                remove,
            } => self.tag_by_hand(&resource, set, &remove),
            Change::Terminate { instance } => self
                .terminate_instances(&[instance])
                .map(|_| ())
                .map_err(|e| format!("instance: {}", words(e))),
        }
    }

    /// Like UpdateAutoScalingGroup: a desired size that is not given moves into the new bounds.
    fn resize_by_hand(
        &mut self,
        name: &str,
        min: Option<i64>,
        max: Option<i64>,
        desired: Option<i64>,
    ) -> Result<(), String> {
        let names: Vec<String> = self.node_groups.keys().cloned().collect();
        let missing = || {
            format!(
                "group: {name:?} has no Auto Scaling group; node groups are: [{}]",
                names.join(", ")
            )
        };
        let group = self.node_groups.get_mut(name).ok_or_else(missing)?;
        let scaling = group.scaling_group.clone();
        let scaling = scaling
            .and_then(|s| self.scaling_groups.get_mut(&s))
            .ok_or_else(missing)?;
        let (min, max) = (min.unwrap_or(scaling.min), max.unwrap_or(scaling.max));
        if min > max || max > aws::MAX_NODES_PER_GROUP {
            return Err(format!(
                "max: must be from min ({min}) to {}, not {max}",
                aws::MAX_NODES_PER_GROUP
            ));
        }
        let desired = desired.unwrap_or_else(|| scaling.desired.clamp(min, max));
        if !(min..=max).contains(&desired) {
            return Err(format!("desired: must be from {min} to {max}, not {desired}"));
        }
        (scaling.min, scaling.max) = (min, max);
        (group.spec.min, group.spec.max) = (min, max);
        let scaling = scaling.name.clone();
        let words = |e: ApiError| format!("group: {}", e.message);
        self.set_desired_capacity(&scaling, desired, false)
            .map_err(words)?;
        self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(scaling));
        Ok(())
    }

    fn tag_by_hand(&mut self, resource: &str, set: Tags, remove: &[String]) -> Result<(), String> {
        let template = self.templates.values().find(|t| t.name == resource);
        let id = template.map_or_else(|| resource.to_owned(), |t| t.id.clone());
        let tags = match self.node_groups.get_mut(resource) {
            Some(group) => Some(&mut group.tags),
            None => self.tags_mut(&id),
        };
        let tags = tags.ok_or_else(|| {
            format!("resource: {resource:?} is no node group, launch template or instance of this account")
        })?;
        let mut after = tags.clone();
        after.retain(|key, _| !remove.contains(key));
        check_tags(&set).map_err(|message| format!("set: {message}"))?;
        after.extend(set);
        *tags = after;
        Ok(())
    }
}
