//! Everything EKS checks before it says yes to CreateNodegroup.

mod metadata;

use std::collections::BTreeSet;

use super::request::{CreateNodegroup, ScalingConfig, UpdateConfig};
use crate::account::{Account, check_tags};
use crate::assumptions as aws;
use crate::catalog::{InstanceType, Purchase, instance_type};
use crate::ec2::launch_template::{TemplateData, TemplateRef};
use crate::error::{ApiResult, eks};
use metadata::{check_labels, check_taints};

/// A launch template that exists, with its version as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenTemplate {
    pub id: String,
    pub name: String,
    pub version: String,
}

/// What a valid request asks for.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    pub min: i64,
    pub max: i64,
    pub desired: i64,
    pub types: Vec<&'static InstanceType>,
    pub types_from_template: bool,
    pub purchase: Purchase,
    /// Subnet and zone.
    pub subnets: Vec<(String, String)>,
    pub ami_type: String,
    pub disk_size: u32,
    pub template: Option<ChosenTemplate>,
    pub version: String,
    pub release_version: String,
}

const AMI_TYPES: &[&str] = &[
    "AL2023_ARM_64_NVIDIA",
    "AL2023_ARM_64_STANDARD",
    "AL2023_x86_64_NEURON",
    "AL2023_x86_64_NVIDIA",
    "AL2023_x86_64_STANDARD",
    "BOTTLEROCKET_ARM_64",
    "BOTTLEROCKET_ARM_64_NVIDIA",
    "BOTTLEROCKET_x86_64",
    "BOTTLEROCKET_x86_64_NVIDIA",
    "CUSTOM",
];

const DEFAULT_DISK_GIB: u32 = 20;

pub fn group_spec(account: &Account, request: &CreateNodegroup) -> ApiResult<GroupSpec> {
    check_name(&request.nodegroup_name)?;
    check_token(request.client_request_token.as_deref())?;
    check_tags(&request.tags).map_err(eks::parameter)?;
    check_labels(&request.labels)?;
    check_taints(&request.taints)?;
    check_update_config(request.update_config)?;
    if !account.settings.node_roles.contains(&request.node_role) {
        return Err(eks::parameter(format!(
            "Role with arn: {}, could not be assumed because it does not exist or the trusted entity is not correct",
            request.node_role
        )));
    }
    let (min, max, desired) = check_scaling(request.scaling_config)?;
    let subnets = check_subnets(account, &request.subnets)?;
    let (template, data) = check_template(account, request)?;
    let (types, types_from_template) = check_types(request, data.as_ref())?;
    let ami_type = check_ami(request, &types, data.as_ref())?;
    let (version, release_version) = check_version(account, request, data.as_ref())?;
    Ok(GroupSpec {
        min,
        max,
        desired,
        types,
        types_from_template,
        purchase: request.capacity_type.unwrap_or(Purchase::OnDemand),
        subnets,
        ami_type,
        disk_size: request.disk_size.unwrap_or(DEFAULT_DISK_GIB),
        template,
        version,
        release_version,
    })
}

/// The template EKS writes when the caller brings none.
pub fn default_template_data(disk_gib: u32) -> TemplateData {
    let fields = [
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda".to_owned()),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true".to_owned()),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", disk_gib.to_string()),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3".to_owned()),
        ("MetadataOptions.HttpPutResponseHopLimit", "2".to_owned()),
    ];
    TemplateData(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn check_name(name: &str) -> ApiResult<()> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() <= aws::MAX_GROUP_NAME && starts_well && name.chars().all(allowed) {
        return Ok(());
    }
    Err(eks::parameter(format!(
        "The nodegroup name {name:?} must start with a letter or digit, may contain hyphens and underscores, and can't be longer than {} characters",
        aws::MAX_GROUP_NAME
    )))
}

fn check_token(token: Option<&str>) -> ApiResult<()> {
    match token {
        Some(t) if t.is_empty() || t.len() > aws::MAX_TOKEN || !t.is_ascii() => Err(eks::parameter(format!(
            "clientRequestToken must be 1 to {} ASCII characters",
            aws::MAX_TOKEN
        ))),
        _ => Ok(()),
    }
}

