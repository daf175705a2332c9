//! All integration tests, in one binary. `tests/run` starts what they need.

#![expect(clippy::unwrap_used, reason = "a test may fail by it, in its own functions too")]

mod cli;
mod serve;
mod tidy;
