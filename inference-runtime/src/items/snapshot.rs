//! One state of an item table. It never changes: a delta makes another, which shares with it what the delta leaves alone.
//!
//! Items lie in buckets by a hash of their ids, a few to each. A bucket has two blocks: its ids, so that who looks one up
//! reads through a handful of them; and the rows, all those of an item side by side, so that they come from one place of
//! the memory. A delta copies the buckets that it touches and none else (1,000 of a million items: 2 % of the rows).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::bf16;
use crate::engine::{Data, Datatype};
use crate::model::digest::Digest;

/// Items of a new bucket, on average.
const FILL: usize = 16;
/// Items of a bucket on average beyond which there are to be more buckets.
const FULL: usize = 64;
/// Items that are looked for, or copied, together: all their cache misses are under way at once.
const TOGETHER: usize = 32;
/// Bytes that the memory gives at once.
const LINE: usize = 64;

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

    fn append(self, bytes: &[u8], to: &mut Data) {
        match to {
            Data::F32(values) if self.half => bf16::append(bytes, values),
            _ => to.append_bytes(bytes),
        }
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
    /// By bucket; their number is a power of two.
    ids: Vec<Arc<[i64]>>,
    /// By bucket, the rows of its items for all inputs.
    blocks: Vec<Arc<[u8]>>,
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
        let buckets = (count / FILL).next_power_of_two();
        let mut order: Vec<(usize, usize)> = (0..count)
            .map(|item| (bucket(items.ids[item], buckets), item))
            .collect();
        order.sort_unstable();
        let mut ids = Vec::with_capacity(buckets);
        let mut blocks = Vec::with_capacity(buckets);
        let mut rest = order.as_slice();
        for bucket in 0..buckets {
            let (own, after) = rest.split_at(rest.partition_point(|(other, _)| *other == bucket));
            ids.push(own.iter().map(|(_, item)| items.ids[*item]).collect());
            let mut block =
                Vec::with_capacity(own.len() * inputs.iter().map(|row| row.bytes()).sum::<usize>());
            own.iter()
                .for_each(|(_, item)| items.append(inputs, *item, &mut block));
            blocks.push(block.into());
            rest = after;
        }
        Self {
            stamp,
            count,
            inputs: inputs.to_vec(),
            ids,
            blocks,
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
            // Loads that do not wait for one another.
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

    /// For each input the rows at `places`.
    pub fn rows(&self, places: &[Place]) -> Vec<Data> {
        let empty = |row: &RowType| row.datatype.with_capacity(places.len() * row.width);
        let mut rows: Vec<Data> = self.inputs.iter().map(empty).collect();
        for places in places.chunks(TOGETHER) {
            let touch = |bits: u8, place: &Place| {
                self.item(*place)
                    .iter()
                    .step_by(LINE)
                    .fold(bits, |bits, byte| bits ^ byte)
            };
            std::hint::black_box(places.iter().fold(0, touch));
            for place in places {
                let mut item = self.item(*place);
                for (data, row) in rows.iter_mut().zip(&self.inputs) {
                    let (own, others) = item.split_at(row.bytes());
                    row.append(own, data);
                    item = others;
                }
            }
        }
        rows
    }

    /// The rows of an item.
    fn item(&self, place: Place) -> &[u8] {
        let bytes = self.item_bytes();
        let start = place.row as usize * bytes;
        &self.blocks[place.bucket as usize][start..start + bytes]
    }

    fn item_bytes(&self) -> usize {
        self.inputs.iter().map(|row| row.bytes()).sum()
    }

    /// Another one, in which `items` have these rows and `removed` are not there. An error is an id that was to be
    /// removed and is not there. No id may be named twice.
    pub fn changed(&self, stamp: Stamp, items: &Items, removed: &[i64]) -> Result<Self, i64> {
        let touched = self.touched(items, removed)?;
        let (mut ids, mut blocks) = (self.ids.clone(), self.blocks.clone());
        let (mut count, bytes) = (self.count, self.item_bytes());
        for (bucket, rows) in touched {
            count = count + rows.len() - ids[bucket].len();
            ids[bucket] = rows.iter().map(|(id, _)| *id).collect();
            let mut block = Vec::with_capacity(rows.len() * bytes);
            for (_, origin) in rows {
                match origin {
                    Origin::Bucket(row) => {
                        block.extend_from_slice(&self.blocks[bucket][row * bytes..(row + 1) * bytes])
                    }
                    Origin::Delta(item) => items.append(&self.inputs, item, &mut block),
                }
            }
            blocks[bucket] = block.into();
        }
        let changed = Self {
            stamp,
            count,
            inputs: self.inputs.clone(),
            ids,
            blocks,
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
        let mut items = Items {
            ids: self.ids.iter().flat_map(|ids| ids.iter().copied()).collect(),
            rows: vec![Vec::new(); self.inputs.len()],
        };
        let bytes = self.item_bytes();
        for mut item in self.blocks.iter().flat_map(|block| block.chunks_exact(bytes)) {
            for (rows, row) in items.rows.iter_mut().zip(&self.inputs) {
                let (own, others) = item.split_at(row.bytes());
                rows.extend_from_slice(own);
                item = others;
            }
        }
        Self::new(self.stamp, &self.inputs, &items)
    }
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
