//! Calls to the provider through the proxy that the environment names.

use http::{Method, StatusCode};
use nexo_receiver::{
    provider::{CallError, Options, Provider, Proxy},
    sandbox,
    secret::Secret,
};
use url::Url;

use crate::support::{
    database::Database, forward_proxy::ForwardProxy, http::Client, process::Logged, provider::WEBHOOK_SECRET,
    wire::PATIENCE,
};

const KEY: &str = "sk_live_of_a_test";
const BODY: &str = r#"{"phone":"+84981234567","code":"482917"}"#;

/// Sends an OTP through a service with this in its environment; its log.
async fn send(environment: Vec<(&'static str, String)>) -> String {
    let secret = |text: &str| Secret::new(text.to_owned());
    let sandbox = sandbox::start(sandbox::Options::new(secret(KEY), secret(WEBHOOK_SECRET))).await.unwrap();
    let database = Database::on_sqlite().await;
    let mut all = vec![("NEXO_KEY", KEY.to_owned()), ("NEXO_BASE_URL", sandbox.base_url())];
    all.extend(environment);
    let service = Logged::serve(&database, all);
    let client = Client::new(service.process.address);
    let answer = client.send_with(Method::POST, "/api/v1/send-otp", BODY).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let log = service.terminate().await;
    sandbox.stop().await;
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_goes_through_the_proxy_that_the_environment_names() {
    let proxy = ForwardProxy::start().await;
    let log = send(vec![("HTTP_PROXY", format!("http://user:hunter2@127.0.0.1:{}", proxy.port()))]).await;
    let heads = proxy.heads();
    assert!(heads.iter().any(|head| head.contains("/api/v1/send-otp HTTP/1.1")), "{heads:?}");
    // `user:hunter2` in base64.
    assert!(
        heads.iter().all(|head| head.contains("proxy-authorization: Basic dXNlcjpodW50ZXIy")),
        "{heads:?}"
    );
    assert!(log.contains("calls to the provider go through a proxy"), "{log}");
    assert!(log.contains(&format!("127.0.0.1:{}", proxy.port())) && !log.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_no_proxy_names_is_called_directly() {
    let proxy = ForwardProxy::start().await;
    let at = format!("http://127.0.0.1:{}", proxy.port());
    let log = send(vec![("http_proxy", at), ("NO_PROXY", "localhost,127.0.0.1".to_owned())]).await;
    assert_eq!(proxy.heads(), [""; 0]);
    assert!(!log.contains("through a proxy"), "{log}");
}

/// The proxy resolves the name; here it can't, so that nothing has left.
#[tokio::test]
async fn a_provider_over_https_is_reached_by_connect() {
    let forward = ForwardProxy::start().await;
    let proxy =
        Proxy { uri: format!("http://127.0.0.1:{}", forward.port()).parse().unwrap(), authorization: None };
    let provider = Provider::new(&Options {
        base_url: Url::parse("https://provider.invalid/api/v1").unwrap(),
        key: Secret::new(KEY.to_owned()),
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
        proxy: Some(proxy),
    });
    let balance = provider.unwrap().balance().await;
    assert!(matches!(balance, Err(CallError::NotReached(_))), "{balance:?}");
    let heads = forward.heads();
    assert!(heads[0].starts_with("CONNECT provider.invalid:443 HTTP/1.1\r\n"), "{heads:?}");
    assert!(!heads[0].contains(KEY), "the key is for the provider alone: {heads:?}");
}
