//! Launch templates: names, versions, and the fields that node groups look at.

use std::collections::BTreeMap;

use crate::account::{Account, Tags, check_tags};
use crate::assumptions as aws;
use crate::clock::SimTime;
use crate::error::{ApiError, ApiResult, ec2};

/// The fields of a template as the query protocol names them, flat: `BlockDeviceMapping.1.Ebs.Encrypted`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateData(pub BTreeMap<String, String>);

/// Fields this simulator keeps; list positions are written `N`. Others are refused, so that nothing is
/// accepted and then forgotten.
const MODELLED: &[&str] = &[
    "BlockDeviceMapping.N.DeviceName",
    "BlockDeviceMapping.N.Ebs.DeleteOnTermination",
    "BlockDeviceMapping.N.Ebs.Encrypted",
    "BlockDeviceMapping.N.Ebs.Iops",
    "BlockDeviceMapping.N.Ebs.KmsKeyId",
    "BlockDeviceMapping.N.Ebs.Throughput",
    "BlockDeviceMapping.N.Ebs.VolumeSize",
    "BlockDeviceMapping.N.Ebs.VolumeType",
    "EbsOptimized",
    "IamInstanceProfile.Arn",
    "IamInstanceProfile.Name",
    "ImageId",
    "InstanceInitiatedShutdownBehavior",
    "InstanceMarketOptions.MarketType",
    "InstanceType",
    "KeyName",
    "MetadataOptions.HttpEndpoint",
    "MetadataOptions.HttpProtocolIpv6",
    "MetadataOptions.HttpPutResponseHopLimit",
    "MetadataOptions.HttpTokens",
    "MetadataOptions.InstanceMetadataTags",
    "Monitoring.Enabled",
    "NetworkInterface.N.DeviceIndex",
    "NetworkInterface.N.InterfaceType",
    "NetworkInterface.N.NetworkCardIndex",
    "NetworkInterface.N.SecurityGroupId.N",
    "NetworkInterface.N.SubnetId",
    "Placement.GroupName",
    "SecurityGroupId.N",
    "TagSpecification.N.ResourceType",
    "TagSpecification.N.Tag.N.Key",
    "TagSpecification.N.Tag.N.Value",
    "UserData",
];

impl TemplateData {
    /// Checks names of fields and the values EC2 checks when a template is stored.
    pub fn parse(fields: BTreeMap<String, String>) -> ApiResult<Self> {
        if fields.is_empty() {
            return Err(ec2::missing("LaunchTemplateData"));
        }
        for key in fields.keys() {
            let pattern: Vec<&str> = key
                .split('.')
                .map(|p| if p.parse::<u32>().is_ok() { "N" } else { p })
                .collect();
            if !MODELLED.contains(&pattern.join(".").as_str()) {
                return Err(ec2::client(
                    "UnknownParameter",
                    format!("The parameter LaunchTemplateData.{key} is not recognized"),
                ));
            }
        }
        let data = Self(fields);
        data.check_values()?;
        Ok(data)
    }

