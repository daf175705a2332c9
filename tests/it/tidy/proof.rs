//! Shows that each rule can fail, on a small house.

use super::{Tree, faults};

#[test]
fn each_rule_can_fail() {
    let good = [
        ("src/lib.rs", "//! Map.\npub mod clock;\npub mod store;\npub mod http;\n"),
        ("src/clock.rs", "//! Time.\nfn now() { std::time::SystemTime::now() }\n"),
        (
            "src/store/mod.rs",
            "//! SQL.\nuse crate::{\n    clock::{Timestamp, a::b},\n};\nmod open;\nsqlx::query();\n",
        ),
        ("src/store/open.rs", "//! Opens.\npostgres::open(); // as in crate::http\n"),
        (
            "src/http/mod.rs",
            "//! HTTP.\nuse axum::Router;\nuse crate::store::Store;\n#[cfg(test)]\nmod tests {\n    sqlx\n}\n",
        ),
        (
            "ARCHITECTURE.md",
            "`src/lib.rs`, `src/clock.rs`, src/store/: all SQL; src/store/open.rs, src/http.\n",
        ),
    ];
    let tree = || good.map(|(path, text)| (path.to_owned(), text.to_owned())).into_iter().collect::<Tree>();
    assert_eq!(faults(&tree()), Vec::<String>::new());
    let long = format!("//! Long.\n{}", "\n".repeat(400));
    let deep = format!("//! Deep.\n    pub async fn f(\n    ) {{\n{}    }}\n", "        x;\n".repeat(58));
    let cases = [
        (
            "src/clock.rs",
            "//! T.\n\nuse crate::{\n    clock::A,\n    http::{clock::B},\n};",
            "src/clock.rs:5: `clock` may not know `http`",
        ),
        (
            "src/store/mod.rs",
            "//! S.\nmod open;\ncrate::http::f()",
            "src/store/mod.rs:3: `store` may not know `http`",
        ),
        (
            "src/clock.rs",
            "//! T.\nuse crate::{secret, clock}",
            "src/clock.rs:2: `clock` may not know `secret`",
        ),
        ("src/clock.rs", "//! T.\nuse axum::Router;", "src/clock.rs:2: `axum::`"),
        ("src/http/mod.rs", "//! H.\nsqlx::query()", "src/http/mod.rs:2: `sqlx::`"),
        ("src/store/open.rs", "//! O.\nstd::env::var()", "src/store/open.rs:2: `env::`"),
        ("src/http/mod.rs", "//! H.\nOffsetDateTime::now_utc()", "src/http/mod.rs:2: `now_utc`"),
        ("src/http/mod.rs", "//! H.\nstore::postgres::open()", "src/http/mod.rs:2: `postgres::`"),
        ("src/store/mod.rs", "//! S.\nmod open;\nsqlite::open()", "src/store/mod.rs:3: `sqlite::`"),
        ("src/clock.rs", &long, "src/clock.rs:401: more than 400"),
        ("src/clock.rs", &deep, "src/clock.rs:2: a function of more than 60"),
        ("src/clock.rs", "// T.", "src/clock.rs:1: does not say what lives here"),
        ("src/store/common.rs", "//! C.", "src/store/common.rs:1: a drawer"),
        ("src/http/page.rs", "//! P.", "src/http/page.rs:1: no `mod` reaches it"),
        ("src/store/mod.rs", "//! S.\n// mod open;", "src/store/open.rs:1: no `mod` reaches it"),
        ("src/main.rs", "//! M.", "ARCHITECTURE.md: does not show src/main.rs"),
        (
            "ARCHITECTURE.md",
            "src/lib.rs src/clock.rs src/store src/http src/store/rows.rs",
            "ARCHITECTURE.md: no src/store/rows.rs",
        ),
        ("ARCHITECTURE.md", "src/lib.rs\nsrc/store/\n  open.rs  rows.rs", "ARCHITECTURE.md: no rows.rs"),
    ];
    for (path, text, expected) in cases {
        let mut tree = tree();
        tree.insert(path.into(), text.into());
        let faults = faults(&tree);
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:#?}");
    }
}
