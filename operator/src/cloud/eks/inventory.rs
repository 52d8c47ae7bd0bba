//! Reads: the whole inventory for a plan, and one group, uncached, before a mutation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use aws_sdk_autoscaling::types::AutoScalingGroup;
use aws_sdk_ec2::types::Filter;
use aws_sdk_eks::types::Nodegroup;
use crds::key;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use futures::try_join;
use jiff::{SignedDuration, Timestamp};
use planner::observed::{CloudObserved, LaunchFailure, Lifecycle, ScalingObserved, TemplateObserved};
use planner::plan::GroupName;

use super::{Eks, PARALLEL_READS, convert, error};
use crate::cloud::{CatalogQuery, CloudError};

/// Names of our groups begin so; the tags decide, this saves describing everybody else's.
const GROUP_PREFIX: &str = "pn-";
/// DescribeAutoScalingGroups: names a call, and records a page.
const SCALING_NAMES: usize = 50;
const SCALING_RECORDS: i32 = 100;
/// Newest activities that are looked at. A group retries a failed launch about once a minute, so this is an hour and more.
const ACTIVITIES: i32 = 100;
const TEMPLATE_RECORDS: i32 = 200;

impl Eks {
    /// All or nothing.
    pub(super) async fn read_cloud(&self, query: &CatalogQuery) -> Result<CloudObserved, CloudError> {
        let read_at = Timestamp::now();
        let ((mut groups, group_count), templates, (types, offered)) = try_join!(
            self.read_groups(),
            self.read_templates(),
            self.types(&query.instance_types)
        )?;
        groups.retain(|group| convert::group_owner(&self.cluster, group.tags()).is_some());
        let names: Vec<String> = groups
            .iter()
            .filter_map(convert::scaling_name)
            .map(str::to_owned)
            .collect();
        let in_use = groups.iter().flat_map(|group| group.subnets().iter().cloned());
        let subnets: BTreeSet<String> = query.subnets.iter().cloned().chain(in_use).collect();
        let (scaling, zones) = try_join!(self.read_scaling_groups(&names), self.subnets(&subnets))?;
        let failures = self.read_launch_failures(&scaling).await?;
        let observed = groups.iter().filter_map(|group| {
            let scaling = convert::scaling_name(group).and_then(|name| scaling.get(name));
            let failure = convert::scaling_name(group).and_then(|name| failures.get(name).cloned());
            convert::group(&self.cluster, group, scaling, failure, &zones)
        });
        Ok(CloudObserved {
            read_at,
            groups: observed.map(|group| (group.name.clone(), group)).collect(),
            group_count,
            templates,
            types,
            offered,
            subnets: zones,
            unasked: std::collections::BTreeSet::new(),
            trouble: None,
        })
    }

    /// Groups whose names could be ours, and how many the cluster has in all.
    async fn read_groups(&self) -> Result<(Vec<Nodegroup>, u32), CloudError> {
        let names = self.list_groups().await?;
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let ours = names.into_iter().filter(|name| name.starts_with(GROUP_PREFIX));
        let groups: Vec<Option<Nodegroup>> = stream::iter(ours)
            .map(|name| async move { self.read_group(&GroupName(name)).await })
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        // One that went away between the two calls is gone.
        Ok((groups.into_iter().flatten().collect(), count))
    }

    async fn list_groups(&self) -> Result<Vec<String>, CloudError> {
        let pages = self.eks.list_nodegroups().cluster_name(&self.cluster);
        pages
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(error::failed("ListNodegroups", &self.cluster))
    }

    /// Groups that were made from the launch template with this id, whatever became of their tags.
    pub(super) async fn groups_with_template(&self, id: &str) -> Result<Vec<String>, CloudError> {
        let (groups, _) = self.read_groups().await?;
        let with = groups
            .iter()
            .filter(|group| group.launch_template().and_then(|template| template.id()) == Some(id));
        Ok(with
            .filter_map(|group| group.nodegroup_name().map(str::to_owned))
            .collect())
    }

