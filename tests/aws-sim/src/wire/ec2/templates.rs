//! Launch templates on the wire.

use std::collections::BTreeMap;

use super::super::params::passes;
use super::super::{Params, Session, Xml};
use super::{known, page, tag_set};
use crate::account::Tags;
use crate::ec2::launch_template::{LaunchTemplate, NewTemplate, TemplateData, TemplateRef, TemplateVersion};
use crate::error::{ApiResult, ec2};
use crate::iam::Context;

const DATA: &str = "LaunchTemplateData";

pub(super) fn create(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(
        params,
        &[
            "LaunchTemplateName",
            "VersionDescription",
            DATA,
            "TagSpecification",
            "ClientToken",
        ],
    )?;
    let tags = template_tags(params)?;
    let tagged = Context::default().request_tags(&tags);
    let any = session.account.arn("ec2", "launch-template/*");
    session.authorize("ec2:CreateLaunchTemplate", &any, &tagged)?;
    if !tags.is_empty() {
        let tagging = tagged.with("ec2:CreateAction", "CreateLaunchTemplate");
        session.authorize("ec2:CreateTags", &any, &tagging)?;
    }
    let new = NewTemplate {
        name: params
            .get("LaunchTemplateName")
            .ok_or_else(|| ec2::missing("LaunchTemplateName"))?
            .to_owned(),
        description: params.get("VersionDescription").unwrap_or_default().to_owned(),
        data: TemplateData::parse(params.under(DATA))?,
        tags,
        token: params.get("ClientToken").map(str::to_owned),
    };
    let creator = session.caller_arn();
    let template = session.account.create_launch_template(new, &creator)?.clone();
    let mut xml = Xml::default();
    xml.element("launchTemplate", |x| show(x, session, &template));
    Ok(xml)
}

/// Tags for the template itself; a TagSpecification for anything else is refused.
fn template_tags(params: &Params) -> ApiResult<Tags> {
    let mut tags = Tags::new();
    for n in 1.. {
        let spec = format!("TagSpecification.{n}");
        match params.get(&format!("{spec}.ResourceType")) {
            None => break,
            Some("launch-template") => tags.extend(params.tags(&format!("{spec}.Tag"))),
            Some(other) => {
                return Err(ec2::value(format!(
                    "'{other}' is not a valid taggable resource type for this operation."
                )));
            }
        }
    }
    Ok(tags)
}

fn reference(params: &Params) -> ApiResult<TemplateRef> {
    match (params.get("LaunchTemplateId"), params.get("LaunchTemplateName")) {
        (Some(id), None) => Ok(TemplateRef::Id(id.to_owned())),
        (None, Some(name)) => Ok(TemplateRef::Name(name.to_owned())),
        _ => Err(ec2::missing("LaunchTemplateId or LaunchTemplateName, not both")),
    }
}

/// Finds the template that the call names and checks the caller's right to it.
fn allowed(session: &mut Session<'_>, action: &str, params: &Params) -> ApiResult<TemplateRef> {
    let reference = reference(params)?;
    let template = session.account.find_template(&reference)?.clone();
    let arn = session
        .account
        .arn("ec2", format_args!("launch-template/{}", template.id));
    session.authorize(action, &arn, &Context::default().resource_tags(&template.tags))?;
    Ok(reference)
}

pub(super) fn create_version(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(
        params,
        &[
            "LaunchTemplateId",
            "LaunchTemplateName",
            "VersionDescription",
            DATA,
            "ClientToken",
        ],
    )?;
    let reference = allowed(session, "ec2:CreateLaunchTemplateVersion", params)?;
    let data = TemplateData::parse(params.under(DATA))?;
    let description = params.get("VersionDescription").unwrap_or_default().to_owned();
    let token = params.get("ClientToken").map(str::to_owned);
    let (template, version) =
        session
            .account
            .create_launch_template_version(&reference, description, data, token)?;
    let mut xml = Xml::default();
    xml.element("launchTemplateVersion", |x| {
        show_version(x, session, &template, &version)
    });
    Ok(xml)
}

pub(super) fn delete(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["LaunchTemplateId", "LaunchTemplateName"])?;
    let reference = allowed(session, "ec2:DeleteLaunchTemplate", params)?;
    let template = session.account.delete_launch_template(&reference)?;
    let mut xml = Xml::default();
    xml.element("launchTemplate", |x| show(x, session, &template));
    Ok(xml)
}

