//! What tests of more than one part need.

pub mod cluster;
pub mod database;
pub mod document;
pub mod evidence;
pub mod forward_proxy;
pub mod guide;
pub mod http;
pub mod ledger;
pub mod load;
pub mod mount;
pub mod oddities;
pub mod pgbouncer;
pub mod process;
pub mod provider;
pub mod receiver;
pub mod recording;
pub mod relay;
pub mod sender;
pub mod stream;
pub mod until;
pub mod vectors;
pub mod wire;

/// How often: what the command line says, or a number for every day.
pub fn rounds(usual: usize) -> usize {
    number("TEST_ROUNDS").map_or(usual, |rounds| usize::try_from(rounds).expect("a count"))
}

/// What chance begins with: what the command line says, or anything.
pub fn seed() -> u64 {
    number("TEST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000))
}

/// A number from the command line of `tests/run`.
#[expect(clippy::disallowed_methods, reason = "tests are told by tests/run")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}
