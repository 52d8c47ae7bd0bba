//! EKS: node groups, from CREATING to gone.
//!
//! ```text
//! create -> CREATING -(half the delay)-> Auto Scaling group exists
//!                    -(the delay, and the desired nodes joined)-> ACTIVE <-> DEGRADED
//! delete -> DELETING -(all instances terminated)-> gone, with its Auto Scaling group and template
//! ```

pub mod validate;

use std::collections::BTreeMap;

use crate::account::{Account, GroupKey, Tags, Timer, check_tags};
use crate::assumptions as aws;
use crate::autoscaling::ScalingGroup;
use crate::clock::SimTime;
use crate::ec2::instance::{Instance, NodeStage};
use crate::ec2::launch_template::{NewTemplate, TemplateData};
use crate::error::{ApiResult, eks};
use crate::node::{NodeSpec, NodeTaint};
use validate::{CreateNodegroup, GroupSpec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStatus {
    Creating,
    Active,
    Degraded,
    Deleting,
    CreateFailed,
}

impl GroupStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            GroupStatus::Creating => "CREATING",
            GroupStatus::Active => "ACTIVE",
            GroupStatus::Degraded => "DEGRADED",
            GroupStatus::Deleting => "DELETING",
            GroupStatus::CreateFailed => "CREATE_FAILED",
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

    fn creating(&mut self, key: &GroupKey) -> Option<&mut NodeGroup> {
        let group = self.node_groups.get_mut(&key.name)?;
        (group.uuid == key.uuid && group.status == GroupStatus::Creating).then_some(group)
    }

    pub(crate) fn group_scaling_ready(&mut self, key: &GroupKey) {
        let Some(group) = self.creating(key).cloned() else {
            return;
        };
        let spec = &group.spec;
        let data = match &spec.template {
            None => validate::default_template_data(spec.disk_size),
            Some(chosen) => match self
                .templates
                .get(&chosen.id)
                .and_then(|t| t.version(&chosen.version))
            {
                Some(version) => version.data.clone(),
                None => {
                    let message = format!("The launch template {} does not exist.", chosen.id);
                    self.fail_creation(key, "Ec2LaunchTemplateNotFound", message, vec![chosen.id.clone()]);
                    return;
                }
            },
        };
        let (template_id, template_name) = self.copy_template(&group, data.clone());
        let uuid = self.new_uuid();
        let name = format!("eks-{}-{uuid}", group.name());
        let mut scaling = ScalingGroup::new(name.clone(), uuid, group.name().to_owned(), self.now());
        scaling.max = spec.max;
        scaling.min = spec.min;
        scaling.desired = spec.desired;
        scaling.types.clone_from(&spec.types);
        scaling.purchase = spec.purchase;
        scaling.subnets.clone_from(&spec.subnets);
        scaling.image_id = data.get("ImageId").unwrap_or("ami-0eks0000000000000").to_owned();
        scaling.tags = self.scaling_tags(group.name());
        scaling.instance_tags = self.instance_tags(&group, &data, &name, &template_id);
        scaling.template = (template_id.clone(), template_name);
        self.scaling_groups.insert(name.clone(), scaling);
        let group = self.node_groups.get_mut(&key.name).expect("found above");
        group.scaling_group = Some(name.clone());
        group.template_copy = Some(template_id);
        self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(name));
    }

    fn copy_template(&mut self, group: &NodeGroup, data: TemplateData) -> (String, String) {
        let tags = self.cluster_tags(group.name());
        let name = format!("eks-{}", group.uuid);
        let copy = NewTemplate {
            name,
            description: String::new(),
            data,
            tags,
            token: None,
        };
        let creator = format!(
            "arn:aws:sts::{}:assumed-role/AWSServiceRoleForAmazonEKSNodegroup/EKS",
            self.settings.account_id
        );
        let template = self.insert_template(copy, &creator);
        (template.id.clone(), template.name.clone())
    }

    fn cluster_tags(&self, group: &str) -> Tags {
        Tags::from([
            ("eks:cluster-name".to_owned(), self.settings.cluster.clone()),
            ("eks:nodegroup-name".to_owned(), group.to_owned()),
        ])
    }

    fn scaling_tags(&self, group: &str) -> Tags {
        let cluster = &self.settings.cluster;
        let mut tags = self.cluster_tags(group);
        tags.insert(format!("kubernetes.io/cluster/{cluster}"), "owned".to_owned());
        tags.insert(format!("k8s.io/cluster-autoscaler/{cluster}"), "owned".to_owned());
        tags.insert("k8s.io/cluster-autoscaler/enabled".to_owned(), "true".to_owned());
        tags
    }

    fn instance_tags(&self, group: &NodeGroup, data: &TemplateData, scaling: &str, template: &str) -> Tags {
        let mut tags = data.tags_for("instance");
        tags.extend(self.scaling_tags(group.name()));
        tags.insert("aws:autoscaling:groupName".to_owned(), scaling.to_owned());
        tags.insert("aws:ec2launchtemplate:id".to_owned(), template.to_owned());
        tags.insert("aws:ec2launchtemplate:version".to_owned(), "1".to_owned());
        tags
    }

    fn fail_creation(&mut self, key: &GroupKey, code: &'static str, message: String, resources: Vec<String>) {
        let now = self.now();
        if let Some(group) = self.creating(key) {
            group.status = GroupStatus::CreateFailed;
            group.modified = now;
            group.issues = vec![HealthIssue {
                code,
                message,
                resources,
            }];
        }
    }

    pub(crate) fn group_active(&mut self, key: &GroupKey) {
        let now = self.now();
        let Some(group) = self.creating(key).map(|g| g.clone()) else {
            return;
        };
        let Some(scaling) = group
            .scaling_group
            .as_ref()
            .and_then(|s| self.scaling_groups.get(s))
        else {
            return;
        };
        let members = self.members(scaling);
        let missing: Vec<String> = members
            .iter()
            .filter(|i| i.stage < Some(NodeStage::Ready))
            .map(|i| i.id.clone())
            .collect();
        let joined = i64::try_from(members.len() - missing.len()).unwrap_or(i64::MAX);
        if joined >= scaling.desired {
            let group = self.creating(key).expect("found above");
            group.status = GroupStatus::Active;
            group.modified = now;
        } else if now.since(group.created) >= aws::CREATE_TIMEOUT {
            let message = "Instances failed to join the kubernetes cluster".to_owned();
            self.fail_creation(key, "NodeCreationFailure", message, missing);
        } else {
            self.schedule(aws::CREATE_POLL, Timer::GroupActive(key.clone()));
        }
    }

    /// Removes a group that is being deleted, once its instances are terminated.
    pub(crate) fn group_gone(&mut self, key: &GroupKey) {
        let now = self.now();
        let Some(group) = self.node_groups.get(&key.name) else {
            return;
        };
        if group.uuid != key.uuid || group.delete_not_before.is_none_or(|at| at > now) {
            return;
        }
        if let Some(scaling) = &group.scaling_group {
            if self
                .scaling_groups
                .get(scaling)
                .is_some_and(|s| !s.members.is_empty())
            {
                return;
            }
            self.scaling_groups.remove(scaling);
        }
        if let Some(copy) = &group.template_copy {
            self.templates.remove(copy);
        }
        self.node_groups.remove(&key.name);
    }

    pub(crate) fn degrade(&mut self, name: &str, message: &str) {
        let now = self.now();
        let Some(group) = self.node_groups.get_mut(name) else {
            return;
        };
        if group.status == GroupStatus::Active {
            group.status = GroupStatus::Degraded;
            group.modified = now;
            group.issues = vec![HealthIssue {
                code: "AsgInstanceLaunchFailures",
                message: message.to_owned(),
                resources: group.scaling_group.iter().cloned().collect(),
            }];
        }
    }

    pub(crate) fn heal_launches(&mut self, scaling_group: &str) {
        let now = self.now();
        let Some(scaling) = self.scaling_groups.get(scaling_group) else {
            return;
        };
        if let Some(group) = self.node_groups.get_mut(&scaling.node_group)
            && group.status == GroupStatus::Degraded
        {
            group.status = GroupStatus::Active;
            group.modified = now;
            group.issues.clear();
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
