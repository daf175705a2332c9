//! All integration tests, in one binary. `tests/run` starts what they need.

mod cli;
mod tidy;
