//! One AWS account with one EKS cluster: all state, and the timers that move it.
//!
//! ```text
//! API call  -> account.advance(now) -> verb in eks / ec2 / autoscaling -> timers, node effects
//! clock tick -> account.advance(now) -> due timers in order of time    -> timers, node effects
//! ```
//!
//! *Invariant:* pure. Time is an argument, chance is a seeded generator, Kubernetes is a list of
//! [`NodeEffect`]s that somebody else carries out.

pub mod by_hand;
mod faults;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod life;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::assumptions as aws;
use crate::autoscaling::ScalingGroup;
use crate::catalog::Purchase;
use crate::clock::SimTime;
use crate::ec2::instance::{Instance, NodeStage};
use crate::ec2::launch_template::LaunchTemplate;
use crate::eks::NodeGroup;
use crate::fault::Faults;
use crate::ledger::Ledger;
use crate::node::NodeEffect;

use view::History;

pub type Tags = BTreeMap<String, String>;

/// What the account is like; fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Settings {
    pub account_id: String,
    pub region: String,
    pub cluster: String,
    pub kubernetes_version: String,
    pub subnets: Vec<SubnetSpec>,
    pub node_roles: Vec<String>,
    pub delays: Delays,
    pub seed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetSpec {
    pub id: String,
    pub zone: String,
}

impl std::str::FromStr for SubnetSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('=') {
            Some((id, zone)) if id.starts_with("subnet-") && !zone.is_empty() => Ok(Self {
                id: id.to_owned(),
                zone: zone.to_owned(),
            }),
            _ => Err(format!("{s:?} is not a subnet: subnet-ID=ZONE")),
        }
    }
}

/// How long things take, in simulated time. Each node delay counts from the stage before it.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub create: Duration,
    pub register: Duration,
    pub ready: Duration,
    pub gpu: Duration,
    pub terminate: Duration,
}

#[derive(Clone, Debug)]
pub struct Subnet {
    pub spec: SubnetSpec,
    index: u8,
    used: BTreeSet<u16>,
    next_host: u16,
}

impl Subnet {
    pub fn free_addresses(&self) -> u32 {
        aws::SUBNET_ADDRESSES - u32::try_from(self.used.len()).unwrap_or(aws::SUBNET_ADDRESSES)
    }

    pub fn cidr(&self) -> String {
        format!("10.{}.0.0/16", self.index)
    }

    /// Addresses go round, so that a node name is not used again while its last owner is still remembered.
    fn allocate(&mut self) -> Option<Ipv4Addr> {
        if self.free_addresses() == 0 {
            return None;
        }
        loop {
            let host = self.next_host;
            self.next_host = if host >= 65_534 { 4 } else { host + 1 };
            if self.used.insert(host) {
                let [high, low] = host.to_be_bytes();
                return Some(Ipv4Addr::new(10, self.index, high, low));
            }
        }
    }

    fn release(&mut self, address: Ipv4Addr) {
        let [_, _, high, low] = address.octets();
        self.used.remove(&u16::from_be_bytes([high, low]));
    }
}

/// One offering that can run out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offering {
    #[serde(rename = "type")]
    pub instance_type: String,
    pub zone: String,
    pub purchase: Purchase,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    InstanceInService(String),
    NodeStage(String, NodeStage),
    InstanceTerminated(String),
    ForgetInstance(String),
    ScalingReconcile(String),
    GroupScalingReady(GroupKey),
    GroupActive(GroupKey),
    GroupGone(GroupKey),
    FaultOver(u64),
    /// To an Auto Scaling group, because of a fault.
    LateDelivery(String, u64),
}

/// A node group by name and identity: a timer of a deleted group must not touch a later one of its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    pub name: String,
    pub uuid: String,
}

#[derive(Debug)]
pub struct Account {
    pub settings: Settings,
    pub node_groups: BTreeMap<String, NodeGroup>,
    pub scaling_groups: BTreeMap<String, ScalingGroup>,
    pub templates: BTreeMap<String, LaunchTemplate>,
    pub instances: BTreeMap<String, Instance>,
    pub subnets: Vec<Subnet>,
    /// Offerings with limited capacity: how many more launches succeed. Absent: no limit.
    pub capacity: BTreeMap<Offering, u32>,
    pub ledger: Ledger,
    pub faults: Faults,
    history: History,
    rng: StdRng,
    timers: BTreeSet<(SimTime, u64, Timer)>,
    timer_seq: u64,
    effects: Vec<NodeEffect>,
    now: SimTime,
}

impl Account {
    pub fn open(settings: Settings) -> Self {
        let subnets = (1u8..)
            .zip(&settings.subnets)
            .map(|(index, spec)| Subnet {
                spec: spec.clone(),
                index,
                used: BTreeSet::new(),
                next_host: 4,
            })
            .collect();
        Self {
            rng: StdRng::seed_from_u64(settings.seed),
            faults: Faults::new(settings.seed),
            history: History::default(),
            settings,
            subnets,
            node_groups: BTreeMap::new(),
            scaling_groups: BTreeMap::new(),
            templates: BTreeMap::new(),
            instances: BTreeMap::new(),
            capacity: BTreeMap::new(),
            ledger: Ledger::default(),
            timers: BTreeSet::new(),
            timer_seq: 0,
            effects: Vec::new(),
            now: SimTime::default(),
        }
    }

