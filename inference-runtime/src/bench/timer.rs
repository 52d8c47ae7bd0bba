//! A timer that is exact to some microseconds: tokio's own rounds up to a millisecond, which would be most of the latency
//! that an open loop measures.

use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::BenchError;

/// A timerfd: eight bytes can be read from it once it has expired, as from a pipe. Tokio's type for any descriptor,
/// `AsyncFd`, can only be made with `unsafe`.
pub struct Timer(Receiver);

impl Timer {
    /// Within an async runtime only.
    pub fn new() -> Result<Self, BenchError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(std::io::Error::from)
            .and_then(Receiver::from_owned_fd_unchecked);
        timer.map(Self).map_err(|source| BenchError::Timer { source })
    }

    pub async fn sleep_until(&mut self, due: Instant) -> Result<(), BenchError> {
        let wait = due.saturating_duration_since(Instant::now());
        // Zero would switch it off.
        let wait = wait.max(Duration::from_nanos(1));
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        let failed = |source| BenchError::Timer { source };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)
            .map_err(|error| failed(error.into()))?;
        let mut expirations = [0; 8];
        self.0.read_exact(&mut expirations).await.map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_when_due_and_again() {
        let mut timer = Timer::new().unwrap();
        for wait in [
            Duration::from_micros(300),
            Duration::from_millis(2),
            Duration::ZERO,
        ] {
            let due = Instant::now() + wait;
            timer.sleep_until(due).await.unwrap();
            assert!(Instant::now() >= due);
        }
    }
}
