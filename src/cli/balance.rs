//! `balance`: what the provider's wallet holds.

use super::Answer;
use crate::{provider::Provider, settings::Settings};

/// Asks; nothing is charged.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<Answer> {
    let balance = Provider::new(&settings.provider()?)?.balance().await?.answer;
    let buckets = balance.buckets;
    Ok(Answer::good(format!(
        "balance        {} USD\n  paid in      {} USD\n  bonus credit {} USD\n  free credit  {} USD\n",
        balance.balance, buckets.balance, buckets.bonus_credit, buckets.free_credit
    )))
}
