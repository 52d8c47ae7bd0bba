//! `/_sim/`: what tests ask and order. Not part of AWS; no credentials, and in the journal only what it makes
//! go wrong.

mod changes;
mod faults;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::{Account, Offering};
use crate::catalog::{Purchase, instance_type};
use crate::hold::Order;
use crate::journal::Query;
use crate::server::Sim;

type Answer = Result<Value, (StatusCode, String)>;

pub fn answer(sim: &Sim, parts: &Parts, body: &[u8]) -> Response<Body> {
    let path = parts
        .uri
        .path()
        .trim_start_matches("/_sim/")
        .trim_end_matches('/');
    let query = parts.uri.query().unwrap_or_default();
    let answer = match (parts.method.as_str(), path) {
        ("GET", "health") => Ok(json!({ "status": "ok" })),
        ("GET", "journal") => journal(sim, query),
        ("GET", "ledger") => ledger(sim),
        ("GET", "inventory") => Ok(sim.with_account(|account, _| inventory(account))),
        ("GET", "capacity") => Ok(sim.with_account(|account, _| capacity(account))),
        ("PUT", "capacity") => set_capacity(sim, body),
        ("GET", "holds") => Ok(json!({ "held": sim.holds.held(), "orders": sim.holds.orders() })),
        ("POST", "holds") => order(sim, body),
        ("DELETE", "holds") => Ok(json!({ "released": sim.holds.release() })),
        ("GET", "faults") => Ok(faults::list(sim)),
        ("POST", "faults") => faults::set(sim, body),
        ("DELETE", "faults") => Ok(faults::clear(sim)),
        ("DELETE", path) if path.starts_with("faults/") => faults::remove(sim, &path["faults/".len()..]),
        ("POST", "changes") => changes::make(sim, body),
        (method, path) => Err((
            StatusCode::NOT_FOUND,
            format!("{method} /_sim/{path} does not exist"),
        )),
    };
    let (status, value) = match answer {
        Ok(value) => (StatusCode::OK, value),
        Err((status, message)) => (status, json!({ "error": message })),
    };
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        axum::http::HeaderValue::from_static("application/json"),
    );
    response
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))
}

/// `?since=N&mutation=true&limit=N`
fn journal(sim: &Sim, query: &str) -> Answer {
    let mut wanted = Query::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let bad = || {
            (
                StatusCode::BAD_REQUEST,
                format!("{key}={value} is not understood"),
            )
        };
        match &*key {
            "since" => wanted.since = value.parse().map_err(|_| bad())?,
            "mutation" => wanted.mutation = Some(value.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        }
    }
    let journal = sim.journal();
    Ok(json!({ "last": journal.last_seq(), "entries": journal.select(wanted) }))
}

fn ledger(sim: &Sim) -> Answer {
    let report = sim.with_account(|account, clock| account.ledger.report(account.now(), clock.scale().get()));
    serde_json::to_value(report).map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

fn inventory(account: &Account) -> Value {
    let groups: Vec<Value> = account
        .node_groups
        .values()
        .map(|g| {
            json!({
                "name": g.name(),
                "arn": account.group_arn(g),
                "status": g.status.as_str(),
                "issues": g.issues.iter().map(|i| json!({ "code": i.code, "message": i.message })).collect::<Vec<_>>(),
                "scalingGroup": g.scaling_group,
                "tags": g.tags,
            })
        })
        .collect();
    let scaling: Vec<Value> = account
        .scaling_groups
        .values()
        .map(|s| {
            json!({
                "name": s.name, "nodeGroup": s.node_group, "min": s.min, "max": s.max, "desired": s.desired,
                "instances": s.members, "deleting": s.deleting,
            })
        })
        .collect();
    let instances: Vec<Value> = account
        .instances
        .values()
        .map(|i| {
            json!({
                "id": i.id, "type": i.instance_type.name, "zone": i.zone, "subnet": i.subnet,
                "purchase": i.purchase, "state": i.state().name(), "stage": i.stage, "protected": i.protected,
                "node": i.private_dns_name(&account.settings.region), "providerId": i.provider_id(),
                "nodeGroup": i.node_group, "tags": i.tags,
            })
        })
        .collect();
    let templates: Vec<Value> = account
        .templates
        .values()
        .map(|t| json!({ "id": t.id, "name": t.name, "latestVersion": t.latest_version(), "tags": t.tags }))
        .collect();
    json!({ "groups": groups, "scalingGroups": scaling, "instances": instances, "templates": templates })
}

fn capacity(account: &Account) -> Value {
    let limits: Vec<Value> = account
        .capacity
        .iter()
        .map(|(o, left)| json!({ "offering": o, "available": left }))
        .collect();
    json!({ "limits": limits })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capacity {
    #[serde(rename = "type")]
    instance_type: String,
    zone: String,
    #[serde(default = "on_demand")]
    purchase: Purchase,
    /// How many more launches succeed; null: no limit.
    available: Option<u32>,
}

fn on_demand() -> Purchase {
    Purchase::OnDemand
}

fn set_capacity(sim: &Sim, body: &[u8]) -> Answer {
    let Capacity {
        instance_type: name,
        zone,
        purchase,
        available,
    } = parse(body)?;
    if instance_type(&name).is_none() {
        return Err((StatusCode::BAD_REQUEST, format!("{name} is not an instance type")));
    }
    sim.with_account(|account, _| {
        if !account.zones().contains(&zone.as_str()) {
            return Err((
                StatusCode::BAD_REQUEST,
                format!("{zone} is not a zone of this account"),
            ));
        }
        let offering = Offering {
            instance_type: name,
            zone,
            purchase,
        };
        match available {
            Some(left) => account.capacity.insert(offering, left),
            None => account.capacity.remove(&offering),
        };
        Ok(capacity(account))
    })
}

fn order(sim: &Sim, body: &[u8]) -> Answer {
    let order: Order = parse(body)?;
    if order.count == 0 {
        return Err((StatusCode::BAD_REQUEST, "count must be at least 1".to_owned()));
    }
    sim.holds.order(order);
    Ok(json!({ "held": sim.holds.held(), "orders": sim.holds.orders() }))
}
