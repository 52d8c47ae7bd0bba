//! One state of an item table. It never changes: a delta makes another, which shares with it what the delta leaves alone.
//!
//! Items lie in buckets by a hash of their ids, a few to each. A bucket has its ids, so that who looks one up
//! reads through a handful of them; and behind them the rows, all those of an item side by side, so that they come from one place of
//! the memory. A delta copies the buckets that it touches and none else (1,000 of a million items: half a percent of the rows).
//!
//! Buckets of a table that was loaded share memory in huge pages: with small ones, each item's address would be one to
//! be looked up in memory too. Those of a delta have memory of their own; when they are most, all are packed anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rank::kernel::{LINE, Lines, prefetch};

use crate::engine::{Data, Datatype};
use crate::model::digest::Digest;

/// At most so many items a new bucket, on average: their ids are in one line of memory, nearly always.
const FILL: usize = 4;
/// Items of a bucket on average beyond which there are to be more buckets.
const FULL: usize = 16;
/// Items ahead of the one that is looked for: their ids are on the way from memory.
const AHEAD: usize = 16;
/// Bytes of memory that buckets share, but for the last ones.
const SHARED: usize = 16 << 20;
/// Bytes of an id.
const ID: usize = size_of::<i64>();

/// Items and their rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    /// Each one once.
    pub ids: Vec<i64>,
    /// For each filled input the rows one after the other, as the table keeps them.
    pub rows: Vec<Vec<u8>>,
}

/// What a row of a filled input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowType {
    pub datatype: Datatype,
    /// Elements.
    pub width: usize,
    /// FP32 that is kept in bf16.
    pub half: bool,
}

impl RowType {
    /// As the table keeps it.
    pub fn bytes(self) -> usize {
        let element = if self.half { 2 } else { self.datatype.size() };
        self.width * element
    }

    /// Of its rows in a batch.
    fn datatype(self) -> Datatype {
        if self.half { Datatype::U16 } else { self.datatype }
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
    inputs: Vec<RowType>,
    /// Their number is a power of two.
    buckets: Vec<Bucket>,
    /// Buckets that deltas have given memory of their own.
    apart: usize,
}

/// The ids of some items, and behind them the rows of each for all inputs.
#[derive(Clone)]
struct Bucket {
    memory: Arc<Lines>,
    /// Where it begins.
    line: u32,
    /// Items.
    count: u32,
}

impl Bucket {
    fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[self.line as usize * LINE..]
    }

    fn ids(&self) -> &[[u8; ID]] {
        &self.bytes().as_chunks().0[..self.count as usize]
    }

    /// Whether others are in the same memory; its rows have `bytes`.
    fn shares(&self, bytes: usize) -> bool {
        let count = self.count as usize;
        self.memory.bytes().len() > rows_at(count) + count * bytes
    }

    /// Of rows that have `bytes`.
    fn row(&self, row: usize, bytes: usize) -> &[u8] {
        let start = rows_at(self.count as usize) + row * bytes;
        &self.bytes()[start..start + bytes]
    }
}

/// Where the rows of a bucket with so many items begin in it.
fn rows_at(count: usize) -> usize {
    (count * ID).next_multiple_of(LINE)
}

/// Puts one bucket after the other into memory.
#[derive(Default)]
struct Packer {
    bytes: Vec<u8>,
    /// Those in `bytes`, by line and items.
    open: Vec<(u32, u32)>,
    done: Vec<Bucket>,
}

impl Packer {
    /// Items with the ids `ids`, of which `append` appends the rows, one after the other.
    fn pack(&mut self, ids: &[i64], row_bytes: usize, append: impl FnOnce(&mut Vec<u8>)) {
        let size = rows_at(ids.len()) + ids.len() * row_bytes;
        if self.bytes.len() + size > SHARED {
            self.close();
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(LINE), 0);
        let start = self.bytes.len();
        let number = |number: usize| u32::try_from(number).expect("far less memory than 256 GiB is shared");
        self.open.push((number(start / LINE), number(ids.len())));
        ids.iter()
            .for_each(|id| self.bytes.extend_from_slice(&id.to_ne_bytes()));
        self.bytes.resize(start + rows_at(ids.len()), 0);
        append(&mut self.bytes);
    }

