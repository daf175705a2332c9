//! What this machine is, in a line.

use std::{fs, path::Path, process::Command, thread};

use anyhow::Context as _;

use crate::database::Postgres;

pub(crate) fn describe(postgres: &mut Postgres, node: &Path) -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = Command::new(node).arg("--version").output().context("node")?;
    let node = String::from_utf8(version.stdout)?;
    Ok(format!(
        "{} cores of {model}, Linux {}, PostgreSQL {}, Node {}",
        thread::available_parallelism()?,
        kernel.trim(),
        postgres.version()?,
        node.trim()
    ))
}
