//! A launch template and a node group at size 0, so that a create that commits late leaves nothing that costs.
//!
//! Repeating is harmless three times over: the names are derived and unique in AWS, the tokens are derived, and what
//! exists already is compared by its tags.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_ec2::types::{
    LaunchTemplate, LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateInstanceMetadataEndpointState,
    LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateTagSpecificationRequest,
    RequestLaunchTemplateData, ResourceType, Tag, TagSpecification, VolumeType,
};
use aws_sdk_eks::types::{
    AmiTypes, CapacityTypes, LaunchTemplateSpecification, NodegroupScalingConfig, Taint, TaintEffect,
};
use crds::gpu_pool::{self, ImageFamily, Purchase};
use crds::key;
use planner::name;
use planner::observed::GroupState;
use planner::plan::GroupSpec;

use super::{Eks, convert, error};
use crate::cloud::CloudError;

/// Client tokens are at most 64 ASCII characters.
const TOKEN_CHARS: usize = 64;
/// Our templates are immutable: they have this version only.
const TEMPLATE_VERSION: &str = "1";

impl Eks {
    pub(super) async fn create(&self, spec: &GroupSpec) -> Result<(), CloudError> {
        let template = self.ensure_template(spec).await?;
        self.ensure_group(spec, &template).await
    }