pub(super) fn describe(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(
        params,
        &[
            "LaunchTemplateId",
            "LaunchTemplateName",
            "Filter",
            "MaxResults",
            "NextToken",
        ],
    )?;
    session.authorize("ec2:DescribeLaunchTemplates", "*", &Context::default())?;
    let ids = params.list("LaunchTemplateId").into_iter().map(TemplateRef::Id);
    let names = params
        .list("LaunchTemplateName")
        .into_iter()
        .map(TemplateRef::Name);
    let named: Vec<TemplateRef> = ids.chain(names).collect();
    let candidates: Vec<&LaunchTemplate> = if named.is_empty() {
        session.account.templates.values().collect()
    } else {
        named
            .iter()
            .map(|r| session.account.find_template(r))
            .collect::<ApiResult<_>>()?
    };
    let filters = params.filters();
    let mut found = Vec::new();
    for template in candidates {
        let field = |name: &str| match name {
            "launch-template-name" => Some(vec![template.name.as_str()]),
            _ => None,
        };
        if passes(&filters, Some(&template.tags), field)? {
            found.push(template);
        }
    }
    let (found, next) = session.cut(page(params)?, found);
    let mut xml = Xml::default();
    xml.list("launchTemplates", "item", found, |x, t| show(x, session, t))
        .optional("nextToken", next);
    Ok(xml)
}

pub(super) fn describe_versions(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    let names = [
        "LaunchTemplateId",
        "LaunchTemplateName",
        "LaunchTemplateVersion",
        "MaxResults",
        "NextToken",
    ];
    known(params, &names)?;
    session.authorize("ec2:DescribeLaunchTemplateVersions", "*", &Context::default())?;
    let reference = reference(params)?;
    let template = session.account.find_template(&reference)?;
    let wanted = params.list("LaunchTemplateVersion");
    let versions: Vec<&TemplateVersion> = if wanted.is_empty() {
        template.versions.iter().collect()
    } else {
        let find = |v: &String| session.account.find_template_version(&reference, v);
        wanted.iter().map(find).collect::<ApiResult<_>>()?
    };
    let (versions, next) = session.cut(page(params)?, versions);
    let mut xml = Xml::default();
    xml.list("launchTemplateVersionSet", "item", versions, |x, v| {
        show_version(x, session, template, v)
    })
    .optional("nextToken", next);
    Ok(xml)
}

fn show(x: &mut Xml, session: &Session<'_>, template: &LaunchTemplate) {
    x.text("launchTemplateId", &template.id)
        .text("launchTemplateName", &template.name)
        .text("createTime", session.time(template.created))
        .text("createdBy", &template.created_by)
        .text("defaultVersionNumber", template.default_version)
        .text("latestVersionNumber", template.latest_version());
    tag_set(x, &template.tags);
}

fn show_version(x: &mut Xml, session: &Session<'_>, template: &LaunchTemplate, version: &TemplateVersion) {
    x.text("launchTemplateId", &template.id)
        .text("launchTemplateName", &template.name)
        .text("versionNumber", version.number)
        .text("versionDescription", &version.description)
        .text("createTime", session.time(version.created))
        .text("createdBy", &template.created_by)
        .text("defaultVersion", version.number == template.default_version);
    let fields: Vec<(Vec<&str>, &str)> = version
        .data
        .0
        .iter()
        .map(|(k, v)| (k.split('.').collect(), v.as_str()))
        .collect();
    x.element("launchTemplateData", |x| show_fields(x, &fields));
}

/// Requests are flat (`BlockDeviceMapping.1.Ebs.Encrypted`), answers nest
/// (`blockDeviceMappingSet/item/ebs/encrypted`).
fn show_fields(x: &mut Xml, fields: &[(Vec<&str>, &str)]) {
    let mut children: BTreeMap<&str, Vec<(Vec<&str>, &str)>> = BTreeMap::new();
    for (path, value) in fields {
        children
            .entry(path[0])
            .or_default()
            .push((path[1..].to_vec(), value));
    }
    for (name, inner) in children {
        let lower = name[..1].to_lowercase() + &name[1..];
        let is_list = inner
            .iter()
            .all(|(path, _)| path.first().is_some_and(|p| p.parse::<u32>().is_ok()));
        match &inner[..] {
            [(path, value)] if path.is_empty() => {
                x.text(&lower, value);
            }
            _ if is_list => show_list(x, &lower, &inner),
            _ => {
                x.element(&lower, |x| show_fields(x, &inner));
            }
        }
    }
}

fn show_list(x: &mut Xml, name: &str, fields: &[(Vec<&str>, &str)]) {
    let mut items: BTreeMap<u32, Vec<(Vec<&str>, &str)>> = BTreeMap::new();
    for (path, value) in fields {
        let position = path[0].parse().unwrap_or_default();
        items
            .entry(position)
            .or_default()
            .push((path[1..].to_vec(), value));
    }
    x.list(
        &format!("{name}Set"),
        "item",
        items.into_values(),
        |x, item| match &item[..] {
            [(path, value)] if path.is_empty() => {
                x.plain(value);
            }
            _ => show_fields(x, &item),
        },
    );
}
