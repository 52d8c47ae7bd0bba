//! What `pinnace-runtime` does beside serving: it looks at models, checks them, and writes files.

pub mod check;
pub mod inspect;
pub mod manifest;
pub mod optimize;
