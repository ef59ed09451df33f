//! Variables: `[vars]`, then a profile's, then files', then the command line's; each keeps its type.
//! Knows no task.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value as Json};

use super::read::Mistakes;
use super::value::{Data, Value};
use crate::error::{Mistake, did_you_mean};
use crate::manifest::template;

/// Values given from outside the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The name of a `[profile.NAME]`.
    pub profile: Option<String>,
    /// Files of variables: the name as the user gave it, and what is in it.
    pub files: Vec<(String, Map<String, Json>)>,
    /// `--set` values: name and text.
    pub set: Vec<(String, String)>,
}

/// One variable.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Json,
    /// Where the value comes from.
    pub origin: String,
}

/// The variables in the order of the file.
pub fn read(document: &mut Value, overrides: &Overrides, mistakes: &mut Mistakes) -> Vec<Variable> {
    let profiles = document.take("profile").map(|(_, profiles)| profiles);
    let profile = chosen_profile(profiles.as_ref(), overrides, mistakes);
    let Some((_, table)) = document.take("vars") else {
        refuse_unknown(&[], profile, overrides, mistakes);
        return Vec::new();
    };
    if !matches!(table.data, Data::Table(_)) {
        mistakes.note(table.span.clone(), format!("`vars` must be a table, found {}", table.kind()), None);
        return Vec::new();
    }
    let names: Vec<&str> = table.entries().iter().map(|(key, _)| key.name.as_str()).collect();
    refuse_unknown(&names, profile, overrides, mistakes);
    for other in unchosen(profiles.as_ref(), overrides) {
        refuse_unknown(&names, Some(other), &Overrides::default(), mistakes);
    }
    let mut seen = Map::new();
    let mut all = Vec::new();
    for (key, value) in table.entries() {
        if !is_name(&key.name) {
            let hint = "letters, digits and `_`, not a digit first: it must be usable in `{{ }}`";
            mistakes.note(
                key.span.clone(),
                format!("`{}` cannot name a variable", key.name),
                Some(hint.into()),
            );
            continue;
        }
        let Some(declared) = render(value, &Json::Object(seen.clone()), mistakes) else { continue };
        let declared = declared.to_json();
        let mut variable =
            Variable { name: key.name.clone(), value: declared, origin: origin(mistakes, &key.span, "") };
        if let (Some(name), Some((at, value))) =
            (&overrides.profile, profile.and_then(|profile| profile.entry(&key.name)))
            && let Some(value) = render(value, &Json::Object(seen.clone()), mistakes)
        {
            let origin = origin(mistakes, &at.span, &format!("profile {name}, "));
            let span = value.span.clone();
            if let Err(why) = variable.set(value.to_json(), origin) {
                mistakes.note(span, why, None);
            }
        }
        for other in unchosen(profiles.as_ref(), overrides) {
            // What an expression gives is known when its profile is chosen.
            if let Some((_, value)) = other.entry(&key.name).filter(|(_, value)| !has_expression(value))
                && let Err(why) = variable.clone().set(value.to_json(), String::new())
            {
                mistakes.note(value.span.clone(), why, None);
            }
        }
        for (file, values) in &overrides.files {
            if let Some(value) = values.get(&key.name)
                && let Err(why) = variable.set(value.clone(), file.clone())
            {
                mistakes.all.push(Mistake::new(format!("{why}, in `{file}`")));
            }
        }
        for (_, text) in overrides.set.iter().filter(|(name, _)| *name == key.name) {
            match typed(text, &variable.value) {
                Ok(value) => {
                    variable.value = value;
                    variable.origin = "--set".into();
                }
                Err(why) => mistakes.all.push(Mistake::new(format!("`--set {}={text}`: {why}", key.name))),
            }
        }
        seen.insert(key.name.clone(), variable.value.clone());
        all.push(variable);
    }
    all
}

impl Variable {
    fn set(&mut self, value: Json, origin: String) -> Result<(), String> {
        let (was, is) = (kind(&self.value), kind(&value));
        if was != is {
            return Err(format!("the variable `{}` is {was}, and cannot become {is}", self.name));
        }
        self.value = value;
        self.origin = origin;
        Ok(())
    }
}

fn chosen_profile<'a>(
    profiles: Option<&'a Value>,
    overrides: &Overrides,
    mistakes: &mut Mistakes,
) -> Option<&'a Value> {
    let mut chosen = None;
    let profiles = profiles.map(Value::entries).unwrap_or_default();
    for (key, profile) in profiles {
        for (inner, value) in profile.entries() {
            if inner.name != "vars" {
                let message = format!("unknown key `{}` in `profile.{}`", inner.name, key.name);
                mistakes.note(inner.span.clone(), message, Some("a profile holds `vars`".into()));
            } else if overrides.profile.as_ref() == Some(&key.name) {
                chosen = Some(value);
            }
        }
    }
    if let Some(name) = &overrides.profile
        && !profiles.iter().any(|(key, _)| key.name == *name)
    {
        let hint = did_you_mean(name, profiles.iter().map(|(key, _)| key.name.as_str()));
        mistakes.all.push(Mistake::new(format!("there is no `[profile.{name}]`")).hint_maybe(hint));
    }
    chosen
}

