//! One pool: pods that can run -> nodes -> node groups.
//!
//! ```text
//! demand (pods without a node, replicas not created yet)
//!   -> packed into ready nodes, draining nodes, nodes on their way        place.rs, nodes.rs
//!   -> nodes of an earlier spec give way to nodes of today's              roll.rs
//!   -> what finds no room: new nodes of the best offering                 grow.rs
//!   -> orders that are refused, overdue or needed by nobody: taken back   retract.rs
//!   -> nodes that nobody needs: cordon, wait, remove                      nodes.rs, remove.rs
//! a pool that is being deleted                                            deletion.rs
//! what a node group is made from                                          group.rs
//! ```

pub mod deletion;
pub mod group;
pub mod grow;
pub mod nodes;
pub mod place;
pub mod remove;
pub mod retract;
pub mod roll;

use crds::{GpuPool, Reason};

use crate::accept;
use crate::capacity::Demand;
use crate::observed::{CloudErrorClass, CloudMutations, CloudTrouble, PoolName};
use crate::plan::{CloudAction, Finalizer, PoolPlan};
use crate::shrink::Shrink;
use crate::view::{self, View};
use nodes::NodePlan;
use roll::Roll;

/// What one pool has to serve.
pub struct Task<'a> {
    pub name: &'a PoolName,
    pub pool: &'a GpuPool,
    pub uid: &'a str,
    /// Pods that have no node yet, and replicas that are not created yet.
    pub demand: Vec<Demand>,
    pub shrink: &'a Shrink<'a>,
    /// A model that refers to the pool.
    pub user: Option<String>,
}

/// What all pools share; every pool takes its part.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Instances that may be launched now.
    pub launches: u32,
    /// Node groups that may still be created in the cluster.
    pub slots: u32,
    /// Nodes that the operator may still order.
    pub nodes: u32,
}

/// Why the pool has less than it needs, with the remedy.
pub type Shortage = (Reason, String);

/// The plan of a pool, and why it falls short, if it does.
pub fn plan(view: &View, task: &Task, budget: &mut Budget) -> (PoolPlan, Option<Shortage>) {
    let deleting = task.pool.metadata.deletion_timestamp.is_some();
    let mut plan = PoolPlan::default();
    if deleting {
        deletion::plan(view, task, &mut plan);
        return (plan, None);
    }
    let held = task.pool.metadata.finalizers.iter().flatten();
    if !held.into_iter().any(|f| f == crds::CAPACITY_FINALIZER) {
        // Nothing is bought before the pool is sure to see its deletion.
        plan.finalizer = Finalizer::Add;
        return (
            plan,
            Some((Reason::NodesLaunching, "The pool is being taken over".to_owned())),
        );
    }
    let roll = Roll::of(view, task);
    let nodes = NodePlan::of(view, task, &roll);
    plan.nodes_wanted = nodes.needed;
    plan.node_marks.clone_from(&nodes.marks);
    plan.evict.clone_from(&nodes.moves.evict);
    let (mut shortage, mut roll_blocked) = (None, None);
    if view.cloud().is_some() && accept::is_unasked(view, task.pool) {
        // Neither buys nor gives back: what fits on a node that is on its way is not known.
        let message = "AWS is being asked about what the pool names".to_owned();
        shortage = (!nodes.unplaced.is_empty()).then_some((Reason::NodesLaunching, message));
    } else if view.cloud().is_some() {
        plan.cloud.extend(adopt(view, task));
        match accept::pool(view, task.pool) {
            // What is taken over counts before anything is bought or given back.
            None if !plan.cloud.is_empty() => {
                let message = "The node groups of an earlier pool are being adopted".to_owned();
                shortage = (!nodes.unplaced.is_empty()).then_some((Reason::NodesLaunching, message));
            }
            // Neither buys nor gives back: what the spec asks for is not known.
            Some(refusal) => shortage = (!nodes.unplaced.is_empty()).then_some(refusal),
            None => {
                let growth = grow::plan(view, task, &nodes, budget);
                plan.nodes_wanted += growth.nodes_needed;
                plan.cloud.extend(growth.actions);
                shortage = growth.shortage;
                roll_blocked = growth.surge_blocked;
                let removals = remove::plan(view, task, &nodes, &roll, &plan.cloud);
                plan.cloud.extend(removals);
            }
        }
        shortage = shortage.or_else(|| nodes.shortage(view, task));
    }
    let missing = shortage.is_some() || !nodes.unplaced.is_empty();
    shortage = cloud_shortage(view, task, missing).or(shortage);
    plan.conditions
        .extend(roll::condition(view, task, &roll, roll_blocked));
    plan.next_check = nodes.next_check;
    let withheld = withhold(view, &mut plan);
    (plan, withheld.or(shortage))
}