    fn check_values(&self) -> ApiResult<()> {
        let invalid =
            |what: &str, value: &str| ec2::value(format!("Value ({value}) for parameter {what} is invalid."));
        for (key, value) in &self.0 {
            let allowed: &[&str] = match key.rsplit('.').next().unwrap_or(key) {
                "VolumeType" => &["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"],
                "HttpTokens" => &["optional", "required"],
                "HttpEndpoint" | "HttpProtocolIpv6" | "InstanceMetadataTags" => &["enabled", "disabled"],
                "Encrypted" | "DeleteOnTermination" | "EbsOptimized" | "Enabled" => &["true", "false"],
                "MarketType" => &["spot", "capacity-block"],
                "HttpPutResponseHopLimit" => match value.parse::<u32>() {
                    Ok(1..=64) => continue,
                    _ => return Err(invalid(key, value)),
                },
                "VolumeSize" => match value.parse::<u32>() {
                    Ok(1..=65_536) => continue,
                    _ => return Err(invalid(key, value)),
                },
                "ResourceType" => &[
                    "instance",
                    "volume",
                    "network-interface",
                    "spot-instances-request",
                ],
                _ => continue,
            };
            if !allowed.contains(&value.as_str()) {
                return Err(invalid(key, value));
            }
        }
        for resource in [
            "instance",
            "volume",
            "network-interface",
            "spot-instances-request",
        ] {
            check_tags(&self.tags_for(resource)).map_err(ec2::value)?;
        }
        Ok(())
    }

    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    pub fn has(&self, prefix: &str) -> bool {
        self.0
            .keys()
            .any(|k| k == prefix || k.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Tags that the template puts on resources of a type when an instance starts.
    pub fn tags_for(&self, resource_type: &str) -> Tags {
        let mut tags = Tags::new();
        for (key, value) in &self.0 {
            let parts: Vec<&str> = key.split('.').collect();
            if let ["TagSpecification", spec, "ResourceType"] = parts[..]
                && value == resource_type
            {
                for n in 1..=aws::MAX_TAGS + 1 {
                    let tag = format!("TagSpecification.{spec}.Tag.{n}");
                    if let Some(name) = self.get(&format!("{tag}.Key")) {
                        let value = self.get(&format!("{tag}.Value")).unwrap_or_default();
                        tags.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
        }
        tags
    }
}

#[derive(Clone, Debug)]
pub struct TemplateVersion {
    pub number: u64,
    pub description: String,
    pub created: SimTime,
    pub data: TemplateData,
}

#[derive(Clone, Debug)]
pub struct LaunchTemplate {
    pub id: String,
    pub name: String,
    pub created: SimTime,
    pub created_by: String,
    pub tags: Tags,
    /// Never empty; numbers rise from 1.
    pub versions: Vec<TemplateVersion>,
    pub default_version: u64,
    created_from: Option<NewTemplate>,
    version_tokens: BTreeMap<String, (TemplateData, u64)>,
}

impl LaunchTemplate {
    pub fn latest_version(&self) -> u64 {
        self.versions.last().map_or(0, |v| v.number)
    }

    /// A version by number, `$Default` or `$Latest`.
    pub fn version(&self, wanted: &str) -> Option<&TemplateVersion> {
        let number = match wanted {
            "$Default" => self.default_version,
            "$Latest" => self.latest_version(),
            number => number.parse().ok()?,
        };
        self.versions.iter().find(|v| v.number == number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTemplate {
    pub name: String,
    pub description: String,
    pub data: TemplateData,
    pub tags: Tags,
    pub token: Option<String>,
}

/// How callers name a template: by id or by name, not both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateRef {
    Id(String),
    Name(String),
}

impl Account {
    pub fn create_launch_template(
        &mut self,
        new: NewTemplate,
        created_by: &str,
    ) -> ApiResult<&LaunchTemplate> {
        check_template_name(&new.name)?;
        check_token(new.token.as_deref())?;
        check_tags(&new.tags).map_err(ec2::value)?;
        if let Some(token) = &new.token
            && let Some((id, same)) = self.templates.values().find_map(|t| {
                let from = t.created_from.as_ref()?;
                (from.token.as_ref() == Some(token)).then(|| (t.id.clone(), *from == new))
            })
        {
            return if same {
                self.find_template(&TemplateRef::Id(id))
            } else {
                Err(mismatch())
            };
        }
        if self.templates.values().any(|t| t.name == new.name) {
            return Err(ec2::client(
                "InvalidLaunchTemplateName.AlreadyExistsException",
                "Launch template name already in use.",
            ));
        }
        Ok(self.insert_template(new, created_by))
    }

    /// Stores a template without the checks of the API (EKS makes its copies this way).
    pub(crate) fn insert_template(&mut self, new: NewTemplate, created_by: &str) -> &LaunchTemplate {
        let id = self.new_id("lt-");
        let created = self.now();
        let version = TemplateVersion {
            number: 1,
            description: new.description.clone(),
            created,
            data: new.data.clone(),
        };
        let template = LaunchTemplate {
            id: id.clone(),
            name: new.name.clone(),
            created,
            created_by: created_by.to_owned(),
            tags: new.tags.clone(),
            versions: vec![version],
            default_version: 1,
            created_from: Some(new),
            version_tokens: BTreeMap::new(),
        };
        self.templates.entry(id).or_insert(template)
    }

    pub fn create_launch_template_version(
        &mut self,
        template: &TemplateRef,
        description: String,
        data: TemplateData,
        token: Option<String>,
    ) -> ApiResult<(LaunchTemplate, TemplateVersion)> {
        check_token(token.as_deref())?;
        let id = self.find_template(template)?.id.clone();
        let created = self.now();
        let template = self.templates.get_mut(&id).expect("found above");
        if let Some((earlier, number)) = token.as_ref().and_then(|t| template.version_tokens.get(t)) {
            if *earlier != data {
                return Err(mismatch());
            }
            let version = template
                .version(&number.to_string())
                .expect("versions are never removed")
                .clone();
            return Ok((template.clone(), version));
        }
        let number = template.latest_version() + 1;
        let version = TemplateVersion {
            number,
            description,
            created,
            data: data.clone(),
        };
        template.versions.push(version.clone());
        if let Some(token) = token {
            template.version_tokens.insert(token, (data, number));
        }
        Ok((template.clone(), version))
    }

    pub fn delete_launch_template(&mut self, template: &TemplateRef) -> ApiResult<LaunchTemplate> {
        let id = self.find_template(template)?.id.clone();
        Ok(self.templates.remove(&id).expect("found above"))
    }

    pub fn find_template(&self, template: &TemplateRef) -> ApiResult<&LaunchTemplate> {
        match template {
            TemplateRef::Id(id) => {
                if !id.starts_with("lt-") {
                    return Err(ec2::client(
                        "InvalidLaunchTemplateId.Malformed",
                        format!("Invalid id: \"{id}\" (expecting \"lt-...\")"),
                    ));
                }
                self.templates.get(id).ok_or_else(|| {
                    ec2::client(
                        "InvalidLaunchTemplateId.NotFound",
                        format!("The specified launch template, with template ID {id}, does not exist."),
                    )
                })
            }
            TemplateRef::Name(name) => self.templates.values().find(|t| t.name == *name).ok_or_else(|| {
                ec2::client(
                    "InvalidLaunchTemplateName.NotFoundException",
                    format!("The specified launch template, with template name {name}, does not exist."),
                )
            }),
        }
    }

    pub fn find_template_version(
        &self,
        template: &TemplateRef,
        version: &str,
    ) -> ApiResult<&TemplateVersion> {
        let template = self.find_template(template)?;
        template.version(version).ok_or_else(|| {
            ec2::client(
                "InvalidLaunchTemplateId.VersionNotFound",
                format!(
                    "Could not find launch template version {version} of {}",
                    template.id
                ),
            )
        })
    }
}

fn mismatch() -> ApiError {
    ec2::client(
        "IdempotentParameterMismatch",
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
    )
}

fn check_token(token: Option<&str>) -> ApiResult<()> {
    match token {
        Some(t) if t.is_empty() || t.len() > aws::MAX_TOKEN || !t.is_ascii() => Err(ec2::value(format!(
            "Client token {t:?} must be 1 to {} ASCII characters",
            aws::MAX_TOKEN
        ))),
        _ => Ok(()),
    }
}

/// 3 to 128 of letters, digits and `( ) . - / _` (API model).
fn check_template_name(name: &str) -> ApiResult<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "().-/_".contains(c);
    if (3..=128).contains(&name.len()) && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(ec2::client(
            "InvalidLaunchTemplateName.MalformedException",
            format!("{name:?} is not a launch template name: 3 to 128 letters, digits and ( ) . - / _"),
        ))
    }
}
