//! Any signed body: understanding never fails, says the same each time, and what it says merges with itself to itself.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nexo_receiver::{
    clock::Timestamp,
    event::Arrival,
    secret::Secret,
    signature::{Keyring, SigningKey},
};

static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new("fuzz".to_owned()));

fuzz_target!(|body: &[u8]| {
    let understand = || {
        let signature = SigningKey::from_secret(&SECRET).sign(body);
        let verified = Keyring::new(&SECRET, None).verify(body.to_vec().into(), signature).expect("it is signed");
        let at = Timestamp::parse("2026-05-26T10:00:30Z").expect("a time");
        Arrival::understand(verified, at)
    };
    let (once, again) = (understand(), understand());
    assert_eq!(once.body(), body);
    match (once.event(), again.event()) {
        (Some(once), Some(again)) => {
            assert_eq!(once.told, again.told);
            assert!((1..=255).contains(&once.told.id.as_str().len()));
            assert_eq!(once.told.clone().merge(again.told.clone()), once.told);
            // Printing shows no phone, and does not fail.
            let printed = format!("{:?}", once.told);
            if let Some(phone) = &once.told.phone {
                assert!(!printed.contains(phone.reveal()));
            }
        }
        (None, None) => {}
        _ => panic!("understood one time only"),
    }
});
