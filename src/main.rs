//! argv → command → exit code.

use std::process::ExitCode;

use clap::Parser as _;
use nexo_receiver::{cli::Cli, settings};

fn main() -> ExitCode {
    Cli::parse().run(settings::environment())
}
