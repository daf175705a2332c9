//! The commands, a file each.
//!
//! Lives here: what can be called, how a command's answer becomes lines and an exit code. Does not: what it does.

mod backup;
mod balance;
mod bodies;
mod config;
mod demo;
mod diagnose;
mod flood;
mod health;
mod migrate;
mod progress;
pub mod rebuild;
mod reconcile;
pub mod reprocess;
mod sandbox;
mod send;
mod serve;
mod trigger;
mod verify;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    logs,
    settings::{self, Settings, SettingsError},
};

/// Receives NEXO ROUTE's delivery webhooks, keeps them durably and answers what became of an OTP.
#[derive(Debug, Parser)]
#[command(name = "nexo-receiver", version, disable_help_subcommand = true)]
#[command(
    after_help = "Settings come from the defaults, then the --config file, then the environment; `config check` \
                        prints them."
)]
pub struct Cli {
    /// A TOML file with settings.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive webhooks and answer the API until SIGTERM or SIGINT (without a command, too).
    Serve,
    /// Ask the running instance whether it lives.
    Health(health::Args),
    /// Look at the settings.
    #[command(subcommand)]
    Config(config::Command),
    /// Apply the store's missing migrations.
    Migrate,
    /// Check a body's signature with the configured secrets, and say what is wrong with it.
    Verify(verify::Args),
    /// Read everything in quarantine again and take out what this version understands.
    Reprocess,
    /// See whether the state of every delivery is what its evidence says.
    Rebuild(rebuild::Args),
    /// Copy the embedded store, also while it is in use.
    Backup(backup::Args),
    /// See it work: a receiver and a simulated provider, in a folder that is gone at the end.
    Demo,
    /// Be the provider: simulate its API and its webhooks.
    Sandbox(Box<sandbox::Args>),
    /// Send one signed event by hand.
    Trigger(trigger::Args),
    /// Send an OTP over the provider: a real phone is called, and it costs money.
    Send(send::Args),
    /// Ask what the provider's wallet holds.
    Balance,
    /// Ask the provider for every delivery of a time, keep what it tells, and say what differed.
    Reconcile(reconcile::Args),
    /// Send signed events in numbers, and tell how the receiver bore them.
    Flood(flood::Args),
}

/// What a command has to say.
#[derive(Debug)]
struct Answer {
    /// Lines for standard output.
    text: String,
    /// Whether all is well: exit code 0, or 1.
    good: bool,
}

impl Answer {
    fn good(text: impl Into<String>) -> Self {
        Self { text: text.into(), good: true }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self { text: text.into(), good: false }
    }
}

/// The exit code of a wrong call or setting.
const WRONG_SETTING: u8 = 2;

impl Cli {
    /// Runs the command. The exit code is 0 when all is well, 2 when a setting is wrong, else 1.
    pub fn run(self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> ExitCode {
        let environment: Vec<_> = environment.into_iter().collect();
        let format = settings::log_format(self.config.as_deref(), &environment);
        let is_service = matches!(self.command, None | Some(Command::Serve));
        let answered = self.answer(environment);
        logs::flush();
        match answered {
            Ok(Answer { text, good }) => {
                // Whoever closes the pipe has read enough.
                let _ = io::stdout().write_all(text.as_bytes());
                if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                logs::fatal(if is_service { format } else { format.for_people() }, &format!("{error:#}"));
                if error.is::<SettingsError>() { WRONG_SETTING.into() } else { ExitCode::FAILURE }
            }
        }
    }

    fn answer(self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> anyhow::Result<Answer> {
        let settings = Settings::load(self.config.as_deref(), environment)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            match self.command.unwrap_or(Command::Serve) {
                Command::Serve => serve::run(&settings).await,
                Command::Health(args) => health::run(&args, &settings).await,
                Command::Config(config::Command::Check) => config::check(&settings),
                Command::Migrate => migrate::run(&settings).await,
                Command::Verify(args) => verify::run(&args, &settings),
                Command::Reprocess => reprocess::run(&settings).await,
                Command::Rebuild(args) => rebuild::run(&args, &settings).await,
                Command::Backup(args) => backup::run(&args, &settings).await,
                Command::Demo => demo::run().await,
                Command::Sandbox(args) => sandbox::run(*args, &settings).await,
                Command::Trigger(args) => trigger::run(&args, &settings).await,
                Command::Send(args) => send::run(&args, &settings).await,
                Command::Balance => balance::run(&settings).await,
                Command::Reconcile(args) => reconcile::run(&args, &settings).await,
                Command::Flood(args) => flood::run(&args, &settings).await,
            }
        });
        // A deadline has passed for whatever is still running.
        runtime.shutdown_background();
        answer
    }
}
