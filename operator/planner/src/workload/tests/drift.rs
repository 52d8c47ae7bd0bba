use super::*;

#[test]
fn drift_table() {
    let cases = [
        (json!({"a": 1}), json!({"a": 1, "defaulted": 2}), false),
        (json!({"a": 1}), json!({"a": 2}), true),
        (json!({"a": 1}), json!({}), true),
        (json!({"emptyDir": {}}), json!({}), false),
        (json!({"tokens": false}), json!({}), true),
        (
            json!({"limits": {"memory": "1024Mi"}}),
            json!({"limits": {"memory": "1Gi"}}),
            false,
        ),
        (
            json!({"requests": {"cpu": "3000m"}}),
            json!({"requests": {"cpu": "3"}}),
            false,
        ),
        (
            json!({"requests": {"cpu": "1.5"}}),
            json!({"requests": {"cpu": "1500m"}}),
            false,
        ),
        (
            json!({"requests": {"cpu": "3"}}),
            json!({"requests": {"cpu": "2"}}),
            true,
        ),
        (
            json!({"requests": {"cpu": "12e6"}}),
            json!({"requests": {"cpu": "12M"}}),
            false,
        ),
        (json!({"value": "1Gi"}), json!({"value": "1024Mi"}), true),
        (json!({"args": ["a"]}), json!({"args": ["a", "b"]}), true),
        (json!({"args": ["a", "b"]}), json!({"args": ["b", "a"]}), true),
        (
            json!({"env": [{"name": "a"}]}),
            json!({"env": [{"name": "theirs"}, {"name": "a"}]}),
            false,
        ),
        (
            json!({"env": [{"name": "a", "value": "1"}]}),
            json!({"env": [{"name": "a", "value": "2"}]}),
            true,
        ),
        (json!({"env": [{"name": "a"}]}), json!({"env": []}), true),
        (
            json!({"selector": {"a": "1"}}),
            json!({"selector": {"a": "1", "b": "2"}}),
            true,
        ),
        (
            json!({"labels": {"a": "1"}}),
            json!({"labels": {"a": "1", "b": "2"}}),
            false,
        ),
        (
            json!({"kind": "NetworkPolicy", "ports": [{"port": 1}]}),
            json!({"kind": "NetworkPolicy", "ports": [{"port": 1}, {"port": 2}]}),
            true,
        ),
    ];
    for (desired, observed, wanted) in cases {
        assert_eq!(
            needs_apply(&desired, &observed),
            wanted,
            "{desired} over {observed}"
        );
    }
}

#[test]
fn what_the_api_server_fills_in_is_no_drift_and_what_people_change_is() {
    let world = world(&[("g5", 3)]);
    let apply = world.objects().apply;
    let desired = named(&apply, "Deployment")[0];
    let mut observed = desired.clone();
    observed["metadata"]["generation"] = json!(4);
    observed["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1");
    observed["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    let pod = &mut observed["spec"]["template"]["spec"];
    pod["restartPolicy"] = json!("Always");
    pod["dnsPolicy"] = json!("ClusterFirst");
    pod["serviceAccount"] = json!("pinnace-ranker");
    pod["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    pod["containers"][0]["livenessProbe"]["successThreshold"] = json!(1);
    pod["containers"][0]["livenessProbe"]["httpGet"]["scheme"] = json!("HTTP");
    observed["status"] = json!({"replicas": 3});
    assert!(!needs_apply(desired, &observed));
    let edits: [(&str, Value); 5] = [
        ("/spec/replicas", json!(9)),
        ("/spec/template/spec/containers/0/image", json!("evil")),
        ("/spec/template/spec/tolerations", json!([])),
        (
            "/metadata/annotations/pinnace.dev~1applied",
            json!("of an older version"),
        ),
        ("/metadata/ownerReferences", json!([])),
    ];
    for (pointer, edit) in edits {
        let mut edited = observed.clone();
        *edited.pointer_mut(pointer).unwrap() = edit;
        assert!(needs_apply(desired, &edited), "{pointer}");
    }
}