    /// Id of the spec's launch template.
    async fn ensure_template(&self, spec: &GroupSpec) -> Result<String, CloudError> {
        const OPERATION: &str = "CreateLaunchTemplate";
        let name = spec.template_name.as_str();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::LaunchTemplate)
            .set_tags(Some(ec2_tags(self.template_tags(spec))));
        let token = name::hash(
            &[OPERATION, &self.cluster, name, &spec.pool_uid, &spec.spec_hash],
            TOKEN_CHARS,
        );
        let call = self
            .ec2
            .create_launch_template()
            .launch_template_name(name)
            .client_token(token)
            .launch_template_data(self.template_data(spec))
            .tag_specifications(tags.build());
        let template = match call.customize().interceptor(self.fence.clone()).send().await {
            Ok(answer) => answer
                .launch_template
                .ok_or_else(|| error::incomplete(OPERATION, name, "launchTemplate"))?,
            // It exists. A mismatch: it was made with the same token by a version that filled it differently.
            Err(error)
                if matches!(
                    error::code(&error),
                    Some("InvalidLaunchTemplateName.AlreadyExistsException" | "IdempotentParameterMismatch")
                ) =>
            {
                self.read_template(name)
                    .await?
                    .ok_or_else(|| error::conflict(OPERATION, name, "exists, but cannot be read yet"))?
            }
            Err(error) => return Err(error::failed(OPERATION, name)(error)),
        };
        let expected = [
            (key::CLUSTER, self.cluster.as_str()),
            (key::POOL_UID, &spec.pool_uid),
            (key::SPEC_HASH, &spec.spec_hash),
        ];
        if let Some(difference) = difference(&expected, |key| convert::template_tag(&template, key)) {
            return Err(error::conflict(OPERATION, name, difference));
        }
        let id = template.launch_template_id();
        id.map(str::to_owned)
            .ok_or_else(|| error::incomplete(OPERATION, name, "launchTemplateId"))
    }

    /// `None`: there is no such template.
    pub(super) async fn read_template(&self, name: &str) -> Result<Option<LaunchTemplate>, CloudError> {
        let call = self.ec2.describe_launch_templates().launch_template_names(name);
        match call.send().await {
            Ok(answer) => Ok(answer.launch_templates.unwrap_or_default().pop()),
            Err(error)
                if matches!(
                    error::code(&error),
                    Some("InvalidLaunchTemplateName.NotFoundException" | "InvalidLaunchTemplateId.NotFound")
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error::failed("DescribeLaunchTemplates", name)(error)),
        }
    }

    async fn ensure_group(&self, spec: &GroupSpec, template_id: &str) -> Result<(), CloudError> {
        const OPERATION: &str = "CreateNodegroup";
        let name = spec.name.0.as_str();
        let template = LaunchTemplateSpecification::builder()
            .id(template_id)
            .version(TEMPLATE_VERSION);
        // The template's id is in the token: a group that is made anew after it and its template were swept is
        // another request, whatever EKS remembers of the first.
        let token = name::hash(
            &[OPERATION, &self.cluster, name, &spec.pool_uid, template_id],
            TOKEN_CHARS,
        );
        let sizes = NodegroupScalingConfig::builder()
            .min_size(0)
            .desired_size(0)
            .max_size(i32::try_from(spec.max_nodes).unwrap_or(i32::MAX));
        let call = self
            .eks
            .create_nodegroup()
            .cluster_name(&self.cluster)
            .nodegroup_name(name)
            .client_request_token(token)
            .scaling_config(sizes.build())
            .subnets(&spec.subnet)
            .instance_types(&spec.instance_type)
            .ami_type(ami_type(spec.image))
            .set_version(kubernetes_version(spec))
            .release_version(&spec.release_version)
            .capacity_type(capacity_type(spec.purchase))
            .node_role(&spec.node_role)
            .launch_template(template.build())
            .set_labels(Some(hash_map(&spec.labels)))
            .set_taints(Some(spec.taints.iter().map(taint).collect()))
            .set_tags(Some(hash_map(&self.group_tags(spec))));
        let refused = match call.customize().interceptor(self.fence.clone()).send().await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // The first is "already exists"; the second also what a token gets whose other parameters have changed.
        let may_exist = refused.as_service_error().is_some_and(|error| {
            error.is_resource_in_use_exception() || error.is_invalid_parameter_exception()
        });
        if may_exist && self.is_made(spec).await? {
            return Ok(());
        }
        Err(error::failed(OPERATION, name)(refused))
    }

    /// Whether the group exists as the spec wants it. Somebody else's of this name is an error.
    async fn is_made(&self, spec: &GroupSpec) -> Result<bool, CloudError> {
        const OPERATION: &str = "CreateNodegroup";
        let Some(group) = self.read_group(&spec.name).await? else {
            return Ok(false);
        };
        let shard = spec.shard.to_string();
        let expected = [
            (key::CLUSTER, self.cluster.as_str()),
            (key::POOL, &spec.pool.0),
            (key::POOL_UID, &spec.pool_uid),
            (key::SHARD, &shard),
            (key::SPEC_HASH, &spec.spec_hash),
        ];
        let tag = |key: &str| group.tags()?.get(key).map(String::as_str);
        if let Some(difference) = difference(&expected, tag) {
            return Err(error::conflict(OPERATION, &spec.name.0, difference));
        }
        if convert::group_state(&group) == GroupState::Deleting {
            return Err(error::conflict(
                OPERATION,
                &spec.name.0,
                "the group of this name is being deleted",
            ));
        }
        Ok(true)
    }

    /// Tags of what all shards share; the user's own never hide the operator's.
    fn template_tags(&self, spec: &GroupSpec) -> BTreeMap<String, String> {
        let mut tags = self.node_tags(spec);
        tags.insert(key::POOL_UID.to_owned(), spec.pool_uid.clone());
        tags
    }

    fn group_tags(&self, spec: &GroupSpec) -> BTreeMap<String, String> {
        let mut tags = self.template_tags(spec);
        tags.insert(key::SHARD.to_owned(), spec.shard.to_string());
        tags
    }

    /// Tags of instances and volumes: without the owner's uid, which an adoption could not change there.
    fn node_tags(&self, spec: &GroupSpec) -> BTreeMap<String, String> {
        let mut tags = spec.tags.clone();
        tags.insert(key::CLUSTER.to_owned(), self.cluster.clone());
        tags.insert(key::POOL.to_owned(), spec.pool.0.clone());
        tags.insert(key::SPEC_HASH.to_owned(), spec.spec_hash.clone());
        tags
    }

    fn template_data(&self, spec: &GroupSpec) -> RequestLaunchTemplateData {
        let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
            .http_endpoint(LaunchTemplateInstanceMetadataEndpointState::Enabled)
            .http_tokens(LaunchTemplateHttpTokensState::Required)
            // Pods are one hop further away than the host: they do not reach the instance's role.
            .http_put_response_hop_limit(1);
        let tags = |of: ResourceType| {
            LaunchTemplateTagSpecificationRequest::builder()
                .resource_type(of)
                .set_tags(Some(ec2_tags(self.node_tags(spec))))
                .build()
        };
        let groups = Some(spec.security_groups.clone()).filter(|groups| !groups.is_empty());
        RequestLaunchTemplateData::builder()
            .set_block_device_mappings(Some(volumes(spec)))
            .metadata_options(metadata.build())
            .set_security_group_ids(groups)
            .tag_specifications(tags(ResourceType::Instance))
            .tag_specifications(tags(ResourceType::Volume))
            .build()
    }
}

