//! Whether a model fits into memory beside what is served, told before it is loaded.

use std::path::Path;

use crate::failure::{LoadFailure, Reason};

const CGROUPS: &str = "/sys/fs/cgroup";

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub limit: u64,
    pub used: u64,
}

impl Memory {
    /// Of this process: of the limit that is given, else of its cgroups. `None` when nothing limits it.
    pub fn now(limit: Option<u64>) -> Option<Self> {
        match limit {
            Some(limit) => Some(Self {
                limit,
                used: resident(&std::fs::read_to_string("/proc/self/status").ok()?)?,
            }),
            None => Self::of_cgroups(
                Path::new(CGROUPS),
                &std::fs::read_to_string("/proc/self/cgroup").ok()?,
            ),
        }
    }

    /// The tightest of the process's cgroup (version 2) and those above it.
    fn of_cgroups(root: &Path, own: &str) -> Option<Self> {
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let groups = Path::new(path).ancestors().map(|group| root.join(group));
        groups
            .filter_map(|group| Self::of_cgroup(&group))
            .min_by_key(Self::free)
    }

    fn of_cgroup(group: &Path) -> Option<Self> {
        let number = |text: String| text.trim().parse::<u64>().ok();
        let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
        let limit = number(read("memory.max")?)?;
        let current = number(read("memory.current")?)?;
        // The kernel gives up cached files first.
        let stat = read("memory.stat").unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
        let cache = cache.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Some(Self {
            limit,
            used: current.saturating_sub(cache),
        })
    }

    fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// Refuses a load that takes so many bytes if they are not free.
    pub fn has_room(&self, needed: u64) -> Result<(), LoadFailure> {
        if needed <= self.free() {
            return Ok(());
        }
        Err(LoadFailure::permanent(
            Reason::NoMemory,
            format!(
                "loading the model takes up to {needed} bytes, and {} of {} bytes are free beside what is served; raise \
                 the memory limit, or unload the old version first",
                self.free(),
                self.limit
            ),
        ))
    }
}

/// `VmRSS` of a `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, max: &str, current: u64| {
            let path = root.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("memory.max"), format!("{max}\n")).unwrap();
            std::fs::write(path.join("memory.current"), format!("{current}\n")).unwrap();
            std::fs::write(path.join("memory.stat"), "anon 1\ninactive_file 100\nfile 7\n").unwrap();
        };
        group("pod/own", "max", 500);
        assert_eq!(Memory::of_cgroups(root.path(), "0::/pod/own\n"), None);
        group("pod", "1000", 600);
        let of_pod = Memory {
            limit: 1000,
            used: 500,
        };
        assert_eq!(Memory::of_cgroups(root.path(), "0::/pod/own\n"), Some(of_pod));
        group("pod/own", "800", 500);
        let own = Memory {
            limit: 800,
            used: 400,
        };
        assert_eq!(Memory::of_cgroups(root.path(), "0::/pod/own\n"), Some(own));
        assert_eq!(Memory::of_cgroups(root.path(), "4:memory:/pod/own\n"), None);
    }

    #[test]
    fn refused_with_all_numbers() {
        let memory = Memory {
            limit: 1000,
            used: 400,
        };
        assert!(memory.has_room(600).is_ok());
        let failure = memory.has_room(601).unwrap_err();
        assert_eq!(failure.reason, Reason::NoMemory);
        for named in ["601 bytes", "600 of 1000"] {
            assert!(failure.message.contains(named), "{}", failure.message);
        }
        let over = Memory { limit: 1, used: 2 };
        assert!(over.has_room(1).is_err() && over.has_room(u64::MAX).is_err());
        assert_eq!(resident("Name: x\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        assert!(Memory::now(Some(1)).unwrap().used > 0);
    }
}
