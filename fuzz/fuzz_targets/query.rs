//! Any query string: each call either understands it or says in a sentence what is wrong, without the value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nexo_receiver::{
    clock::Timestamp,
    http::parameters::{list_deliveries, list_quarantine, none, stats, stream, wait},
};

fuzz_target!(|query: &str| {
    let now = Timestamp::parse("2026-05-26T10:00:30Z").expect("a time");
    let refusals = [
        none(Some(query)).err(),
        wait(Some(query)).err(),
        list_deliveries(Some(query)).err(),
        stream(Some(query)).err(),
        list_quarantine(Some(query)).err(),
        stats(Some(query), now).err(),
    ];
    for refusal in refusals.into_iter().flatten() {
        let message = refusal.message();
        assert!(!message.is_empty() && message.len() < 1_000, "{message}");
        assert!(!message.contains('\0') && !message.contains('\n'), "{message:?}");
    }
    if let Ok(question) = list_deliveries(Some(query)) {
        assert!((1..=500).contains(&question.size.get()));
        assert!(question.from.zip(question.to).is_none_or(|(from, to)| from <= to));
    }
});