/// The variables of the other profiles: they are checked too, but not used.
fn unchosen<'a>(profiles: Option<&'a Value>, overrides: &Overrides) -> impl Iterator<Item = &'a Value> {
    let all = profiles.map(Value::entries).unwrap_or_default();
    all.iter()
        .filter(move |(key, _)| overrides.profile.as_ref() != Some(&key.name))
        .filter_map(|(_, profile)| Some(&profile.entry("vars")?.1))
}

fn refuse_unknown(names: &[&str], profile: Option<&Value>, overrides: &Overrides, mistakes: &mut Mistakes) {
    let hint = |name: &str| did_you_mean(name, names.iter().copied());
    for (key, _) in profile.map(Value::entries).unwrap_or_default() {
        if !names.contains(&key.name.as_str()) {
            let message = format!("the variable `{}` is not in `[vars]`", key.name);
            mistakes.note(key.span.clone(), message, hint(&key.name));
        }
    }
    let files = overrides
        .files
        .iter()
        .flat_map(|(file, values)| values.keys().map(move |name| (format!(" (in `{file}`)"), name)));
    let set = overrides.set.iter().map(|(name, _)| (" (from `--set`)".to_string(), name));
    for (from, name) in files.chain(set) {
        if !names.contains(&name.as_str()) {
            let message = format!("the variable `{name}` is not in `[vars]`{from}");
            mistakes.all.push(Mistake::new(message).hint_maybe(hint(name)));
        }
    }
}

fn origin(mistakes: &Mistakes, span: &Range<usize>, before: &str) -> String {
    let line = mistakes.source.text[..span.start].matches('\n').count() + 1;
    format!("{before}{}:{line}", mistakes.source.name)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "a boolean",
        Json::Number(number) if number.is_f64() => "a number",
        Json::Number(_) => "a whole number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a table",
    }
}

/// The text of a `--set` as a value of the type that the variable has.
fn typed(text: &str, like: &Json) -> Result<Json, String> {
    if like.is_string() {
        return Ok(text.into());
    }
    let document = format!("value = {text}");
    let parsed: toml::Table =
        toml::from_str(&document).map_err(|_| format!("expected {}, written as in TOML", kind(like)))?;
    let value = serde_json::to_value(&parsed["value"]).unwrap_or_default();
    if kind(&value) != kind(like) {
        return Err(format!("expected {}, found {}", kind(like), kind(&value)));
    }
    Ok(value)
}

/// Whether there is an expression in any of its strings.
pub fn has_expression(value: &Value) -> bool {
    match &value.data {
        Data::Text(text) => template::has_expression(text),
        Data::List(list) => list.iter().any(has_expression),
        Data::Table(entries) => entries.iter().any(|(_, value)| has_expression(value)),
        Data::Bool(_) | Data::Integer(_) | Data::Float(_) => false,
    }
}

/// The value with all expressions in its strings rendered; what is wrong is noted, at the string's
/// place.
pub fn render(value: &Value, context: &Json, mistakes: &mut Mistakes) -> Option<Value> {
    let span = &value.span;
    let data = match &value.data {
        Data::Text(text) if template::has_expression(text) => match template::expression(text, context) {
            Ok(json) => return Some(Value::from_json(&json, &value.span)),
            Err(why) => {
                mistakes.note(value.span.clone(), why, None);
                return None;
            }
        },
        Data::List(list) => {
            let rendered: Vec<Option<Value>> =
                list.iter().map(|value| render(value, context, mistakes)).collect();
            Data::List(rendered.into_iter().collect::<Option<_>>()?)
        }
        Data::Table(entries) => {
            let mut rendered = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                // A value that is wrong has been noted: the table goes on without it.
                match render(value, context, mistakes) {
                    Some(value) => rendered.push((key.clone(), value)),
                    None => mistakes.spoil(span, &key.name),
                }
            }
            Data::Table(rendered)
        }
        other => other.clone(),
    };
    Some(Value { span: value.span.clone(), data })
}

/// The variables as templates see them, with some more of an instance's own.
pub fn context(variables: &[Variable], axes: &BTreeMap<String, Json>) -> Json {
    let mut map = Map::new();
    for variable in variables {
        map.insert(variable.name.clone(), variable.value.clone());
    }
    for (name, value) in axes {
        map.insert(name.clone(), value.clone());
    }
    Json::Object(map)
}
