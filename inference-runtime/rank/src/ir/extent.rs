//! A length that may grow with the number of rows: `rows * N + fixed`, N being the batch.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    pub rows: i64,
    pub fixed: i64,
}

impl Extent {
    pub const ONE: Extent = Extent::fixed(1);
    /// The batch itself.
    pub const N: Extent = Extent { rows: 1, fixed: 0 };

    pub const fn fixed(fixed: i64) -> Self {
        Self { rows: 0, fixed }
    }

    pub fn of(size: usize) -> Self {
        Self::fixed(i64::try_from(size).unwrap_or(i64::MAX))
    }

    pub fn is_fixed(self) -> bool {
        self.rows == 0
    }

    pub fn as_fixed(self) -> Option<usize> {
        if self.rows == 0 {
            usize::try_from(self.fixed).ok()
        } else {
            None
        }
    }

    /// `Some(k)` when this is `k * N` with k > 0: k entries for each row.
    pub fn per_row(self) -> Option<usize> {
        if self.rows > 0 && self.fixed == 0 {
            usize::try_from(self.rows).ok()
        } else {
            None
        }
    }

    /// The length for a batch of `rows`; `None` below zero or out of range.
    pub fn resolve(self, rows: usize) -> Option<usize> {
        let rows = i64::try_from(rows).ok()?;
        usize::try_from(self.rows.checked_mul(rows)?.checked_add(self.fixed)?).ok()
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            rows: self.rows.checked_add(other.rows)?,
            fixed: self.fixed.checked_add(other.fixed)?,
        })
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            rows: self.rows.checked_sub(other.rows)?,
            fixed: self.fixed.checked_sub(other.fixed)?,
        })
    }

    /// `None` when the product is not linear in N.
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        let (factor, by) = if self.is_fixed() {
            (self.fixed, other)
        } else {
            (other.fixed, self)
        };
        if !self.is_fixed() && !other.is_fixed() {
            return None;
        }
        Some(Self {
            rows: by.rows.checked_mul(factor)?,
            fixed: by.fixed.checked_mul(factor)?,
        })
    }

    /// The quotient where it is a whole number for every N.
    pub fn checked_div(self, other: Self) -> Option<Self> {
        let exact = |value: i64, by: i64| {
            (value.checked_rem(by)? == 0)
                .then(|| value.checked_div(by))
                .flatten()
        };
        if other.is_fixed() {
            return Some(Self {
                rows: exact(self.rows, other.fixed)?,
                fixed: exact(self.fixed, other.fixed)?,
            });
        }
        (self.fixed == 0 && other.fixed == 0)
            .then(|| exact(self.rows, other.rows))
            .flatten()
            .map(Self::fixed)
    }

    pub fn product(extents: &[Extent]) -> Option<Extent> {
        extents
            .iter()
            .try_fold(Extent::ONE, |product, extent| product.checked_mul(*extent))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rows, self.fixed) {
            (0, fixed) => write!(f, "{fixed}"),
            (1, 0) => write!(f, "N"),
            (rows, 0) => write!(f, "{rows}N"),
            (rows, fixed) => write!(f, "{rows}N{fixed:+}"),
        }
    }
}

/// `[N, 26, 16]`
pub fn display(shape: &[Extent]) -> String {
    let parts: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", parts.join(", "))
}

/// Sizes as tests write them: -k stands for k * N.
#[cfg(test)]
pub fn extents(sizes: &[i64]) -> Vec<Extent> {
    let extent = |size: &i64| match *size {
        size if size < 0 => Extent {
            rows: -size,
            fixed: 0,
        },
        size => Extent::fixed(size),
    };
    sizes.iter().map(extent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stays_linear_or_gives_up() {
        let rows = |rows| Extent { rows, fixed: 0 };
        assert_eq!(Extent::N.checked_mul(Extent::fixed(26)), Some(rows(26)));
        assert_eq!(Extent::N.checked_mul(Extent::N), None);
        assert_eq!(rows(26).checked_div(Extent::fixed(13)), Some(rows(2)));
        assert_eq!(rows(26).checked_div(Extent::N), Some(Extent::fixed(26)));
        assert_eq!(rows(26).checked_div(Extent::fixed(4)), None);
        assert_eq!(Extent::fixed(1).checked_div(Extent::fixed(0)), None);
        assert_eq!(Extent::fixed(i64::MAX).checked_add(Extent::ONE), None);
        assert_eq!(
            display(&[Extent::N, rows(2), Extent { rows: 1, fixed: -1 }]),
            "[N, 2N, 1N-1]"
        );
    }
}
