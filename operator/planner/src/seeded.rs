//! Bugs that tests plant to see whether they are found. Never part of a normal build (feature `seeded-bugs`).

use std::cell::Cell;

/// The six classics of operators (design page "reliability", R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A node group's name differs from plan to plan.
    RandomName,
    /// The pool's finalizer goes at the first sight of nothing.
    FinalizerTooEarly,
    /// What is missing is added to the size, whatever is on its way already.
    RelativeSize,
    /// Groups are deleted because their owner's uid is not known.
    SweepByUidOnly,
    /// A failed or old read is taken for the truth.
    ShrinkOnEmptyData,
    /// The time of the plan is written into the status.
    ClockInStatus,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug in the plans of this thread, or takes it out again.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
