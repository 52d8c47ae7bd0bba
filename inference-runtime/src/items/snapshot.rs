//! One state of an item table. It never changes: a delta makes another, which shares with it what the delta leaves alone.
//!
//! Items lie in buckets by a hash of their ids, a few to each. A bucket's ids, and the rows of each filled input, are
//! blocks of their own: who looks an id up reads through a handful of ids, and a delta copies the buckets that it
//! touches and none else (1,000 of a million items: 2 % of the rows).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::{Data, Datatype};
use crate::model::digest::Digest;

/// Items of a new bucket, on average.
const FILL: usize = 16;
/// Items of a bucket on average beyond which there are to be more buckets.
const FULL: usize = 64;
/// Ids that are looked for together.
const TOGETHER: usize = 32;

/// Items and their rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    /// Each one once.
    pub ids: Vec<i64>,
    /// For each filled input the rows one after the other, little-endian.
    pub rows: Vec<Vec<u8>>,
}

/// What a row of a filled input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowType {
    pub datatype: Datatype,
    /// Elements.
    pub width: usize,
}

impl RowType {
    pub fn bytes(self) -> usize {
        self.width * self.datatype.size()
    }
}

/// Which state it is.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub revision: String,
    /// Of the delta that made it; none when it was loaded.
    pub digest: Option<Digest>,
    pub since: Instant,
}

/// Where an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    bucket: u32,
    row: u32,
}

pub struct Snapshot {
    pub stamp: Stamp,
    count: usize,
    /// By bucket; their number is a power of two.
    ids: Vec<Arc<[i64]>>,
    inputs: Vec<Filled>,
}

/// The rows of one input.
struct Filled {
    row: RowType,
    /// By bucket.
    blocks: Vec<Arc<[u8]>>,
}

/// Where a row of a changed bucket is from.
#[derive(Clone, Copy)]
enum Origin {
    Bucket(usize),
    Delta(usize),
}

/// The finaliser of SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014): ids in a row, or
/// with equal low bits, end in different buckets.
fn bucket(id: i64, buckets: usize) -> usize {
    let mut bits = id.cast_unsigned();
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // Only the low bits count.
    #[allow(clippy::cast_possible_truncation)]
    let bits = (bits ^ (bits >> 31)) as usize;
    bits & (buckets - 1)
}

impl Snapshot {
    /// `items` have the rows of `inputs`, in their order.
    pub fn new(stamp: Stamp, inputs: &[RowType], items: Items) -> Self {
        let count = items.ids.len();
        let buckets = (count / FILL).next_power_of_two();
        let mut order: Vec<(usize, usize)> = (0..count)
            .map(|item| (bucket(items.ids[item], buckets), item))
            .collect();
        order.sort_unstable();
        let mut groups = Vec::with_capacity(buckets);
        let mut rest = order.as_slice();
        for bucket in 0..buckets {
            let (own, after) = rest.split_at(rest.partition_point(|(other, _)| *other == bucket));
            groups.push(own);
            rest = after;
        }
        let block_ids = |group: &&[(usize, usize)]| group.iter().map(|(_, item)| items.ids[*item]).collect();
        let ids = groups.iter().map(block_ids).collect();
        let filled = |(row, rows): (&RowType, Vec<u8>)| Filled {
            row: *row,
            blocks: groups
                .iter()
                .map(|group| block(group.iter().map(|(_, item)| row_of(&rows, *row, *item))))
                .collect(),
        };
        let inputs = inputs.iter().zip(items.rows).map(filled).collect();
        Self {
            stamp,
            count,
            ids,
            inputs,
        }
    }

    /// Number of items.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where each of `ids` is; `None`: it is not there.
    pub fn find(&self, ids: &[i64]) -> Vec<Option<Place>> {
        let mut places = Vec::with_capacity(ids.len());
        for ids in ids.chunks(TOGETHER) {
            // Loads that do not wait for one another: all their cache misses are under way at once.
            let first = |id: &i64| self.ids[bucket(*id, self.ids.len())].first().copied();
            std::hint::black_box(ids.iter().filter_map(first).fold(0, |bits, id| bits ^ id));
            places.extend(ids.iter().map(|id| self.place(*id)));
        }
        places
    }

