//! `backup`: copies the embedded store, also while it is in use.

use std::path::PathBuf;

use anyhow::bail;

use super::Answer;
use crate::{
    settings::Settings,
    store::open::{self, Location},
};

/// Where to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to write; it must not be there yet.
    file: PathBuf,
}

/// Writes the copy.
pub(super) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let Location::Sqlite(options) = &settings.location else {
        bail!("backup copies the embedded store; store.database_url names a Postgres: use pg_dump");
    };
    if args.file.exists() {
        bail!("{} is there already; a backup never overwrites a file", args.file.display());
    }
    open::backup(options, &args.file).await?;
    Ok(Answer::good(format!("wrote {}\n", args.file.display())))
}
