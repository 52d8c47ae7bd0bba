//! What stands beside the Deployments: one headless Service per cell, one Service with a virtual address while the model is
//! small, and once per model an account without rights, a disruption budget and a network policy.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::cell::{Cell, Rounding, bound};
use super::{
    ADMIN_PORT, GRPC_PORT, HTTP_PORT, Shape, cell_label, cell_labels, cell_name, labels, metadata,
    model_label, own_name, selector, value,
};

/// Endpoints behind one virtual address cost every node of the cluster a rewrite of its rules with each change. From here on
/// only the headless Services remain; the virtual address comes back below `SERVICE_AGAIN`.
const SERVICE_LIMIT: u64 = 500;
const SERVICE_AGAIN: u64 = 450;

/// In the order in which they are applied, before the Deployments.
pub(super) fn objects(shape: &Shape, cells: &[Cell]) -> Vec<Value> {
    let mut objects = vec![];
    if shape.model.spec.spec.runtime.service_account_name.is_none() {
        objects.push(value(&account(shape)));
    }
    objects.push(value(&network_policy(shape)));
    objects.push(value(&budget(shape, cells)));
    if wants_address(shape, cells) {
        objects.push(value(&service(shape)));
    }
    objects.extend(cells.iter().map(|cell| value(&headless(shape, cell))));
    objects
}

fn account(shape: &Shape) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(shape, own_name(shape), labels(shape)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

fn replicas(cells: &[Cell]) -> u64 {
    cells.iter().map(|c| u64::from(c.replicas)).sum()
}

fn wants_address(shape: &Shape, cells: &[Cell]) -> bool {
    let name = Some(&shape.key.name);
    let exists = shape
        .model
        .services
        .iter()
        .any(|s| s.metadata.name.as_ref() == name);
    let is_new = shape.model.deployments.is_empty();
    replicas(cells)
        < if exists || is_new {
            SERVICE_LIMIT
        } else {
            SERVICE_AGAIN
        }
}

/// The port is that of the pods, so that a client may move from one Service to the other by name alone.
fn service(shape: &Shape) -> Service {
    Service {
        metadata: metadata(shape, shape.key.name.clone(), labels(shape)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ..service_spec(model_label(shape))
        }),
        status: None,
    }
}

fn headless(shape: &Shape, cell: &Cell) -> Service {
    let name = cell_name(&shape.key.name, &cell.pool, cell.index);
    Service {
        metadata: metadata(shape, name, cell_labels(shape, cell)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            ..service_spec(cell_label(shape, cell))
        }),
        status: None,
    }
}

fn service_spec(selector: BTreeMap<String, String>) -> ServiceSpec {
    ServiceSpec {
        selector: Some(selector),
        ports: Some(vec![
            service_port("http", HTTP_PORT, "http"),
            service_port("grpc", GRPC_PORT, "kubernetes.io/h2c"),
        ]),
        ..ServiceSpec::default()
    }
}

fn service_port(name: &str, port: i32, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}

/// At least 1, or no node could ever be drained.
fn budget(shape: &Shape, cells: &[Cell]) -> PodDisruptionBudget {
    let text = &shape.model.spec.spec.rollout.max_unavailable;
    let count = bound(text, replicas(cells), Rounding::Down).max(1);
    PodDisruptionBudget {
        metadata: metadata(shape, own_name(shape), labels(shape)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(i32::try_from(count).unwrap_or(i32::MAX))),
            selector: Some(selector(model_label(shape))),
            // A replica that does not serve protects nobody: it must not hold up a drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// In: requests from anywhere, the admin port for the operator only. Out: everywhere but to the credentials of the node.
fn network_policy(shape: &Shape) -> NetworkPolicy {
    let operator = (
        "kubernetes.io/metadata.name".to_owned(),
        shape.settings.operator_namespace.clone(),
    );
    let outside = |cidr: &str, metadata_service: &str| NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: cidr.to_owned(),
            except: Some(vec![metadata_service.to_owned()]),
        }),
        ..NetworkPolicyPeer::default()
    };
    let namespaces = |selector: LabelSelector| NetworkPolicyPeer {
        namespace_selector: Some(selector),
        ..NetworkPolicyPeer::default()
    };
    let admin_from = namespaces(selector(BTreeMap::from([operator])));
    NetworkPolicy {
        metadata: metadata(shape, own_name(shape), labels(shape)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(model_label(shape))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule {
                    from: None,
                    ports: Some(vec![tcp(HTTP_PORT), tcp(GRPC_PORT)]),
                },
                NetworkPolicyIngressRule {
                    from: Some(vec![admin_from]),
                    ports: Some(vec![tcp(ADMIN_PORT)]),
                },
            ]),
            egress: Some(vec![NetworkPolicyEgressRule {
                ports: None,
                to: Some(vec![
                    outside("0.0.0.0/0", "169.254.169.254/32"),
                    outside("::/0", "fd00:ec2::254/128"),
                    // Some implementations do not count pods (cluster DNS) among the addresses of a block.
                    namespaces(LabelSelector::default()),
                ]),
            }]),
        }),
    }
}

fn tcp(port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}
