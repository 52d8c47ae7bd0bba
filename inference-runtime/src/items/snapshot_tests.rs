use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const INPUTS: [RowType; 2] = [
    RowType {
        datatype: Datatype::F32,
        width: 3,
        half: false,
    },
    RowType {
        datatype: Datatype::I64,
        width: 1,
        half: false,
    },
];

fn stamp(revision: &str) -> Stamp {
    Stamp {
        revision: revision.to_owned(),
        digest: None,
        since: Instant::now(),
    }
}

/// Rows that tell which item they are of, and of which state.
fn items(ids: &[i64], state: i64) -> Items {
    let floats = |id: &i64| [*id as f32, state as f32, -0.0].map(f32::to_le_bytes).concat();
    let ints = |id: &i64| (id ^ state).to_le_bytes().to_vec();
    Items {
        ids: ids.to_vec(),
        rows: vec![
            ids.iter().flat_map(floats).collect(),
            ids.iter().flat_map(ints).collect(),
        ],
    }
}

/// What a snapshot says of `ids`: the state of each.
fn states(snapshot: &Snapshot, ids: &[i64]) -> Vec<Option<i64>> {
    let places: Vec<Option<Place>> = snapshot.find(ids).collect();
    let found: Vec<Place> = places.iter().flatten().copied().collect();
    let mut rows = snapshot.no_rows(found.len());
    snapshot.append(&found, &mut rows);
    let [Data::F32(floats), Data::I64(ints)] = &rows[..] else {
        panic!("other types: {rows:?}");
    };
    let mut rows = floats.chunks(3).zip(ints);
    let ids = ids.iter().zip(&places);
    ids.map(|(id, place)| {
        place.map(|_| {
            let (floats, int) = rows.next().unwrap();
            assert_eq!(
                (floats[0], floats[2].to_bits()),
                (*id as f32, (-0.0_f32).to_bits())
            );
            assert_eq!(*int, id ^ floats[1] as i64);
            floats[1] as i64
        })
    })
    .collect()
}

#[test]
fn an_empty_table_has_nothing() {
    let empty = Snapshot::new(stamp("0"), &INPUTS, &items(&[], 0));
    assert_eq!((empty.count(), states(&empty, &[0, 1])), (0, vec![None, None]));
    assert_eq!(empty.changed(stamp("1"), &items(&[], 1), &[7]).err(), Some(7));
}

#[test]
fn a_delta_shares_what_it_leaves_alone() {
    let ids: Vec<i64> = (0..20_000).collect();
    let before = Snapshot::new(stamp("0"), &INPUTS, &items(&ids, 0));
    let after = before.changed(stamp("1"), &items(&[5, 77], 1), &[9]).unwrap();
    assert!(before.buckets.len() > 1000);
    let buckets = before.buckets.iter().zip(&after.buckets);
    let changed = buckets
        .filter(|(one, other)| !Arc::ptr_eq(&one.memory, &other.memory))
        .count();
    assert!((1..=3).contains(&changed), "{changed}");
    assert_eq!(states(&before, &[5, 9, 77]), [Some(0), Some(0), Some(0)]);
    assert_eq!(states(&after, &[5, 9, 77]), [Some(1), None, Some(1)]);
}

#[test]
fn a_table_that_grows_gets_more_buckets() {
    let mut table = Snapshot::new(stamp("0"), &INPUTS, &items(&[], 0));
    for state in 0..40 {
        let ids: Vec<i64> = (0..100).map(|index| (1_000 * state + index) << 22).collect();
        table = table.changed(stamp("n"), &items(&ids, state), &[]).unwrap();
        assert!(table.count() <= FULL * table.buckets.len());
        assert_eq!(states(&table, &ids), vec![Some(state); 100]);
    }
    assert_eq!(table.count(), 4_000);
    // No bucket is much fuller than others, though the ids agree in their low bits.
    let fullest = table.buckets.iter().map(|bucket| bucket.count).max().unwrap();
    assert!((fullest as usize) < 3 * FULL, "{fullest}");
}

#[test]
fn memory_that_deltas_have_scattered_is_packed_again() {
    let ids: Vec<i64> = (0..2_000).collect();
    let mut table = Snapshot::new(stamp("0"), &INPUTS, &items(&ids, 0));
    let memories = |table: &Snapshot| {
        let mut all: Vec<_> = table
            .buckets
            .iter()
            .map(|bucket| Arc::as_ptr(&bucket.memory))
            .collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    assert_eq!(memories(&table), 1);
    let mut most = 0;
    for state in 1..1_000 {
        table = table
            .changed(stamp("n"), &items(&[state * 2], state), &[])
            .unwrap();
        most = most.max(memories(&table));
        assert!(table.apart <= table.buckets.len() / 2);
    }
    assert!(
        most > table.buckets.len() / 2 && memories(&table) < most,
        "{most}"
    );
    assert_eq!(states(&table, &[2, 3, 999 * 2]), [Some(1), Some(0), Some(999)]);
}

proptest! {
    /// Against a map, whatever the deltas are; and no state changes once it is made.
    #[test]
    fn it_is_a_map(
        first in 0..300_i64,
        deltas in prop::collection::vec((prop::collection::btree_set(-50..400_i64, 0..120), 0..5_usize), 0..8),
    ) {
        let all: Vec<i64> = (-60..410).collect();
        let ids: Vec<i64> = (0..first).collect();
        let mut tables = vec![Snapshot::new(stamp("0"), &INPUTS, &items(&ids, 0))];
        let mut maps: Vec<BTreeMap<i64, i64>> = vec![ids.iter().map(|id| (*id, 0)).collect()];
        for (state, (set, remove)) in deltas.iter().enumerate() {
            let state = state as i64 + 1;
            let mut map = maps.last().unwrap().clone();
            let removed: Vec<i64> =
                map.keys().copied().filter(|id| !set.contains(id)).step_by(7).take(*remove).collect();
            let set: Vec<i64> = set.iter().copied().collect();
            map.retain(|id, _| !removed.contains(id));
            map.extend(set.iter().map(|id| (*id, state)));
            let table = tables.last().unwrap().changed(stamp("n"), &items(&set, state), &removed).unwrap();
            tables.push(table);
            maps.push(map);
        }
        for (table, map) in tables.iter().zip(&maps) {
            prop_assert_eq!(table.count(), map.len());
            let expected: Vec<Option<i64>> = all.iter().map(|id| map.get(id).copied()).collect();
            prop_assert_eq!(states(table, &all), expected);
        }
    }
}
