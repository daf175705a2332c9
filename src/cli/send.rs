//! `send`: one OTP, to a real phone.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use anyhow::{Context as _, bail};

use super::Answer;
use crate::{
    phone::Phone,
    provider::{CallError, Code, Provider},
    settings::Settings,
};

/// What to send, to whom.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A Vietnamese mobile number, +84….
    #[arg(value_parser = Phone::parse)]
    phone: Phone,
    /// The code, 4 to 8 digits; `-` reads it from standard input, where no list of processes shows it.
    code: CodeFrom,
    /// Don't ask first.
    #[arg(long)]
    yes: bool,
}

/// Where the code comes from; its text is not shown.
#[derive(Clone)]
struct CodeFrom(String);

impl std::str::FromStr for CodeFrom {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for CodeFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl CodeFrom {
    fn read(&self) -> anyhow::Result<Code> {
        let mut text = self.0.clone();
        if text == "-" {
            text.clear();
            io::stdin().lock().read_line(&mut text).context("no code on standard input")?;
        }
        Ok(Code::parse(text.trim_end())?)
    }
}

/// Sends; the exit code is 0 when the provider has accepted it.
pub(super) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let options = settings.provider()?;
    let code = args.code.read()?;
    let what = format!("an OTP to {} through {}", args.phone, options.base_url);
    if !args.yes && !asked(&what)? {
        return Ok(Answer::bad("nothing was sent\n"));
    }
    let provider = Provider::new(&options)?;
    Ok(match provider.send(&args.phone, &code).await {
        Ok(sent) => {
            let sent = sent.answer;
            let mut text = String::new();
            let _ = writeln!(text, "sent       {}", sent.id.as_str());
            let _ = writeln!(text, "carrier    {}", sent.carrier.escape_debug());
            let _ = writeln!(text, "cost       {} USD", sent.cost);
            let _ = writeln!(text, "balance    {} USD", sent.balance);
            Answer::good(text)
        }
        Err(error @ CallError::Unclear(_)) => Answer::bad(format!(
            "{error}\nIt may have been sent and charged: look into the dashboard before you send it again.\n"
        )),
        Err(error) => Answer::bad(format!("{error}\nNothing was sent.\n")),
    })
}

/// Whether whoever sits there wants it.
fn asked(what: &str) -> anyhow::Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!("{what} would call a real phone and cost money: say --yes if that is meant");
    }
    write!(io::stderr(), "This sends {what}: a real phone is called, and it costs money. Go on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
