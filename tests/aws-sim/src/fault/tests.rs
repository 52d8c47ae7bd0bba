use super::*;

fn described(text: &str) -> Description {
    Description::parse(text.as_bytes()).expect(text)
}

fn refused(text: &str) -> String {
    Description::parse(text.as_bytes()).expect_err(text)
}

fn seen<'a>(action: &'a str, names: &[&str]) -> Seen<'a> {
    Seen {
        service: kind::service_of(action).expect("a known action"),
        action,
        names: names.iter().map(|n| (*n).to_owned()).collect(),
    }
}

fn at(secs: u64) -> SimTime {
    SimTime::from_secs(secs)
}

/// What was written, which field is to blame, and what the refusal says of it.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("[]", "the body", "JSON object"),
    (r#"{"action": "*"}"#, "kind: ", "throttled, internal-error"),
    (
        r#"{"kind": "throtled", "action": "*"}"#,
        "kind: ",
        "throttled, internal-error",
    ),
    (
        r#"{"kind": "throttled"}"#,
        "action: ",
        "CreateNodegroup, DeleteNodegroup",
    ),
    (
        r#"{"kind": "throttled", "action": "CreateNodeGroup"}"#,
        "action: ",
        "*, CreateNodegroup",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "service": "s3"}"#,
        "service: ",
        "eks, ec2, autoscaling",
    ),
    (
        r#"{"kind": "throttled", "action": "CreateTags", "service": "eks"}"#,
        "service: ",
        "an action of ec2",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "count": 0}"#,
        "count: ",
        "whole number from 1",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "count": 1.5}"#,
        "count: ",
        "whole number from 1",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "probability": 2}"#,
        "probability: ",
        "from 0 to 1",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "forSeconds": 0}"#,
        "forSeconds: ",
        "from 0.001",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "resource": ""}"#,
        "resource: ",
        "not empty",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "group": "g"}"#,
        "group: ",
        "service, action, resource, count",
    ),
    (
        r#"{"kind": "throttled", "action": "*", "pageSize": 1}"#,
        "pageSize: ",
        "no such field",
    ),
    (
        r#"{"kind": "timeout-after-commit", "action": "*", "connection": "lost"}"#,
        "connection: ",
        "held, cut",
    ),
    (
        r#"{"kind": "conflict", "action": "DescribeInstances"}"#,
        "action: ",
        "CreateNodegroup, DeleteNodegroup",
    ),
    (
        r#"{"kind": "truncated", "action": "DescribeNodegroup"}"#,
        "action: ",
        "ListNodegroups",
    ),
    (
        r#"{"kind": "truncated", "action": "*", "pageSize": 0}"#,
        "count: ",
        "pageSize 0",
    ),
    (
        r#"{"kind": "stale", "action": "*"}"#,
        "lagSeconds: ",
        "from 1 to 120",
    ),
    (
        r#"{"kind": "stale", "action": "*", "lagSeconds": 121}"#,
        "lagSeconds: ",
        "from 1 to 120",
    ),
    (
        r#"{"kind": "stale", "action": "CreateTags", "lagSeconds": 5}"#,
        "action: ",
        "DescribeInstances",
    ),
    (
        r#"{"kind": "late-delivery", "group": "g"}"#,
        "delaySeconds: ",
        "simulated seconds",
    ),
    (
        r#"{"kind": "partial-launch", "group": "g"}"#,
        "launched: ",
        "whole number",
    ),
    (
        r#"{"kind": "partial-launch", "launched": 2, "probability": 0.5}"#,
        "probability: ",
        "launched, reason, group, count",
    ),
    (
        r#"{"kind": "create-failed", "code": "Bad"}"#,
        "code: ",
        "NodeCreationFailure",
    ),
    (
        r#"{"kind": "degraded", "count": 1}"#,
        "count: ",
        "code, group, forSeconds",
    ),
    (
        r#"{"kind": "never-joins", "action": "*"}"#,
        "action: ",
        "kind, group",
    ),
];

#[test]
fn mistakes_name_the_field_and_what_it_may_be() {
    for (text, field, says) in MISTAKES {
        let message = refused(text);
        assert!(
            message.starts_with(field) && message.contains(says),
            "{text}: {message}"
        );
    }
}