/// The first tag that is not as expected.
fn difference<'a>(expected: &[(&str, &str)], tag: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let (key, wanted) = expected.iter().find(|(key, wanted)| tag(key) != Some(*wanted))?;
    Some(match tag(key) {
        Some(found) => format!("exists with {key} = {found:?} instead of {wanted:?}"),
        None => format!("exists without the tag {key}"),
    })
}

/// Bottlerocket keeps its system on the first volume and images and containers on the second.
fn volumes(spec: &GroupSpec) -> Vec<LaunchTemplateBlockDeviceMappingRequest> {
    let volume = |device: &str, gib: Option<u32>| {
        let ebs = LaunchTemplateEbsBlockDeviceRequest::builder()
            .volume_type(VolumeType::Gp3)
            .encrypted(true)
            .delete_on_termination(true)
            .set_volume_size(gib.and_then(|gib| i32::try_from(gib).ok()))
            .set_kms_key_id(Some(spec.kms_key_id.clone()).filter(|key| !key.is_empty()));
        LaunchTemplateBlockDeviceMappingRequest::builder()
            .device_name(device)
            .ebs(ebs.build())
            .build()
    };
    match spec.image {
        ImageFamily::Al2023Nvidia => vec![volume("/dev/xvda", Some(spec.disk_gib))],
        ImageFamily::BottlerocketNvidia => {
            vec![
                volume("/dev/xvda", None),
                volume("/dev/xvdb", Some(spec.disk_gib)),
            ]
        }
    }
}

fn ami_type(family: ImageFamily) -> AmiTypes {
    match family {
        ImageFamily::Al2023Nvidia => AmiTypes::Al2023X8664Nvidia,
        ImageFamily::BottlerocketNvidia => AmiTypes::BottlerocketX8664Nvidia,
    }
}

/// `1.34` of `1.34.2-20261101`: without it EKS takes the control plane's version, and refuses a pinned release of an
/// older one. A Bottlerocket release does not name a Kubernetes version.
fn kubernetes_version(spec: &GroupSpec) -> Option<String> {
    if spec.image != ImageFamily::Al2023Nvidia {
        return None;
    }
    let (numbers, _) = spec.release_version.split_once('-')?;
    let mut parts = numbers.split('.');
    Some(format!("{}.{}", parts.next()?, parts.next()?))
}

fn capacity_type(purchase: Purchase) -> CapacityTypes {
    match purchase {
        Purchase::OnDemand => CapacityTypes::OnDemand,
    }
}

fn taint(taint: &gpu_pool::Taint) -> Taint {
    let effect = match taint.effect {
        gpu_pool::TaintEffect::NoSchedule => TaintEffect::NoSchedule,
        gpu_pool::TaintEffect::PreferNoSchedule => TaintEffect::PreferNoSchedule,
        gpu_pool::TaintEffect::NoExecute => TaintEffect::NoExecute,
    };
    Taint::builder()
        .key(&taint.key)
        .value(&taint.value)
        .effect(effect)
        .build()
}

fn hash_map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn ec2_tags(tags: BTreeMap<String, String>) -> Vec<Tag> {
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    tags.into_iter().map(tag).collect()
}
