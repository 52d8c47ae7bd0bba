//! The life of an instance: pending -> running -> shutting-down -> terminated, and of the node on it.

use std::net::Ipv4Addr;

use crate::account::{Account, Tags, Timer};
use crate::assumptions as aws;
use crate::catalog::{InstanceType, Purchase};
use crate::clock::SimTime;
use crate::error::{ApiResult, ec2};
use crate::fault::Hit;
use crate::fault::kind::Kind;
use crate::fault::mark::Event;
use crate::ledger::Launch;
use crate::node::NodeEffect;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum NodeStage {
    Registered,
    Ready,
    GpusAllocatable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl InstanceState {
    pub fn name(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::ShuttingDown => "shutting-down",
            InstanceState::Terminated => "terminated",
        }
    }

    /// The code that DescribeInstances gives beside the name.
    pub fn code(self) -> u16 {
        match self {
            InstanceState::Pending => 0,
            InstanceState::Running => 16,
            InstanceState::ShuttingDown => 32,
            InstanceState::Terminated => 48,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub id: String,
    pub instance_type: &'static InstanceType,
    pub purchase: Purchase,
    pub subnet: String,
    pub zone: String,
    pub address: Ipv4Addr,
    pub image_id: String,
    pub node_group: String,
    pub scaling_group: String,
    pub tags: Tags,
    pub launched: SimTime,
    pub running: Option<SimTime>,
    pub stopping: Option<SimTime>,
    pub terminated: Option<SimTime>,
    pub stage: Option<NodeStage>,
    pub protected: bool,
    /// Ended behind the back of its Auto Scaling group.
    pub unhealthy: bool,
}

impl Instance {
    pub fn state(&self) -> InstanceState {
        match (self.running, self.stopping, self.terminated) {
            (_, _, Some(_)) => InstanceState::Terminated,
            (_, Some(_), None) => InstanceState::ShuttingDown,
            (Some(_), None, None) => InstanceState::Running,
            (None, None, None) => InstanceState::Pending,
        }
    }

    /// What Auto Scaling calls the same.
    pub fn lifecycle(&self) -> &'static str {
        match self.state() {
            InstanceState::Pending => "Pending",
            InstanceState::Running => "InService",
            InstanceState::ShuttingDown => "Terminating",
            InstanceState::Terminated => "Terminated",
        }
    }

    pub fn is_live(&self) -> bool {
        self.stopping.is_none()
    }

    pub fn private_dns_name(&self, region: &str) -> String {
        let [a, b, c, d] = self.address.octets();
        // us-east-1 has a name of its own, as in EC2.
        let domain = if region == "us-east-1" {
            "ec2.internal".to_owned()
        } else {
            format!("{region}.compute.internal")
        };
        format!("ip-{a}-{b}-{c}-{d}.{domain}")
    }

    pub fn provider_id(&self) -> String {
        format!("aws:///{}/{}", self.zone, self.id)
    }
}

/// What an Auto Scaling group asks EC2 for.
#[derive(Debug)]
pub struct LaunchRequest {
    pub instance_type: &'static InstanceType,
    pub purchase: Purchase,
    pub subnet: String,
    pub zone: String,
    pub image_id: String,
    pub node_group: String,
    pub scaling_group: String,
    pub tags: Tags,
}

impl Account {
    /// Starts an instance; None when the subnet has no address left.
    pub fn launch_instance(&mut self, request: LaunchRequest) -> Option<String> {
        let address = self.allocate_address(&request.subnet)?;
        let id = self.new_id("i-");
        let instance = Instance {
            id: id.clone(),
            instance_type: request.instance_type,
            purchase: request.purchase,
            subnet: request.subnet,
            zone: request.zone,
            address,
            image_id: request.image_id,
            node_group: request.node_group,
            scaling_group: request.scaling_group,
            tags: request.tags,
            launched: self.now(),
            running: None,
            stopping: None,
            terminated: None,
            stage: None,
            protected: false,
            unhealthy: false,
        };
        let launch = Launch {
            instance_type: instance.instance_type,
            zone: &instance.zone,
            purchase: instance.purchase,
            group: &instance.node_group,
        };
        let now = self.now();
        self.ledger.launched(&id, launch, now);
        let in_service = aws::IN_SERVICE_DELAY.min(self.settings.delays.register);
        self.schedule(in_service, Timer::InstanceInService(id.clone()));
        self.schedule_node(&instance);
        self.instances.insert(id.clone(), instance);
        Some(id)
    }

    /// When its node joins, is Ready and shows its GPUs, as far as faults let it.
    fn schedule_node(&mut self, instance: &Instance) {
        let now = self.now();
        let delays = self.settings.delays;
        let group = &instance.node_group;
        let stays_away = |kind: &Kind| matches!(kind, Kind::NeverJoins);
        if let Some(hit) = self.faults.hit_group(group, now, stays_away) {
            self.note_node(
                &hit,
                "JoinCluster",
                &instance.id,
                "the node never joins".to_owned(),
            );
            return;
        }
        let stage = |stage| Timer::NodeStage(instance.id.clone(), stage);
        let mut at = delays.register;
        self.schedule(at, stage(NodeStage::Registered));
        at += delays.ready;
        self.schedule(at, stage(NodeStage::Ready));
        if instance.instance_type.gpu.is_none() {
            return;
        }
        at += delays.gpu;
        let without = |kind: &Kind| matches!(kind, Kind::NoGpus { .. });
        if let Some(hit) = self.faults.hit_group(group, now, without) {
            let Kind::NoGpus {
                late_by: Some(late_by),
            } = hit.kind
            else {
                self.note_node(
                    &hit,
                    "ShowGpus",
                    &instance.id,
                    "the node never shows its GPUs".to_owned(),
                );
                return;
            };
            at += late_by;
            let message = format!("the node shows its GPUs {} s late", late_by.as_secs_f64());
            self.note_node(&hit, "ShowGpus", &instance.id, message);
        }
        self.schedule(at, stage(NodeStage::GpusAllocatable));
    }

    fn note_node(&mut self, hit: &Hit, action: &'static str, id: &str, message: String) {
        self.faults.note(Event {
            mark: hit.mark(),
            action,
            resource: id.to_owned(),
            message,
        });
    }

    pub(crate) fn instance_in_service(&mut self, id: &str) {
        let now = self.now();
        let Some(instance) = self.instances.get_mut(id).filter(|i| i.is_live()) else {
            return;
        };
        instance.running = Some(now);
        let group = instance.scaling_group.clone();
        self.ledger.running(id, now);
        self.launch_succeeded(&group, id);
        self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(group));
    }

    pub(crate) fn node_reached(&mut self, id: &str, stage: NodeStage) {
        let Some(instance) = self.instances.get_mut(id).filter(|i| i.is_live()) else {
            return;
        };
        instance.stage = Some(stage);
        let instance = instance.clone();
        match stage {
            NodeStage::Registered => {
                if let Some(spec) = self.node_spec(&instance) {
                    self.push_effect(NodeEffect::Register(Box::new(spec)));
                }
            }
            NodeStage::Ready => self.push_effect(NodeEffect::Ready(instance.id)),
            NodeStage::GpusAllocatable => self.push_effect(NodeEffect::GpusAllocatable(instance.id)),
        }
    }

    /// Shuts an instance down; repeating it is harmless.
    pub fn stop_instance(&mut self, id: &str) {
        let now = self.now();
        let Some(instance) = self.instances.get_mut(id).filter(|i| i.is_live()) else {
            return;
        };
        instance.stopping = Some(now);
        self.ledger.stopping(id, now);
        self.push_effect(NodeEffect::Stop(id.to_owned()));
        self.schedule(
            self.settings.delays.terminate,
            Timer::InstanceTerminated(id.to_owned()),
        );
    }

    pub(crate) fn instance_terminated(&mut self, id: &str) {
        let now = self.now();
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        instance.terminated = Some(now);
        let (subnet, address, group) = (
            instance.subnet.clone(),
            instance.address,
            instance.scaling_group.clone(),
        );
        self.release_address(&subnet, address);
        self.ledger.terminated(id, now);
        self.push_effect(NodeEffect::Delete(id.to_owned()));
        self.member_gone(&group, id);
        self.schedule(aws::TERMINATED_VISIBLE, Timer::ForgetInstance(id.to_owned()));
    }

    /// TerminateInstances: all or none; an instance that is gone already is reported as it is.
    pub fn terminate_instances(
        &mut self,
        ids: &[String],
    ) -> ApiResult<Vec<(String, InstanceState, InstanceState)>> {
        self.find_instances(ids)?;
        let mut changes = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(instance) = self.instances.get_mut(id) else {
                continue;
            };
            let before = instance.state();
            let group = instance.scaling_group.clone();
            if instance.is_live() {
                instance.unhealthy = true;
                self.stop_instance(id);
                self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(group));
            }
            let after = self.instances.get(id).map_or(before, Instance::state);
            changes.push((id.clone(), before, after));
        }
        Ok(changes)
    }

    /// The named instances, or the error of EC2 for the first that is malformed or unknown.
    pub fn find_instances(&self, ids: &[String]) -> ApiResult<Vec<&Instance>> {
        ids.iter()
            .map(|id| match self.instances.get(id) {
                Some(instance) => Ok(instance),
                None if is_instance_id(id) => Err(ec2::client(
                    "InvalidInstanceID.NotFound",
                    format!("The instance ID '{id}' does not exist"),
                )),
                None => Err(ec2::client(
                    "InvalidInstanceID.Malformed",
                    format!("Invalid id: \"{id}\""),
                )),
            })
            .collect()
    }
}

fn is_instance_id(id: &str) -> bool {
    id.strip_prefix("i-")
        .is_some_and(|hex| matches!(hex.len(), 8 | 17) && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}
