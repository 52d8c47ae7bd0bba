//! Holds answers back, so that a test can kill the caller exactly between the parts of a call: before
//! anything is committed, or after the commit and before the answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Point {
    Before,
    After,
}

/// The next `count` calls of `action` are held at `point`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub action: String,
    pub point: Point,
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Debug, Serialize)]
pub struct Held {
    pub id: u64,
    pub action: String,
    pub point: Point,
    pub principal: String,
}

#[derive(Debug, Default)]
struct State {
    orders: Vec<Order>,
    held: BTreeMap<u64, (Held, oneshot::Sender<()>)>,
    next_id: u64,
}

#[derive(Debug, Default)]
pub struct Holds {
    state: Mutex<State>,
}

/// Takes a call off the list when its connection closes and the waiting future is dropped.
struct Listed<'a> {
    holds: &'a Holds,
    id: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.holds.lock().held.remove(&self.id);
    }
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn order(&self, order: Order) {
        self.lock().orders.push(order);
    }

    /// Orders that no call has met yet.
    pub fn orders(&self) -> Vec<Order> {
        self.lock().orders.clone()
    }

    pub fn held(&self) -> Vec<Held> {
        self.lock().held.values().map(|(held, _)| held.clone()).collect()
    }

    /// Lets all held calls go on and forgets orders not yet met; returns how many calls were held.
    pub fn release(&self) -> usize {
        let mut state = self.lock();
        state.orders.clear();
        let held = std::mem::take(&mut state.held);
        let count = held.len();
        for (_, wake) in held.into_values() {
            // A receiver that is gone is a caller that closed its connection: nothing to wake.
            let _ = wake.send(());
        }
        count
    }

    /// Returns at once unless this call is to be held here.
    pub async fn pass(&self, action: &str, point: Point, principal: &str) {
        let Some((id, released)) = self.take_order(action, point, principal) else {
            return;
        };
        let _listed = Listed { holds: self, id };
        // An error means that the sender was dropped, which releases as well.
        let _ = released.await;
    }

    fn take_order(
        &self,
        action: &str,
        point: Point,
        principal: &str,
    ) -> Option<(u64, oneshot::Receiver<()>)> {
        let mut state = self.lock();
        let index = state
            .orders
            .iter()
            .position(|o| o.action == action && o.point == point && o.count > 0)?;
        state.orders[index].count -= 1;
        if state.orders[index].count == 0 {
            state.orders.remove(index);
        }
        state.next_id += 1;
        let id = state.next_id;
        let (wake, released) = oneshot::channel();
        let held = Held {
            id,
            action: action.to_owned(),
            point,
            principal: principal.to_owned(),
        };
        state.held.insert(id, (held, wake));
        Some((id, released))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn order() -> Order {
        Order {
            action: "CreateNodegroup".to_owned(),
            point: Point::After,
            count: 1,
        }
    }

    #[tokio::test]
    async fn one_matching_call_is_held_until_released() {
        let holds = Arc::new(Holds::default());
        holds.order(order());
        holds.pass("DeleteNodegroup", Point::After, "AK").await;
        holds.pass("CreateNodegroup", Point::Before, "AK").await;
        let call = tokio::spawn({
            let holds = Arc::clone(&holds);
            async move { holds.pass("CreateNodegroup", Point::After, "AK").await }
        });
        while holds.held().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!call.is_finished());
        assert_eq!(holds.release(), 1);
        call.await.expect("released");
        holds.pass("CreateNodegroup", Point::After, "AK").await;
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_the_list() {
        let holds = Arc::new(Holds::default());
        holds.order(order());
        let call = tokio::spawn({
            let holds = Arc::clone(&holds);
            async move { holds.pass("CreateNodegroup", Point::After, "AK").await }
        });
        while holds.held().is_empty() {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.is_err());
        assert!(holds.held().is_empty());
    }
}
