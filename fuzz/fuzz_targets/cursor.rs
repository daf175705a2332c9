//! Any text for a cursor: one that is understood is written again so that it means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nexo_receiver::{delivery::DeliveryId, signature::Digest, store::query::Cursor};

fuzz_target!(|text: &str| {
    if let Ok(cursor) = Cursor::<DeliveryId>::decode(text) {
        let again = Cursor::<DeliveryId>::decode(&cursor.encode()).expect("it was written by us");
        assert_eq!((again.time, &again.key), (cursor.time, &cursor.key));
    }
    if let Ok(cursor) = Cursor::<Digest>::decode(text) {
        let again = Cursor::<Digest>::decode(&cursor.encode()).expect("it was written by us");
        assert_eq!((again.time, again.key), (cursor.time, cursor.key));
    }
});
