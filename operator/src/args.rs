//! Command line. Policy lives in the custom resources; what is here belongs to whoever installs the operator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use jiff::SignedDuration;
use planner::observed::{CloudMutations, Settings};

/// Buys, fills and returns GPU nodes for recommendation models on Amazon EKS.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator", version, about)]
pub struct Args {
    /// Name of the EKS cluster that this operator works in.
    #[arg(long, env = "OPERATOR_CLUSTER_NAME")]
    pub cluster_name: String,
    /// AWS region of the cluster.
    #[arg(long, env = "OPERATOR_REGION")]
    pub region: String,
    /// Base URL of EKS, EC2 and Auto Scaling instead of AWS's own.
    #[arg(long, env = "OPERATOR_AWS_ENDPOINT_URL")]
    pub aws_endpoint_url: Option<String>,
    /// Namespace that the operator runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "pinnace-system")]
    pub namespace: String,
    /// Name of this replica, as lease holder.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub pod_name: String,
    /// Image of the inference runtime for models that name none.
    #[arg(long, env = "OPERATOR_RUNTIME_IMAGE")]
    pub runtime_image: String,
    /// Prefix that a model's own image must have; repeatable; none admits every image.
    #[arg(long, env = "OPERATOR_ALLOWED_RUNTIME_IMAGES", value_delimiter = ',')]
    pub allowed_runtime_images: Vec<String>,
    /// KEY=VALUE for every runtime container; repeatable.
    #[arg(long, env = "OPERATOR_RUNTIME_ENV", value_delimiter = ',', value_parser = key_value)]
    pub runtime_env: Vec<(String, String)>,
    /// Elect one leader among the replicas; false for a single process started by hand.
    #[arg(long, env = "OPERATOR_LEADER_ELECT", default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,
    /// Name of the Lease.
    #[arg(long, env = "OPERATOR_LEASE_NAME", default_value = "pinnace-operator")]
    pub lease_name: String,
    /// Plan and report; change nothing, in Kubernetes or in AWS.
    #[arg(long, env = "OPERATOR_DRY_RUN")]
    pub dry_run: bool,
    /// What may be changed in AWS.
    #[arg(
        long,
        env = "OPERATOR_CLOUD_MUTATIONS",
        value_enum,
        default_value = "All",
        ignore_case = true
    )]
    pub cloud_mutations: Mutations,
    #[arg(long, env = "OPERATOR_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, env = "OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How often AWS is read when nothing happens.
    #[arg(long, env = "OPERATOR_CLOUD_POLL", default_value = "10s", value_parser = duration)]
    pub cloud_poll: Duration,
    /// How often replicas of models that scale themselves are asked for their load; an answer counts for three periods.
    #[arg(long, env = "OPERATOR_LOAD_PERIOD", default_value = "5s", value_parser = duration)]
    pub load_period: Duration,
    /// How long a node stays cordoned and empty before it is returned.
    #[arg(long, env = "OPERATOR_NODE_IDLE", default_value = "60s", value_parser = duration)]
    pub node_idle: Duration,
    /// Longest life of an empty node group or a launch template without an owner.
    #[arg(long, env = "OPERATOR_SWEEP_AFTER", default_value = "10m", value_parser = duration)]
    pub sweep_after: Duration,
    /// Time between the two answers of AWS that a deleted pool has left nothing.
    #[arg(long, env = "OPERATOR_ABSENT_TWICE", default_value = "60s", value_parser = duration)]
    pub absent_twice: Duration,
    /// Nothing is returned on an inventory older than this.
    #[arg(long, env = "OPERATOR_INVENTORY_MAX_AGE", default_value = "60s", value_parser = duration)]
    pub inventory_max_age: Duration,
    /// Node groups that the cluster may hold (EKS quota).
    #[arg(long, env = "OPERATOR_GROUP_SLOTS", default_value_t = 30)]
    pub group_slots: u32,
    /// Nodes that one node group may hold (EKS quota).
    #[arg(long, env = "OPERATOR_GROUP_MAX_NODES", default_value_t = 450)]
    pub group_max_nodes: u32,
    /// Nodes that may exist or be ordered in all pools together.
    #[arg(long, env = "OPERATOR_MAX_NODES", default_value_t = 13_500)]
    pub max_nodes: u32,
    /// Instances that may be launched at once.
    #[arg(long, env = "OPERATOR_LAUNCH_BURST", default_value_t = 100)]
    pub launch_burst: u32,
    /// Instances a second that the launch budget refills by (EC2's RunInstances bucket: 2).
    #[arg(long, env = "OPERATOR_LAUNCH_PER_SECOND", default_value_t = 2)]
    pub launch_per_second: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutations {
    #[value(name = "All")]
    All,
    #[value(name = "GrowOnly")]
    GrowOnly,
    #[value(name = "None")]
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

impl Args {
    /// The flags that decide something, in the planner's words.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            cluster: self.cluster_name.clone(),
            runtime_image: self.runtime_image.clone(),
            allowed_runtime_images: self.allowed_runtime_images.clone(),
            runtime_env: self.runtime_env.iter().cloned().collect::<BTreeMap<_, _>>(),
            operator_namespace: self.namespace.clone(),
            mutations: match self.cloud_mutations {
                Mutations::All => CloudMutations::All,
                Mutations::GrowOnly => CloudMutations::GrowOnly,
                Mutations::None => CloudMutations::None,
            },
            node_idle: signed(self.node_idle),
            sweep_after: signed(self.sweep_after),
            absent_twice: signed(self.absent_twice),
            load_max_age: signed(self.load_period.saturating_mul(3)),
            inventory_max_age: signed(self.inventory_max_age),
            group_slots: self.group_slots,
            group_max_nodes: self.group_max_nodes,
            max_nodes: self.max_nodes,
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if key.is_empty() {
        return Err("write KEY=VALUE, with a key".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `10s`, `5m`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text
        .parse()
        .map_err(|_| format!("{text:?}: write a duration such as 10s or 5m"))?;
    Duration::try_from(parsed).map_err(|_| format!("{text:?}: a duration is not negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        let base = ["operator", "--cluster-name=c", "--region=r", "--runtime-image=i"];
        Args::try_parse_from(base.iter().chain(more))
    }

    #[test]
    fn flags_are_typed() {
        let more = [
            "--runtime-env=A=1",
            "--runtime-env=B=x=y",
            "--leader-elect=false",
            "--cloud-mutations=GrowOnly",
            "--node-idle=5s",
        ];
        let args = parse(&more).unwrap();
        let settings = args.settings();
        assert_eq!(settings.runtime_env["B"], "x=y");
        assert_eq!(settings.mutations, CloudMutations::GrowOnly);
        assert_eq!(settings.node_idle, SignedDuration::from_secs(5));
        assert!(!args.leader_elect);
    }

    #[test]
    fn bad_flags_are_refused() {
        for bad in [
            "--runtime-env=A",
            "--runtime-env==1",
            "--node-idle=soon",
            "--cloud-mutations=Some",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
