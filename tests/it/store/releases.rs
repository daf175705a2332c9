//! A store that an earlier release has made opens, with all that it holds, after every migration since. What such stores
//! held stands in `tests/releases/`, made by `tests/releases/make` when each was released.

use std::{fs, path::PathBuf};

use nexo_receiver::{
    batch::Outcome,
    cli::rebuild::check,
    phone::Phone,
    provider::Code,
    store::{
        query::{ListDeliveries, ListQuarantine},
        sends::{Begun, Claim, Fingerprint, SendKey, SendOutcome, SendRecord, SendState},
    },
};

use super::{FAILED, Told, after, at, keep};
use crate::support::database::{Database, on_each_store};

on_each_store! { what_an_earlier_release_kept_is_there }

/// The dump of each release, by its version.
fn releases(file: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/releases");
    let versions =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let read = |path: PathBuf| {
        let version = path.file_name().unwrap().to_str().unwrap().to_owned();
        (version, fs::read_to_string(path.join(file)).unwrap())
    };
    versions.map(read).collect()
}

async fn what_an_earlier_release_kept_is_there(database: Database) {
    let is_postgres = database.is_postgres();
    let releases = releases(if is_postgres { "postgres.sql" } else { "sqlite.sql" });
    assert!(!releases.is_empty());
    for (version, dump) in releases {
        let database = match is_postgres {
            true => Database::empty_on_postgres().await,
            false => Database::empty_on_sqlite(),
        };
        if !is_postgres {
            fs::File::create(database.sqlite_file()).unwrap();
        }
        database.execute(&dump).await;
        let store = database.open().await;
        store.migrate().await.unwrap();
        store.ready().await.unwrap();
        let checked = check(&*store, None, None, || {}).await.unwrap();
        assert!(checked.differing.is_empty(), "{version}: {checked}");
        assert_eq!((checked.deliveries, checked.events), (6, 7), "{version}");

        let page = store.deliveries(&ListDeliveries::default()).await.unwrap();
        assert_eq!(page.entries.len(), 6);
        let pings = store.quarantine(&ListQuarantine::default()).await.unwrap();
        assert_eq!(pings.entries.len(), 1);
        let key = SendKey::parse("a-key").unwrap();
        let sent = page.entries.iter().find(|it| it.source.as_str() == "send").expect("one was sent");
        let (phone, code) = (sent.phone.clone().unwrap(), Code::parse("482917").unwrap());
        let send = SendRecord {
            key,
            claim: Claim::fresh(),
            fingerprint: Fingerprint::of(&phone, &code),
            phone: phone.clone(),
            began_at: at("2026-05-26T10:00:00Z"),
        };
        let Begun::Known(known) = store.begin_send(&send).await.unwrap() else {
            panic!("{version}: its key is free")
        };
        assert!(matches!(known.state, SendState::Ended(SendOutcome::Accepted(_))), "{version}: {known:?}");
        // Its fingerprint was made with a key that may have changed since: the phone decides.
        assert!(known.is_of(&phone, &code));
        assert!(!known.is_of(&Phone::parse("+84980000000").unwrap(), &code));

        let told = page.entries.iter().find(|it| it.id.as_str() == "told-by-a-caller").unwrap();
        let id = told.id.as_str();
        let failed = Told { id, ..FAILED }.received(5);
        assert_eq!(keep(&*store, vec![failed]).await, [Outcome::New]);
        let now = store.delivery(&told.id).await.unwrap().unwrap();
        assert_eq!((now.status.as_str(), now.received_at), ("failed", after(5)));
    }
}
