//! Rows of a table into their places.

use super::{RowsMut, Table, copy, prefetch};

/// Rows of integers.
#[derive(Clone, Copy, Debug)]
pub struct Ids<'a> {
    /// Row `r` begins at `r * stride`, or at `index[r] * stride`.
    pub data: &'a [i64],
    pub stride: usize,
    pub index: Option<&'a [usize]>,
    /// Which elements of a row are ids, and what is added to each: where its feature's rows begin in a table of many.
    pub columns: &'a [(usize, i64)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideTable {
    pub index: i64,
}

/// Rows that are looked up, and prefetched, before the first of them is copied.
const AHEAD: usize = 256;

/// For each of `rows` and each column of ids the table's row, one after the other. An index below 0 counts from the end.
pub fn gather(table: &Table, ids: &Ids<'_>, rows: usize, out: &mut RowsMut<'_>) -> Result<(), OutsideTable> {
    // The compiler knows the widths that tables have.
    match table.width() {
        1 => gather_of::<1>(table, ids, rows, out),
        2 => gather_of::<2>(table, ids, rows, out),
        4 => gather_of::<4>(table, ids, rows, out),
        8 => gather_of::<8>(table, ids, rows, out),
        16 => gather_of::<16>(table, ids, rows, out),
        32 => gather_of::<32>(table, ids, rows, out),
        64 => gather_of::<64>(table, ids, rows, out),
        _ => gather_of::<0>(table, ids, rows, out),
    }
}

/// `W`: the table's width, or 0 for any.
#[inline(always)]
fn gather_of<const W: usize>(
    table: &Table,
    ids: &Ids<'_>,
    rows: usize,
    out: &mut RowsMut<'_>,
) -> Result<(), OutsideTable> {
    let width = if W > 0 { W } else { table.width() };
    let (size, table) = (table.size(), table.rows());
    let mut starts = [0; AHEAD];
    let at_once = (AHEAD / ids.columns.len().max(1)).max(1);
    for first in (0..rows).step_by(at_once) {
        let rows = first..(first + at_once).min(rows);
        for (chunk, columns) in ids.columns.chunks(AHEAD).enumerate() {
            let starts = &mut starts[..rows.len() * columns.len()];
            for (row, starts) in rows.clone().zip(starts.chunks_exact_mut(columns.len())) {
                let row = ids.index.map_or(row, |index| index[row]);
                let row = &ids.data[row * ids.stride..];
                for (start, (column, add)) in starts.iter_mut().zip(columns) {
                    let id = row[*column].wrapping_add(*add);
                    *start = position(id, size)? * width;
                    prefetch(&table[*start..*start + width]);
                }
            }
            for (row, starts) in rows.clone().zip(starts.chunks_exact(columns.len())) {
                let at = row * out.stride + chunk * AHEAD * width;
                let out = &mut out.data[at..at + columns.len() * width];
                copy_rows::<W>(table, starts, width, out);
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn position(index: i64, size: usize) -> Result<usize, OutsideTable> {
    let limit = i64::try_from(size).unwrap_or(i64::MAX);
    let at = if index < 0 {
        index.wrapping_add(limit)
    } else {
        index
    };
    if (0..limit).contains(&at) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to size
        return Ok(at as usize);
    }
    Err(OutsideTable { index })
}

#[inline(always)]
fn copy_rows<const W: usize>(table: &[f32], starts: &[usize], width: usize, out: &mut [f32]) {
    if W > 0 {
        for (start, out) in starts.iter().zip(out.as_chunks_mut::<W>().0) {
            if let Some(row) = table[*start..].first_chunk::<W>() {
                *out = *row;
            }
        }
    } else if width > 0 {
        for (start, out) in starts.iter().zip(out.chunks_exact_mut(width)) {
            copy(&table[*start..*start + width], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kernel::bf16::{Pair, pairs};
    use crate::kernel::{InstructionSet, LINE};
    use crate::tensor::Tensor;

    const DATA: [i64; 6] = [0, -1, 3, 9, 2, 4];

    fn ids(columns: &[(usize, i64)]) -> Ids<'_> {
        Ids {
            data: &DATA,
            stride: 2,
            index: None,
            columns,
        }
    }

    #[test]
    fn rows_arrive_in_place_and_bad_ids_are_named() {
        for width in [1, 2, 3, 4, 8, 16, 20, 32, 64, 80] {
            let values: Vec<f32> = (0..10 * width).map(|i| i as f32).collect();
            let tensor = Arc::new(Tensor::f32(vec![10, width], values.clone()));
            let table = Table::new(&tensor).unwrap();
            for table in [table.in_lines(), table] {
                assert_eq!([table.size(), table.width()], [10, width]);
                let stride = 2 * width + 3;
                let mut out = vec![-1.0; 3 * stride];
                let mut rows = RowsMut {
                    data: &mut out,
                    stride,
                };
                gather(&table, &ids(&[(0, 1), (1, 0)]), 3, &mut rows).unwrap();
                for (row, (a, b)) in [(1, 9), (4, 9), (3, 4)].into_iter().enumerate() {
                    let got = &out[row * stride..];
                    assert_eq!(got[..width], values[a * width..(a + 1) * width]);
                    assert_eq!(got[width..2 * width], values[b * width..(b + 1) * width]);
                    assert!(got[2 * width..2 * width + 3].iter().all(|x| *x == -1.0));
                }
                for (add, index) in [(7, 10), (-14, -14), (i64::MAX, i64::MAX)] {
                    let mut rows = RowsMut {
                        data: &mut out,
                        stride,
                    };
                    let columns = [(0, add)];
                    let wrong = gather(&table, &ids(&columns), 3, &mut rows);
                    assert_eq!(wrong, Err(OutsideTable { index }));
                }
            }
        }
    }

    #[test]
    fn rounded_rows_arrive_in_pairs_and_lines() {
        for width in [1, 7, 16, 32] {
            let values: Vec<f32> = (0..10 * width).map(|i| 1.0 + i as f32 / 1024.0).collect();
            let tensor = Arc::new(Tensor::f32(vec![10, width], values.clone()));
            let table = Table::new(&tensor).unwrap().in_pairs(InstructionSet::best());
            assert_eq!([table.size(), table.width()], [10, width.div_ceil(2)]);
            assert_eq!(table.rows().as_ptr().addr() % LINE, 0);
            let mut out = vec![-1.0; 3 * table.width()];
            let mut rows = RowsMut {
                data: &mut out,
                stride: table.width(),
            };
            gather(&table, &ids(&[(1, 0)]), 3, &mut rows).unwrap();
            for (row, id) in [9, 9, 4].into_iter().enumerate() {
                let two = |two: &[f32]| Pair::new(two[0], two.get(1).copied().unwrap_or(0.0));
                let expected: Vec<Pair> = values[id * width..(id + 1) * width].chunks(2).map(two).collect();
                let got = pairs(&out[row * table.width()..(row + 1) * table.width()]);
                assert_eq!(got, expected);
            }
        }
    }
}
