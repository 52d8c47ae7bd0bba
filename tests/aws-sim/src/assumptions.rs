//! Everything this simulator assumes about AWS, in one place, each with its source. Where the source
//! says UNVERIFIED, nobody has tried it on a real account yet: prefer code that works either way.
//!
//! ## Behaviour
//!
//! | area | assumption | source |
//! |---|---|---|
//! | authentication | The signature is not verified (there is no secret); the access key and the service of the SigV4 credential scope are read. A call to EKS, EC2 or Auto Scaling without `Authorization` is refused | SigV4 header format |
//! | authorization | An object that does not exist answers NotFound before its tags are asked for | UNVERIFIED: services differ |
//! | authorization | `CreateNodegroup` with tags also needs `eks:TagResource`; with a launch template also `ec2:RunInstances` and `ec2:CreateTags`; always `iam:PassRole` on the node role | EKS user guide, launch templates and tagging pages |
//! | EKS token | Same `clientRequestToken` and same parameters: the group as it is now. Same token, other parameters: `InvalidParameterException` | idempotency convention of the AWS APIs; code UNVERIFIED for EKS |
//! | EKS token | A token is forgotten when its group is gone, so a group can be created again with it | UNVERIFIED; EC2 documents at least 24 h |
//! | EKS names | A second group of a name: `ResourceInUseException`, "NodeGroup already exists with name ..." | terraform-aws-modules/terraform-aws-eks issue 618, aws-cdk issue 26931 |
//! | EKS states | Any mutation of a group that is CREATING or DELETING: `ResourceInUseException` | API model of DeleteNodegroup ("the specified resource is in use"); message UNVERIFIED |
//! | EKS create | The Auto Scaling group exists, and is listed in `resources`, from half of the create delay on | observed order in consoles; timing invented |
//! | EKS create | A group becomes ACTIVE after the create delay once its desired nodes have joined; otherwise CREATE_FAILED with `NodeCreationFailure` after [`CREATE_TIMEOUT`] | EKS troubleshooting page (NodeCreationFailure) |
//! | EKS create | `diskSize` beside a launch template: "Disk size must be specified within the launch template." | crossplane-contrib/provider-upjet-aws issue 866 |
//! | EKS create | unknown, or repeated, parameters that this simulator does not model are refused rather than ignored | own rule |
//! | EKS template | EKS copies the caller's launch template into one of its own (`eks-<uuid>`), tagged `eks:cluster-name` and `eks:nodegroup-name`, and removes it with the group | EKS user guide, launch template page |
//! | EKS tags | Tags of a group stay on the group; the Auto Scaling group carries `eks:cluster-name`, `eks:nodegroup-name`, `kubernetes.io/cluster/<name>` and the Cluster Autoscaler's two; instances carry the launch template's tags and those of the Auto Scaling group that propagate | EKS user guide; cluster-autoscaler issue 5121 |
//! | EKS health | Launches that fail for [`DEGRADED_AFTER`] make the group DEGRADED with `AsgInstanceLaunchFailures`; the next success heals it | Issue code in the API model; delay UNVERIFIED |
//! | EKS delete | All instances terminate, protected or not; the group is gone when the last one is, and [`DELETE_DELAY`] has passed | EKS user guide, deleting a node group |
//! | EKS updates | No verb of the operator starts an update, so ListUpdates is empty and DescribeUpdate knows none; sizes set through Auto Scaling show in `scalingConfig` but are no update | API model |
//! | Auto Scaling | A change of size is acted on [`SCALING_REACTION`] later; failed launches are retried every [`LAUNCH_RETRY`] for as long as the size is not met | cluster-autoscaler issues 5829, 9182; period UNVERIFIED |
//! | Auto Scaling | A lower size ends unprotected InService instances only, any of them (seeded choice). Pending ones are not ended; they count, and when they arrive late a healthy instance may be the victim | cluster-autoscaler issues 5829, 10147 |
//! | Auto Scaling | With nothing left to end: one activity "Could not scale to desired capacity because all remaining instances are protected from scale-in.", the size stays lowered, and it is tried again when protection changes | repost.aws QUTbtOYzNYTtWZQRqSQziLvA; StatusCode `Cancelled` UNVERIFIED |
//! | Auto Scaling | SetInstanceProtection of an instance that is not InService: "The instance i-... is not in InService or EnteringStandby or Standby."; one bad id refuses the whole call | infrahouse/infrahouse-toolkit issue 223; all-or-nothing UNVERIFIED |
//! | Auto Scaling | SetInstanceProtection is accepted on groups that EKS owns | UNVERIFIED, the operator depends on it |
//! | Auto Scaling | Terminate-with-decrement is relative; no zone rebalancing follows (a group has one subnet) | API reference |
//! | Auto Scaling | An instance is InService [`IN_SERVICE_DELAY`] after its launch, before its node registers | lifecycle page; EKS's launch hook UNVERIFIED |
//! | Auto Scaling | An instance ended behind the group's back (TerminateInstances) is replaced at once, protected or not | health check page; the real delay is a minute or more |
//! | EC2 | A terminated instance stays visible for [`TERMINATED_VISIBLE`] | DescribeInstances reference ("usually less than one hour") |
//! | EC2 | A launch template's client token: same parameters return the same template, others `IdempotentParameterMismatch`; it is forgotten with the template | EC2 idempotency page; the last part UNVERIFIED |
//! | EC2 | Billing runs from running to shutting-down, by the second, [`BILLING_MINIMUM`] at least | EC2 on-demand pricing page |
//! | EC2 | Spot costs [`SPOT_PRICE_SHARE`] of on-demand, always | invented; real prices move |
//! | EC2 | The p4 types are offered in the first two zones only; `g5` everywhere | shape of us-east-1; zones differ per account |
//! | consistency | Reads are current unless a `stale` or `not-found` fault is set. Real reads lag writes | EC2 eventual-consistency page |
//! | consistency | A lagging read never makes a write go wrong that names what exists: writes are checked where the truth is, so a create meets AlreadyExists and not a second resource | EC2 eventual-consistency page; per service UNVERIFIED |
//! | consistency | A list may end early, or be empty, with a next token | EC2 and Auto Scaling API references on pagination ("the list may be incomplete until the token is null") |
//! | S3 | ETag is a quoted hash of name, size and modification time, not MD5; objects have one version | S3 promises MD5 for plain uploads only |
//! | nodes | EKS sets `eks.amazonaws.com/{nodegroup,capacityType,nodegroup-image,sourceLaunchTemplateId,sourceLaunchTemplateVersion}`; the cloud provider sets instance type, zone and region | labels of EKS nodes |
//! | Auto Scaling | An order in flight is not taken back when the size is lowered; what arrives is a member, and the surplus ends like any decrease | cluster-autoscaler issues 5829, 10147; timing invented |
//! | Auto Scaling | A launch beyond the vCPU quota fails with `VcpuLimitExceeded`, for Spot `MaxSpotInstanceCountExceeded`; only a fault runs into it | EC2 error codes page; words of the activity UNVERIFIED |
//! | Auto Scaling | Sizes changed by hand outside EKS show in the node group's `scalingConfig` | UNVERIFIED for min and max |
//! | EKS delete | A group in DELETE_FAILED can be deleted again | eksctl issues 1849, 4203 |
//! | EKS delete | DELETE_FAILED comes after the instances are gone | terraform-provider-aws issue 20405 (a security group keeps it); other orders are possible |
//! | EKS health | The codes that faults may set are all of NodegroupIssueCode; which of them real groups show in which state is UNVERIFIED | EKS API model |
//! | nodes | The Node object goes when the instance is terminated, as the cloud controller manager does it | Kubernetes node lifecycle |

