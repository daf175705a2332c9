//! Any text for a cursor: one that is understood is written again so that it means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nexo_receiver::store::query::{Cursor, RawDigest, RawId};

fuzz_target!(|text: &str| {
    if let Ok(cursor) = Cursor::<RawId>::decode(text) {
        let again = Cursor::<RawId>::decode(&cursor.encode()).expect("it was written by us");
        assert_eq!((again.time, &again.key), (cursor.time, &cursor.key));
    }
    if let Ok(cursor) = Cursor::<RawDigest>::decode(text) {
        let again = Cursor::<RawDigest>::decode(&cursor.encode()).expect("it was written by us");
        assert_eq!((again.time, again.key), (cursor.time, cursor.key));
    }
});
