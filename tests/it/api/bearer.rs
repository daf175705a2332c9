//! Who is let in.

use http::Method;

use super::Api;
use crate::support::{
    database::{Database, on_each_store},
    http::API_TOKEN,
};

on_each_store! {
    an_active_token_is_let_in,
    anything_else_is_refused_everywhere,
    an_unknown_path_is_not_found,
    another_method_is_told_which_are_allowed,
}

async fn an_active_token_is_let_in(database: Database) {
    let api = Api::start(&database).await;
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "] {
        for token in [API_TOKEN, "token-rotated-out"] {
            let answer = api.client.with(&[&format!("{scheme} {token}")]).get("/api/v1/deliveries").await;
            assert_eq!(answer.status, 200, "{scheme} {token}");
        }
    }
}

async fn anything_else_is_refused_everywhere(database: Database) {
    let api = Api::start(&database).await;
    let good = format!("Bearer {API_TOKEN}");
    let good = good.as_str();
    for wrong in [
        &[][..],
        &[good, good],
        &[good, "Bearer x"],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &[API_TOKEN],
        &[&format!("Basic {API_TOKEN}")],
        &[&format!("Bearer{API_TOKEN}")],
        &[&format!("Bearer {}", &API_TOKEN[1..])],
        &[&format!("Bearer {API_TOKEN}x")],
        &[&format!("Bearer {API_TOKEN}, {good}")],
        &[&format!("Bearer {}", API_TOKEN.to_uppercase())],
        &["Bearer é"],
    ] {
        let answer = api.client.with(wrong).get("/api/v1/deliveries").await;
        assert_eq!(answer.refusal().1, "unauthorized", "{wrong:?}");
        assert_eq!(answer.status, 401, "{wrong:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let nobody = api.client.with(&[]);
    for path in ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/deliveries/x/y/z", "/api/v1/stats?by=x"] {
        assert_eq!(nobody.get(path).await.status, 401, "{path}");
        assert_eq!(nobody.send(Method::POST, path).await.status, 401, "{path}");
    }
}

async fn an_unknown_path_is_not_found(database: Database) {
    let api = Api::start(&database).await;
    for path in ["", "/", "/nothing", "/deliveries/x/events/y", "/stats/", "/Deliveries", "/%64eliveriez"] {
        let answer = api.get(path).await;
        let (status, error, message) = answer.refusal();
        assert_eq!((status, error.as_str()), (404, "not_found"), "{path}");
        assert!(message.contains("/api/v1/openapi.json"), "{message}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

/// Of one day, so that the answer is the same at any time.
const STATS: &str = "/stats?from=2026-05-26T00:00:00Z&to=2026-05-27T00:00:00Z";

async fn another_method_is_told_which_are_allowed(database: Database) {
    let api = Api::start(&database).await;
    let paths =
        ["/deliveries", "/deliveries/x", "/deliveries/x/events", STATS, "/quarantine", "/openapi.json"];
    for path in paths.map(|path| format!("/api/v1{path}")) {
        let allowed = if path.ends_with("/deliveries/x") { "GET,HEAD,PUT" } else { "GET,HEAD" };
        for method in
            [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE]
        {
            if allowed.contains(method.as_str()) {
                continue;
            }
            let answer = api.client.send(method.clone(), &path).await;
            assert_eq!(answer.refusal().1, "method_not_allowed", "{method} {path}");
            assert_eq!(answer.status, 405);
            assert_eq!(answer.header("allow"), allowed);
        }
        let (get, head) = (api.client.get(&path).await, api.client.send(Method::HEAD, &path).await);
        assert_eq!(head.status, get.status);
        assert_eq!(head.header("content-length"), get.body.len().to_string());
        assert!(head.body.is_empty());
    }
}
