//! Why a pod does not serve: what the kubelet says of its containers, and what the runtime said when it last ended.

use crds::Reason;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use planner::observed::PodTrouble;
use serde::Deserialize;

/// The last words of the runtime (its termination message).
#[derive(Deserialize)]
struct LastWords {
    reason: Reason,
    message: String,
}

/// Reasons that the runtime may give; it speaks of its model only.
const OF_THE_RUNTIME: [Reason; 6] = [
    Reason::ModelNotFound,
    Reason::ModelUnreachable,
    Reason::DigestMismatch,
    Reason::ModelInvalid,
    Reason::ConfigInvalid,
    Reason::NoGpuProvider,
];

/// Restarts of a container that never became ready since, from which on it is in a loop even if no back-off shows.
const LOOP_RESTARTS: i32 = 3;

/// The first trouble of a pod that is not ready.
#[must_use]
pub fn of(pod: &Pod) -> Option<PodTrouble> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
        .find_map(of_container)
}

fn of_container(status: &ContainerStatus) -> Option<PodTrouble> {
    let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
    let why = waiting.and_then(|w| w.reason.as_deref()).unwrap_or_default();
    if matches!(
        why,
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull"
    ) {
        // While the kubelet backs off it puts words in front of the same detail; with them the message would change to and fro.
        let detail = waiting.and_then(|w| w.message.as_deref()).unwrap_or_default();
        let detail = detail.rsplit("ErrImagePull: ").next().unwrap_or_default();
        let message = format!(
            "image {} cannot be pulled ({detail}); correct the image or add imagePullSecrets",
            status.image
        );
        return Some(PodTrouble {
            reason: Reason::ImagePull,
            message,
        });
    }
    if matches!(
        why,
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"
    ) {
        let detail = waiting.and_then(|w| w.message.clone()).unwrap_or_default();
        return Some(PodTrouble {
            reason: Reason::CrashLoop,
            message: format!("the container does not start: {detail}"),
        });
    }
    let ended = [&status.state, &status.last_state]
        .into_iter()
        .find_map(|state| state.as_ref()?.terminated.as_ref());
    let known = ended.filter(|e| e.exit_code != 0).and_then(of_end);
    // One restart is no loop: a node was rebooted, a probe was impatient.
    let loops = why == "CrashLoopBackOff" || status.restart_count >= LOOP_RESTARTS;
    known.or_else(|| loops.then(|| crash_loop(status, ended.map_or(0, |e| e.exit_code))))
}

/// What is known of an end by its own words or the kernel's.
fn of_end(ended: &ContainerStateTerminated) -> Option<PodTrouble> {
    if ended.reason.as_deref() == Some("OOMKilled") {
        let message =
            "the container needed more memory than it may have; raise runtime.resources.memory".to_owned();
        return Some(PodTrouble {
            reason: Reason::OutOfMemory,
            message,
        });
    }
    let text = ended.message.as_deref().unwrap_or_default();
    let words = serde_json::from_str::<LastWords>(text.trim()).ok()?;
    OF_THE_RUNTIME.contains(&words.reason).then_some(PodTrouble {
        reason: words.reason,
        message: words.message,
    })
}

fn crash_loop(status: &ContainerStatus, exit_code: i32) -> PodTrouble {
    let message = format!(
        "container {} ended with code {exit_code} ({} restarts); see its log: kubectl logs --previous",
        status.name, status.restart_count
    );
    PodTrouble {
        reason: Reason::CrashLoop,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn trouble(status: Value) -> Option<Reason> {
        let mut whole =
            json!({"name": "runtime", "image": "i", "imageID": "", "ready": false, "restartCount": 1});
        whole
            .as_object_mut()
            .unwrap()
            .extend(status.as_object().unwrap().clone());
        let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [whole]}});
        of(&serde_json::from_value(pod).unwrap()).map(|t| t.reason)
    }

    fn ended(message: &str) -> Value {
        json!({"terminated": {"exitCode": 1, "message": message}})
    }

    #[test]
    fn every_trouble_has_its_reason() {
        let words = r#"{"reason":"DigestMismatch","message":"m"}"#;
        let foreign = r#"{"reason":"Ready","message":"m"}"#;
        let cases = [
            (
                json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}),
                Some(Reason::ImagePull),
            ),
            (
                json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
                None,
            ),
            (json!({"state": {"running": {}}}), None),
            (
                json!({"state": {"running": {}}, "lastState": ended(words)}),
                Some(Reason::DigestMismatch),
            ),
            (
                json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(words)}),
                Some(Reason::DigestMismatch),
            ),
            (json!({"state": ended(foreign)}), None),
            (json!({"state": ended("no json")}), None),
            (
                json!({"state": ended("no json"), "restartCount": 3}),
                Some(Reason::CrashLoop),
            ),
            (
                json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(foreign)}),
                Some(Reason::CrashLoop),
            ),
            (
                json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 0}}}),
                Some(Reason::CrashLoop),
            ),
            (
                json!({"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}),
                Some(Reason::OutOfMemory),
            ),
            (json!({"lastState": {"terminated": {"exitCode": 0}}}), None),
        ];
        for (status, expected) in cases {
            assert_eq!(trouble(status.clone()), expected, "{status}");
        }
    }
}
