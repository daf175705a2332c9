//! The house rules that no compiler knows, read off `src/` and `ARCHITECTURE.md`.

mod proof;

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path};

/// Path from the project's folder → text.
type Tree = BTreeMap<String, String>;

/// What may stand in some places only.
const PLACES: [(&str, &[&str]); 9] = [
    ("axum::", &["src/http/", "src/sandbox/"]),
    ("reqwest::", &["src/provider/"]),
    ("sqlx::", &["src/store/"]),
    ("postgres::", &["src/store/postgres/", "src/store/open.rs", "src/settings/"]),
    ("sqlite::", &["src/store/sqlite/", "src/store/open.rs", "src/settings/"]),
    ("env::", &["src/settings/"]),
    ("SystemTime", &["src/clock.rs"]),
    ("now_utc", &["src/clock.rs"]),
    ("now_local", &["src/clock.rs"]),
];
const DRAWERS: [&str; 4] = ["utils", "helpers", "common", "manager"];
const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 60;

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    let mut tree = Tree::from([("ARCHITECTURE.md".into(), map)]);
    read(root, "src", &mut tree);
    let faults = faults(&tree);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn read(root: &Path, folder: &str, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(root, &path, tree);
        } else {
            tree.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

fn faults(tree: &Tree) -> Vec<String> {
    let lib = code(&tree["src/lib.rs"]);
    let order: Vec<_> = lib.lines().filter_map(|it| it.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut faults = map_faults(tree);
    for (path, text) in tree.iter().filter(|(path, _)| path.ends_with(".rs")) {
        file_faults(tree, path, text, |line, what| faults.push(format!("{path}:{line}: {what}")));
        code_faults(&order, path, &code(text), |line, what| faults.push(format!("{path}:{line}: {what}")));
    }
    faults
}

/// Without comments and unit tests, line for line.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap().trim_end().to_owned() + "\n").collect()
}

/// Whether a word begins there, whatever follows.
fn says(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn file_faults(tree: &Tree, path: &str, text: &str, mut fault: impl FnMut(usize, String)) {
    if !text.starts_with("//!") {
        fault(1, "does not say what lives here, in `//!`".into());
    }
    if path.split(['/', '.']).any(|name| DRAWERS.contains(&name)) {
        fault(1, "a drawer, not a room: name it after what lives there".into());
    }
    let module = path.strip_suffix("/mod.rs").or(path.strip_suffix(".rs")).unwrap();
    let (parent, name) = module.rsplit_once('/').unwrap();
    let declares = |file| tree.get(&file).is_some_and(|text| code(text).contains(&format!("mod {name};\n")));
    let mut parents =
        ["/lib.rs", "/main.rs", "/mod.rs", ".rs"].map(|file| parent.to_owned() + file).into_iter();
    if !["src/lib", "src/main"].contains(&module) && !parents.any(declares) {
        fault(1, "no `mod` reaches it".into());
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > LONGEST_FILE {
        fault(lines.len(), format!("more than {LONGEST_FILE} lines"));
    }
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_fn = |line: &str| says(line, "fn ") && !line.contains("//");
    for (at, start) in lines.iter().enumerate().filter(|(_, line)| is_fn(line)) {
        let ends = |line: &&str| indent(line) == indent(start) && line.ends_with(['}', ';']);
        if lines[at..].iter().position(ends).is_some_and(|last| last >= LONGEST_FUNCTION) {
            fault(at + 1, format!("a function of more than {LONGEST_FUNCTION} lines"));
        }
    }
}

fn code_faults(order: &[&str], path: &str, code: &str, mut fault: impl FnMut(usize, String)) {
    for (number, line) in (1..).zip(code.lines()) {
        for (word, places) in PLACES.iter().filter(|(word, _)| says(line, word)) {
            if !places.iter().any(|place| path.starts_with(place)) {
                fault(number, format!("`{word}` belongs in {}", places.join(", ")));
            }
        }
    }
    let rank = |module: &str| order.iter().position(|it| *it == module);
    let own = path["src/".len()..].split(['/', '.']).next().unwrap();
    for (at, name) in imports(code) {
        if rank(name).is_none_or(|name| rank(own).is_some_and(|own| name > own)) {
            let line = code[..at].matches('\n').count() + 1;
            fault(line, format!("`{own}` may not know `{name}`: src/lib.rs does not declare it before"));
        }
    }
}

/// The names after each `crate::`, each of a group's too, and where they stand.
fn imports(code: &str) -> Vec<(usize, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for (found, path) in code.match_indices("crate::") {
        let (mut depth, mut fresh) = (0, true);
        for (at, c) in code.char_indices().skip_while(|(at, _)| *at < found + path.len()) {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if fresh && is_name(c) {
                names.push((at, code[at..].split(|c| !is_name(c)).next().unwrap()));
            }
            fresh = depth == 1 && (c == ',' || fresh && !is_name(c));
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// `ARCHITECTURE.md` shows each room of `src/`, and none that is not there.
fn map_faults(tree: &Tree) -> Vec<String> {
    let words = tree["ARCHITECTURE.md"].split(|c: char| !c.is_ascii_alphanumeric() && !"/_.".contains(c));
    let shown = words.filter(|word| word.starts_with("src/") || word.ends_with(".rs"));
    let shown =
        shown.filter(|word| !word.starts_with("tests/")).map(|word| word.trim_end_matches(['/', '.']));
    let shown: BTreeSet<&str> = shown.collect();
    let is_there = |room| tree.keys().any(|path| format!("/{path}/").contains(&format!("/{room}/")));
    let absent = shown.iter().filter(|room| !is_there(**room)).map(|room| format!("no {room}"));
    let rooms = tree.keys().filter_map(|path| path.strip_prefix("src/")?.split('/').next());
    let rooms: BTreeSet<String> = rooms.map(|room| format!("src/{room}")).collect();
    let hidden =
        rooms.iter().filter(|room| !shown.contains(&room[..])).map(|it| format!("does not show {it}"));
    absent.chain(hidden).map(|fault| format!("ARCHITECTURE.md: {fault}")).collect()
}
