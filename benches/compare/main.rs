//! The receiver beside what people would use instead, under the same loads in interleaved rounds.
//!
//!     benches/compare/run
//!
//! starts what this needs and passes its arguments on.
//!
//! A turn is one load on every peer, one after the other; a round is a turn for each load. In each round they come in
//! another order. A turn in which other processes took too much of the machine is taken again, for all peers.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that prints: what it found on stdout, how far it is on stderr"
)]

mod database;
mod load;
mod machine;
mod measure;
mod peer;
mod plot;
mod process;
mod processor;
mod receivers;
mod results;
mod table;

use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use url::Url;

use database::Postgres;
use load::Load;
use measure::Bench;
use peer::{PEERS, Peer, Programs};
use receivers::Receiver;
use results::{Results, Run};

/// Measures the receiver beside what people would use instead.
#[derive(Debug, Parser)]
#[command(name = "benches/compare/run")]
struct Plan {
    /// How often each peer is put under each load; the medians count.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each run is measured, after a second of warming up.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// The peers, by name. All but the extra ones unless given.
    #[arg(long, value_name = "PEER,…", value_delimiter = ',', value_parser = Peer::by_name)]
    only: Vec<&'static Peer>,
    /// The loads: closed-CONNECTIONS (as fast as answers come) or open-RATE (so many events a second).
    #[arg(long, value_name = "LOAD,…", value_delimiter = ',', default_values_t = load::USUAL)]
    loads: Vec<Load>,
    /// The share of the machine, in percent, that other processes may take.
    #[arg(long, value_name = "PERCENT", default_value_t = 20.0)]
    others: f64,
    /// Once for a second each, whatever others take: to see whether everything works.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    programs: Programs,
    /// The server's URL.
    #[arg(long, value_name = "URL")]
    database: Url,
    /// The first of its processes.
    #[arg(long, value_name = "PID")]
    postmaster: i32,
    /// A folder for logs and embedded stores, on a disk.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// A folder for the results.
    #[arg(long, value_name = "FOLDER")]
    results: PathBuf,
}

impl Plan {
    fn adjust(mut self) -> Self {
        if self.quick {
            (self.rounds, self.seconds, self.others) = (1, 1, 100.0);
        }
        if self.only.is_empty() {
            self.only = PEERS.iter().filter(|peer| !peer.extra).collect();
        }
        self
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = env::args().skip(1);
    if env::args().nth(1).is_some_and(|first| first == Receiver::NAME) {
        return Receiver::parse_from(arguments).run();
    }
    let plan = Plan::parse().adjust();
    process::end_with_us()?;
    let mut postgres = Postgres::connect(plan.database.clone())?;
    let machine = machine::describe(&mut postgres, &plan.programs.node)?;
    let mut bench = Bench {
        programs: &plan.programs,
        folder: &plan.folder,
        postgres,
        postmaster: plan.postmaster,
        time: Duration::from_secs(plan.seconds),
    };
    let results = measure_all(&plan, &mut bench)?;
    fs::create_dir_all(&plan.results)?;
    let write = |name: &str, text: String| {
        let path = plan.results.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("results.csv", results.as_csv())?;
    let too_much = "others took too much of this machine, again and again";
    ensure!(!results.kept.is_empty(), "{too_much}");
    write("results.svg", plot::svg(&results, &machine)?)?;
    println!("{machine}\n{} rounds of {} s each\n", plan.rounds, plan.seconds);
    print!("{}", table::tables(&results));
    let wanted = plan.rounds as usize * plan.loads.len() * plan.only.len();
    ensure!(results.kept.len() == wanted, "{too_much}: that is not all");
    Ok(())
}

fn measure_all(plan: &Plan, bench: &mut Bench<'_>) -> anyhow::Result<Results> {
    let mut results = Results::default();
    let turns = plan.rounds as usize * plan.loads.len();
    for round in 0..plan.rounds {
        let (mut loads, mut peers) = (plan.loads.clone(), plan.only.clone());
        let (first_load, first_peer) = (round as usize % loads.len(), round as usize % peers.len());
        loads.rotate_left(first_load);
        peers.rotate_left(first_peer);
        for load in loads {
            while !turn(plan, bench, round, load, &peers, &mut results)? {
                // As many again as there are to be.
                if results.dropped_turns == turns {
                    return Ok(results);
                }
                bench.wait_for_quiet(plan.others)?;
            }
        }
    }
    Ok(results)
}

/// Puts each peer under one load; whether it counts.
fn turn(
    plan: &Plan,
    bench: &mut Bench<'_>,
    round: u32,
    load: Load,
    peers: &[&'static Peer],
    results: &mut Results,
) -> anyhow::Result<bool> {
    let mut runs = Vec::new();
    for peer in peers {
        let at = format!("round {}, {load}, {}", round + 1, peer.name);
        let figures = bench.run(peer, load).with_context(|| at.clone())?;
        let others = figures.others * 100.0;
        eprintln!(
            "{at}: {:.0} events/s, p99 {:.2} ms, others took {others:.0} %",
            figures.events_per_second, figures.p99_ms
        );
        runs.push(Run { round, peer, load, figures });
        if others > plan.others {
            eprintln!("  more than {} %: the turn is dropped for all peers", plan.others);
            results.dropped.extend(runs);
            results.dropped_turns += 1;
            return Ok(false);
        }
    }
    results.kept.extend(runs);
    Ok(true)
}
