//! Runs `tests/patch-cases.json` (what GNU patch did with hand-made cases) and checks that the list of
//! cases with another result is exactly the table in `docs/patch.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::apply::attempt;
use super::note::Said;
use super::parse::read;
use super::reason::{Halt, Reason};
use super::{Applied, Change, Entry, Files, Options};
use crate::error::Result;

/// A tree in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<Vec<u8>, Entry>);

impl Files for Tree {
    fn entry(&self, path: &[u8]) -> Result<Option<Entry>> {
        if let Some(entry) = self.0.get(path) {
            return Ok(Some(entry.clone()));
        }
        let prefix = [path, b"/"].concat();
        Ok(self.0.keys().any(|key| key.starts_with(&prefix)).then_some(Entry::Folder))
    }

    fn names(&self, folder: &[u8]) -> Result<Vec<Vec<u8>>> {
        let prefix = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        let inside = self.0.keys().filter_map(|key| key.strip_prefix(&prefix[..]));
        let names: BTreeSet<_> =
            inside.filter_map(|rest| rest.split(|byte| *byte == b'/').next()).map(<[u8]>::to_vec).collect();
        Ok(names.into_iter().filter(|name| !name.is_empty()).collect())
    }
}

impl Tree {
    /// A tree of plain files.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let entry = |text: &str| Entry::File { content: text.into(), executable: false };
        Self(files.iter().map(|(path, text)| (path.as_bytes().to_vec(), entry(text))).collect())
    }

    /// The tree after changes.
    pub fn with(&self, applied: &Applied) -> Self {
        let mut tree = self.clone();
        for (path, change) in &applied.changes {
            match change.clone() {
                Change::Remove => assert!(tree.0.remove(path).is_some(), "removes what is not there"),
                Change::Write { content, executable } => {
                    tree.0.insert(path.clone(), Entry::File { content, executable });
                }
                Change::Link(target) => {
                    tree.0.insert(path.clone(), Entry::Link(target));
                }
            }
        }
        for path in tree.0.keys() {
            assert!(
                super::name::folders(path).all(|folder| !tree.0.contains_key(folder)),
                "a file is also a folder"
            );
        }
        tree
    }

    fn from_json(files: &Value) -> Self {
        let mut tree = BTreeMap::new();
        for (path, value) in files.as_object().unwrap() {
            let entry = match value {
                Value::Null => continue,
                Value::String(text) => Entry::File { content: text.clone().into(), executable: false },
                other => match other.get("symlink") {
                    Some(target) => Entry::Link(target.as_str().unwrap().into()),
                    None => Entry::File {
                        content: other["text"].as_str().unwrap().into(),
                        executable: u32::from_str_radix(other["mode"].as_str().unwrap(), 8).unwrap()
                            & 0o100
                            != 0,
                    },
                },
            };
            tree.insert(path.clone().into_bytes(), entry);
        }
        Self(tree)
    }
}

/// What became of a case.
pub fn outcome(
    tree: &Tree,
    patch: &[u8],
    options: &Options,
) -> std::result::Result<(Tree, Applied), Reason> {
    let halted = |halt| match halt {
        Halt::Refused(refusal) => {
            let failure = &refusal.failure;
            assert!(!failure.message.is_empty() && !failure.message.contains('\n'), "{failure:?}");
            assert!(failure.message.contains("patch"), "{failure:?}");
            refusal.reason
        }
        Halt::Error(error) => panic!("{error}"),
    };
    let patch = read("case.patch", patch, options).map_err(|refusal| halted(refusal.into()))?;
    let applied = attempt(&patch, tree, options).map_err(halted)?;
    Ok((tree.with(&applied), applied))
}

/// The rows of the tables in `docs/patch.md`: the name, and the cases.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut rows = BTreeMap::new();
    for line in include_str!("../../docs/patch.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, why, cases, ""] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        assert!(why.len() > 20, "no reason in the row `{name}`");
        let cases = cases.split("<br>").filter_map(|case| case.strip_prefix('`')?.strip_suffix('`'));
        let cases: BTreeSet<String> = cases.map(str::to_owned).collect();
        assert!(rows.insert(name.to_owned(), cases).is_none(), "two rows `{name}`");
    }
    rows
}

#[test]
fn every_reason_has_its_row_in_the_table() {
    let rows = documented();
    for reason in Reason::ALL {
        assert!(rows.contains_key(reason.name()), "no row `{}` in docs/patch.md", reason.name());
    }
}

/// The name of the row that a case belongs to, if its result is not that of GNU patch.
fn row(case: &Value, gnu: &Value) -> Option<&'static str> {
    let text = |name: &str| case[name].as_str().unwrap();
    let before = Tree::from_json(&case["before"]);
    let after = match gnu["after"].as_str() {
        Some(_) => before.clone(),
        None => Tree::from_json(&gnu["after"]),
    };
    let options = Options {
        strip: case["strip"].as_u64().unwrap_or(0) as usize,
        fuzz: case["fuzz"].as_u64().unwrap_or(2) as u32,
        ..Options::default()
    };
    let ours = outcome(&before, text("patch").as_bytes(), &options);
    let row = match (&ours, gnu["ok"].as_bool().unwrap()) {
        (Ok((tree, _)), true) if *tree == after => return None,
        (Err(_), false) => return None,
        (Err(reason), true) => reason.name(),
        (Ok((_, applied)), false)
            if applied.notes.iter().any(|note| matches!(note.said, Said::LineEnds(_))) =>
        {
            "+line-ends"
        }
        (Ok(_), false) if text("patch").contains("GIT binary patch") => "+binary",
        (Ok(_), false) if text("patch").starts_with("Prereq:") => "+prereq",
        (Ok(_), false) if text("patch").contains("rename from") => "+renamed",
        (Ok(_), false) if case["before"].as_object().unwrap().values().any(Value::is_null) => "+folder",
        (Ok(_), _) => "+unknown",
    };
    let has_option = ["gnu_options", "gnu_file_argument"].iter().any(|name| !case[name].is_null())
        || case["strip"].is_null();
    Some(if has_option { "option" } else { row })
}

#[test]
fn hand_made_cases_differ_from_gnu_patch_only_where_the_table_says() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../../tests/patch-cases.json")).unwrap();
    let mut differing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for case in &cases {
        // One case is of git alone.
        if let Some(gnu) = case.get("gnu")
            && let Some(row) = row(case, gnu)
        {
            differing.entry(row.to_owned()).or_default().insert(case["name"].as_str().unwrap().to_owned());
        }
    }
    let mut documented = documented();
    documented.retain(|_, cases| !cases.is_empty());
    assert_eq!(differing, documented);
}
