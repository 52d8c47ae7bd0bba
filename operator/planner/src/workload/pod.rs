//! The pod of a replica. Satisfies the Pod Security level `restricted`.

use std::collections::BTreeMap;

use crds::gpu_pool::{Taint, TaintEffect};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, Toleration, TopologySpreadConstraint, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::cell::Cell;
use super::revision::Resolved;
use super::{
    ADMIN_PORT, CONTAINER, GRPC_PORT, HTTP_PORT, Shape, account_name, cell_labels, model_label, seconds,
    selector,
};

/// User and group "nonroot" of distroless images.
const USER: i64 = 65532;
const GPU: &str = "nvidia.com/gpu";
const CACHE_DIR: &str = "/var/cache/pinnace";
const MAX_QUEUE: i32 = 4096;
/// Stays in service after SIGTERM until every load balancer has heard of it.
const DRAIN_DELAY_SECONDS: i32 = 5;
/// The runtime ends by itself; the kubelet's kill comes after that.
const DRAIN_MARGIN_SECONDS: i32 = 10;
/// The runtime gives up by itself and says why; the kubelet's restart comes after that.
const STARTUP_MARGIN_SECONDS: i32 = 15;

pub(super) fn template(shape: &Shape, resolved: &Resolved, revision: &str, cell: &Cell) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(cell_labels(shape, cell)),
            annotations: Some(BTreeMap::from([(
                crds::key::REVISION.to_owned(),
                revision.to_owned(),
            )])),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(shape, resolved, cell)),
    }
}

fn pod(shape: &Shape, resolved: &Resolved, cell: &Cell) -> PodSpec {
    let spec = &shape.model.spec.spec;
    let runtime = &spec.runtime;
    let secrets = runtime.image_pull_secrets.iter();
    let secrets: Vec<_> = secrets
        .map(|s| LocalObjectReference { name: s.name.clone() })
        .collect();
    let grace = DRAIN_DELAY_SECONDS + seconds(&runtime.drain_timeout) + DRAIN_MARGIN_SECONDS;
    PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![container(shape, resolved)],
        enable_service_links: Some(false),
        image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
        node_selector: Some(BTreeMap::from([(
            crds::key::POOL.to_owned(),
            cell.pool.0.clone(),
        )])),
        priority_class_name: spec.priority_class_name.clone(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        service_account_name: Some(account_name(shape)),
        termination_grace_period_seconds: Some(i64::from(grace)),
        tolerations: Some(tolerations(shape, cell)),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "topology.kubernetes.io/zone".to_owned(),
            // Never required: a zone without capacity would block all.
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(selector(model_label(shape))),
            ..TopologySpreadConstraint::default()
        }]),
        volumes: Some(vec![scratch("cache"), scratch("tmp")]),
        ..PodSpec::default()
    }
}

