//! [`NodeGroups`] on EKS, EC2 and Auto Scaling: the only file tree that names `aws_sdk_*`.
//!
//! ```text
//! describe   inventory (groups, Auto Scaling groups, failed launches, templates) + catalog -> CloudObserved
//! execute    create | resize (grow, remove) | retire (delete, adopt, release)
//!              read the group uncached -> check the owner's tag -> send, unless the lease ran out (fence)
//! error      every SDK error -> CloudError with a class
//! ```
//!
//! *Architecture invariant:* nothing here decides. Names, sizes and victims come from the plan; a verb refuses
//! when what it reads is not what the plan was made for, and never looks for a substitute.
//!
//! *Architecture invariant:* every call has a deadline ([`OPERATION_TIMEOUT`]), reads follow pagination to the end,
//! and a partial read is an error.

mod catalog;
mod convert;
mod create;
mod error;
mod fence;
mod inventory;
mod resize;
mod retire;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use planner::observed::CloudObserved;
use planner::plan::CloudAction;

use super::{CatalogQuery, CloudError, NodeGroups};
use catalog::Catalog;
use fence::Fence;
pub use fence::SendGuard;
use inventory::Failing;

/// Longest time one operation takes, its retries included: half of the 30 s that no effect may be in flight longer.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
/// One attempt: two of them fit into an operation. `CreateNodegroup`, the slowest, answers in 1 to 3 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(7);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The SDK's standard back-off bridges a dropped connection or a moment's throttling; more is the reconciler's business.
const ATTEMPTS: u32 = 3;
/// Reads that run at once: 30 groups are described in four round trips, far below the 100 calls that a burst may hold.
const PARALLEL_READS: usize = 8;

/// Where the cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// EKS cluster name.
    pub cluster: String,
    pub region: String,
    /// Base URL of EKS, EC2 and Auto Scaling, instead of AWS's own. Credentials are still fetched from AWS's.
    pub endpoint_url: Option<String>,
}

/// Node groups of one EKS cluster.
pub struct Eks {
    cluster: String,
    eks: aws_sdk_eks::Client,
    ec2: aws_sdk_ec2::Client,
    autoscaling: aws_sdk_autoscaling::Client,
    fence: Fence,
    catalog: Catalog,
    failing: Failing,
}

impl Eks {
    /// Uses the SDK's default credential chain. `guard` is asked immediately before each mutation is sent, and
    /// before each repetition of one; when it says no, nothing is sent.
    pub async fn connect(settings: Settings, guard: SendGuard) -> Self {
        let sdk = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .load()
            .await;
        Self::with_config(&sdk, settings, guard)
    }

    /// As [`Eks::connect`], with region, credentials and HTTP client from `sdk`; deadlines, retries and endpoint are set here.
    #[must_use]
    pub fn with_config(sdk: &SdkConfig, settings: Settings, guard: SendGuard) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(OPERATION_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build();
        let mut eks = aws_sdk_eks::config::Builder::from(sdk)
            .retry_config(retries.clone())
            .timeout_config(timeouts.clone());
        let mut ec2 = aws_sdk_ec2::config::Builder::from(sdk)
            .retry_config(retries.clone())
            .timeout_config(timeouts.clone());
        let mut autoscaling = aws_sdk_autoscaling::config::Builder::from(sdk)
            .retry_config(retries)
            .timeout_config(timeouts);
        eks.set_endpoint_url(settings.endpoint_url.clone());
        ec2.set_endpoint_url(settings.endpoint_url.clone());
        autoscaling.set_endpoint_url(settings.endpoint_url);
        Self {
            cluster: settings.cluster,
            eks: aws_sdk_eks::Client::from_conf(eks.build()),
            ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
            autoscaling: aws_sdk_autoscaling::Client::from_conf(autoscaling.build()),
            fence: Fence::new(guard),
            catalog: Catalog::default(),
            failing: Failing::default(),
        }
    }
}

impl NodeGroups for Eks {
    async fn describe(&self, catalog: &CatalogQuery) -> Result<CloudObserved, CloudError> {
        self.read_cloud(catalog).await
    }

    async fn execute(&self, action: &CloudAction) -> Result<(), CloudError> {
        match action {
            CloudAction::Create(spec) => self.create(spec).await,
            CloudAction::Grow {
                group,
                pool_uid,
                desired,
            } => self.grow(group, pool_uid, *desired).await,
            CloudAction::Retract {
                group,
                pool_uid,
                desired,
            } => self.remove(group, pool_uid, &[], *desired).await,
            CloudAction::Remove {
                group,
                pool_uid,
                instances,
                desired,
            } => self.remove(group, pool_uid, instances, *desired).await,
            CloudAction::DeleteGroup { group, pool_uid } => self.delete_group(group, pool_uid).await,
            CloudAction::DeleteTemplate { name, pool_uid } => self.delete_template(name, pool_uid).await,
            CloudAction::Adopt {
                group,
                from_uid,
                to_uid,
            } => self.adopt(group, from_uid, to_uid).await,
            CloudAction::Release { group, pool_uid } => self.release(group, pool_uid).await,
        }
    }
}
