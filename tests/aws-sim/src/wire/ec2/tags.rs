//! Tags of launch templates and instances.

use super::super::{Params, Session, Xml};
use super::known;
use crate::account::{Tags, check_tags};
use crate::error::{ApiResult, ec2};
use crate::iam::Context;

pub(super) fn create(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["ResourceId", "Tag"])?;
    let tags = params.tags("Tag");
    if tags.is_empty() {
        return Err(ec2::missing("Tag"));
    }
    let ids = params.list("ResourceId");
    for (arn, own) in resources(session, &ids)? {
        let context = Context::default().resource_tags(&own).request_tags(&tags);
        session.authorize("ec2:CreateTags", &arn, &context)?;
        let mut after = own.clone();
        after.retain(|k, _| !k.starts_with("aws:"));
        after.extend(tags.clone());
        check_tags(&after).map_err(ec2::value)?;
    }
    for id in &ids {
        if let Some(own) = session.account.tags_mut(id) {
            own.extend(tags.clone());
        }
    }
    Ok(done())
}

pub(super) fn delete(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["ResourceId", "Tag"])?;
    let keys: Vec<String> = params.tags("Tag").into_keys().collect();
    let ids = params.list("ResourceId");
    for (arn, own) in resources(session, &ids)? {
        let context = Context::default().resource_tags(&own).tag_keys(&keys);
        session.authorize("ec2:DeleteTags", &arn, &context)?;
    }
    for id in &ids {
        if let Some(own) = session.account.tags_mut(id) {
            own.retain(|k, _| !keys.contains(k));
        }
    }
    Ok(done())
}

/// ARN and tags of each; all exist, or the error of the first that does not.
fn resources(session: &mut Session<'_>, ids: &[String]) -> ApiResult<Vec<(String, Tags)>> {
    if ids.is_empty() {
        return Err(ec2::missing("ResourceId"));
    }
    ids.iter()
        .map(|id| {
            let kind = if id.starts_with("lt-") {
                "launch-template"
            } else {
                "instance"
            };
            let arn = session.account.arn("ec2", format_args!("{kind}/{id}"));
            match session.account.tags_mut(id) {
                Some(tags) => Ok((arn, tags.clone())),
                None => Err(ec2::client("InvalidID", format!("The ID '{id}' is not valid"))),
            }
        })
        .collect()
}

fn done() -> Xml {
    let mut xml = Xml::default();
    xml.text("return", true);
    xml
}