//! ## Codes that faults answer
//!
//! | fault | EKS | EC2 | Auto Scaling |
//! |---|---|---|---|
//! | throttled | 429 ThrottlingException (API model; CreateNodegroup has also been seen with 400 InvalidRequestException "Request limit exceeded.", aws/aws-sdk issue 652, not simulated) | 503 RequestLimitExceeded (bosh-aws-cpi-release issue 61, otiai10/hotsub issue 10) | 400 Throttling "Rate exceeded" (kubernetes/autoscaler issue 252) |
//! | internal-error | 500 ServerException (API model) | 500 InternalError (EC2 error codes page) | 500 InternalFailure (common errors page) |
//! | unavailable | 503 ServiceUnavailableException (API model) | 503 Unavailable (EC2 error codes page) | 503 ServiceUnavailable (common errors page) |
//! | access-denied | 403 AccessDeniedException (API model) | 403 UnauthorizedOperation (EC2 troubleshooting page) | 403 AccessDenied (common errors of the query APIs) |
//! | expired-token | 403 ExpiredTokenException (terraform-provider-aws issue 32809) | 400 RequestExpired (eks-rolling-update issue 103, aws-sdk-go pull 253; status UNVERIFIED) | 403 ExpiredToken (jenkinsci/ec2-plugin pull 1008, seen of STS; aws-sdk-go pull 253) |
//! | conflict | 409 ResourceInUseException of CreateNodegroup and DeleteNodegroup (API model) | 400 InvalidLaunchTemplateName.AlreadyExistsException, ConcurrentTagAccess, IncorrectInstanceState (EC2 error codes page; the last one of TerminateInstances UNVERIFIED) | 400 ScalingActivityInProgress of SetDesiredCapacity and TerminateInstanceInAutoScalingGroup, else 500 ResourceContention (API model) |
//!
//! Messages are those of the sources where they quote one, else invented; no client may depend on them. The
//! clients' own retries follow from codes and status: botocore and the Rust SDK try again on throttling codes,
//! 500, 502, 503, 504 and closed connections, not on 403.

