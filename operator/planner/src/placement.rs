//! Which model gets how many replicas in which pool.
//!
//! Pools give room in order of priority class; among equals each keeps what it has, and what is left goes one replica
//! at a time to the model with the smallest share of its wish met, then by name. Within a model the placement's order
//! decides, except that replicas that are already in a pool stay there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::observed::{ModelKey, PoolName};

/// One unit is a millionth of a node.
pub const NODE: u64 = 1_000_000;

/// What a model wants, and where it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub model: ModelKey,
    pub priority: i32,
    pub replicas: u32,
    /// Pools in order of preference.
    pub options: Vec<PoolOption>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOption {
    pub pool: PoolName,
    /// Upper bound on replicas of this model here.
    pub max_replicas: Option<u32>,
    /// Share of a node that a replica takes, in millionths.
    pub share: u64,
    /// Replicas that are here now.
    pub current: u32,
}

/// Replicas per model and pool; pools without any are left out.
pub type Assignment = BTreeMap<ModelKey, BTreeMap<PoolName, u32>>;

/// Hands out `room` (millionths of nodes by pool). `room` holds what is left afterwards.
pub fn assign(wishes: &[Wish], room: &mut BTreeMap<PoolName, u64>) -> Assignment {
    let mut by_priority = BTreeMap::<Reverse<i32>, Vec<&Wish>>::new();
    for wish in wishes {
        by_priority.entry(Reverse(wish.priority)).or_default().push(wish);
    }
    let mut all = Assignment::new();
    for equals in by_priority.into_values() {
        let mut states: Vec<State> = equals.into_iter().map(State::new).collect();
        states.sort_by(|a, b| a.wish.model.cmp(&b.wish.model));
        for state in &mut states {
            state.keep(room);
        }
        grow(&mut states, room);
        for state in states {
            let given = state.wish.options.iter().zip(&state.given);
            let given = given.filter(|(_, count)| **count > 0);
            let given = given
                .map(|(option, count)| (option.pool.clone(), *count))
                .collect();
            all.insert(state.wish.model.clone(), given);
        }
    }
    all
}

struct State<'a> {
    wish: &'a Wish,
    given: Vec<u32>,
    left: u32,
}

impl<'a> State<'a> {
    fn new(wish: &'a Wish) -> Self {
        Self {
            wish,
            given: vec![0; wish.options.len()],
            left: wish.replicas,
        }
    }

    /// Replicas that are there stay, as far as the wish, the bound and the room go.
    fn keep(&mut self, room: &mut BTreeMap<PoolName, u64>) {
        for (option, given) in self.wish.options.iter().zip(&mut self.given) {
            let bound = option.max_replicas.unwrap_or(u32::MAX);
            let count = option.current.min(self.left).min(bound).min(fits(room, option));
            take(room, option, count);
            *given += count;
            self.left -= count;
        }
    }

    /// One more replica in the first pool that has room.
    fn grow_by_one(&mut self, room: &mut BTreeMap<PoolName, u64>) -> bool {
        for (option, given) in self.wish.options.iter().zip(&mut self.given) {
            if *given < option.max_replicas.unwrap_or(u32::MAX) && fits(room, option) > 0 {
                take(room, option, 1);
                *given += 1;
                self.left -= 1;
                return true;
            }
        }
        false
    }

    /// Share of the wish met, in millionths.
    fn met(&self) -> u64 {
        let wish = u64::from(self.wish.replicas).max(1);
        (wish - u64::from(self.left)) * NODE / wish
    }
}

fn grow(states: &mut [State], room: &mut BTreeMap<PoolName, u64>) {
    let mut queue: BinaryHeap<Reverse<(u64, usize)>> = states
        .iter()
        .enumerate()
        .filter(|(_, state)| state.left > 0)
        .map(|(index, state)| Reverse((state.met(), index)))
        .collect();
    while let Some(Reverse((_, index))) = queue.pop() {
        let state = &mut states[index];
        if state.grow_by_one(room) && state.left > 0 {
            queue.push(Reverse((state.met(), index)));
        }
    }
}

fn fits(room: &BTreeMap<PoolName, u64>, option: &PoolOption) -> u32 {
    let left = room.get(&option.pool).copied().unwrap_or(0);
    u32::try_from(left / option.share.max(1)).unwrap_or(u32::MAX)
}

