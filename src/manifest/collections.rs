//! The filters and tests of Ansible for mappings and lists. Knows values only.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error};

use super::filters::{Arguments, Given, undefined, wrong};

/// Adds them all.
pub fn add(environment: &mut Environment<'static>) {
    environment.add_filter("combine", combine);
    environment.add_filter("dict2items", dict2items);
    environment.add_filter("items2dict", items2dict);
    environment.add_filter("flatten", flatten);
    environment.add_filter("union", |a: Vec<Value>, b: Vec<Value>| distinct(a.into_iter().chain(b)));
    environment.add_filter("intersect", |a: Vec<Value>, b: Vec<Value>| {
        distinct(a.into_iter().filter(|value| b.contains(value)))
    });
    environment.add_filter("difference", |a: Vec<Value>, b: Vec<Value>| {
        distinct(a.into_iter().filter(|value| !b.contains(value)))
    });
    environment.add_test("contains", |all: &Value, one: &Value| contains(all, one));
}

type Pairs = Vec<(Value, Value)>;

fn pairs(value: &Value) -> Result<Pairs, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(undefined()),
        ValueKind::Map => value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect(),
        kind => Err(wrong(format!("a mapping is needed, and this is a {kind}"))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    All,
}

fn combine(value: &Value, given: Given) -> Result<Value, Error> {
    let arguments = Arguments::new(given)?;
    let depth = match arguments.names().get::<Option<bool>>("recursive")? {
        Some(true) => Depth::All,
        _ => Depth::Top,
    };
    let lists = arguments.names().get::<Option<String>>("list_merge")?.unwrap_or_else(|| "replace".into());
    arguments.end()?;
    let mut result = pairs(value)?;
    // A list of mappings is as good as several arguments.
    for other in arguments.places() {
        let several = match other.kind() {
            ValueKind::Seq => other.try_iter()?.collect(),
            _ => vec![other.clone()],
        };
        for other in several {
            merge(&mut result, pairs(&other)?, depth, &lists)?;
        }
    }
    Ok(Value::from_pairs(result))
}

fn merge(into: &mut Pairs, from: Pairs, depth: Depth, lists: &str) -> Result<(), Error> {
    for (key, new) in from {
        let Some((_, old)) = into.iter_mut().find(|(known, _)| *known == key) else {
            into.push((key, new));
            continue;
        };
        *old = match (old.kind(), new.kind()) {
            (ValueKind::Map, ValueKind::Map) if depth == Depth::All => {
                let mut inner = pairs(old)?;
                merge(&mut inner, pairs(&new)?, depth, lists)?;
                Value::from_pairs(inner)
            }
            (ValueKind::Seq, ValueKind::Seq) => merge_lists(old, &new, lists)?,
            _ => new,
        };
    }
    Ok(())
}

fn merge_lists(old: &Value, new: &Value, how: &str) -> Result<Value, Error> {
    let (mut a, mut b): (Vec<_>, Vec<_>) = (old.try_iter()?.collect(), new.try_iter()?.collect());
    match how {
        "replace" => return Ok(new.clone()),
        "keep" => return Ok(old.clone()),
        "append" => a.extend(b),
        "prepend" => {
            b.extend(a);
            return Ok(b.into());
        }
        "append_rp" => {
            a.retain(|value| !b.contains(value));
            a.extend(b);
        }
        "prepend_rp" => {
            a.retain(|value| !b.contains(value));
            b.extend(a);
            return Ok(b.into());
        }
        _ => return Err(wrong(format!("`{how}` is no way to merge lists"))),
    }
    Ok(a.into())
}

fn dict2items(value: &Value, given: Given) -> Result<Value, Error> {
    let arguments = Arguments::new(given)?;
    let key = arguments.text(0, "key_name")?.unwrap_or_else(|| "key".into());
    let one = arguments.text(1, "value_name")?.unwrap_or_else(|| "value".into());
    arguments.end()?;
    let item = |(k, v): (Value, Value)| Value::from_pairs([(key.clone(), k), (one.clone(), v)]);
    Ok(pairs(value)?.into_iter().map(item).collect())
}

fn items2dict(value: &Value, given: Given) -> Result<Value, Error> {
    let arguments = Arguments::new(given)?;
    let key = arguments.text(0, "key_name")?.unwrap_or_else(|| "key".into());
    let one = arguments.text(1, "value_name")?.unwrap_or_else(|| "value".into());
    arguments.end()?;
    let mut result = Vec::new();
    for item in value.try_iter()? {
        let (k, v) = (item.get_attr(&key)?, item.get_attr(&one)?);
        if k.is_undefined() || v.is_undefined() {
            return Err(wrong(format!("an item has no `{key}` or no `{one}`")));
        }
        result.push((k, v));
    }
    Ok(Value::from_pairs(result))
}

fn flatten(value: &Value, given: Given) -> Result<Value, Error> {
    fn into(out: &mut Vec<Value>, value: &Value, levels: Option<usize>) -> Result<(), Error> {
        for one in value.try_iter()? {
            match (one.kind(), levels) {
                (ValueKind::None, _) => {}
                (ValueKind::Seq, None) => into(out, &one, None)?,
                (ValueKind::Seq, Some(levels)) if levels > 0 => into(out, &one, Some(levels - 1))?,
                _ => out.push(one),
            }
        }
        Ok(())
    }
    let arguments = Arguments::new(given)?;
    let levels = arguments.number(0, "levels")?;
    arguments.end()?;
    let mut out = Vec::new();
    into(&mut out, value, levels)?;
    Ok(out.into())
}

fn distinct(all: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for value in all {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

fn contains(all: &Value, one: &Value) -> Result<bool, Error> {
    match all.as_str() {
        _ if all.is_undefined() || one.is_undefined() => Err(undefined()),
        Some(text) => Ok(one.as_str().is_some_and(|part| text.contains(part))),
        None => Ok(all.try_iter()?.any(|value| value == *one)),
    }
}
