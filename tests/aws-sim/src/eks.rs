//! EKS: node groups, from CREATING to gone.
//!
//! ```text
//! create -> CREATING -(half the delay)-> Auto Scaling group exists
//!                    -(the delay, and the desired nodes joined)-> ACTIVE <-> DEGRADED
//! delete -> DELETING -(all instances terminated)-> gone, with its Auto Scaling group and template
//! ```

mod faulty;
mod life;
pub mod request;
pub mod validate;

use std::collections::BTreeMap;

use crate::account::{Account, GroupKey, Tags, Timer, check_tags};
use crate::assumptions as aws;
use crate::clock::SimTime;
use crate::ec2::instance::Instance;
use crate::error::{ApiResult, eks};
use crate::node::{NodeSpec, NodeTaint};
use request::CreateNodegroup;
use validate::GroupSpec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStatus {
    Creating,
    Active,
    Degraded,
    Deleting,
    CreateFailed,
    DeleteFailed,
}

impl GroupStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            GroupStatus::Creating => "CREATING",
            GroupStatus::Active => "ACTIVE",
            GroupStatus::Degraded => "DEGRADED",
            GroupStatus::Deleting => "DELETING",
            GroupStatus::CreateFailed => "CREATE_FAILED",
            GroupStatus::DeleteFailed => "DELETE_FAILED",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthIssue {
    pub code: &'static str,
    pub message: String,
    pub resources: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct NodeGroup {
    pub uuid: String,
    pub spec: GroupSpec,
    pub request: CreateNodegroup,
    pub tags: Tags,
    pub status: GroupStatus,
    pub issues: Vec<HealthIssue>,
    pub created: SimTime,
    pub modified: SimTime,
    /// Set once the Auto Scaling group exists.
    pub scaling_group: Option<String>,
    /// EKS's own copy of the launch template.
    template_copy: Option<String>,
    delete_not_before: Option<SimTime>,
    /// The fault that keeps the group DEGRADED.
    degraded_by: Option<u64>,
}

impl NodeGroup {
    pub fn name(&self) -> &str {
        &self.request.nodegroup_name
    }

    pub fn key(&self) -> GroupKey {
        GroupKey {
            name: self.name().to_owned(),
            uuid: self.uuid.clone(),
        }
    }
}

impl Account {
    pub fn group_arn(&self, group: &NodeGroup) -> String {
        self.arn(
            "eks",
            format_args!(
                "nodegroup/{}/{}/{}",
                self.settings.cluster,
                group.name(),
                group.uuid
            ),
        )
    }

    pub fn check_cluster(&self, cluster: &str) -> ApiResult<()> {
        if cluster == self.settings.cluster {
            Ok(())
        } else {
            Err(eks::not_found(format!("No cluster found for name: {cluster}.")))
        }
    }

    pub fn find_node_group(&self, name: &str) -> ApiResult<&NodeGroup> {
        self.node_groups
            .get(name)
            .ok_or_else(|| eks::not_found(format!("No node group found for name: {name}.")))
    }

    pub fn create_nodegroup(&mut self, request: CreateNodegroup) -> ApiResult<&NodeGroup> {
        if let Some(token) = &request.client_request_token
            && let Some(earlier) = self
                .node_groups
                .values()
                .find(|g| g.request.client_request_token.as_ref() == Some(token))
        {
            if earlier.request != request {
                return Err(eks::parameter(
                    "The client request token was used before with other parameters.",
                ));
            }
            let name = earlier.name().to_owned();
            return self.find_node_group(&name);
        }
        let name = request.nodegroup_name.clone();
        if self.node_groups.contains_key(&name) {
            return Err(eks::in_use(format!(
                "NodeGroup already exists with name {name} and cluster name {}",
                self.settings.cluster
            )));
        }
        let spec = validate::group_spec(self, &request)?;
        if self.node_groups.len() >= aws::MAX_NODE_GROUPS {
            return Err(eks::limit(format!(
                "Node group limit of {} exceeded for cluster {}.",
                aws::MAX_NODE_GROUPS,
                self.settings.cluster
            )));
        }
        let group = NodeGroup {
            uuid: self.new_uuid(),
            spec,
            tags: request.tags.clone(),
            request,
            status: GroupStatus::Creating,
            issues: Vec::new(),
            created: self.now(),
            modified: self.now(),
            scaling_group: None,
            template_copy: None,
            delete_not_before: None,
            degraded_by: None,
        };
        let create = self.settings.delays.create;
        self.schedule(create / 2, Timer::GroupScalingReady(group.key()));
        self.schedule(create, Timer::GroupActive(group.key()));
        Ok(self.node_groups.entry(name).or_insert(group))
    }

    pub fn delete_nodegroup(&mut self, name: &str) -> ApiResult<&NodeGroup> {
        let now = self.now();
        let group = self.find_node_group(name)?;
        if matches!(group.status, GroupStatus::Creating | GroupStatus::Deleting) {
            return Err(eks::in_use(format!(
                "Nodegroup {name} cannot be deleted: it is in state {}",
                group.status.as_str()
            )));
        }
        let group = self.node_groups.get_mut(name).expect("found above");
        if group.status == GroupStatus::DeleteFailed {
            group.issues.clear();
        }
        group.status = GroupStatus::Deleting;
        group.modified = now;
        group.delete_not_before = Some(now.after(aws::DELETE_DELAY));
        let (key, scaling) = (group.key(), group.scaling_group.clone());
        if let Some(scaling) = scaling {
            if let Some(scaling) = self.scaling_groups.get_mut(&scaling) {
                scaling.deleting = true;
                scaling.desired = 0;
            }
            self.reconcile_scaling(&scaling);
        }
        self.schedule(aws::DELETE_DELAY, Timer::GroupGone(key));
        self.find_node_group(name)
    }

    /// Adds tags to a group; they stay on the group and reach nothing below it.
    pub fn tag_nodegroup(&mut self, name: &str, tags: Tags) -> Result<(), String> {
        let Some(group) = self.node_groups.get_mut(name) else {
            return Ok(());
        };
        let mut after = group.tags.clone();
        after.extend(tags);
        check_tags(&after)?;
        group.tags = after;
        Ok(())
    }

    pub fn untag_nodegroup(&mut self, name: &str, keys: &[String]) {
        if let Some(group) = self.node_groups.get_mut(name) {
            group.tags.retain(|k, _| !keys.contains(k));
        }
    }

    /// The node of an instance as EKS and the cloud provider label it.
    pub(crate) fn node_spec(&self, instance: &Instance) -> Option<NodeSpec> {
        let group = self.node_groups.get(&instance.node_group)?;
        let name = instance.private_dns_name(&self.settings.region);
        let mut labels: BTreeMap<String, String> = group.request.labels.clone();
        let own = [
            ("eks.amazonaws.com/nodegroup", group.name()),
            ("eks.amazonaws.com/capacityType", instance.purchase.as_str()),
            ("eks.amazonaws.com/nodegroup-image", instance.image_id.as_str()),
            ("node.kubernetes.io/instance-type", instance.instance_type.name),
            ("topology.kubernetes.io/region", self.settings.region.as_str()),
            ("topology.kubernetes.io/zone", instance.zone.as_str()),
            ("kubernetes.io/arch", "amd64"),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/hostname", name.as_str()),
        ];
        labels.extend(own.map(|(k, v)| (k.to_owned(), v.to_owned())));
        if let Some(template) = &group.spec.template {
            labels.insert(
                "eks.amazonaws.com/sourceLaunchTemplateId".to_owned(),
                template.id.clone(),
            );
            labels.insert(
                "eks.amazonaws.com/sourceLaunchTemplateVersion".to_owned(),
                template.version.clone(),
            );
        }
        let taints = group.request.taints.iter().map(|t| NodeTaint {
            key: t.key.clone(),
            value: t.value.clone().unwrap_or_default(),
            effect: t.effect.kubernetes(),
        });
        Some(NodeSpec {
            instance_id: instance.id.clone(),
            provider_id: instance.provider_id(),
            address: instance.address.to_string(),
            instance_type: instance.instance_type,
            taints: taints.collect(),
            labels,
            name,
        })
    }
}