fn take(room: &mut BTreeMap<PoolName, u64>, option: &PoolOption, count: u32) {
    if let Some(left) = room.get_mut(&option.pool) {
        *left = left.saturating_sub(option.share * u64::from(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish(name: &str, priority: i32, replicas: u32, pools: &[(&str, u32)]) -> Wish {
        Wish {
            model: ModelKey {
                namespace: "ns".into(),
                name: name.into(),
            },
            priority,
            replicas,
            options: pools
                .iter()
                .map(|(pool, current)| PoolOption {
                    pool: PoolName((*pool).into()),
                    max_replicas: None,
                    share: NODE,
                    current: *current,
                })
                .collect(),
        }
    }

    fn rooms(pools: &[(&str, u64)]) -> BTreeMap<PoolName, u64> {
        pools
            .iter()
            .map(|(p, nodes)| (PoolName((*p).into()), nodes * NODE))
            .collect()
    }

    fn given(all: &Assignment, model: &str, pool: &str) -> u32 {
        let key = all.keys().find(|k| k.name == model).unwrap();
        all[key].get(&PoolName(pool.into())).copied().unwrap_or(0)
    }

    #[test]
    fn the_first_pool_with_room_is_used_first() {
        let all = assign(
            &[wish("m", 0, 5, &[("a", 0), ("b", 0)])],
            &mut rooms(&[("a", 3), ("b", 9)]),
        );
        assert_eq!((given(&all, "m", "a"), given(&all, "m", "b")), (3, 2));
    }

    #[test]
    fn replicas_stay_where_they_are_and_leave_the_last_pool_first() {
        let pools = [("a", 1), ("b", 3)];
        let all = assign(&[wish("m", 0, 4, &pools)], &mut rooms(&[("a", 9), ("b", 9)]));
        assert_eq!((given(&all, "m", "a"), given(&all, "m", "b")), (1, 3));
        let all = assign(&[wish("m", 0, 2, &pools)], &mut rooms(&[("a", 9), ("b", 9)]));
        assert_eq!((given(&all, "m", "a"), given(&all, "m", "b")), (1, 1));
    }

    #[test]
    fn higher_priority_first_then_equal_shares() {
        let wishes = [
            wish("low", 0, 10, &[("a", 4)]),
            wish("high", 10, 6, &[("a", 0)]),
            wish("mid-1", 5, 4, &[("a", 0)]),
            wish("mid-2", 5, 2, &[("a", 0)]),
        ];
        let all = assign(&wishes, &mut rooms(&[("a", 9)]));
        let row = ["high", "mid-1", "mid-2", "low"].map(|m| given(&all, m, "a"));
        assert_eq!(row, [6, 2, 1, 0]);
    }

    #[test]
    fn bounds_per_pool_hold() {
        let mut bounded = wish("m", 0, 5, &[("a", 0), ("b", 0)]);
        bounded.options[0].max_replicas = Some(2);
        let all = assign(&[bounded], &mut rooms(&[("a", 9), ("b", 9)]));
        assert_eq!((given(&all, "m", "a"), given(&all, "m", "b")), (2, 3));
    }

    proptest! {
        /// Judged without the algorithm: never over room, never over the wish, no room left beside an unmet wish,
        /// and the order of the wishes does not matter.
        #[test]
        fn properties(
            wants in prop::collection::vec((0i32..3, 0u32..8, 0u32..4, 0u32..4), 1..6),
            (a, b) in (0u64..12, 0u64..12),
        ) {
            let wishes: Vec<Wish> = wants.iter().enumerate().map(|(i, (priority, replicas, in_a, in_b))| {
                wish(&format!("m{i}"), *priority, *replicas, &[("a", *in_a), ("b", *in_b)])
            }).collect();
            let mut left = rooms(&[("a", a), ("b", b)]);
            let all = assign(&wishes, &mut left);
            let total = |pool: &str| all.keys().map(|k| u64::from(given(&all, &k.name, pool))).sum::<u64>();
            prop_assert!(total("a") <= a && total("b") <= b);
            for wish in &wishes {
                let got = all[&wish.model].values().sum::<u32>();
                prop_assert!(got <= wish.replicas);
                prop_assert!(got == wish.replicas || left.values().all(|l| *l == 0));
            }
            let reversed: Vec<Wish> = wishes.iter().rev().cloned().collect();
            prop_assert_eq!(all, assign(&reversed, &mut rooms(&[("a", a), ("b", b)])));
        }
    }
}
