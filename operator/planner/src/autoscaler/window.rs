//! Stabilization: recommendations of the last minutes, and what may be followed of them.

use jiff::{SignedDuration, Timestamp};

/// What was recommended lately, oldest first. Equal recommendations in a row are one entry with the time of the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory(Vec<(Timestamp, u32)>);

/// Alternating recommendations would grow without end; what is lost at this length is their exact order.
const ENTRIES: usize = 512;

impl Memory {
    /// The window starts from the number that is there.
    #[must_use]
    pub fn starting(current: u32, now: Timestamp) -> Self {
        Self(vec![(now, current)])
    }

    pub fn note(&mut self, replicas: u32, now: Timestamp, window: SignedDuration) {
        match self.0.last_mut() {
            Some((at, last)) if *last == replicas => *at = now,
            _ => self.0.push((now, replicas)),
        }
        self.0.retain(|(at, _)| now.duration_since(*at) <= window);
        if self.0.len() > ENTRIES {
            self.thin();
        }
    }

    /// Keeps the larger of every two neighbours: nothing goes sooner for it.
    fn thin(&mut self) {
        let larger = |pair: &[(Timestamp, u32)]| {
            let at = pair.iter().map(|p| p.0).max();
            at.zip(pair.iter().map(|p| p.1).max())
        };
        self.0 = self.0.chunks(2).filter_map(larger).collect();
    }

    /// More replicas when everything in the window `up` asks for more, fewer down to the most in the window `down`.
    #[must_use]
    pub fn follow(&self, current: u32, now: Timestamp, (up, down): (SignedDuration, SignedDuration)) -> u32 {
        let age = |at: &Timestamp| now.duration_since(*at);
        let newest = self.0.last().map(|(_, replicas)| *replicas);
        // A window of no length holds the newest recommendation only.
        let within = |window: SignedDuration| {
            let entries = self.0.iter().filter(move |(at, _)| age(at) < window);
            entries.map(|(_, replicas)| *replicas).chain(newest)
        };
        let least = within(up).min().unwrap_or(current);
        let most = within(down).max().unwrap_or(current);
        if least > current { least } else { most.min(current) }
    }

    /// When the first recommendation that holds replicas up leaves the window.
    #[must_use]
    pub fn next_change(&self, current: u32, down: SignedDuration) -> Option<Timestamp> {
        let (_, newest) = self.0.last()?;
        if *newest >= current {
            return None;
        }
        let holding = self.0.iter().filter(|(_, replicas)| replicas > newest);
        holding.map(|(at, _)| *at + down).max()
    }
}

/// A duration of the API (`500ms`, `5m`), which admission has checked.
#[must_use]
pub fn seconds(text: &str) -> SignedDuration {
    text.parse().unwrap_or(SignedDuration::ZERO)
}