    /// `None`: there is no such group.
    pub(super) async fn read_group(&self, name: &GroupName) -> Result<Option<Nodegroup>, CloudError> {
        let call = self
            .eks
            .describe_nodegroup()
            .cluster_name(&self.cluster)
            .nodegroup_name(&name.0);
        match call.send().await {
            Ok(answer) => match answer.nodegroup {
                Some(group) => Ok(Some(group)),
                None => Err(error::incomplete("DescribeNodegroup", &name.0, "nodegroup")),
            },
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error::failed("DescribeNodegroup", &name.0)(error)),
        }
    }

    /// By name; one that does not exist (yet, or any more) is absent.
    async fn read_scaling_groups(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, AutoScalingGroup>, CloudError> {
        let mut found = BTreeMap::new();
        for chunk in names.chunks(SCALING_NAMES) {
            let call = self
                .autoscaling
                .describe_auto_scaling_groups()
                .set_auto_scaling_group_names(Some(chunk.to_vec()))
                .max_records(SCALING_RECORDS);
            let groups: Vec<AutoScalingGroup> = call
                .into_paginator()
                .items()
                .send()
                .try_collect()
                .await
                .map_err(error::failed(
                    "DescribeAutoScalingGroups",
                    chunk.first().map_or("-", String::as_str),
                ))?;
            let named = groups
                .into_iter()
                .filter_map(|group| Some((group.auto_scaling_group_name()?.to_owned(), group)));
            found.extend(named);
        }
        Ok(found)
    }

    pub(super) async fn read_scaling(&self, name: &str) -> Result<Option<ScalingObserved>, CloudError> {
        let groups = self.read_scaling_groups(&[name.to_owned()]).await?;
        Ok(groups
            .get(name)
            .map(|group| convert::scaling_observed(group, None)))
    }

    /// Of groups that want more instances than they have, or lately met a refusal.
    async fn read_launch_failures(
        &self,
        groups: &BTreeMap<String, AutoScalingGroup>,
    ) -> Result<BTreeMap<String, LaunchFailure>, CloudError> {
        let short: Vec<String> = groups
            .iter()
            .filter(|(name, group)| {
                lacks_instances(&convert::scaling_observed(group, None)) || self.failing.lately(name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        let failures: Vec<Option<(String, LaunchFailure)>> = stream::iter(short)
            .map(|name| async move {
                let failure = self.read_launch_failure(&name).await?;
                Ok::<_, CloudError>(failure.map(|failure| (name, failure)))
            })
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        let failures: BTreeMap<_, _> = failures.into_iter().flatten().collect();
        self.failing.remember(&failures);
        Ok(failures)
    }

    async fn read_launch_failure(&self, name: &str) -> Result<Option<LaunchFailure>, CloudError> {
        let call = self
            .autoscaling
            .describe_scaling_activities()
            .auto_scaling_group_name(name)
            .max_records(ACTIVITIES);
        let answer = call
            .send()
            .await
            .map_err(error::failed("DescribeScalingActivities", name))?;
        Ok(convert::launch_failure(answer.activities()))
    }

    async fn read_templates(&self) -> Result<BTreeMap<String, TemplateObserved>, CloudError> {
        let ours = Filter::builder()
            .name(format!("tag:{}", key::CLUSTER))
            .values(&self.cluster)
            .build();
        let call = self
            .ec2
            .describe_launch_templates()
            .filters(ours)
            .max_results(TEMPLATE_RECORDS);
        let templates: Vec<_> = call
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(error::failed("DescribeLaunchTemplates", &self.cluster))?;
        let observed = templates.iter().filter_map(convert::template);
        Ok(observed
            .map(|template| (template.name.clone(), template))
            .collect())
    }
}

/// A refusal is read again for so long after it, although the order that met it is withdrawn: the planner asks another
/// offering for 3 minutes. A restarted operator has forgotten it, and asks once too often.
const FAILURE_MEMORY: SignedDuration = SignedDuration::from_mins(5);

/// Auto Scaling groups whose last launch failed.
#[derive(Debug, Default)]
pub(super) struct Failing(Mutex<BTreeMap<String, Timestamp>>);

impl Failing {
    fn lately(&self, group: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = known.get(group);
        failed.is_some_and(|at| Timestamp::now().duration_since(*at) < FAILURE_MEMORY)
    }

    fn remember(&self, failures: &BTreeMap<String, LaunchFailure>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = failures
            .iter()
            .map(|(name, failure)| (name.clone(), failure.at))
            .collect();
    }
}

fn lacks_instances(scaling: &ScalingObserved) -> bool {
    let in_service = scaling
        .instances
        .iter()
        .filter(|instance| instance.lifecycle == Lifecycle::InService);
    in_service.count() < scaling.desired as usize
}
