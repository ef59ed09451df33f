//! Why a key is not what it was: the leaves in which two preimages differ, in words, down to the file
//! in a tree. Knows no order and runs nothing.

use serde_json::Value;

use crate::cache::cas::Cas;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::key::{self, Difference};

/// One change in words, and the digest behind it if it came from another task's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// For example `patches/a.patch changed`.
    pub text: String,
    /// The new value that was read, if a task may have made it.
    pub value: Option<Digest>,
}

/// Why the second preimage is not the first; at least one reason if they differ.
pub fn reasons(cas: &Cas, before: &Value, now: &Value) -> Vec<Reason> {
    let mut found = Vec::new();
    for difference in key::differences(before, now) {
        explain(cas, &difference, now, &mut found);
    }
    found
}

fn explain(cas: &Cas, difference: &Difference, now: &Value, found: &mut Vec<Reason>) {
    let path: Vec<&str> = difference.path.iter().map(String::as_str).collect();
    let digest = |value: &Option<Value>| value.as_ref()?.as_str()?.parse::<Digest>().ok();
    let plain = |text: String| Reason { text, value: None };
    match path.as_slice() {
        ["revision"] => found.push(plain("this vcbuild does it differently".into())),
        ["platform"] => found.push(plain("another platform".into())),
        // A list of named files of which some came or went.
        ["what", "files"] => found.extend(files(difference).into_iter().map(plain)),
        ["what", "files", index, "digest"] => {
            let file =
                index.parse::<usize>().ok().and_then(|index| now["what"]["files"][index]["name"].as_str());
            found.push(plain(format!("`{}` changed", file.unwrap_or(index))));
        }
        ["what", "files", _, "size"] => {}
        ["what", "tools", name] => found.push(plain(format!("the tool `{name}` changed"))),
        ["what", "pass_env", name] => {
            found.push(plain(format!("the variable `{name}` of the environment changed")))
        }
        ["what", "packages", name] => found.push(plain(format!("the package `{name}` changed"))),
        ["what", "reads", path] => found.push(plain(format!("`{path}` changed"))),
        ["what", rest @ ..] => match (digest(&difference.before), digest(&difference.now)) {
            (Some(before), Some(now)) => {
                found.push(Reason { text: content(cas, rest, before, now), value: Some(now) })
            }
            _ => found.push(plain(values(rest, difference))),
        },
        rest => found.push(plain(values(rest, difference))),
    }
}

/// Which of two lists of named files differ.
fn files(difference: &Difference) -> Vec<String> {
    let named = |value: &Option<Value>| -> Vec<(String, String)> {
        let list = value.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_string();
        list.iter().map(|item| (text(item, "name"), text(item, "digest"))).collect()
    };
    let (before, now) = (named(&difference.before), named(&difference.now));
    let mut found = Vec::new();
    for (name, digest) in &now {
        match before.iter().find(|(known, _)| known == name) {
            None => found.push(format!("`{name}` is new")),
            Some((_, old)) if old != digest => found.push(format!("`{name}` changed")),
            Some(_) => {}
        }
    }
    for (name, _) in &before {
        if !now.iter().any(|(known, _)| known == name) {
            found.push(format!("`{name}` is gone"));
        }
    }
    if found.is_empty() {
        found.push("the order of the files changed".into());
    }
    found
}

/// The first file in which two trees differ, if both are there.
fn content(cas: &Cas, path: &[&str], before: Digest, now: Digest) -> String {
    let mut changed = Vec::new();
    let whole = compare(cas, &before, &now, "", &mut changed);
    let name = path.join(".");
    match (whole, changed.len()) {
        (Some(()), 1) => format!("{} in `{name}`", changed[0]),
        (Some(()), 2..) => format!("{} and {} more in `{name}`", changed[0], changed.len() - 1),
        _ => format!("`{name}` changed"),
    }
}

/// Collects what differs; `None` if a node cannot be read.
fn compare(cas: &Cas, before: &Digest, now: &Digest, path: &str, changed: &mut Vec<String>) -> Option<()> {
    let (before, now) = (cas.node(before).ok()?, cas.node(now).ok()?);
    let inside = |name: &[u8]| {
        let name = String::from_utf8_lossy(name);
        if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") }
    };
    for (name, entry) in &now.entries {
        match (before.entry(name), entry) {
            (Some(old), new) if old == new => {}
            (Some(Entry::Folder { tree: old, .. }), Entry::Folder { tree: new, .. }) => {
                compare(cas, old, new, &inside(name), changed)?;
            }
            (Some(_), _) => changed.push(format!("`{}` changed", inside(name))),
            (None, _) => changed.push(format!("`{}` is new", inside(name))),
        }
    }
    for (name, _) in &before.entries {
        if now.entry(name).is_none() {
            changed.push(format!("`{}` is gone", inside(name)));
        }
    }
    Some(())
}

fn values(path: &[&str], difference: &Difference) -> String {
    let name = path.strip_prefix(&["what"]).unwrap_or(path).join(".");
    let short = |value: &Value| {
        let text = value.to_string();
        if text.chars().count() > 60 {
            format!("{}…", text.chars().take(60).collect::<String>())
        } else {
            text
        }
    };
    match (&difference.before, &difference.now) {
        (Some(before), Some(now)) => format!("`{name}` was {} and is {}", short(before), short(now)),
        (None, Some(now)) => format!("`{name}` is new: {}", short(now)),
        (Some(before), None) => format!("`{name}` is gone; it was {}", short(before)),
        (None, None) => format!("`{name}` changed"),
    }
}