    pub fn place(&self, id: i64) -> Option<Place> {
        let bucket = bucket(id, self.ids.len());
        let row = self.ids[bucket].iter().position(|own| *own == id)?;
        Some(Place {
            bucket: u32::try_from(bucket).ok()?,
            row: u32::try_from(row).ok()?,
        })
    }

    /// The rows of an input at `places`.
    pub fn rows(&self, input: usize, places: &[Place]) -> Data {
        let Filled { row, blocks } = &self.inputs[input];
        let mut data = row.datatype.with_capacity(places.len() * row.width);
        for place in places {
            let block = &blocks[place.bucket as usize];
            data.append_bytes(row_of(block, *row, place.row as usize));
        }
        data
    }

    /// Another one, in which `items` have these rows and `removed` are not there. An error is an id that was to be
    /// removed and is not there. No id may be named twice.
    pub fn changed(&self, stamp: Stamp, items: &Items, removed: &[i64]) -> Result<Self, i64> {
        let touched = self.touched(items, removed)?;
        let mut ids = self.ids.clone();
        let mut count = self.count;
        for (bucket, rows) in &touched {
            count = count + rows.len() - ids[*bucket].len();
            ids[*bucket] = rows.iter().map(|(id, _)| *id).collect();
        }
        let inputs = self
            .inputs
            .iter()
            .zip(&items.rows)
            .map(|(filled, delta)| filled.changed(&touched, delta))
            .collect();
        let changed = Self {
            stamp,
            count,
            ids,
            inputs,
        };
        Ok(if count > FULL * changed.ids.len() {
            changed.spread()
        } else {
            changed
        })
    }

    /// Buckets that change, with what is then in them.
    fn touched(&self, items: &Items, removed: &[i64]) -> Result<BTreeMap<usize, Vec<(i64, Origin)>>, i64> {
        let mut touched = BTreeMap::new();
        let rows_of = |bucket: usize| {
            let own = self.ids[bucket].iter().enumerate();
            own.map(|(row, id)| (*id, Origin::Bucket(row)))
                .collect::<Vec<_>>()
        };
        let buckets = self.ids.len();
        for (index, id) in items.ids.iter().enumerate() {
            let bucket = bucket(*id, buckets);
            let rows = touched.entry(bucket).or_insert_with(|| rows_of(bucket));
            match rows.iter_mut().find(|(own, _)| own == id) {
                Some((_, origin)) => *origin = Origin::Delta(index),
                None => rows.push((*id, Origin::Delta(index))),
            }
        }
        for id in removed {
            let bucket = bucket(*id, buckets);
            let rows = touched.entry(bucket).or_insert_with(|| rows_of(bucket));
            let row = rows.iter().position(|(own, _)| own == id).ok_or(*id)?;
            rows.swap_remove(row);
        }
        Ok(touched)
    }

    /// The same items in more buckets.
    fn spread(self) -> Self {
        let kinds: Vec<RowType> = self.inputs.iter().map(|filled| filled.row).collect();
        let concat = |filled: &Filled| {
            filled
                .blocks
                .iter()
                .flat_map(|block| block.iter().copied())
                .collect()
        };
        let items = Items {
            ids: self.ids.iter().flat_map(|ids| ids.iter().copied()).collect(),
            rows: self.inputs.iter().map(concat).collect(),
        };
        Self::new(self.stamp, &kinds, items)
    }
}

impl Filled {
    fn changed(&self, touched: &BTreeMap<usize, Vec<(i64, Origin)>>, delta: &[u8]) -> Self {
        let mut blocks = self.blocks.clone();
        for (bucket, rows) in touched {
            let old = &self.blocks[*bucket];
            blocks[*bucket] = block(rows.iter().map(|(_, origin)| match origin {
                Origin::Bucket(row) => row_of(old, self.row, *row),
                Origin::Delta(row) => row_of(delta, self.row, *row),
            }));
        }
        Self {
            row: self.row,
            blocks,
        }
    }
}

fn row_of(rows: &[u8], row: RowType, index: usize) -> &[u8] {
    &rows[index * row.bytes()..(index + 1) * row.bytes()]
}

fn block<'a>(rows: impl Iterator<Item = &'a [u8]>) -> Arc<[u8]> {
    rows.collect::<Vec<_>>().concat().into()
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
