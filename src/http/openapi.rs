//! `GET /openapi.json`: the document of the whole service, kept by hand and held to what the service does by the
//! tests' client, which checks every answer against it.

use axum::{extract::RawQuery, response::Response};
use http::StatusCode;

use super::{answer::json_text, parameters, refusal::Refusal};

/// The document.
const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json`.
pub(crate) async fn document(RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    parameters::none(query.as_deref())?;
    Ok(json_text(StatusCode::OK, DOCUMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_this_versions() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
