//! `config check`: what is in force, from where, and what is risky.

use std::io::{self, Write as _};

use clap::Subcommand;

use super::Answer;
use crate::settings::Settings;

/// What can be asked of the settings.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the settings in force and where each came from, secrets masked; exit code 2 when one is wrong or missing.
    Check,
}

/// Prints all that is set, also when something required is missing.
pub(super) fn check(settings: &Settings) -> anyhow::Result<Answer> {
    let warnings: String =
        settings.warnings().iter().map(|warning| format!("# warning: {warning}\n")).collect();
    let text = settings.print() + &warnings;
    if let Err(missing) = settings.service() {
        let _ = io::stdout().write_all(text.as_bytes());
        return Err(missing.into());
    }
    Ok(Answer::good(text))
}
