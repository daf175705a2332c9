//! All integration tests, in one binary. `tests/run` starts what they need.

#![expect(unreachable_pub, reason = "one binary: all of it is private")]
#![expect(clippy::unwrap_used, reason = "a test may fail by it, in its own functions too")]

mod api;
mod cli;
mod connections;
mod crowds;
mod demo;
mod faults;
mod flood;
mod forward_proxy;
mod guide;
mod isolation;
mod logs;
mod memory;
mod misdirected;
mod provider;
mod quarantine;
mod readme;
mod rebuild;
mod reconcile;
mod replicas;
mod sandbox;
mod sending;
mod serve;
mod store;
mod strangers;
mod supervision;
mod support;
mod tidy;
mod tls;
mod trigger;
mod webhook;
mod writer;
