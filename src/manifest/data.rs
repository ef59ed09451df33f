//! Values as plain data, and the filters of Ansible that write and read JSON and YAML.

use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{Environment, Error};

use super::emit::{self, Leaves, Lines, Node, Style};
use super::filters::{Arguments, Given, undefined, wrong};

/// Adds them all.
pub fn add(environment: &mut Environment<'static>) {
    environment.add_filter("to_json", to_json);
    environment.add_filter("to_nice_json", to_nice_json);
    environment.add_filter("to_yaml", to_yaml);
    environment.add_filter("to_nice_yaml", to_nice_yaml);
    environment.add_filter("from_json", from_json);
    environment.add_filter("from_yaml", from_yaml);
    environment.add_filter("from_yaml_all", from_yaml_all);
}

/// A value as plain data, keys in their order. Fails if something in it is undefined.
pub fn node(value: &Value) -> Result<Node, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Node::Text(text.to_string()));
    }
    match value.kind() {
        ValueKind::Undefined => Err(undefined()),
        ValueKind::None => Ok(Node::Null),
        ValueKind::Bool => Ok(Node::Bool(value.is_true())),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(float) if !value.is_integer() && float.is_finite() => {
                Ok(Node::Number(emit::float_text(float)))
            }
            Ok(float) if !float.is_finite() => Err(wrong("a number is not finite")),
            _ => Ok(Node::Number(value.to_string())),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            Ok(Node::List(value.try_iter()?.map(|one| node(&one)).collect::<Result<_, _>>()?))
        }
        ValueKind::Map => {
            let mut all = Vec::new();
            for key in value.try_iter()? {
                let below = node(&value.get_item(&key)?)?;
                match node(&key)? {
                    Node::List(_) | Node::Map(_) => return Err(wrong("a key is a collection")),
                    key => all.push((key, below)),
                }
            }
            Ok(Node::Map(all))
        }
        ValueKind::Plain => Err(function()),
        kind => Err(wrong(format!("a {kind} is no plain data"))),
    }
}

/// A function stands where a value is needed.
pub fn function() -> Error {
    wrong("this is a function: call it, or is a variable of that name missing?")
}

/// A value as plain data.
pub fn plain(value: &Value) -> Result<serde_json::Value, Error> {
    let text = json(&node(value)?, None, Letters::All);
    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Letters {
    All,
    /// Others are escaped.
    Ascii,
}

/// JSON as Python's `json.dumps` lays it out.
fn json(node: &Node, indent: Option<usize>, letters: Letters) -> String {
    let mut out = String::new();
    write_json(&mut out, node, indent, 0, letters);
    out
}

fn write_json(out: &mut String, node: &Node, indent: Option<usize>, depth: usize, letters: Letters) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let separate = |out: &mut String, at: usize| match (at, indent) {
        (0, _) => {}
        (_, None) => out.push_str(", "),
        (_, Some(_)) => out.push(','),
    };
    match node {
        Node::Null => out.push_str("null"),
        Node::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Node::Number(text) => out.push_str(text),
        Node::Text(text) => write_json_text(out, text, letters),
        Node::List(all) if all.is_empty() => out.push_str("[]"),
        Node::Map(all) if all.is_empty() => out.push_str("{}"),
        Node::List(all) => {
            out.push('[');
            for (at, one) in all.iter().enumerate() {
                separate(out, at);
                line(out, depth + 1);
                write_json(out, one, indent, depth + 1, letters);
            }
            line(out, depth);
            out.push(']');
        }
        Node::Map(all) => {
            out.push('{');
            for (at, (key, one)) in all.iter().enumerate() {
                separate(out, at);
                line(out, depth + 1);
                write_json_text(out, &key.key_text(), letters);
                out.push_str(": ");
                write_json(out, one, indent, depth + 1, letters);
            }
            line(out, depth);
            out.push('}');
        }
    }
}

fn write_json_text(out: &mut String, text: &str, letters: Letters) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || (letters == Letters::Ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn dump_json(value: &Value, given: Given, indent: Option<usize>, sort: bool) -> Result<String, Error> {
    let arguments = Arguments::new(given)?;
    let indent = arguments.number(0, "indent")?.or(indent);
    let sort = arguments.flag(1, "sort_keys", sort)?;
    let letters = match arguments.flag(2, "ensure_ascii", true)? {
        true => Letters::Ascii,
        false => Letters::All,
    };
    arguments.end()?;
    let mut node = node(value)?;
    if sort {
        node.sort();
    }
    Ok(json(&node, indent, letters))
}

fn to_json(value: &Value, given: Given) -> Result<String, Error> {
    dump_json(value, given, None, false)
}

fn to_nice_json(value: &Value, given: Given) -> Result<String, Error> {
    dump_json(value, given, Some(4), true)
}

fn dump_yaml(value: &Value, given: Given, style: Style) -> Result<String, Error> {
    let arguments = Arguments::new(given)?;
    let indent = arguments.number(0, "indent")?.unwrap_or(style.indent);
    if !(1..10).contains(&indent) {
        return Err(wrong("`indent` is not between 1 and 9"));
    }
    let width = arguments.number(1, "width")?.unwrap_or(style.width);
    let sort = arguments.flag(2, "sort_keys", true)?;
    let leaves = match arguments.value(3, "default_flow_style")? {
        Some(value) if value.is_none() => Leaves::Flow,
        Some(value) if value.is_true() => {
            return Err(wrong("`default_flow_style` can only be false or none"));
        }
        Some(_) => Leaves::Block,
        None => style.leaves,
    };
    arguments.end()?;
    let mut node = node(value)?;
    if sort {
        node.sort();
    }
    Ok(emit::yaml(&node, &Style { indent, width, leaves, ..style }))
}

fn to_yaml(value: &Value, given: Given) -> Result<String, Error> {
    dump_yaml(value, given, Style { indent: 2, lines: Lines::Quoted, leaves: Leaves::Flow, width: 80 })
}

fn to_nice_yaml(value: &Value, given: Given) -> Result<String, Error> {
    dump_yaml(value, given, Style { indent: 4, lines: Lines::Quoted, leaves: Leaves::Block, width: 80 })
}

fn from_json(text: &str) -> Result<Value, Error> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("this is not JSON: {error}")))?;
    Ok(Value::from(Serde(value)))
}

fn from_yaml(text: &str) -> Result<Value, Error> {
    super::yaml::value(text)
        .map(|value| Value::from(Serde(value)))
        .map_err(|error| wrong(format!("this is not YAML: {error}")))
}

fn from_yaml_all(text: &str) -> Result<Value, Error> {
    super::yaml::values(text)
        .map(|value| Value::from(Serde(value)))
        .map_err(|error| wrong(format!("this is not YAML: {error}")))
}