use std::time::Duration;

/// Node groups per cluster, nodes per group (EKS service quotas; both adjustable).
pub const MAX_NODE_GROUPS: usize = 30;
pub const MAX_NODES_PER_GROUP: i64 = 450;
/// Instance types of one group (CreateNodegroup).
pub const MAX_INSTANCE_TYPES: usize = 20;
/// Tags of one resource (API model of EKS and EC2), and the length of keys and values.
pub const MAX_TAGS: usize = 50;
pub const MAX_TAG_KEY: usize = 128;
pub const MAX_TAG_VALUE: usize = 256;
/// Taints of one group (CreateNodegroup).
pub const MAX_TAINTS: usize = 50;
/// Node group names (CreateNodegroup: "can't be longer than 63 characters").
pub const MAX_GROUP_NAME: usize = 63;
/// Instances of one SetInstanceProtection call (its reference page).
pub const MAX_PROTECTION_IDS: usize = 50;
/// Client tokens of EC2 ("up to 64 ASCII characters"); used for EKS as well.
pub const MAX_TOKEN: usize = 64;
/// Default cooldown of an Auto Scaling group.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(300);

pub const IN_SERVICE_DELAY: Duration = Duration::from_secs(15);
pub const SCALING_REACTION: Duration = Duration::from_secs(2);
pub const LAUNCH_RETRY: Duration = Duration::from_secs(60);
pub const DEGRADED_AFTER: Duration = Duration::from_secs(15 * 60);
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(25 * 60);
pub const CREATE_POLL: Duration = Duration::from_secs(5);
pub const DELETE_DELAY: Duration = Duration::from_secs(30);
pub const TERMINATED_VISIBLE: Duration = Duration::from_secs(3600);
pub const BILLING_MINIMUM: Duration = Duration::from_secs(60);
pub const SPOT_PRICE_SHARE: f64 = 0.4;
/// Activities remembered per Auto Scaling group (the service keeps six weeks).
pub const MAX_ACTIVITIES: usize = 500;
/// How far behind reads may be made to lie.
pub const LONGEST_STALE: Duration = Duration::from_secs(120);
/// NodegroupIssueCode of the EKS API model (botocore 1.43).
pub const HEALTH_ISSUE_CODES: &[&str] = &[
    "AccessDenied",
    "AmiIdNotFound",
    "AsgInstanceLaunchFailures",
    "AutoScalingGroupInstanceRefreshActive",
    "AutoScalingGroupInvalidConfiguration",
    "AutoScalingGroupNotFound",
    "AutoScalingGroupOptInRequired",
    "AutoScalingGroupRateLimitExceeded",
    "ClusterUnreachable",
    "Ec2InstanceTypeDoesNotExist",
    "Ec2LaunchTemplateDeletionFailure",
    "Ec2LaunchTemplateInvalidConfiguration",
    "Ec2LaunchTemplateMaxLimitExceeded",
    "Ec2LaunchTemplateNotFound",
    "Ec2LaunchTemplateVersionMaxLimitExceeded",
    "Ec2LaunchTemplateVersionMismatch",
    "Ec2SecurityGroupDeletionFailure",
    "Ec2SecurityGroupNotFound",
    "Ec2SubnetInvalidConfiguration",
    "Ec2SubnetListTooLong",
    "Ec2SubnetMissingIpv6Assignment",
    "Ec2SubnetNotFound",
    "IamInstanceProfileNotFound",
    "IamLimitExceeded",
    "IamNodeRoleNotFound",
    "IamThrottling",
    "InstanceLimitExceeded",
    "InsufficientFreeAddresses",
    "InternalFailure",
    "KubernetesLabelInvalid",
    "LimitExceeded",
    "NodeCreationFailure",
    "NodeTerminationFailure",
    "PodEvictionFailure",
    "SourceEc2LaunchTemplateNotFound",
    "Unknown",
];
/// A simulated /16 less the five addresses AWS reserves.
pub const SUBNET_ADDRESSES: u32 = 65_531;
