//! The two HTTP ports: serving (bounded, with timers) and admin (probes and metrics).

pub mod body;
pub mod infer;
pub mod listener;
pub mod route;
pub mod state;

pub use state::Serving;
