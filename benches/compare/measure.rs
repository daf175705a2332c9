//! One run: a peer with nothing in its store, under one load.

use std::{
    fs,
    path::Path,
    process::{Command, id},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    database::Postgres,
    load::{self, Load, Report},
    peer::{Keeps, Peer, Programs, SECRET},
    process::Process,
    processor::{self, Moment},
};

/// How long a peer is under its load before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long the disk may take to have everything.
const SYNC: Duration = Duration::from_secs(60);

/// How often others are looked at, and how many times, until they take little.
const LOOK: Duration = Duration::from_secs(2);
const LOOKS: u32 = 60;

/// What runs need.
pub(crate) struct Bench<'a> {
    pub(crate) programs: &'a Programs,
    /// A folder on a disk, for logs and embedded stores.
    pub(crate) folder: &'a Path,
    pub(crate) postgres: Postgres,
    /// The first of Postgres' processes.
    pub(crate) postmaster: i32,
    pub(crate) time: Duration,
}

/// What a run found. Milliseconds are for each 1,000 events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) events_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) server_ms: f64,
    pub(crate) database_ms: f64,
    pub(crate) flood_ms: f64,
    pub(crate) memory_mib: f64,
    /// The share of the machine that others took.
    pub(crate) others: f64,
}

impl Bench<'_> {
    /// Waits until others take less than so many percent of the machine, but not for ever.
    pub(crate) fn wait_for_quiet(&self, percent: f64) -> anyhow::Result<()> {
        for _ in 0..LOOKS {
            let before = Moment::now()?;
            thread::sleep(LOOK);
            let us = id().cast_signed();
            if Moment::now()?.since(&before, us, us, self.postmaster).others * 100.0 <= percent {
                break;
            }
        }
        Ok(())
    }

    /// Starts a peer, floods it, and looks that it has what it acknowledged.
    pub(crate) fn run(&mut self, peer: &Peer, load: Load) -> anyhow::Result<Figures> {
        let folder = self.folder.join("run");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        let database = self.postgres.renew()?;
        if peer.keeps == Keeps::InTable {
            self.postgres.make_table(&database)?;
        }
        Process::start(&mut Command::new("sync"))?.output(SYNC).context("sync")?;

        let server = peer.start(self.programs, &folder, &database)?;
        let flood = |time| load::flood(&self.programs.binary, &server.url, SECRET, load, time);
        let warm_up = flood(WARM_UP)?;
        let before = Moment::now()?;
        let report = flood(self.time)?;
        let taken = Moment::now()?.since(&before, id().cast_signed(), server.pid(), self.postmaster);
        let memory = processor::peak_memory(server.pid())?;
        server.stop()?;

        let acknowledged = warm_up.events() + report.events();
        let kept = match peer.keeps {
            Keeps::Nowhere => acknowledged,
            Keeps::InTable | Keeps::InPostgres => self.postgres.count(&database)?,
            Keeps::InFolder => self.postgres.count_embedded(&folder.join("data"))?,
        };
        ensure!(kept >= acknowledged, "{acknowledged} events were answered 200, {kept} are there");
        Ok(figures(&report, &taken, memory))
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures are rounded anyway")]
fn figures(report: &Report, taken: &processor::Taken, memory_kib: u64) -> Figures {
    let each = |time: f64| time * 1e6 / report.events() as f64;
    Figures {
        events_per_second: report.answers_per_second,
        p50_ms: report.latency_ms.p50,
        p99_ms: report.latency_ms.p99,
        p999_ms: report.latency_ms.p999,
        server_ms: each(taken.server.as_secs_f64()),
        database_ms: each(taken.database.as_secs_f64()),
        flood_ms: each(report.processor_seconds),
        memory_mib: memory_kib as f64 / 1024.0,
        others: taken.others,
    }
}