#[test]
fn every_kind_can_be_described_and_has_its_name() {
    for name in [kind::CALL_KINDS, kind::GROUP_KINDS].concat() {
        let more = match name {
            "stale" => r#", "lagSeconds": 1, "action": "*""#,
            "late-delivery" => r#", "delaySeconds": 1"#,
            "partial-launch" => r#", "launched": 1"#,
            name if kind::CALL_KINDS.contains(&name) => r#", "action": "*""#,
            _ => "",
        };
        assert_eq!(
            described(&format!(r#"{{"kind": "{name}"{more}}}"#)).kind.name(),
            name
        );
    }
}

#[test]
fn a_fault_meets_the_next_n_calls_of_its_action_and_name() {
    let mut faults = Faults::new(1);
    let id = faults.set(
        described(r#"{"kind": "throttled", "action": "CreateNodegroup", "resource": "pn-*", "count": 2}"#),
        at(0),
    );
    assert_eq!(faults.hit_call(&seen("DeleteNodegroup", &["pn-1"]), at(1)), None);
    assert_eq!(faults.hit_call(&seen("CreateNodegroup", &["other"]), at(1)), None);
    for _ in 0..2 {
        let hit = faults.hit_call(&seen("CreateNodegroup", &["demo", "pn-1"]), at(1));
        assert_eq!(hit.map(|h| h.id), Some(id));
    }
    assert_eq!(faults.hit_call(&seen("CreateNodegroup", &["pn-1"]), at(1)), None);
    let listed = faults.show(id, at(1));
    assert_eq!(
        (listed["hits"].as_u64(), listed["active"].as_bool()),
        (Some(2), Some(false))
    );
    assert_eq!(listed["resource"], "pn-*");
    assert!(faults.remove(id) && !faults.remove(id));
}

#[test]
fn a_fault_lasts_until_its_time_is_over_or_it_is_removed() {
    let mut faults = Faults::new(1);
    let call = seen("DescribeInstances", &[]);
    faults.set(
        described(r#"{"kind": "unavailable", "service": "ec2", "action": "*", "forSeconds": 10}"#),
        at(5),
    );
    assert_eq!(faults.hit_call(&seen("ListNodegroups", &[]), at(6)), None);
    assert!(faults.hit_call(&call, at(14)).is_some());
    assert!(faults.hit_call(&call, at(15)).is_none());
    let second = faults.set(described(r#"{"kind": "internal-error", "action": "*"}"#), at(15));
    for _ in 0..100 {
        assert_eq!(faults.hit_call(&call, at(99)).map(|h| h.id), Some(second));
    }
    faults.remove(second);
    assert!(faults.hit_call(&call, at(99)).is_none());
}

#[test]
fn chance_is_seeded_and_each_fault_has_its_own() {
    let run = |seed: u64, before: usize| {
        let mut faults = Faults::new(seed);
        let text = r#"{"kind": "throttled", "action": "DescribeInstances", "probability": 0.3}"#;
        faults.set(described(text), at(0));
        // Hits of another fault draw nothing from this one.
        faults.set(
            described(r#"{"kind": "throttled", "action": "CreateTags", "probability": 0.5}"#),
            at(0),
        );
        for _ in 0..before {
            faults.hit_call(&seen("CreateTags", &[]), at(1));
        }
        let call = seen("DescribeInstances", &[]);
        (0..1000)
            .map(|_| faults.hit_call(&call, at(1)).is_some())
            .collect::<Vec<bool>>()
    };
    assert_eq!(run(7, 0), run(7, 5));
    assert_ne!(run(7, 0), run(8, 0));
    let hits = run(7, 0).iter().filter(|h| **h).count();
    assert!((250..350).contains(&hits), "{hits} of 1000 at 0.3");
}

#[test]
fn each_service_refuses_in_its_own_words() {
    let answer = |kind: Kind, action: &str| {
        let service = kind::service_of(action).expect("known");
        let error = refusal::refusal(&kind, service, action).expect("a refusal");
        (error.status, error.code)
    };
    for (kind, eks, ec2, scaling) in [
        (
            Kind::Throttled,
            (429, "ThrottlingException"),
            (503, "RequestLimitExceeded"),
            (400, "Throttling"),
        ),
        (
            Kind::InternalError,
            (500, "ServerException"),
            (500, "InternalError"),
            (500, "InternalFailure"),
        ),
        (
            Kind::Unavailable,
            (503, "ServiceUnavailableException"),
            (503, "Unavailable"),
            (503, "ServiceUnavailable"),
        ),
        (
            Kind::AccessDenied,
            (403, "AccessDeniedException"),
            (403, "UnauthorizedOperation"),
            (403, "AccessDenied"),
        ),
        (
            Kind::ExpiredToken,
            (403, "ExpiredTokenException"),
            (400, "RequestExpired"),
            (403, "ExpiredToken"),
        ),
        (
            Kind::Conflict,
            (409, "ResourceInUseException"),
            (400, "ConcurrentTagAccess"),
            (400, "ScalingActivityInProgress"),
        ),
    ] {
        assert_eq!(answer(kind.clone(), "CreateNodegroup"), eks);
        assert_eq!(answer(kind.clone(), "CreateTags"), ec2);
        assert_eq!(answer(kind, "SetDesiredCapacity"), scaling);
    }
}
