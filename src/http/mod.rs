//! HTTP serving.

use std::time::Duration;

/// Limits of serving.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a body at most.
    pub body_bytes: usize,
    /// Bytes of bodies in memory at most.
    pub in_flight_bytes: usize,
    /// Connections at most.
    pub connections: usize,
    /// How long a head may take.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a connection may idle.
    pub idle_timeout: Duration,
    /// How long writing an answer may take.
    pub write_timeout: Duration,
    /// How long a request may wait for its answer.
    pub answer_timeout: Duration,
}