    /// Lives through everything that is due until `now`, each event at its own time.
    pub fn advance(&mut self, now: SimTime) {
        while self.timers.first().is_some_and(|(at, _, _)| *at <= now) {
            if let Some((at, _, timer)) = self.timers.pop_first() {
                self.remember(at);
                self.now = at;
                self.fire(timer);
            }
        }
        self.now = self.now.max(now);
    }

    /// What the nodes have to go through because of what happened since the last call.
    pub fn take_effects(&mut self) -> Vec<NodeEffect> {
        std::mem::take(&mut self.effects)
    }

    pub fn now(&self) -> SimTime {
        self.now
    }

    pub fn schedule(&mut self, delay: Duration, timer: Timer) {
        self.timer_seq += 1;
        self.timers.insert((self.now.after(delay), self.timer_seq, timer));
    }

    /// When the next timer fires.
    pub fn next_due(&self) -> Option<SimTime> {
        self.timers.first().map(|(at, _, _)| *at)
    }

    /// Tags of a launch template or an instance.
    pub fn tags_mut(&mut self, id: &str) -> Option<&mut Tags> {
        match self.templates.get_mut(id) {
            Some(template) => Some(&mut template.tags),
            None => self.instances.get_mut(id).map(|i| &mut i.tags),
        }
    }

    pub fn push_effect(&mut self, effect: NodeEffect) {
        self.effects.push(effect);
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::InstanceInService(id) => self.instance_in_service(&id),
            Timer::NodeStage(id, stage) => self.node_reached(&id, stage),
            Timer::InstanceTerminated(id) => self.instance_terminated(&id),
            Timer::ForgetInstance(id) => {
                self.instances.remove(&id);
            }
            Timer::ScalingReconcile(group) => self.reconcile_scaling(&group),
            Timer::GroupScalingReady(key) => self.group_scaling_ready(&key),
            Timer::GroupActive(key) => self.group_active(&key),
            Timer::GroupGone(key) => self.group_gone(&key),
            Timer::FaultOver(id) => self.fault_over(id),
            Timer::LateDelivery(group, fault) => self.delivered_late(&group, fault),
        }
    }

    /// `prefix` and 17 hexadecimal digits, like `i-0a1b...`.
    pub fn new_id(&mut self, prefix: &str) -> String {
        format!("{prefix}0{:016x}", self.rng.random::<u64>())
    }

    pub fn new_uuid(&mut self) -> String {
        let hex = format!("{:032x}", self.rng.random::<u128>());
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// A seeded choice among `count` things; `count` is above zero.
    pub fn choose(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }

    pub fn subnet(&self, id: &str) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.spec.id == id)
    }

    pub fn zones(&self) -> Vec<&str> {
        let mut zones: Vec<&str> = self.subnets.iter().map(|s| s.spec.zone.as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    pub fn zone_index(&self, zone: &str) -> usize {
        self.zones().iter().position(|z| *z == zone).unwrap_or(usize::MAX)
    }

    pub fn allocate_address(&mut self, subnet: &str) -> Option<Ipv4Addr> {
        self.subnets.iter_mut().find(|s| s.spec.id == subnet)?.allocate()
    }

    pub fn release_address(&mut self, subnet: &str, address: Ipv4Addr) {
        if let Some(subnet) = self.subnets.iter_mut().find(|s| s.spec.id == subnet) {
            subnet.release(address);
        }
    }

    /// Takes one unit of an offering; false when it has run out.
    pub fn take_capacity(&mut self, offering: &Offering) -> bool {
        match self.capacity.get_mut(offering) {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    pub fn arn(&self, service: &str, resource: impl std::fmt::Display) -> String {
        format!(
            "arn:aws:{service}:{}:{}:{resource}",
            self.settings.region, self.settings.account_id
        )
    }

    pub fn cluster_arn(&self) -> String {
        self.arn("eks", format_args!("cluster/{}", self.settings.cluster))
    }
}

/// Tag limits that EKS and EC2 share.
pub fn check_tags(tags: &Tags) -> Result<(), String> {
    if tags.len() > aws::MAX_TAGS {
        return Err(format!("{} tags are more than {}", tags.len(), aws::MAX_TAGS));
    }
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > aws::MAX_TAG_KEY {
            return Err(format!(
                "tag key {key:?} must be 1 to {} characters long",
                aws::MAX_TAG_KEY
            ));
        }
        if value.chars().count() > aws::MAX_TAG_VALUE {
            return Err(format!(
                "the value of tag {key:?} is longer than {} characters",
                aws::MAX_TAG_VALUE
            ));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(format!("tag key {key:?}: the prefix aws: is reserved"));
        }
    }
    Ok(())
}
