//! Rows of floats inside a larger buffer.

/// Row `r` begins at `r * stride`, or at `index[r] * stride` where rows are picked.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub data: &'a [f32],
    /// 0: the same row every time.
    pub stride: usize,
    pub index: Option<&'a [usize]>,
}

impl<'a> Rows<'a> {
    pub fn new(data: &'a [f32], stride: usize) -> Self {
        Self {
            data,
            stride,
            index: None,
        }
    }

    #[inline(always)]
    pub fn row(&self, row: usize, width: usize) -> &'a [f32] {
        let row = self.index.map_or(row, |index| index[row]);
        &self.data[row * self.stride..row * self.stride + width]
    }

    /// Panics unless all rows are inside: what makes the kernels' pointers good.
    pub(super) fn check(&self, rows: usize, width: usize) {
        let last = match self.index {
            Some(index) => index[..rows].iter().copied().max(),
            None => rows.checked_sub(1),
        };
        check(self.data.len(), last, self.stride, width);
    }
}

#[derive(Debug)]
pub struct RowsMut<'a> {
    pub data: &'a mut [f32],
    pub stride: usize,
}

impl RowsMut<'_> {
    #[inline(always)]
    pub fn row(&mut self, row: usize, width: usize) -> &mut [f32] {
        &mut self.data[row * self.stride..row * self.stride + width]
    }

    pub(super) fn check(&self, rows: usize, width: usize) {
        check(self.data.len(), rows.checked_sub(1), self.stride, width);
    }
}

fn check(len: usize, last: Option<usize>, stride: usize, width: usize) {
    let Some(last) = last else { return };
    let end = last
        .checked_mul(stride)
        .and_then(|start| start.checked_add(width));
    assert!(
        end.is_some_and(|end| end <= len),
        "row {last} of {width} floats every {stride} is outside of {len}"
    );
}

/// Copies what is often too short for a call of `memcpy` to pay.
#[inline(always)]
pub fn copy(from: &[f32], to: &mut [f32]) {
    const SHORT: usize = 64;
    if to.len() > SHORT {
        to.copy_from_slice(from);
        return;
    }
    // By arrays of fixed sizes: a loop over what is left would become a call again.
    let (from, to) = chunks::<8>(from, to);
    let (from, to) = chunks::<4>(from, to);
    let (from, to) = chunks::<2>(from, to);
    if let ([from], [to]) = (from, to) {
        *to = *from;
    }
}

/// Copies whole chunks, and returns the rest.
#[inline(always)]
fn chunks<'a, const C: usize>(from: &'a [f32], to: &'a mut [f32]) -> (&'a [f32], &'a mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<C>(), to.as_chunks_mut::<C>());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    (from_rest, to_rest)
}