fn check_scaling(config: Option<ScalingConfig>) -> ApiResult<(i64, i64, i64)> {
    let config = config.unwrap_or(ScalingConfig {
        min_size: None,
        max_size: None,
        desired_size: None,
    });
    let (min, max) = (config.min_size.unwrap_or(1), config.max_size.unwrap_or(2));
    let desired = config.desired_size.unwrap_or(max);
    if min < 0 || desired < 0 || max < 1 {
        return Err(eks::parameter(format!(
            "Invalid scaling config: minSize {min} and desiredSize {desired} must not be negative, maxSize {max} must be at least 1"
        )));
    }
    if min > desired {
        return Err(eks::parameter(format!(
            "Minimum capacity {min} can't be greater than desired size {desired}"
        )));
    }
    if desired > max {
        return Err(eks::parameter(format!(
            "desired capacity {desired} can't be greater than max size {max}"
        )));
    }
    if max > aws::MAX_NODES_PER_GROUP {
        return Err(eks::limit(format!(
            "maxSize {max} exceeds the limit of {} nodes per managed node group",
            aws::MAX_NODES_PER_GROUP
        )));
    }
    Ok((min, max, desired))
}

fn check_subnets(account: &Account, subnets: &[String]) -> ApiResult<Vec<(String, String)>> {
    if subnets.is_empty() {
        return Err(eks::parameter(
            "Subnets are required: specify at least one subnet",
        ));
    }
    let mut seen = BTreeSet::new();
    subnets
        .iter()
        .map(|id| {
            if !seen.insert(id) {
                return Err(eks::parameter(format!("subnet {id} is given more than once")));
            }
            account
                .subnet(id)
                .map(|s| (id.clone(), s.spec.zone.clone()))
                .ok_or_else(|| eks::parameter(format!("The subnet ID '{id}' does not exist")))
        })
        .collect()
}

fn check_update_config(config: Option<UpdateConfig>) -> ApiResult<()> {
    match config {
        Some(UpdateConfig {
            max_unavailable: Some(_),
            max_unavailable_percentage: Some(_),
        }) => Err(eks::parameter(
            "Only one of maxUnavailable and maxUnavailablePercentage can be specified",
        )),
        Some(UpdateConfig {
            max_unavailable: Some(n),
            ..
        }) if !(1..=100).contains(&n) => Err(eks::parameter(format!(
            "maxUnavailable {n} must be between 1 and 100"
        ))),
        Some(UpdateConfig {
            max_unavailable_percentage: Some(n),
            ..
        }) if !(1..=100).contains(&n) => Err(eks::parameter(format!(
            "maxUnavailablePercentage {n} must be between 1 and 100"
        ))),
        _ => Ok(()),
    }
}

/// The template and version exist, and hold nothing that EKS forbids in them.
fn check_template(
    account: &Account,
    request: &CreateNodegroup,
) -> ApiResult<(Option<ChosenTemplate>, Option<TemplateData>)> {
    let Some(spec) = &request.launch_template else {
        return Ok((None, None));
    };
    let reference = match (&spec.id, &spec.name) {
        (Some(id), None) => TemplateRef::Id(id.clone()),
        (None, Some(name)) => TemplateRef::Name(name.clone()),
        _ => {
            return Err(eks::parameter(
                "Either the launch template's id or its name must be specified, not both",
            ));
        }
    };
    let wanted = spec.version.as_deref().unwrap_or("$Default");
    // EKS passes EC2's refusal on under a code of its own.
    let refused =
        |e: crate::error::ApiError| eks::parameter(format!("{} (Error Code: {})", e.message, e.code));
    let template = account.find_template(&reference).map_err(refused)?;
    let version = account
        .find_template_version(&reference, wanted)
        .map_err(refused)?;
    let data = version.data.clone();
    let forbidden = [
        ("IamInstanceProfile", "an IAM instance profile"),
        (
            "InstanceMarketOptions",
            "instance market options; use the node group's capacity type",
        ),
        ("InstanceInitiatedShutdownBehavior", "a shutdown behavior"),
    ];
    for (field, what) in forbidden {
        if data.has(field) {
            return Err(eks::request(format!(
                "Launch template {} should not specify {what}",
                template.id
            )));
        }
    }
    let has_subnet = data
        .0
        .keys()
        .any(|k| k.starts_with("NetworkInterface.") && k.ends_with(".SubnetId"));
    if has_subnet {
        return Err(eks::request(
            "Subnet should not be specified in the launch template's network interfaces",
        ));
    }
    if request.disk_size.is_some() {
        return Err(eks::parameter(
            "Disk size must be specified within the launch template.",
        ));
    }
    let chosen = ChosenTemplate {
        id: template.id.clone(),
        name: template.name.clone(),
        version: version.number.to_string(),
    };
    Ok((Some(chosen), Some(data)))
}

