//! What AWS sells: hardware of instance types, zones that offer them, zones of subnets. Asked once and remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_ec2::types::{Filter, InstanceType as TypeName, LocationType};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use planner::observed::InstanceType;

use super::{Eks, PARALLEL_READS, convert, error};
use crate::cloud::CloudError;

/// Hardware of a type never changes.
const HARDWARE_AGE: Duration = Duration::MAX;
/// AWS adds a type to a zone now and then.
const OFFERED_AGE: Duration = Duration::from_secs(6 * 3600);
/// A subnet keeps its zone, but may be deleted.
const SUBNET_AGE: Duration = Duration::from_secs(600);
/// "There is no such thing" is believed this long: the mistake may be mended on AWS's side.
const ABSENT_AGE: Duration = Duration::from_secs(60);
/// Values of one filter, and ids of one call (API limits: 200 and 100).
const CHUNK: usize = 100;

#[derive(Default)]
pub(super) struct Catalog {
    types: Memory<InstanceType>,
    offered: Memory<BTreeSet<String>>,
    zones: Memory<String>,
}

/// Answers by name; `None` inside: asked, and there is none.
struct Memory<V>(Mutex<BTreeMap<String, (Instant, Option<V>)>>);

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Memory<V> {
    /// Those of `names` that have to be asked for.
    fn unknown(&self, names: &BTreeSet<String>, max_age: Duration) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |name: &String| {
            known
                .get(name)
                .is_some_and(|(at, value)| at.elapsed() < if value.is_some() { max_age } else { ABSENT_AGE })
        };
        names.iter().filter(|name| !fresh(name)).cloned().collect()
    }

    /// Remembers the answer for all that was asked: what is not in it does not exist.
    fn learn(&self, asked: Vec<String>, mut answer: BTreeMap<String, V>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in asked {
            let value = answer.remove(&name);
            known.insert(name, (Instant::now(), value));
        }
    }

    fn get(&self, names: &BTreeSet<String>) -> BTreeMap<String, V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let get = |name: &String| Some((name.clone(), known.get(name)?.1.clone()?));
        names.iter().filter_map(get).collect()
    }
}

/// Hardware by type, and zones by type.
type Offer = (BTreeMap<String, InstanceType>, BTreeMap<String, BTreeSet<String>>);

impl Eks {
    /// A type that AWS does not know is absent from both.
    pub(super) async fn types(&self, names: &BTreeSet<String>) -> Result<Offer, CloudError> {
        let types = &self.catalog.types;
        let unknown = types.unknown(names, HARDWARE_AGE);
        for chunk in unknown.chunks(CHUNK) {
            types.learn(chunk.to_vec(), self.read_types(chunk).await?);
        }
        let hardware = types.get(names);
        let exist: BTreeSet<String> = hardware.keys().cloned().collect();
        let offered = &self.catalog.offered;
        for chunk in offered.unknown(&exist, OFFERED_AGE).chunks(CHUNK) {
            offered.learn(chunk.to_vec(), self.read_offered(chunk).await?);
        }
        Ok((hardware, offered.get(&exist)))
    }

    /// Zone of each subnet; one that does not exist is absent.
    pub(super) async fn subnets(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>, CloudError> {
        let zones = &self.catalog.zones;
        for chunk in zones.unknown(ids, SUBNET_AGE).chunks(CHUNK) {
            zones.learn(chunk.to_vec(), self.read_zones(chunk).await?);
        }
        Ok(zones.get(ids))
    }

    /// One name that AWS does not know makes it refuse them all: then each is asked for alone.
    async fn read_types(&self, names: &[String]) -> Result<BTreeMap<String, InstanceType>, CloudError> {
        if let Some(found) = self.try_types(names).await? {
            return Ok(found);
        }
        let single: Vec<Option<_>> = stream::iter(names.to_vec())
            .map(|name| async move { self.try_types(&[name]).await })
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        Ok(single.into_iter().flatten().flatten().collect())
    }

    /// `None`: at least one of them does not exist.
    async fn try_types(
        &self,
        names: &[String],
    ) -> Result<Option<BTreeMap<String, InstanceType>>, CloudError> {
        let wanted = names.iter().map(|name| TypeName::from(name.as_str())).collect();
        let call = self
            .ec2
            .describe_instance_types()
            .set_instance_types(Some(wanted));
        match call
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
        {
            Ok(infos) => {
                let hardware = infos.iter().filter_map(convert::hardware);
                Ok(Some(hardware.map(|info| (info.name.clone(), info)).collect()))
            }
            // A name that cannot be one of a type (`g5`) is another code than one that is not.
            Err(error)
                if matches!(
                    error::code(&error),
                    Some("InvalidInstanceType" | "InvalidParameterValue")
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error::failed("DescribeInstanceTypes", &names.join(","))(error)),
        }
    }

    async fn read_offered(&self, names: &[String]) -> Result<BTreeMap<String, BTreeSet<String>>, CloudError> {
        let wanted = Filter::builder()
            .name("instance-type")
            .set_values(Some(names.to_vec()));
        let call = self
            .ec2
            .describe_instance_type_offerings()
            .location_type(LocationType::AvailabilityZone)
            .filters(wanted.build());
        let offerings: Vec<_> = call
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(error::failed("DescribeInstanceTypeOfferings", &names.join(",")))?;
        let mut zones = BTreeMap::<String, BTreeSet<String>>::new();
        for offering in &offerings {
            if let (Some(name), Some(zone)) = (offering.instance_type(), offering.location()) {
                zones
                    .entry(name.as_str().to_owned())
                    .or_default()
                    .insert(zone.to_owned());
            }
        }
        Ok(zones)
    }

    async fn read_zones(&self, ids: &[String]) -> Result<BTreeMap<String, String>, CloudError> {
        if let Some(found) = self.try_zones(ids).await? {
            return Ok(found);
        }
        let single: Vec<Option<_>> = stream::iter(ids.to_vec())
            .map(|id| async move { self.try_zones(&[id]).await })
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        Ok(single.into_iter().flatten().flatten().collect())
    }

    /// `None`: at least one of them does not exist.
    async fn try_zones(&self, ids: &[String]) -> Result<Option<BTreeMap<String, String>>, CloudError> {
        let call = self.ec2.describe_subnets().set_subnet_ids(Some(ids.to_vec()));
        match call
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
        {
            Ok(subnets) => {
                let zone = |subnet: &aws_sdk_ec2::types::Subnet| {
                    Some((
                        subnet.subnet_id()?.to_owned(),
                        subnet.availability_zone()?.to_owned(),
                    ))
                };
                Ok(Some(subnets.iter().filter_map(zone).collect()))
            }
            Err(error)
                if matches!(
                    error::code(&error),
                    Some("InvalidSubnetID.NotFound" | "InvalidSubnetID.Malformed")
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error::failed("DescribeSubnets", &ids.join(","))(error)),
        }
    }
}
