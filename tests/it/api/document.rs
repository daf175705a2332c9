//! The OpenAPI document: it is served as it is written, and what it describes is there.

use serde_json::Value;

use super::Api;
use crate::support::{
    database::{Database, on_each_store},
    document::DOCUMENT,
};

on_each_store! {
    the_document_is_served,
    every_documented_operation_is_there,
}

async fn the_document_is_served(database: Database) {
    let api = Api::start(&database).await;
    assert_eq!(api.get("/openapi.json").await.json(), *DOCUMENT);
}

/// The client checks each answer; here each operation gets calls, with the document's own examples.
async fn every_documented_operation_is_there(database: Database) {
    let api = Api::start(&database).await;
    let mut called = 0;
    for (template, item) in DOCUMENT["paths"].as_object().unwrap() {
        let Some(operation) = item.get("get").filter(|_| template.starts_with("/api/v1/")) else { continue };
        let (path, query) = example(template, operation);
        assert_eq!(api.client.with(&[]).get(&path).await.refusal().1, "unauthorized", "{path}");
        for query in query.iter().map(String::as_str).chain(["", query.join("&").as_str()]) {
            let status = api.client.get(&format!("{path}?{query}")).await.status;
            let known = if template.contains('{') { 404 } else { 200 };
            assert_eq!(status, known, "{path}?{query}");
        }
        called += 1;
    }
    assert_eq!(called, 6);
}

/// A path and parameters that the document gives as examples.
fn example(template: &str, operation: &Value) -> (String, Vec<String>) {
    let (mut path, mut query) = (template.to_owned(), Vec::new());
    for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let target = parameter["$ref"].as_str().and_then(|target| target.strip_prefix('#')).unwrap();
        let parameter = DOCUMENT.pointer(target).unwrap();
        let name = parameter["name"].as_str().unwrap();
        let text = match &parameter["example"] {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{name}}}"), &text),
            _ => query.push(format!("{name}={text}")),
        }
    }
    (path, query)
}
