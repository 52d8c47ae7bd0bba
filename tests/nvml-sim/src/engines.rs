//! How busy the engine threads of this process are, by /proc.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

const THREADS: &str = "/proc/self/task";
const NAME: &str = "engine-";
/// CPU times are in USER_HZ, which Linux fixes at 100 on x86-64 and aarch64.
const TICKS_PER_SECOND: f64 = 100.0;
/// Over less the ticks of 10 ms would be too coarse; the last answer is given again.
const SHORTEST: Duration = Duration::from_millis(200);

/// CPU ticks by thread.
type Ticks = HashMap<String, u64>;

#[derive(Debug, Default)]
pub struct Meter {
    last: Option<(Instant, Ticks)>,
    percent: u32,
}

impl Meter {
    /// Busy share of the engine threads since the last question, 0 to 100; 0 without engine threads.
    pub fn percent(&mut self, now: Instant) -> u32 {
        let recent = |(at, _): &(Instant, Ticks)| now.saturating_duration_since(*at) < SHORTEST;
        if !self.last.as_ref().is_some_and(recent) {
            self.update(now, ticks(Path::new(THREADS)));
        }
        self.percent
    }

    fn update(&mut self, now: Instant, ticks: Ticks) {
        if let Some((at, before)) = &self.last {
            let seconds = now.saturating_duration_since(*at).as_secs_f64();
            self.percent = share(before, &ticks, seconds);
        }
        self.last = Some((now, ticks));
    }
}

fn share(before: &Ticks, after: &Ticks, seconds: f64) -> u32 {
    let available = seconds * TICKS_PER_SECOND * after.len() as f64;
    if available <= 0.0 {
        return 0;
    }
    // A thread that is new since the last question has run all its time since then.
    let of_thread =
        |(thread, ticks): (&String, &u64)| ticks.saturating_sub(before.get(thread).copied().unwrap_or(0));
    let busy: u64 = after.iter().map(of_thread).sum();
    (busy as f64 / available * 100.0).round().min(100.0) as u32
}

fn ticks(threads: &Path) -> Ticks {
    let entries = std::fs::read_dir(threads).into_iter().flatten().flatten();
    let of_thread = |entry: std::fs::DirEntry| {
        // A thread may end between listing and reading.
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let ticks = engine_ticks(&stat)?;
        Some((entry.file_name().to_string_lossy().into_owned(), ticks))
    };
    entries.filter_map(of_thread).collect()
}

/// User and system time of an engine thread, from its `stat`: `pid (name) state ...`, fields 14 and 15 of all.
fn engine_ticks(stat: &str) -> Option<u64> {
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    if !name.starts_with(NAME) {
        return None;
    }
    let mut times = tail.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_engine_threads_count() {
        let stat = |name: &str| format!("31 ({name}) S 1 2 3 4 5 6 7 8 9 10 700 42 0 0 20 0 9");
        assert_eq!(engine_ticks(&stat("engine-0")), Some(742));
        assert_eq!(engine_ticks(&stat("engine-(x) y")), Some(742));
        assert_eq!(engine_ticks(&stat("tokio-runtime-w")), None);
        assert_eq!(engine_ticks("31 (engine-0) S 1"), None);
    }

    #[test]
    fn the_share_is_of_all_engine_threads() {
        let ticks = |values: &[(&str, u64)]| -> Ticks {
            values
                .iter()
                .map(|(thread, ticks)| ((*thread).to_owned(), *ticks))
                .collect()
        };
        let before = ticks(&[("1", 100), ("2", 0), ("3", 9)]);
        assert_eq!(share(&before, &ticks(&[("1", 150), ("2", 0)]), 1.0), 25);
        assert_eq!(share(&before, &ticks(&[("1", 300), ("2", 200)]), 2.0), 100);
        assert_eq!(share(&before, &ticks(&[("4", 60)]), 1.0), 60);
        assert_eq!(share(&before, &Ticks::new(), 1.0), 0);
    }

    #[test]
    fn a_thread_that_computes_is_busy() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::Builder::new()
            .name("engine-7".into())
            .spawn(move || {
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    std::hint::black_box(0);
                }
            });
        let mut meter = Meter::default();
        // However crowded the machine is, the thread gets some time in the end.
        while meter.percent(Instant::now()) == 0 {
            std::thread::yield_now();
        }
        drop(stop);
        busy.unwrap().join().unwrap();
    }
}
