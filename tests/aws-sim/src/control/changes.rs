//! `/_sim/changes`: somebody changes something by hand.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Answer;
use crate::account::by_hand::Change;
use crate::fault::mark::Mark;
use crate::fields::Fields;
use crate::journal::Entry;
use crate::server::Sim;

const CHANGES: &[&str] = &["size", "tags", "terminate"];

pub fn make(sim: &Sim, body: &[u8]) -> Answer {
    let refused = |message| (StatusCode::BAD_REQUEST, message);
    let change = parse(body).map_err(refused)?;
    let (service, action) = change.call();
    let entry = Entry {
        service,
        action: action.to_owned(),
        principal: "by-hand".to_owned(),
        resource: change.resource().to_owned(),
        parameters: serde_json::from_slice(body).unwrap_or(Value::Null),
        outcome: "OK".to_owned(),
        status: 200,
        mutation: true,
        fault: Some(Mark {
            id: None,
            kind: "changed-by-hand",
        }),
        committed: Some(true),
        ..Entry::default()
    };
    sim.with_account(|account, _| account.change_by_hand(change))
        .map_err(refused)?;
    sim.record(entry);
    Ok(json!({ "changed": true }))
}

fn parse(body: &[u8]) -> Result<Change, String> {
    let mut fields = Fields::parse(body)?;
    let missing = |name: &str, what: &str| format!("{name}: is missing; it is {what}");
    let name = fields
        .one_of("change", CHANGES)?
        .ok_or_else(|| missing("change", &format!("one of {}", CHANGES.join(", "))))?;
    let change = match name {
        "size" => {
            let mut size = |name| Ok::<_, String>(fields.whole(name, 0..=450)?.map(i64::from));
            let (min, max, desired) = (size("min")?, size("max")?, size("desired")?);
            if min.or(max).or(desired).is_none() {
                return Err(missing(
                    "desired",
                    "a whole number from 0 to 450, or give min or max",
                ));
            }
            let group = fields.text("group")?;
            Change::Size {
                group: group.ok_or_else(|| missing("group", "the name of a node group"))?,
                min,
                max,
                desired,
            }
        }
        "tags" => {
            let what = "a node group's name, a launch template's name or id, or an instance's id";
            let (set, remove) = (fields.texts("set")?.into_iter().collect(), fields.list("remove")?);
            let change = Change::Tags {
                resource: fields
                    .text("resource")?
                    .ok_or_else(|| missing("resource", what))?,
                set,
                remove,
            };
            if matches!(&change, Change::Tags { set, remove, .. } if set.is_empty() && remove.is_empty()) {
                return Err(missing(
                    "set",
                    "an object of tags, or give remove, a list of keys",
                ));
            }
            change
        }
        _ => Change::Terminate {
            instance: fields
                .text("instance")?
                .ok_or_else(|| missing("instance", "the id of an instance"))?,
        },
    };
    fields.finish(&format!("a change of {name}"))?;
    Ok(change)
}
