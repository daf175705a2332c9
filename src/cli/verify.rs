//! `verify`: checks a body's signature with the configured secrets, and says what is wrong with it.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

use anyhow::Context as _;

use super::{Answer, diagnose};
use crate::settings::Settings;

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file with the body, byte for byte as it came; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The value of the header X-NEXO-Signature.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    signature: String,
}

/// Checks; the exit code is 0 when the signature is right, 1 when it is not.
pub(super) fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let current = settings.webhook_secret()?;
    let mut secrets = vec![("webhook.secret", &current)];
    secrets.extend(settings.webhook.previous.iter().map(|previous| ("webhook.secret_previous", previous)));
    let body = read(args).with_context(|| format!("the body in {} can't be read", args.body.display()))?;
    Ok(match diagnose::diagnose(&body, &args.signature, &secrets) {
        Ok(right) => Answer::good(format!("right: {right}\n")),
        Err(wrong) => Answer::bad(format!("wrong: {wrong}\n")),
    })
}

fn read(args: &Args) -> io::Result<Vec<u8>> {
    if args.body.as_os_str() == "-" {
        let mut body = Vec::new();
        io::stdin().read_to_end(&mut body)?;
        return Ok(body);
    }
    fs::read(&args.body)
}