fn check_types(
    request: &CreateNodegroup,
    template: Option<&TemplateData>,
) -> ApiResult<(Vec<&'static InstanceType>, bool)> {
    let from_template = template.and_then(|t| t.get("InstanceType"));
    let names: Vec<&str> = match (request.instance_types.as_slice(), from_template) {
        ([], Some(name)) => vec![name],
        ([], None) => {
            // The real default, t3.medium, is not in the table.
            return Err(eks::parameter(
                "instanceTypes must be specified (the default t3.medium is not simulated)",
            ));
        }
        (_, Some(_)) => {
            return Err(eks::parameter(
                "Instance types must be specified either in the launch template or in the request, not in both.",
            ));
        }
        (names, None) => names.iter().map(String::as_str).collect(),
    };
    if names.len() > aws::MAX_INSTANCE_TYPES {
        return Err(eks::parameter(format!(
            "at most {} instance types may be given",
            aws::MAX_INSTANCE_TYPES
        )));
    }
    let unknown: Vec<&str> = names
        .iter()
        .copied()
        .filter(|n| instance_type(n).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(eks::parameter(format!(
            "The following supplied instance types do not exist: [{}]",
            unknown.join(", ")
        )));
    }
    let distinct: BTreeSet<&str> = names.iter().copied().collect();
    if distinct.len() != names.len() {
        return Err(eks::parameter("an instance type is given more than once"));
    }
    Ok((
        names.into_iter().filter_map(instance_type).collect(),
        from_template.is_some(),
    ))
}

/// All types of the table are x86_64: ARM images never fit, NVIDIA images need a GPU.
fn check_ami(
    request: &CreateNodegroup,
    types: &[&'static InstanceType],
    template: Option<&TemplateData>,
) -> ApiResult<String> {
    if template.is_some_and(|t| t.has("ImageId")) {
        return match request.ami_type.as_deref() {
            None | Some("CUSTOM") => Ok("CUSTOM".to_owned()),
            Some(_) => Err(eks::parameter(
                "You cannot specify an image type other than CUSTOM when the launch template specifies an image ID",
            )),
        };
    }
    let gpu = types.iter().all(|t| t.gpu.is_some());
    let default = if gpu {
        "AL2023_x86_64_NVIDIA"
    } else {
        "AL2023_x86_64_STANDARD"
    };
    let ami = request.ami_type.as_deref().unwrap_or(default);
    if !AMI_TYPES.contains(&ami) {
        return Err(eks::parameter(format!("{ami} is not a supported AMI type")));
    }
    if ami == "CUSTOM" {
        return Err(eks::parameter(
            "AMI type CUSTOM needs a launch template that specifies an image ID",
        ));
    }
    let unfit = |t: &&&InstanceType| {
        ami.contains("ARM_64") || ami.ends_with("NEURON") || (ami.ends_with("NVIDIA") && t.gpu.is_none())
    };
    let unfit: Vec<&str> = types.iter().filter(unfit).map(|t| t.name).collect();
    if unfit.is_empty() {
        return Ok(ami.to_owned());
    }
    Err(eks::parameter(format!(
        "[{}] is not a valid instance type for requested amiType {ami}",
        unfit.join(", ")
    )))
}

fn check_version(
    account: &Account,
    request: &CreateNodegroup,
    template: Option<&TemplateData>,
) -> ApiResult<(String, String)> {
    let cluster = &account.settings.kubernetes_version;
    let asked = request.version.is_some() || request.release_version.is_some();
    if asked && template.is_some_and(|t| t.has("ImageId")) {
        return Err(eks::parameter(
            "version and releaseVersion can't be specified when the launch template specifies an image ID",
        ));
    }
    let version = request.version.as_ref().unwrap_or(cluster);
    let minor = |v: &str| v.strip_prefix("1.").and_then(|m| m.parse::<u32>().ok());
    match (minor(version), minor(cluster)) {
        (Some(node), Some(control)) if node <= control && control - node <= 3 => {}
        _ => {
            return Err(eks::parameter(format!(
                "Requested Nodegroup version {version} is not supported by cluster version {cluster}"
            )));
        }
    }
    let release = request
        .release_version
        .clone()
        .unwrap_or_else(|| format!("{version}.0-20261101"));
    let bottlerocket = request
        .ami_type
        .as_deref()
        .is_some_and(|a| a.starts_with("BOTTLEROCKET"));
    if !bottlerocket && !release.starts_with(&format!("{version}.")) {
        return Err(eks::parameter(format!(
            "Requested release version {release} is not valid for kubernetes version {version}."
        )));
    }
    Ok((version.clone(), release))
}
