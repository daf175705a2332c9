//! The service's OpenAPI document as a check: every answer that a test gets must be one that it describes.

use std::sync::LazyLock;

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::http::Answer;

/// The document as the service serves it.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../src/http/openapi.json")).expect("the document is JSON")
});

/// Where a refusal's schema is.
const REFUSAL: &str = "#/components/schemas/Refusal";

/// Panics unless the document describes this answer to this request.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let place = format!("{method} {path} → {}", answer.status);
    let path = path.split('?').next().unwrap_or_default();
    let Some((template, item)) = item(path) else {
        assert!(
            [StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED].contains(&answer.status),
            "{place}: undocumented"
        );
        return conforms(&place, REFUSAL, answer);
    };
    // A HEAD is answered as the GET that it stands for, without the body.
    let as_documented = if method == Method::HEAD { Method::GET } else { method.clone() };
    let name = as_documented.as_str().to_lowercase();
    let Some(operation) = item.get(&name) else {
        let refused = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::UNAUTHORIZED].contains(&answer.status);
        assert!(refused, "{place}: undocumented");
        assert!(answer.headers.contains_key(header::ALLOW), "{place} names no other method");
        return conforms(&place, REFUSAL, answer);
    };
    let status = answer.status.as_str();
    let response =
        operation["responses"].get(status).unwrap_or_else(|| panic!("{place}: undocumented status"));
    let response = followed(response);
    check_headers(&place, response, answer);
    let kind = only_kind(response);
    assert!(answer.header(header::CONTENT_TYPE).starts_with(kind), "{place} is {answer:?}, not {kind}");
    if kind == "application/json" && method != Method::HEAD {
        let pointer = format!("{}/content/application~1json/schema", pointer(template, &name, status));
        conforms(&place, &pointer, answer);
    }
}

/// A documented path that this one is an instance of, and what stands under it.
fn item(path: &str) -> Option<(&'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths are an object");
    let fits = |template: &str| {
        let (mut parts, mut given) = (template.split('/'), path.split('/'));
        let alike = parts
            .by_ref()
            .zip(given.by_ref())
            .all(|(part, given)| if part.starts_with('{') { !given.is_empty() } else { part == given });
        alike && template.split('/').count() == path.split('/').count()
    };
    paths.iter().find(|(template, _)| fits(template)).map(|(template, item)| (template.as_str(), item))
}

/// The response, wherever it is written.
fn followed(response: &'static Value) -> &'static Value {
    response.get("$ref").map_or(response, |target| {
        let pointer =
            target.as_str().and_then(|target| target.strip_prefix('#')).expect("a reference is local");
        DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere"))
    })
}

fn pointer(template: &str, method: &str, status: &str) -> String {
    let template = template.replace('~', "~0").replace('/', "~1");
    let operation = format!("/paths/{template}/{method}/responses/{status}");
    match DOCUMENT.pointer(&operation).and_then(|response| response["$ref"].as_str()) {
        Some(target) => target.to_owned(),
        // A fragment is part of a URI, where braces are escaped.
        None => format!("#{}", operation.replace('{', "%7B").replace('}', "%7D")),
    }
}

/// The media type of a response.
fn only_kind(response: &'static Value) -> &'static str {
    let content = response["content"].as_object().expect("every response has content");
    assert_eq!(content.len(), 1, "one media type each");
    content.keys().next().expect("just counted")
}

fn check_headers(place: &str, response: &'static Value, answer: &Answer) {
    for (name, described) in response.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let schema = &followed(described)["schema"];
        let text = answer.header(name);
        assert!(!text.is_empty(), "{place} has no {name}");
        let value = text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number));
        assert!(jsonschema::is_valid(schema, &value), "{place}: {name} is {text}, not {schema}");
    }
}

/// Checks a body against the schema that a fragment of the document names.
fn conforms(place: &str, fragment: &str, answer: &Answer) {
    if answer.body.is_empty() && place.starts_with("HEAD") {
        return;
    }
    let mut schema = DOCUMENT.clone();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$ref"] = json!(fragment);
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("the document has sound schemas");
    let body = answer.json();
    let problems: Vec<_> = validator
        .iter_errors(&body)
        .map(|problem| format!("{}: {problem}", problem.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{place} is not as documented: {problems:#?}\n{}", answer.text());
}
