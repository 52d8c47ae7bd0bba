//! Command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::account::{Delays, Settings, SubnetSpec};
use crate::clock::{TimeScale, parse_duration};

/// A simulated AWS account with one EKS cluster.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves EKS, EC2, Auto Scaling and S3 (read only) on one address, and `/_sim/` for tests.
    Serve(Box<Serve>),
}

#[derive(Debug, Args)]
pub struct Serve {
    #[arg(long, default_value = "127.0.0.1:4566")]
    pub listen: SocketAddr,
    #[arg(long, default_value = "pinnace-sandbox")]
    pub cluster: String,
    #[arg(long, default_value = "us-east-1")]
    pub region: String,
    #[arg(long, default_value = "111122223333")]
    pub account: String,
    /// Kubernetes version that EKS reports.
    #[arg(long, default_value = "1.34")]
    pub kubernetes_version: String,
    /// Roles that nodes may have; repeatable. The first one fills the policy's placeholder.
    #[arg(
        long = "node-role",
        default_value = "arn:aws:iam::111122223333:role/pinnace-gpu-node"
    )]
    pub node_roles: Vec<String>,
    /// Subnets of the account, ID=ZONE; repeatable.
    #[arg(
        long = "subnet",
        default_values = ["subnet-0a1=us-east-1a", "subnet-0b2=us-east-1b", "subnet-0c3=us-east-1c"]
    )]
    pub subnets: Vec<SubnetSpec>,
    /// Policy that binds the operator's access key.
    #[arg(long)]
    pub iam_policy: PathBuf,
    #[arg(long, default_value = "AKIAOPERATOR")]
    pub operator_access_key: String,
    /// Access key that may do everything.
    #[arg(long, default_value = "AKIAADMIN")]
    pub admin_access_key: String,
    /// Folder of the buckets: DIR/BUCKET/KEY.
    #[arg(long)]
    pub s3_root: Option<PathBuf>,
    /// Cluster that instances join; without it there are no nodes.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Control socket of the sandbox, for real nodes; needs --kubeconfig.
    #[arg(long, requires = "kubeconfig")]
    pub control_socket: Option<PathBuf>,
    /// Appends every entry of the journal to this file.
    #[arg(long)]
    pub journal_file: Option<PathBuf>,
    /// Simulated seconds per real second, 1 to 600.
    #[arg(long, default_value = "60")]
    pub time_scale: TimeScale,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub delays: DelayArgs,
}

/// Simulated time.
#[derive(Debug, Args)]
pub struct DelayArgs {
    /// CreateNodegroup until ACTIVE.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub create_delay: Duration,
    /// Launch until the node registers.
    #[arg(long, default_value = "40s", value_parser = parse_duration)]
    pub register_delay: Duration,
    /// Registered until Ready.
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    pub ready_delay: Duration,
    /// Ready until the GPUs are allocatable.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub gpu_delay: Duration,
    /// Shutting down until terminated.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub terminate_delay: Duration,
}

impl Serve {
    pub fn settings(&self) -> Settings {
        let d = &self.delays;
        Settings {
            account_id: self.account.clone(),
            region: self.region.clone(),
            cluster: self.cluster.clone(),
            kubernetes_version: self.kubernetes_version.clone(),
            subnets: self.subnets.clone(),
            node_roles: self.node_roles.clone(),
            delays: Delays {
                create: d.create_delay,
                register: d.register_delay,
                ready: d.ready_delay,
                gpu: d.gpu_delay,
                terminate: d.terminate_delay,
            },
            seed: self.seed,
        }
    }
}