fn container(shape: &Shape, resolved: &Resolved) -> Container {
    let startup = seconds(&shape.model.spec.spec.runtime.startup_timeout) + STARTUP_MARGIN_SECONDS;
    let startup_period = if startup > 900 { 2 } else { 1 };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(resolved.image.clone()),
        args: Some(vec!["serve".to_owned()]),
        env: Some(env(shape, resolved)),
        ports: Some(vec![
            port("http", HTTP_PORT),
            port("grpc", GRPC_PORT),
            port("admin", ADMIN_PORT),
        ]),
        resources: Some(resources(shape)),
        // Ready once: the model is loaded. Until then neither of the other probes runs.
        startup_probe: Some(Probe {
            failure_threshold: Some(startup.div_euclid(startup_period) + 1),
            ..probe("/v2/health/ready", startup_period, 2)
        }),
        readiness_probe: Some(Probe {
            failure_threshold: Some(2),
            ..probe("/v2/health/ready", 2, 2)
        }),
        liveness_probe: Some(Probe {
            failure_threshold: Some(6),
            ..probe("/v2/health/live", 10, 5)
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        // The runtime writes here why a model cannot be loaded.
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(vec![mount("cache", CACHE_DIR), mount("tmp", "/tmp")]),
        ..Container::default()
    }
}

const REVISION: &str = "PINNACE_REVISION";

/// The runtime's own variables, then those of the operator's settings that do not name one of these.
fn env(shape: &Shape, resolved: &Resolved) -> Vec<EnvVar> {
    let spec = &shape.model.spec.spec;
    let (model, runtime) = (&spec.model, &spec.runtime);
    let own = [
        ("PINNACE_MODEL_NAME", Some(shape.key.name.clone())),
        ("PINNACE_MODEL_URI", Some(model.uri.clone())),
        ("PINNACE_MODEL_VERSION", Some(model.version.clone())),
        ("PINNACE_MODEL_DIGEST", model.digest.clone()),
        ("PINNACE_LISTEN", Some(format!("0.0.0.0:{HTTP_PORT}"))),
        ("PINNACE_GRPC_LISTEN", Some(format!("0.0.0.0:{GRPC_PORT}"))),
        ("PINNACE_ADMIN_LISTEN", Some(format!("0.0.0.0:{ADMIN_PORT}"))),
        (
            "PINNACE_MAX_QUEUE",
            Some(runtime.builtin.max_queue.unwrap_or(MAX_QUEUE).to_string()),
        ),
        ("PINNACE_CACHE_DIR", Some(CACHE_DIR.to_owned())),
        ("PINNACE_DRAIN_DELAY", Some(format!("{DRAIN_DELAY_SECONDS}s"))),
        ("PINNACE_DRAIN_TIMEOUT", Some(runtime.drain_timeout.clone())),
        ("PINNACE_STARTUP_TIMEOUT", Some(runtime.startup_timeout.clone())),
    ];
    let of_settings = resolved
        .env
        .iter()
        .filter(|(name, _)| *name != REVISION && !own.iter().any(|(o, _)| o == name));
    let variable = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    };
    let given = own
        .iter()
        .filter_map(|(name, value)| Some(variable(name, value.as_ref()?)));
    // What the replica says of its load names the revision that it is of.
    let revision = EnvVar {
        name: REVISION.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: format!("metadata.annotations['{}']", crds::key::REVISION),
            }),
            ..EnvVarSource::default()
        }),
    };
    given
        .chain([revision])
        .chain(of_settings.map(|(name, value)| variable(name, value)))
        .collect()
}

fn resources(shape: &Shape) -> ResourceRequirements {
    let resources = &shape.model.spec.spec.runtime.resources;
    let gpus = (GPU.to_owned(), Quantity(resources.gpus.to_string()));
    let memory = ("memory".to_owned(), Quantity(resources.memory.clone()));
    let cpu = ("cpu".to_owned(), Quantity(resources.cpu.clone()));
    ResourceRequirements {
        claims: None,
        limits: Some(BTreeMap::from([gpus.clone(), memory.clone()])),
        requests: Some(BTreeMap::from([cpu, gpus, memory])),
    }
}

/// Taints of the pool, and the taint that GPU nodes carry everywhere. Of a pool that is gone, what was tolerated stays:
/// another template would roll pods that have nowhere to go.
fn tolerations(shape: &Shape, cell: &Cell) -> Vec<Toleration> {
    let gpu = Toleration {
        key: Some(GPU.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    let Some(pool) = shape.pools.get(&cell.pool) else {
        let template = cell
            .deployment
            .and_then(|d| d.spec.as_ref()?.template.spec.as_ref());
        let kept = template.and_then(|pod| pod.tolerations.clone());
        return kept.unwrap_or_else(|| vec![gpu]);
    };
    let mut taints: Vec<&Taint> = pool.spec.taints.iter().filter(|t| t.key != GPU).collect();
    taints.sort();
    std::iter::once(gpu)
        .chain(taints.into_iter().map(tolerates))
        .collect()
}

fn tolerates(taint: &Taint) -> Toleration {
    let effect = match taint.effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    };
    let value = (!taint.value.is_empty()).then(|| taint.value.clone());
    Toleration {
        key: Some(taint.key.clone()),
        operator: Some(if value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value,
        effect: Some(effect.to_owned()),
        toleration_seconds: None,
    }
}

fn probe(path: &str, period: i32, timeout: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        ..Probe::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn scratch(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}
