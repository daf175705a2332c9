//! All integration tests, in one binary. `tests/run` starts what they need.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, which is what it is for")]

mod store;
mod support;
