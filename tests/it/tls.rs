//! TLS to Postgres, as a managed one asks for it.

use nexo_receiver::store::open::{Location, open};

use crate::support::database::{given, postgres_options, server_url};

async fn connects(parameters: &str) -> Result<(), String> {
    let url = server_url().replace("127.0.0.1", "localhost");
    let location = Location::Postgres(postgres_options(&format!("{url}?{parameters}")));
    open(&location).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_server_whose_certificate_is_good_is_connected_to() {
    let ca = given("TEST_DATABASE_CA");
    for mode in ["require", "verify-ca", "verify-full"] {
        connects(&format!("sslmode={mode}&sslrootcert={ca}"))
            .await
            .unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_knows_is_refused() {
    for mode in ["verify-ca", "verify-full"] {
        let error = connects(&format!("sslmode={mode}")).await.unwrap_err();
        assert!(error.contains("certificate"), "{mode}: {error}");
    }
}
