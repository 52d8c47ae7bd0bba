//! Classes of requests: who is served first, and who is shed first.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
    /// The level of a request that names none.
    pub const DEFAULT_LEVEL: u64 = 2;

    /// By the protocol's parameter `priority`: 1 is the highest, 0 means the default, and whatever is beyond the
    /// lowest is the lowest.
    pub fn of_level(level: u64) -> Self {
        match level {
            1 => Priority::High,
            0 | Self::DEFAULT_LEVEL => Priority::Normal,
            _ => Priority::Low,
        }
    }

    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{self, High, Low, Normal};

    #[test]
    fn levels() {
        for (level, priority) in [(0, Normal), (1, High), (2, Normal), (3, Low), (u64::MAX, Low)] {
            assert_eq!(Priority::of_level(level), priority, "{level}");
        }
        assert_eq!(Priority::default(), Normal);
        assert!(Priority::ALL.is_sorted());
    }
}
