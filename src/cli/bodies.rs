//! The bodies that may have been signed in place of the one at hand: what editors, shells and JSON libraries do.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The provider's order of an event's fields (its guide).
const GUIDE: [&str; 9] =
    ["type", "id", "phone", "carrier", "status", "cost", "error_code", "created_at", "completed_at"];

/// A body, and how the one at hand must have been changed if that is the one that was signed.
type Variant = (Option<String>, Vec<u8>);

/// A longer body is only tried as it is: every variant costs its length, times every key.
const LONGEST: usize = 1 << 20;

/// The body itself, then all that it may have been made from.
pub(super) fn variants(body: &[u8]) -> Vec<Variant> {
    let mut variants: Vec<Variant> = vec![(None, body.to_vec())];
    if body.len() > LONGEST {
        return variants;
    }
    let mut add = |fault: String, signed: Vec<u8>| {
        if variants.iter().all(|(_, known)| *known != signed) {
            variants.push((Some(fault), signed));
        }
    };
    for ending in ["\n", "\r\n"] {
        if let Some(signed) = body.strip_suffix(ending.as_bytes()) {
            add("the file has a newline at its end that the signed body has not".into(), signed.to_vec());
        }
        let signed = [body, ending.as_bytes()].concat();
        add(format!("the signed body ends with a newline ({ending:?}) that the file lacks"), signed);
    }
    if let Some(signed) = body.strip_prefix(b"\xef\xbb\xbf") {
        add("the file begins with a byte order mark that the signed body has not".into(), signed.to_vec());
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let unix = text.replace("\r\n", "\n");
        let fault = "the file's lines end with CR and LF, the signed body's with LF alone";
        add(fault.into(), unix.clone().into());
        add(format!("{fault}; the file has a newline at its end, too"), unix.trim_end_matches('\n').into());
        let fault = "the file's lines end with LF alone, the signed body's with CR and LF";
        add(fault.into(), unix.replace('\n', "\r\n").into());
    }
    for (how, signed) in serialised(body) {
        let fault = format!("the body was parsed and serialised again: what was signed is {how}");
        add(format!("{fault}, with a newline at its end"), [&signed, &b"\n"[..]].concat());
        add(fault, signed);
    }
    add("an empty body was signed: something had read it before".into(), Vec::new());
    variants
}

/// An object's members, in their order, each value in its own text.
struct Members(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((name, value.get().to_owned()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// How a serialiser spaces an object.
struct Style {
    name: &'static str,
    open: &'static str,
    colon: &'static str,
    comma: &'static str,
    close: &'static str,
}

const STYLES: [Style; 5] = [
    Style { name: "compact", open: "{", colon: ":", comma: ",", close: "}" },
    Style { name: "spaced as Python does it", open: "{", colon: ": ", comma: ", ", close: "}" },
    Style { name: "pretty, by two spaces", open: "{\n  ", colon: ": ", comma: ",\n  ", close: "\n}" },
    Style { name: "pretty, by four spaces", open: "{\n    ", colon: ": ", comma: ",\n    ", close: "\n}" },
    Style { name: "pretty, by tabs", open: "{\n\t", colon: ": ", comma: ",\n\t", close: "\n}" },
];

/// The same object in every style and order, its values as they are or serialised again; none when it is no object.
fn serialised(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let Ok(Members(as_here)) = serde_json::from_slice(body) else { return Vec::new() };
    let mut guide = as_here.clone();
    guide.sort_by_key(|(name, _)| GUIDE.iter().position(|known| known == name).unwrap_or(GUIDE.len()));
    let mut sorted = as_here.clone();
    sorted.sort();
    let orders = [("", as_here), (", in the guide's order", guide), (", in alphabetical order", sorted)];
    let mut bodies = Vec::new();
    for (order, members) in orders {
        let again: Vec<_> = members.iter().map(|(name, value)| (name.clone(), reserialised(value))).collect();
        for style in &STYLES {
            let how = format!("{}{order}", style.name);
            bodies.push((how.clone(), style.write(&members)));
            bodies.push((how, style.write(&again)));
        }
    }
    bodies
}

fn reserialised(value: &str) -> String {
    serde_json::from_str::<Value>(value).map_or_else(|_| value.to_owned(), |value| value.to_string())
}

impl Style {
    fn write(&self, members: &[(String, String)]) -> Vec<u8> {
        let member =
            |(name, value): &(String, String)| format!("{}{}{value}", Value::from(name.as_str()), self.colon);
        let members: Vec<_> = members.iter().map(member).collect();
        format!("{}{}{}", self.open, members.join(self.comma), self.close).into_bytes()
    }
}
