//! What becomes of a node group once it is asked for: timers of its creation, its health and its end.

use super::validate;
use super::{GroupStatus, HealthIssue, NodeGroup};
use crate::account::{Account, GroupKey, Tags, Timer};
use crate::assumptions as aws;
use crate::autoscaling::ScalingGroup;
use crate::ec2::instance::NodeStage;
use crate::ec2::launch_template::{NewTemplate, TemplateData};

impl Account {
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

    pub(super) fn fail_creation(
        &mut self,
        key: &GroupKey,
        code: &'static str,
        message: String,
        resources: Vec<String>,
    ) {
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
        if self.creation_faulty(&group) {
            return;
        }
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
        let scaling = group
            .scaling_group
            .as_ref()
            .and_then(|s| self.scaling_groups.get(s));
        if scaling.is_some_and(|s| !s.members.is_empty()) {
            return;
        }
        let group = group.clone();
        if self.deletion_faulty(&group) {
            return;
        }
        if let Some(scaling) = &group.scaling_group {
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
            && group.degraded_by.is_none()
        {
            group.status = GroupStatus::Active;
            group.modified = now;
            group.issues.clear();
        }
    }
}
