//! Serves ranking models over the Open Inference Protocol V2.
//!
//! The way of a request, with no lock held across it:
//! `server::listener` (sockets, timers) -> `server::route` or `server::grpc` -> `catalog` (which model) -> `admission`
//! (permit) -> `protocol` (parse) -> `inline` (short runs, at once) or `queue` (models, classes, batches) -> `worker`
//! (threads, which have any model's engine, and take parts of a large run by `split`) -> `protocol` (encode). The way of a model, at the start and whenever
//! `server::admin` is asked:
//! `repository` -> `model::source` -> `model::digest` -> `model::config` -> `engine` -> `model::warmup` -> `catalog`.
//! On the side: `load` counts what passes and `nvml` watches the GPUs; `/load` on the admin port tells both.
//! `items` has the rows that requests name by id, and `ids` says which ids there are, on the way through `protocol`. A request
//! for a `cascade` goes from `inline` or `queue` on twice: through the light model, and with what that keeps through the one
//! that answers. `trace` tells a collector of single requests, if one is named.
//! `bench` is a load client, apart from all that.
//! `lifecycle` ties both together and is the only place that ends the process.

pub mod admission;
pub mod args;
pub mod average;
pub mod bench;
pub mod cascade;
pub mod catalog;
pub mod command;
pub mod engine;
pub mod failure;
pub mod ids;
pub mod inline;
pub mod items;
pub mod lifecycle;
pub mod load;
pub mod metrics;
pub mod model;
pub mod nvml;
pub mod priority;
pub mod protocol;
pub mod queue;
pub mod ready;
pub mod repository;
pub mod server;
pub mod shadow;
pub mod split;
pub mod statistics;
pub mod trace;
pub mod worker;
