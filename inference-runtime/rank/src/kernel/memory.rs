//! Memory for large tables, and how to have it in the cache before it is read.

/// What the memory gives at once, in bytes.
pub const LINE: usize = 64;

/// A page with which a quarter of a million small ones need no look-up of their own.
const HUGE_PAGE: usize = 2 << 20;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; LINE]);

/// Bytes that begin at a cache line; in huge pages where the system gives them and there are enough bytes.
pub struct Lines {
    lines: Vec<Line>,
    len: usize,
}

impl Lines {
    pub fn new(bytes: &[u8]) -> Self {
        let mut lines = room(bytes.len().div_ceil(LINE));
        let (whole, rest) = bytes.as_chunks::<LINE>();
        lines.extend(whole.iter().map(|bytes| Line(*bytes)));
        if !rest.is_empty() {
            let mut last = Line([0; LINE]);
            last.0[..rest.len()].copy_from_slice(rest);
            lines.push(last);
        }
        Self {
            lines,
            len: bytes.len(),
        }
    }

    /// The same numbers.
    pub fn of(floats: &[f32]) -> Self {
        // SAFETY: numbers are bytes without gaps.
        Self::new(unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) })
    }

    /// So many numbers, all 0.
    pub fn zeros(floats: usize) -> Self {
        let len = floats * size_of::<f32>();
        let count = len.div_ceil(LINE);
        let mut lines = room(count);
        lines.resize(count, Line([0; LINE]));
        Self { lines, len }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: lines are bytes without gaps, and there are at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub fn floats(&self) -> &[f32] {
        // SAFETY: as above; lines are aligned for numbers, which any bits are.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len / size_of::<f32>()) }
    }

    pub fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len / size_of::<f32>()) }
    }
}

/// Memory for so many lines, not touched yet.
fn room(lines: usize) -> Vec<Line> {
    let mut room: Vec<Line> = Vec::with_capacity(lines);
    ask_for_huge_pages(room.as_mut_ptr().cast(), lines * LINE);
    room
}

/// A hint; nothing depends on whether it is followed.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(start: *mut u8, len: usize) {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int;
    }
    const MADV_HUGEPAGE: c_int = 14;
    let skipped = start.align_offset(HUGE_PAGE);
    let len = len.saturating_sub(skipped) / HUGE_PAGE * HUGE_PAGE;
    if len > 0 {
        // SAFETY: whole pages inside of the allocation; the advice changes nothing of what is in them.
        let _ = unsafe { madvise(start.wrapping_add(skipped).cast(), len, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_start: *mut u8, _len: usize) {}

/// Asks for the lines that hold `values`.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = values.as_ptr().cast::<i8>();
        // From the line's beginning on: values may end early in another line.
        let before = start.addr() % LINE;
        for at in (0..before + size_of_val(values)).step_by(LINE) {
            // SAFETY: every x86-64 has the instruction, and it may be given any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_sub(before).wrapping_add(at)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_from_the_beginning_of_a_line_on() {
        for len in [0, 1, 63, 64, 65, 3 * HUGE_PAGE + 7] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let lines = Lines::new(&bytes);
            assert_eq!(lines.bytes(), bytes);
            assert_eq!(lines.bytes().as_ptr().addr() % LINE, 0);
            prefetch(lines.bytes());
        }
    }
}
