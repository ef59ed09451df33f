//! A matrix: the axes of a task, and its instances with their names. Knows no kind.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::read::Mistakes;
use super::value::{Data, Value};

/// The axes of one instance and their values.
pub type Axes = BTreeMap<String, Json>;

/// The instances that a rendered `matrix` table stands for, in order; what is wrong is noted.
pub fn instances(task: &str, matrix: &Value, mistakes: &mut Mistakes) -> Vec<Axes> {
    let Data::Table(entries) = &matrix.data else {
        mistakes.note(
            matrix.span.clone(),
            format!("`matrix` must be a table, found {}", matrix.kind()),
            None,
        );
        return Vec::new();
    };
    let before = mistakes.all.len();
    let mut all = vec![Axes::new()];
    let (mut include, mut exclude, mut any) = (Vec::new(), Vec::new(), false);
    for (key, value) in entries {
        let Data::List(list) = &value.data else {
            let message = format!("the axis `{}` must be a list, found {}", key.name, value.kind());
            mistakes.note(value.span.clone(), message, None);
            continue;
        };
        match key.name.as_str() {
            "include" => include = list.iter().filter_map(|table| axes(table, mistakes)).collect(),
            "exclude" => exclude = list.iter().filter_map(|table| axes(table, mistakes)).collect(),
            name => {
                any = true;
                let values: Vec<Json> = list.iter().filter_map(|value| axis(value, mistakes)).collect();
                let with = |one: &Axes| {
                    let one = one.clone();
                    let name = name.to_string();
                    values
                        .iter()
                        .map(move |value| {
                            let mut more = one.clone();
                            more.insert(name.clone(), value.clone());
                            more
                        })
                        .collect::<Vec<_>>()
                };
                all = all.iter().flat_map(with).collect();
            }
        }
    }
    if !any {
        all.clear();
    }
    all.retain(|one| !exclude.iter().any(|table: &Axes| table.iter().all(|(k, v)| one.get(k) == Some(v))));
    let names: Vec<String> = entries
        .iter()
        .map(|(key, _)| key.name.clone())
        .filter(|name| name != "include" && name != "exclude")
        .collect();
    for table in include {
        if any && !table.keys().eq(names.iter().collect::<std::collections::BTreeSet<_>>()) {
            let message = format!("each `include` of `{task}` must have the axes {}", names.join(", "));
            mistakes.note(matrix.span.clone(), message, None);
        } else if !all.contains(&table) {
            all.push(table);
        }
    }
    // Not a second mistake where values were refused.
    if all.is_empty() && mistakes.all.len() == before {
        mistakes.note(matrix.span.clone(), format!("`{task}` has no instance: its matrix is empty"), None);
    }
    for (i, one) in all.iter().enumerate() {
        if all[..i].contains(one) {
            let message = format!("the instance `{task}{}` comes twice", suffix(one));
            mistakes.note(matrix.span.clone(), message, None);
        }
    }
    all.dedup();
    all
}

fn axes(table: &Value, mistakes: &mut Mistakes) -> Option<Axes> {
    let Data::Table(entries) = &table.data else {
        mistakes.note(
            table.span.clone(),
            format!("expected a table of axes, found {}", table.kind()),
            None,
        );
        return None;
    };
    entries.iter().map(|(key, value)| Some((key.name.clone(), axis(value, mistakes)?))).collect()
}

fn axis(value: &Value, mistakes: &mut Mistakes) -> Option<Json> {
    let json = value.to_json();
    let text = text(&json);
    let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
    if !fits || matches!(value.data, Data::List(_) | Data::Table(_)) {
        let hint = "letters, digits and `.` `_` `+` `-`";
        mistakes.note(
            value.span.clone(),
            format!("`{text}` cannot be the value of an axis"),
            Some(hint.into()),
        );
        return None;
    }
    Some(json)
}

/// A value as it stands in an instance's name.
pub fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The brackets of an instance's name; empty for a task without a matrix.
pub fn suffix(axes: &Axes) -> String {
    match axes.len() {
        0 => String::new(),
        1 => axes.values().map(|value| format!("[{}]", text(value))).collect(),
        _ => {
            let list: Vec<String> =
                axes.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
            format!("[{}]", list.join(","))
        }
    }
}
