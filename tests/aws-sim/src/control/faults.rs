//! `/_sim/faults`: set, list and remove.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Answer;
use crate::fault::describe::Description;
use crate::server::Sim;

pub fn list(sim: &Sim) -> Value {
    sim.with_account(|account, _| json!({ "faults": account.faults.list(account.now()) }))
}

pub fn set(sim: &Sim, body: &[u8]) -> Answer {
    let refused = |message| (StatusCode::BAD_REQUEST, message);
    let description = Description::parse(body).map_err(refused)?;
    sim.with_account(|account, _| account.set_fault(description).map_err(refused))
}

pub fn remove(sim: &Sim, id: &str) -> Answer {
    let known = id.parse().ok();
    let removed = sim.with_account(|account, _| match known {
        Some(id) if account.remove_fault(id) => Ok(json!({ "removed": 1 })),
        _ => {
            let ids: Vec<String> = account.faults.ids().iter().map(u64::to_string).collect();
            let message = format!("fault {id} does not exist; there are: [{}]", ids.join(", "));
            Err((StatusCode::NOT_FOUND, message))
        }
    });
    sim.faults_removed();
    removed
}

pub fn clear(sim: &Sim) -> Value {
    let removed = sim.with_account(|account, _| {
        let ids = account.faults.ids();
        ids.iter().filter(|id| account.remove_fault(**id)).count()
    });
    sim.faults_removed();
    json!({ "removed": removed })
}
