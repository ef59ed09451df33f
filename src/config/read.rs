//! Reads one table key by key: a wrong key is noted and dropped, and the rest goes on, so that all
//! mistakes come at once.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::value::{Data, Value, Wrong};
use crate::error::{Mistake, Source, did_you_mean};

/// The mistakes found so far in one file.
pub struct Mistakes {
    /// The file.
    pub source: Arc<Source>,
    /// What is wrong in it, in the order of finding.
    pub all: Vec<Mistake>,
    /// Keys whose value could not be rendered, by where their table begins: wrong, but not missing.
    spoiled: BTreeSet<(usize, String)>,
}

impl Mistakes {
    /// No mistakes yet.
    pub fn new(source: Arc<Source>) -> Self {
        Self { source, all: Vec::new(), spoiled: BTreeSet::new() }
    }

    /// Remembers that a key of a table has a value that is wrong.
    pub fn spoil(&mut self, table: &Range<usize>, key: &str) {
        self.spoiled.insert((table.start, key.to_string()));
    }

    /// Notes a mistake; one that was noted at the same place already (by another instance) is not
    /// repeated.
    pub fn note(&mut self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        let mistake = Mistake::new(message).at(&self.source, span).hint_maybe(hint);
        if !self.all.contains(&mistake) {
            self.all.push(mistake);
        }
    }

    /// Notes a mistake whose place must not be shown.
    pub fn note_without_place(&mut self, message: String, hint: String) {
        let mistake = Mistake::new(message).hint(hint);
        if !self.all.contains(&mistake) {
            self.all.push(mistake);
        }
    }

    /// Reads a table into a type. `name` is how messages call the table. What is missing or wrong is
    /// noted; the result is there if the rest makes a whole.
    pub fn read<T: DeserializeOwned + JsonSchema>(
        &mut self,
        name: &str,
        place: &Range<usize>,
        table: &Value,
    ) -> Option<T> {
        let Data::Table(_) = table.data else {
            self.note(
                table.span.clone(),
                format!("`{name}` must be a table, found {}", table.kind()),
                None,
            );
            return None;
        };
        let mut wrong = match T::deserialize(table) {
            Ok(read) => return Some(read),
            Err(wrong) => wrong,
        };
        let (mut table, mut dropped) = (table.clone(), BTreeSet::new());
        loop {
            match wrong.key.clone() {
                Some(key) => {
                    self.note_wrong(name, wrong);
                    table.take(&key);
                    dropped.insert(key);
                }
                None => {
                    for missing in required::<T>() {
                        let spoiled = self.spoiled.contains(&(table.span.start, missing.clone()));
                        if table.entry(&missing).is_none() && !dropped.contains(&missing) && !spoiled {
                            self.note(place.clone(), format!("`{name}` needs `{missing}`"), None);
                        }
                    }
                    return None;
                }
            }
            wrong = match T::deserialize(&table) {
                // A key that was dropped was wrong: what the rest makes is good enough to find more
                // mistakes, and never runs.
                Ok(read) => return Some(read),
                Err(wrong) => wrong,
            };
        }
    }

    fn note_wrong(&mut self, name: &str, wrong: Wrong) {
        let span = wrong.span.clone().unwrap_or_default();
        let in_key = wrong.key.unwrap_or_default();
        match (wrong.possible, wrong.missing) {
            (Some((found, possible)), _) => {
                let is_key = wrong.message.starts_with("unknown key");
                let message = match is_key {
                    true => format!("unknown key `{found}` in `{name}`"),
                    false => wrong.message,
                };
                let hint = did_you_mean(&found, possible.iter().copied()).or_else(|| {
                    // The message about a value names the others itself.
                    if !is_key {
                        return None;
                    }
                    let mut list: Vec<_> = possible.iter().map(|name| format!("`{name}`")).collect();
                    list.sort();
                    Some(format!("known here: {}", list.join(", ")))
                });
                self.note(span, message, hint);
            }
            (None, Some(missing)) => self.note(span, format!("`{in_key}` needs `{missing}`"), None),
            (None, None) => self.note(span, format!("`{in_key}`: {}", wrong.message), None),
        }
    }
}

/// The keys that a type cannot do without.
fn required<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::generate::SchemaSettings::default().into_generator().into_root_schema_for::<T>();
    let names = schema.get("required").and_then(|value| value.as_array()).cloned().unwrap_or_default();
    names.iter().filter_map(|name| name.as_str().map(String::from)).collect()
}