    fn close(&mut self) {
        let memory = Arc::new(Lines::new(&self.bytes));
        self.bytes.clear();
        let bucket = |(line, count)| Bucket {
            memory: Arc::clone(&memory),
            line,
            count,
        };
        self.done.extend(self.open.drain(..).map(bucket));
    }

    fn buckets(mut self) -> Vec<Bucket> {
        self.close();
        self.done
    }
}

/// Where an item of a changed bucket is from.
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
    pub fn new(stamp: Stamp, inputs: &[RowType], items: &Items) -> Self {
        let count = items.ids.len();
        let buckets = buckets_for(count);
        let mut order: Vec<(usize, usize)> = (0..count)
            .map(|item| (bucket(items.ids[item], buckets), item))
            .collect();
        order.sort_unstable();
        let mut packer = Packer::default();
        let mut rest = order.as_slice();
        for bucket in 0..buckets {
            let (own, after) = rest.split_at(rest.iter().take_while(|(other, _)| *other == bucket).count());
            let ids: Vec<i64> = own.iter().map(|(_, item)| items.ids[*item]).collect();
            packer.pack(&ids, item_bytes(inputs), |block| {
                own.iter()
                    .for_each(|(_, item)| items.append(inputs, *item, block));
            });
            rest = after;
        }
        Self {
            stamp,
            count,
            inputs: inputs.to_vec(),
            buckets: packer.buckets(),
            apart: 0,
        }
    }

    /// Number of items.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where each of `ids` is; `None`: it is not there. Their rows are then on the way from memory, if there are not more of them
    /// than the cache takes: some hundred.
    pub fn find(&self, ids: &[i64]) -> impl Iterator<Item = Option<Place>> {
        let bytes = item_bytes(&self.inputs);
        let bucket_of = |id: &i64| &self.buckets[bucket(*id, self.buckets.len())];
        // Where the buckets are, first: those of a large table are not in the cache either.
        ids.iter()
            .for_each(|id| prefetch(std::slice::from_ref(bucket_of(id))));
        let ahead = move |id: &i64| prefetch(bucket_of(id).ids());
        ids.iter().take(AHEAD).for_each(ahead);
        ids.iter().enumerate().map(move |(at, id)| {
            ids.get(at + AHEAD).into_iter().for_each(ahead);
            let place = self.place(*id)?;
            prefetch(self.buckets[place.bucket as usize].row(place.row as usize, bytes));
            Some(place)
        })
    }

    pub fn place(&self, id: i64) -> Option<Place> {
        let bucket = bucket(id, self.buckets.len());
        let row = row_of(id, self.buckets[bucket].ids())?;
        Some(Place {
            bucket: u32::try_from(bucket).ok()?,
            row: u32::try_from(row).ok()?,
        })
    }

    /// No rows yet for any input, with room for `count`.
    pub fn no_rows(&self, count: usize) -> Vec<Data> {
        let empty = |row: &RowType| row.datatype().with_capacity(count * row.width);
        self.inputs.iter().map(empty).collect()
    }

    /// Appends the rows at `places`, for each input to one of `rows`. FP32 that is kept in bf16 stays in it, as UINT16.
    pub fn append(&self, places: &[Place], rows: &mut [Data]) {
        let bytes = item_bytes(&self.inputs);
        for place in places {
            let mut item = self.buckets[place.bucket as usize].row(place.row as usize, bytes);
            for (data, row) in rows.iter_mut().zip(&self.inputs) {
                let (own, others) = item.split_at(row.bytes());
                data.append_bytes(own);
                item = others;
            }
        }
    }

    /// Another one, in which `items` have these rows and `removed` are not there. An error is an id that was to be
    /// removed and is not there. No id may be named twice.
    pub fn changed(&self, stamp: Stamp, items: &Items, removed: &[i64]) -> Result<Self, i64> {
        let touched = self.touched(items, removed)?;
        let mut buckets = self.buckets.clone();
        let (mut count, mut apart, bytes) = (self.count, self.apart, item_bytes(&self.inputs));
        for (bucket, rows) in touched {
            let old = &self.buckets[bucket];
            count = count + rows.len() - old.count as usize;
            apart += usize::from(old.shares(bytes));
            let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
            let mut packer = Packer::default();
            packer.pack(&ids, bytes, |block| {
                for (_, origin) in rows {
                    match origin {
                        Origin::Bucket(row) => block.extend_from_slice(old.row(row, bytes)),
                        Origin::Delta(item) => items.append(&self.inputs, item, block),
                    }
                }
            });
            buckets[bucket] = packer.buckets().remove(0);
        }
        let changed = Self {
            stamp,
            count,
            inputs: self.inputs.clone(),
            buckets,
            apart,
        };
        let (full, scattered) = (FULL * changed.buckets.len(), changed.buckets.len() / 2);
        Ok(if count > full || apart > scattered {
            changed.packed()
        } else {
            changed
        })
    }

    /// Buckets that change, with what is then in them.
    fn touched(&self, items: &Items, removed: &[i64]) -> Result<BTreeMap<usize, Vec<(i64, Origin)>>, i64> {
        let mut touched = BTreeMap::new();
        let rows_of = |bucket: usize| {
            let own = self.buckets[bucket].ids().iter().enumerate();
            own.map(|(row, id)| (i64::from_ne_bytes(*id), Origin::Bucket(row)))
                .collect::<Vec<_>>()
        };
        let buckets = self.buckets.len();
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

    /// The same items in memory that they share again, in as many buckets as they need, and no fewer than now. What they had before
    /// is there meanwhile, and nothing else.
    fn packed(self) -> Self {
        let (old, bytes) = (self.buckets.len(), item_bytes(&self.inputs));
        let wanted = buckets_for(self.count).max(old);
        let mut packer = Packer::default();
        for target in 0..wanted {
            // Both are powers of two: an item of this one has the same lower bits in the old ones.
            let from = &self.buckets[target & (old - 1)];
            let ids = from.ids().iter().map(|id| i64::from_ne_bytes(*id)).enumerate();
            let (rows, ids): (Vec<usize>, Vec<i64>) =
                ids.filter(|(_, id)| bucket(*id, wanted) == target).unzip();
            packer.pack(&ids, bytes, |block| {
                rows.iter()
                    .for_each(|row| block.extend_from_slice(from.row(*row, bytes)));
            });
        }
        Self {
            stamp: self.stamp,
            count: self.count,
            inputs: self.inputs,
            buckets: packer.buckets(),
            apart: 0,
        }
    }
}

/// Buckets of a table with so many items.
fn buckets_for(items: usize) -> usize {
    (items / FILL).next_power_of_two()
}

/// Which of a bucket's `ids` it is.
fn row_of(id: i64, ids: &[[u8; ID]]) -> Option<usize> {
    ids.iter().position(|own| i64::from_ne_bytes(*own) == id)
}

/// Of the rows of an item.
fn item_bytes(inputs: &[RowType]) -> usize {
    inputs.iter().map(|row| row.bytes()).sum()
}

impl Items {
    /// Appends the rows of an item.
    fn append(&self, inputs: &[RowType], item: usize, block: &mut Vec<u8>) {
        for (row, rows) in inputs.iter().zip(&self.rows) {
            block.extend_from_slice(&rows[item * row.bytes()..(item + 1) * row.bytes()]);
        }
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
