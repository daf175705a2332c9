//! What is counted once for the whole process: dropped log lines, panics, restarts of background tasks.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};

use crate::{background, logs};

/// Reads the counts when they are asked for.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, count) in [
            (
                "log_lines_dropped",
                "Log lines dropped because standard output was not read fast enough",
                logs::dropped_lines(),
            ),
            ("panics", "Panics, those of one request or connection included", logs::panics()),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "Restarts of background tasks after a panic";
        let mut tasks = encoder.encode_descriptor("task_restarts", help, None, MetricType::Counter)?;
        for (task, restarts) in background::restarts() {
            ConstCounter::new(restarts).encode(tasks.encode_family(&[("task", task)])?)?;
        }
        Ok(())
    }
}
