//! The ports: HTTP and gRPC for serving (bounded, with timers), and admin (probes and metrics).

pub mod admin;
pub mod body;
pub mod grpc;
pub mod infer;
pub mod items;
pub mod listener;
pub mod route;
pub mod score;
pub mod state;

pub use state::Serving;
