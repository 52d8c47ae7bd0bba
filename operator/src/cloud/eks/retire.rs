//! The end of a group's life, and changes of its owner. Each verb reads first and refuses what is not the caller's.

use aws_sdk_ec2::types::{LaunchTemplate, Tag};
use aws_sdk_eks::types::Nodegroup;
use crds::key;
use planner::observed::GroupState;
use planner::plan::GroupName;

use super::{Eks, convert, error};
use crate::cloud::CloudError;

impl Eks {
    /// The group, read now; `None` when there is none. One of another owner is an error.
    pub(super) async fn owned_group(
        &self,
        operation: &'static str,
        name: &GroupName,
        pool_uid: &str,
    ) -> Result<Option<Nodegroup>, CloudError> {
        let Some(group) = self.read_group(name).await? else {
            return Ok(None);
        };
        match convert::group_owner(&self.cluster, group.tags()) {
            Some(owner) if owner.pool_uid == pool_uid => Ok(Some(group)),
            Some(owner) => Err(error::conflict(
                operation,
                &name.0,
                format!("belongs to pool uid {:?}, not {pool_uid:?}", owner.pool_uid),
            )),
            None => Err(error::conflict(
                operation,
                &name.0,
                "does not carry this operator's tags",
            )),
        }
    }

    /// EKS ends every instance of a group that it deletes, protected or not: only an empty one is let through.
    pub(super) async fn delete_group(&self, name: &GroupName, pool_uid: &str) -> Result<(), CloudError> {
        const OPERATION: &str = "DeleteNodegroup";
        let Some(group) = self.owned_group(OPERATION, name, pool_uid).await? else {
            return Ok(());
        };
        let state = convert::group_state(&group);
        match state {
            GroupState::Deleting => return Ok(()),
            GroupState::Creating | GroupState::Updating => {
                return Err(error::conflict(
                    OPERATION,
                    &name.0,
                    format!("the group is {state:?}"),
                ));
            }
            _ => {}
        }
        self.check_empty(OPERATION, name, &group).await?;
        let call = self
            .eks
            .delete_nodegroup()
            .cluster_name(&self.cluster)
            .nodegroup_name(&name.0);
        match call.customize().interceptor(self.fence.clone()).send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(error::failed(OPERATION, &name.0)(error)),
        }
    }

    async fn check_empty(
        &self,
        operation: &'static str,
        name: &GroupName,
        group: &Nodegroup,
    ) -> Result<(), CloudError> {
        let Some(scaling_name) = convert::scaling_name(group) else {
            return Ok(());
        };
        let Some(scaling) = self.read_scaling(scaling_name).await? else {
            // A healthy group has one, so this read is behind; a broken one may have lost it.
            return if convert::group_state(group) == GroupState::Active {
                Err(error::conflict(
                    operation,
                    &name.0,
                    "its Auto Scaling group cannot be read",
                ))
            } else {
                Ok(())
            };
        };
        // Also one that is terminating or on standby: a state that is not known is not "gone".
        let left = scaling.instances.len();
        if scaling.desired > 0 || left > 0 {
            let message = format!("not empty: desired size {}, {left} instances", scaling.desired);
            return Err(error::conflict(operation, &name.0, message));
        }
        Ok(())
    }

    pub(super) async fn delete_template(&self, name: &str, pool_uid: &str) -> Result<(), CloudError> {
        const OPERATION: &str = "DeleteLaunchTemplate";
        let Some(template) = self.read_template(name).await? else {
            return Ok(());
        };
        let id = self.owned_template(OPERATION, &template, &[pool_uid])?;
        let users = self.groups_with_template(id).await?;
        if let Some(user) = users.first() {
            return Err(error::conflict(OPERATION, name, format!("group {user} uses it")));
        }
        // By the id that was checked, not by the name, which may be another's by now.
        let call = self.ec2.delete_launch_template().launch_template_id(id);
        match call.customize().interceptor(self.fence.clone()).send().await {
            Ok(_) => Ok(()),
            Err(error) if error::code(&error) == Some("InvalidLaunchTemplateId.NotFound") => Ok(()),
            Err(error) => Err(error::failed(OPERATION, name)(error)),
        }
    }

    /// Id of a template that belongs to one of `uids`.
    fn owned_template<'a>(
        &self,
        operation: &'static str,
        template: &'a LaunchTemplate,
        uids: &[&str],
    ) -> Result<&'a str, CloudError> {
        let name = template.launch_template_name().unwrap_or("-");
        let tag = |key| convert::template_tag(template, key);
        let ours = tag(key::CLUSTER) == Some(&self.cluster);
        match (ours, tag(key::POOL_UID)) {
            (true, Some(uid)) if uids.contains(&uid) => template
                .launch_template_id()
                .ok_or_else(|| error::incomplete("DescribeLaunchTemplates", name, "launchTemplateId")),
            (true, Some(uid)) => Err(error::conflict(
                operation,
                name,
                format!("belongs to pool uid {uid:?}"),
            )),
            _ => Err(error::conflict(
                operation,
                name,
                "does not carry this operator's tags",
            )),
        }
    }

    /// The template first: the group's tag is what makes a plan ask again.
    pub(super) async fn adopt(&self, name: &GroupName, from: &str, to: &str) -> Result<(), CloudError> {
        const OPERATION: &str = "TagResource";
        let group = self
            .read_group(name)
            .await?
            .ok_or_else(|| error::not_found(OPERATION, &name.0))?;
        let owner = convert::group_owner(&self.cluster, group.tags());
        let uid = owner.as_ref().map(|owner| owner.pool_uid.as_str());
        if uid != Some(from) && uid != Some(to) {
            let message = format!("belongs to pool uid {uid:?}, not {from:?}");
            return Err(error::conflict(OPERATION, &name.0, message));
        }
        let template = group.launch_template().and_then(|template| template.name());
        if let Some(template) = template {
            self.adopt_template(template, from, to).await?;
        }
        if owner.is_some_and(|owner| owner.pool_uid == to && !owner.released) {
            return Ok(());
        }
        // A group that was let go of is held again.
        self.tag_group(&group, &[(key::POOL_UID, to), (key::RELEASED, "false")])
            .await
    }

    async fn adopt_template(&self, name: &str, from: &str, to: &str) -> Result<(), CloudError> {
        const OPERATION: &str = "CreateTags";
        let Some(template) = self.read_template(name).await? else {
            return Ok(());
        };
        let id = self.owned_template(OPERATION, &template, &[from, to])?;
        if convert::template_tag(&template, key::POOL_UID) == Some(to) {
            return Ok(());
        }
        let call = self
            .ec2
            .create_tags()
            .resources(id)
            .tags(Tag::builder().key(key::POOL_UID).value(to).build());
        call.customize()
            .interceptor(self.fence.clone())
            .send()
            .await
            .map(drop)
            .map_err(error::failed(OPERATION, name))
    }

    pub(super) async fn release(&self, name: &GroupName, pool_uid: &str) -> Result<(), CloudError> {
        const OPERATION: &str = "TagResource";
        let Some(group) = self.owned_group(OPERATION, name, pool_uid).await? else {
            return Ok(());
        };
        if convert::group_owner(&self.cluster, group.tags()).is_some_and(|owner| owner.released) {
            return Ok(());
        }
        self.tag_group(&group, &[(key::RELEASED, "true")]).await
    }

    async fn tag_group(&self, group: &Nodegroup, tags: &[(&str, &str)]) -> Result<(), CloudError> {
        const OPERATION: &str = "TagResource";
        let name = group.nodegroup_name().unwrap_or("-");
        let arn = group
            .nodegroup_arn()
            .ok_or_else(|| error::incomplete("DescribeNodegroup", name, "nodegroupArn"))?;
        let mut call = self.eks.tag_resource().resource_arn(arn);
        for (key, value) in tags {
            call = call.tags(*key, *value);
        }
        call.customize()
            .interceptor(self.fence.clone())
            .send()
            .await
            .map(drop)
            .map_err(error::failed(OPERATION, name))
    }
}
