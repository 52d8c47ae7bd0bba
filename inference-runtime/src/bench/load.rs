//! The two loops. All tasks share one thread, so that nothing here needs a lock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::bodies::Prepared;
use super::connection::Connection;
use super::record::{Record, Report};
use super::timer::Timer;
use super::{Bench, BenchError};

struct Shared {
    prepared: Vec<Prepared>,
    next: Cell<usize>,
    record: RefCell<Record>,
    ends: Instant,
    /// Open loop: requests that are due and wait for a connection, by the time they were due.
    due: RefCell<VecDeque<Instant>>,
    arrival: Notify,
    /// Open loop: no more will be due.
    over: Cell<bool>,
    /// Start of the request that each connection carries.
    carried: RefCell<Vec<Option<Instant>>>,
}

pub async fn run(args: &Bench, prepared: Vec<Prepared>) -> Result<Report, BenchError> {
    let connections = connect(args).await?;
    // The clock starts when every connection is there.
    let start = Instant::now();
    let cpu = cpu_time();
    let ends = start + args.duration;
    let shared = Rc::new(Shared {
        prepared,
        next: Cell::new(0),
        record: RefCell::new(Record::new(start + args.warm_up, ends)),
        ends,
        due: RefCell::default(),
        arrival: Notify::new(),
        over: Cell::new(false),
        carried: RefCell::new(vec![None; connections.len()]),
    });
    let mut tasks = JoinSet::new();
    for (index, connection) in connections.into_iter().enumerate() {
        let shared = Rc::clone(&shared);
        if args.rate.is_some() {
            tasks.spawn_local(shared.serve_due(index, connection));
        } else {
            tasks.spawn_local(shared.send_and_wait(index, connection));
        }
    }
    if let Some(rate) = args.rate {
        shared.arrivals(rate, args.seed).await?;
    }
    let last = tokio::time::Instant::from_std(ends + args.patience);
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout_at(last, all).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    let (spent, elapsed) = (cpu_time().saturating_sub(cpu), start.elapsed());
    shared.count_unanswered();
    let mode = if args.rate.is_some() { "open" } else { "closed" };
    let shared = Rc::into_inner(shared).expect("the tasks that shared it have ended");
    Ok(shared.record.into_inner().report(mode, spent, elapsed))
}

async fn connect(args: &Bench) -> Result<Vec<Connection>, BenchError> {
    let mut connections = Vec::with_capacity(args.connections.into());
    for _ in 0..args.connections {
        let opened = Connection::open(args.address, args.protocol).await;
        connections.push(opened.map_err(|reason| BenchError::Connect {
            address: args.address,
            reason,
        })?);
    }
    Ok(connections)
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Shared {
    /// Closed loop: the next request leaves when the answer is there.
    async fn send_and_wait(self: Rc<Self>, index: usize, mut connection: Connection) {
        loop {
            let started = Instant::now();
            if started >= self.ends {
                return;
            }
            if !self.ask(index, &mut connection, started).await {
                // A server that refuses connections would be asked in a busy loop.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Open loop: takes what is due.
    async fn serve_due(self: Rc<Self>, index: usize, mut connection: Connection) {
        loop {
            let due = self.due.borrow_mut().pop_front();
            match due {
                Some(due) => {
                    self.ask(index, &mut connection, due).await;
                }
                None if self.over.get() => return,
                None => self.arrival.notified().await,
            }
        }
    }

    /// One request; whether there was an answer.
    async fn ask(&self, index: usize, connection: &mut Connection, started: Instant) -> bool {
        let next = self.next.get();
        self.next.set((next + 1) % self.prepared.len());
        let request = &self.prepared[next];
        self.record.borrow_mut().sent();
        self.carried.borrow_mut()[index] = Some(started);
        let outcome = connection.ask(request).await;
        self.carried.borrow_mut()[index] = None;
        let heard = outcome.status.is_some();
        self.record
            .borrow_mut()
            .ended(started, Instant::now(), request.pairs, outcome);
        heard
    }

    /// A Poisson process: whatever the server does, requests become due.
    async fn arrivals(&self, rate: f64, seed: u64) -> Result<(), BenchError> {
        let mut timer = Timer::new()?;
        let mut random = StdRng::seed_from_u64(seed);
        let mut due = Instant::now();
        loop {
            let wait = -(1.0 - random.random::<f64>()).ln() / rate;
            due += Duration::from_secs_f64(wait);
            if due >= self.ends {
                break;
            }
            if due > Instant::now() {
                timer.sleep_until(due).await?;
            } else {
                // Else a client that is late would never read an answer.
                tokio::task::yield_now().await;
            }
            self.record
                .borrow_mut()
                .late(Instant::now().saturating_duration_since(due));
            self.due.borrow_mut().push_back(due);
            self.arrival.notify_one();
        }
        self.over.set(true);
        self.arrival.notify_waiters();
        Ok(())
    }

    fn count_unanswered(&self) {
        let now = Instant::now();
        let mut record = self.record.borrow_mut();
        let carried = self.carried.borrow_mut().drain(..).flatten().collect::<Vec<_>>();
        for started in carried.into_iter().chain(self.due.borrow_mut().drain(..)) {
            record.unanswered(started, now);
        }
    }
}