/// Groups of an earlier pool of this name that the annotation names.
fn adopt(view: &View, task: &Task) -> Vec<CloudAction> {
    let annotations = task.pool.metadata.annotations.iter().flatten();
    let Some((_, from_uid)) = annotations.into_iter().find(|(k, _)| *k == crds::key::ADOPT) else {
        return vec![];
    };
    let living = |uid: &str| {
        view.observed
            .pools
            .values()
            .any(|p| p.metadata.uid.as_deref() == Some(uid))
    };
    if living(from_uid) {
        return vec![];
    }
    view.groups(from_uid)
        .filter(|group| &group.owner.pool == task.name)
        .map(|group| CloudAction::Adopt {
            group: group.name.clone(),
            from_uid: from_uid.clone(),
            to_uid: task.uid.to_owned(),
        })
        .collect()
}

/// `--cloud-mutations` takes out what it forbids. It is a shortage only where it keeps nodes from coming.
fn withhold(view: &View, plan: &mut PoolPlan) -> Option<Shortage> {
    let grows = |a: &CloudAction| matches!(a, CloudAction::Create(_) | CloudAction::Grow { .. });
    match view.observed.settings.mutations {
        CloudMutations::All => return None,
        CloudMutations::GrowOnly => {
            plan.cloud.retain(grows);
            return None;
        }
        CloudMutations::None => {}
    }
    let withheld = std::mem::take(&mut plan.cloud);
    withheld.iter().any(grows).then(|| {
        let message = "The operator's --cloud-mutations withholds changes of node groups; set it to All to let them happen";
        (Reason::CloudMutationsOff, message.to_owned())
    })
}

/// AWS cannot be read or changed. That matters to who is `missing` something; a refusal needs somebody to act at once.
fn cloud_shortage(view: &View, task: &Task, missing: bool) -> Option<Shortage> {
    let Some(cloud) = view.cloud() else {
        if !missing && was_accepted(task.pool) {
            return None;
        }
        let Some(trouble) = &view.observed.unread else {
            return Some((Reason::CloudUnavailable, "AWS has not been read yet".to_owned()));
        };
        return Some(shortage_from(trouble));
    };
    let trouble = cloud.trouble.as_ref()?;
    if !missing && trouble.class != CloudErrorClass::Denied {
        return None;
    }
    Some(shortage_from(trouble))
}

fn shortage_from(trouble: &CloudTrouble) -> Shortage {
    match trouble.class {
        CloudErrorClass::Denied => (
            Reason::CloudDenied,
            format!(
                "AWS refuses the operator: {}; attach the operator's IAM policy to its role",
                trouble.message
            ),
        ),
        _ => (
            Reason::CloudUnavailable,
            format!("AWS does not answer as it should: {}; retried", trouble.message),
        ),
    }
}

/// This generation of the spec was accepted before. An operator that has just started and did not read AWS yet goes by it.
#[must_use]
pub fn was_accepted(pool: &GpuPool) -> bool {
    let conditions = pool.status.iter().flat_map(|s| &s.conditions);
    let mut accepted = conditions.filter(|c| c.type_ == crds::ConditionType::Accepted.as_str());
    accepted.any(|c| c.status == "True" && c.observed_generation == pool.metadata.generation)
}

/// Price of the instances that live, and the number of groups.
#[must_use]
pub fn cost(view: &View, uid: &str) -> (crate::price::MicroUsdPerHour, i32) {
    let groups = view.groups(uid);
    let (usd, count) = groups.fold((0, 0), |(usd, count), group| {
        let price = crate::price::on_demand(&group.instance_type).unwrap_or_default();
        (usd + price.0 * u64::from(view::live(group)), count + 1)
    });
    (crate::price::MicroUsdPerHour(usd), count)
}
