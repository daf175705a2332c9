//! Who is measured, and how each is started: with what it needs in its environment, and nothing else.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    process::{Process, wait_for},
    receivers::Receiver,
};

/// The secret that events are signed with.
pub(crate) const SECRET: &str = "the secret that is in force";

/// How long a peer may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// Below the ports that the kernel gives out, so that nobody takes one in between.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A receiver.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) keeps: Keeps,
    program: Program,
    /// Whether it is measured only when it is asked for.
    pub(crate) extra: bool,
}

/// Where it keeps what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    Nowhere,
    /// In Postgres, in the peers' table.
    InTable,
    /// In Postgres, in tables that it makes.
    InPostgres,
    /// In a file.
    InFolder,
}

/// What runs.
#[derive(Debug, Clone, Copy)]
enum Program {
    Guide,
    /// A script in `peers/`.
    Node {
        script: &'static str,
        pool: u32,
    },
    /// The same script on two processes.
    NodeTwice {
        script: &'static str,
        pool: u32,
    },
    /// One of `receivers.rs`.
    Rust {
        pool: u32,
    },
    Ours,
    /// Another build of ours, for the difference a change makes.
    Old,
}

/// All that can be measured. No pool of 5, 20 or 32 connections was faster than one of 10 by more than the noise.
pub(crate) static PEERS: [Peer; 11] = [
    peer("guide", Keeps::Nowhere, Program::Guide),
    peer("express-pg", Keeps::InTable, Program::Node { script: "express-pg.mjs", pool: 10 }),
    peer("fastify-pg", Keeps::InTable, Program::Node { script: "fastify-pg.mjs", pool: 10 }),
    peer("one-by-one", Keeps::InTable, Program::Rust { pool: 10 }),
    peer("bare", Keeps::Nowhere, Program::Rust { pool: 0 }),
    peer("ours-postgres", Keeps::InPostgres, Program::Ours),
    peer("ours-sqlite", Keeps::InFolder, Program::Ours),
    extra("old-postgres", Keeps::InPostgres, Program::Old),
    extra("old-sqlite", Keeps::InFolder, Program::Old),
    extra("express-pg-x2", Keeps::InTable, Program::NodeTwice { script: "express-pg.mjs", pool: 10 }),
    extra("fastify-pg-x2", Keeps::InTable, Program::NodeTwice { script: "fastify-pg.mjs", pool: 10 }),
];

const fn peer(name: &'static str, keeps: Keeps, program: Program) -> Peer {
    Peer { name, keeps, program, extra: false }
}

const fn extra(name: &'static str, keeps: Keeps, program: Program) -> Peer {
    Peer { name, keeps, program, extra: true }
}

/// What peers are started with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Programs {
    /// The release build of the receiver.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: PathBuf,
    /// An earlier release build, which the peers `old-postgres` and `old-sqlite` run.
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    /// Node.
    #[arg(long, value_name = "FILE")]
    pub(crate) node: PathBuf,
    /// Connections to Postgres of the peers that have a pool, to find out which number suits them.
    #[arg(long, value_name = "N")]
    pool: Option<u32>,
}

/// A peer that listens.
pub(crate) struct Server {
    process: Process,
    pub(crate) url: String,
}

impl Peer {
    pub(crate) fn by_name(name: &str) -> Result<&'static Self, String> {
        let found = PEERS.iter().find(|peer| peer.name == name);
        found.ok_or_else(|| format!("one of {} is needed", PEERS.each_ref().map(|peer| peer.name).join(", ")))
    }

    /// Starts it with an empty store; what it prints goes to files in `folder`.
    pub(crate) fn start(&self, programs: &Programs, folder: &Path, database: &str) -> anyhow::Result<Server> {
        let port = free_port()?;
        let mut command = self.command(programs, port, database)?;
        command.env("NEXO_WEBHOOK_SECRET", SECRET).env("DATA_DIR", folder.join("data"));
        let log = folder.join("log");
        let output = match self.program {
            // A line for each event is the guide's own; nobody is to wait for a disk because of it.
            Program::Guide => Stdio::null(),
            _ => fs::File::create(folder.join("output"))?.into(),
        };
        // Those of Node and Rust end when this is closed.
        command.stdin(Stdio::piped()).stdout(output).stderr(fs::File::create(&log)?);
        let mut process = Process::start(&mut command)?;
        let told = || fs::read_to_string(&log).unwrap_or_default();
        wait_for(PATIENCE, || {
            if process.has_ended()? {
                bail!("it has ended by itself");
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })
        .with_context(|| format!("{} does not start: {}", self.name, told()))?;
        Ok(Server { process, url: format!("http://127.0.0.1:{port}/webhooks/nexo") })
    }

    fn command(&self, programs: &Programs, port: u16, database: &str) -> anyhow::Result<Command> {
        let scripts = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/peers"));
        let node = |arguments: &[&str], pool: u32| {
            let mut node = Command::new(&programs.node);
            node.args(arguments).current_dir(scripts).env_clear();
            node.env("NODE_ENV", "production").env("DATABASE_URL", database);
            node.env("PORT", port.to_string()).env("POOL", programs.pool.unwrap_or(pool).to_string());
            node
        };
        Ok(match self.program {
            Program::Guide => node(&["../../../tests/guide/receiver.mjs", &port.to_string()], 0),
            Program::Node { script, pool } => node(&[script], pool),
            Program::NodeTwice { script, pool } => node(&["cluster.mjs", script], pool),
            Program::Rust { pool } => {
                let mut this = Command::new(env::current_exe()?);
                this.args([Receiver::NAME, self.name, "--secret", SECRET, "--database", database])
                    .env_clear();
                this.args(["--port", &port.to_string()]);
                this.args(["--pool", &programs.pool.unwrap_or(pool).to_string()]);
                this
            }
            Program::Ours => self.ours(&programs.binary, port, database),
            Program::Old => {
                let old = programs.old.as_ref().context("--old FILE is needed: an earlier release build")?;
                self.ours(old, port, database)
            }
        })
    }

    /// With everything on that it has: both secrets, and its own defaults.
    fn ours(&self, binary: &Path, port: u16, database: &str) -> Command {
        let mut ours = Command::new(binary);
        ours.arg("serve").env_clear().env("PORT", port.to_string());
        ours.env("SERVER_NOTICE_SECONDS", "0");
        ours.env("NEXO_WEBHOOK_SECRET_PREVIOUS", "the secret that was in force before");
        ours.env("API_TOKEN", "a-token-of-the-API-for-nobody");
        if self.keeps == Keeps::InPostgres {
            ours.env("DATABASE_URL", database);
        }
        ours
    }
}

impl Server {
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.process.stop()
    }
}

fn free_port() -> anyhow::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let tried = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(100).find(is_free);
    tried.context("no port is free")
}
