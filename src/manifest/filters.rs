//! The filters and tests that Ansible adds to Jinja, as far as templates of manifests use them. What would
//! differ from run to run (`now`, `random`, `lookup`) is not here. Knows values only.

use base64::Engine;
use minijinja::value::{Kwargs, Rest, Serde, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind};

use super::emit::{self, Leaves, Lines, Node, Style};
use super::patterns;

/// Adds them all.
pub fn add(environment: &mut Environment<'static>) {
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("mandatory", mandatory);
    environment.add_filter("bool", boolean);
    environment.add_filter("ternary", ternary);
    environment.add_filter("to_json", to_json);
    environment.add_filter("to_nice_json", to_nice_json);
    environment.add_filter("to_yaml", to_yaml);
    environment.add_filter("to_nice_yaml", to_nice_yaml);
    environment.add_filter("from_json", from_json);
    environment.add_filter("from_yaml", from_yaml);
    environment.add_filter("from_yaml_all", from_yaml_all);
    environment.add_filter("b64encode", |text: &str| base64::prelude::BASE64_STANDARD.encode(text));
    environment.add_filter("b64decode", b64decode);
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
    environment
        .add_filter("basename", |path: &str| path.rsplit('/').next().unwrap_or_default().to_string());
    environment.add_filter("dirname", dirname);
    environment.add_filter("splitext", splitext);
    environment.add_filter("quote", quote);
    environment.add_filter("hash", hash);
    environment.add_test("contains", |all: &Value, one: &Value| contains(all, one));
    patterns::add(environment);
}

pub(super) fn wrong(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

fn undefined() -> Error {
    ErrorKind::UndefinedError.into()
}

/// Arguments as Python takes them: by place or by name.
pub(super) struct Arguments {
    places: Vec<Value>,
    names: Kwargs,
}

/// What a filter got after its value.
pub(super) type Given = Rest<ValueOrKwargs>;

impl Arguments {
    /// Splits what a filter got.
    pub fn new(given: Given) -> Result<Self, Error> {
        let all = given.into_values();
        let (places, names) = from_args::<(&[Value], Kwargs)>(&all)?;
        Ok(Self { places: places.to_vec(), names })
    }

    /// The argument at a place, or with a name.
    pub fn value(&self, place: usize, name: &str) -> Result<Option<Value>, Error> {
        match self.places.get(place) {
            Some(value) => Ok(Some(value.clone())),
            None => self.names.get::<Option<Value>>(name),
        }
    }

    /// The same, as a flag.
    pub fn flag(&self, place: usize, name: &str, otherwise: bool) -> Result<bool, Error> {
        match self.value(place, name)? {
            Some(value) if value.is_undefined() => Err(undefined()),
            Some(value) => Ok(value.is_true()),
            None => Ok(otherwise),
        }
    }

    /// The same, as a number that is not negative.
    pub fn number(&self, place: usize, name: &str) -> Result<Option<usize>, Error> {
        match self.value(place, name)? {
            None => Ok(None),
            Some(value) => usize::try_from(value)
                .map(Some)
                .map_err(|_| wrong(format!("`{name}` is not a whole number"))),
        }
    }

    /// The same, as a string.
    pub fn text(&self, place: usize, name: &str) -> Result<Option<String>, Error> {
        match self.value(place, name)? {
            Some(value) if value.is_undefined() => Err(undefined()),
            Some(value) => Ok(Some(value.to_string())),
            None => Ok(None),
        }
    }

    /// The arguments given by place.
    pub fn places(&self) -> &[Value] {
        &self.places
    }

    /// Refuses whatever nobody asked for.
    pub fn end(&self) -> Result<(), Error> {
        self.names.assert_all_used()
    }
}

fn default(value: &Value, given: Given) -> Result<Value, Error> {
    let arguments = Arguments::new(given)?;
    let otherwise = arguments.value(0, "default_value")?.unwrap_or_else(|| "".into());
    let lax = arguments.flag(1, "boolean", false)?;
    arguments.end()?;
    Ok(if value.is_undefined() || (lax && !value.is_true()) { otherwise } else { value.clone() })
}

fn mandatory(value: &Value, given: Given) -> Result<Value, Error> {
    let arguments = Arguments::new(given)?;
    let message = arguments.text(0, "msg")?;
    arguments.end()?;
    match (value.is_undefined(), message) {
        (false, _) => Ok(value.clone()),
        (true, Some(message)) => Err(wrong(message)),
        (true, None) => Err(undefined()),
    }
}

fn boolean(value: &Value) -> Result<bool, Error> {
    if value.is_undefined() {
        return Err(undefined());
    }
    Ok(match value.as_str() {
        Some(text) => matches!(text.to_lowercase().as_str(), "yes" | "on" | "1" | "true" | "y" | "t"),
        None => *value == Value::from(1) || *value == Value::from(true),
    })
}

fn ternary(value: &Value, yes: Value, no: Value, none: Option<Value>) -> Result<Value, Error> {
    match none {
        _ if value.is_undefined() => Err(undefined()),
        Some(none) if value.is_none() => Ok(none),
        _ => Ok(if value.is_true() { yes } else { no }),
    }
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
    let text = emit::yaml(&node, &Style { indent, width, leaves, ..style });
    // PyYAML ends a document that is one word, or it would be open.
    let open = !matches!(node, Node::List(_) | Node::Map(_)) && !text.starts_with(['\'', '"']);
    Ok(if open { text + "...\n" } else { text })
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

fn b64decode(text: &str) -> Result<String, Error> {
    let clean: String = text.split_ascii_whitespace().collect();
    let bytes = base64::prelude::BASE64_STANDARD.decode(clean).map_err(|_| wrong("this is not Base64"))?;
    String::from_utf8(bytes).map_err(|_| wrong("what is in this Base64 is not text"))
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
    let depth = match arguments.names.get::<Option<bool>>("recursive")? {
        Some(true) => Depth::All,
        _ => Depth::Top,
    };
    let lists = arguments.names.get::<Option<String>>("list_merge")?.unwrap_or_else(|| "replace".into());
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

/// Python's `os.path.dirname`.
fn dirname(path: &str) -> String {
    let head = path.rfind('/').map_or("", |at| &path[..=at]);
    match head.trim_end_matches('/') {
        "" => head.to_string(),
        trimmed => trimmed.to_string(),
    }
}

/// Python's `os.path.splitext`.
fn splitext(path: &str) -> Vec<String> {
    let name = path.rfind('/').map_or(0, |at| at + 1);
    let start = name + path[name..].len() - path[name..].trim_start_matches('.').len();
    let at = path[start..].rfind('.').map_or(path.len(), |dot| start + dot);
    vec![path[..at].to_string(), path[at..].to_string()]
}

/// Python's `shlex.quote`.
fn quote(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

fn hash(text: &str, kind: Option<&str>) -> Result<String, Error> {
    use sha2::Digest;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match kind.unwrap_or("sha1") {
        "sha224" => Ok(hex(&sha2::Sha224::digest(text))),
        "sha256" => Ok(hex(&sha2::Sha256::digest(text))),
        "sha384" => Ok(hex(&sha2::Sha384::digest(text))),
        "sha512" => Ok(hex(&sha2::Sha512::digest(text))),
        other => Err(wrong(format!("`hash` knows no `{other}`: use `hash('sha256')`"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::template::Templates;

    fn render(source: &str) -> String {
        let variables = serde_json::json!({
            "map": { "b": [1, 2], "a": { "x": "é", "y": null } }, "text": "a\nb",
            "long": "word ".repeat(30), "objects": [{ "name": "web", "ports": [{ "p": 80 }] }],
        });
        match Templates::new(BTreeMap::new()).render("t", source, &variables) {
            Ok(text) => text,
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn ansible_filters_do_what_ansible_does() {
        for (source, wanted) in [
            ("{{ map | to_json }}", r#"{"a": {"x": "\u00e9", "y": null}, "b": [1, 2]}"#),
            ("{{ {'b': 1, 'a': 1.5} | to_json }}", r#"{"b": 1, "a": 1.5}"#),
            ("{{ 'é' | to_json(ensure_ascii=false) }}", "\"é\""),
            (
                "{{ {'b': [1], 'a': {}} | to_nice_json(indent=2) }}",
                "{\n  \"a\": {},\n  \"b\": [\n    1\n  ]\n}",
            ),
            ("{{ map | to_yaml }}", "a: {x: é, 'y': null}\nb: [1, 2]\n"),
            ("{{ map | to_nice_yaml }}", "a:\n    x: é\n    'y': null\nb:\n- 1\n- 2\n"),
            ("{{ objects | to_nice_yaml }}", "-   name: web\n    ports:\n    -   p: 80\n"),
            ("{{ objects | to_nice_yaml(indent=2) }}", "- name: web\n  ports:\n  - p: 80\n"),
            ("{{ text | to_yaml }}", "'a\n\n  b'\n"),
            ("{{ 'word' | to_yaml }}", "word\n...\n"),
            ("{{ 'yes' | to_yaml }}", "'yes'\n"),
            ("{{ '{\"a\": [1]}' | from_json }}", "{'a': [1]}"),
            ("{{ ('a: [1, x]' | from_yaml).a[1] }}", "x"),
            ("{{ 'a: 1\n---\nb: 2' | from_yaml_all | length }}", "2"),
            ("{{ 'hé' | b64encode }} {{ 'aMOp' | b64decode }}", "aMOp hé"),
            ("{{ {'a': 1, 'b': 2} | combine({'b': 3, 'c': 4}) }}", "{'a': 1, 'b': 3, 'c': 4}"),
            ("{{ {'a': {'x': 1}} | combine({'a': {'y': 2}}) }}", "{'a': {'y': 2}}"),
            ("{{ {'a': {'x': 1}} | combine({'a': {'y': 2}}, recursive=True) }}", "{'a': {'x': 1, 'y': 2}}"),
            ("{{ {'a': [1]} | combine({'a': [2]}, list_merge='append') }}", "{'a': [1, 2]}"),
            ("{{ true | ternary('y', 'n') }}{{ none | ternary('y', 'n', 'o') }}", "yo"),
            (
                "{{ '/a/b.c' | basename }} {{ '/a/b.c' | dirname }} {{ '/a/b.c' | splitext | last }}",
                "b.c /a .c",
            ),
            ("{{ \"it's\" | quote }} {{ 'plain' | quote }}", "'it'\"'\"'s' plain"),
            (
                "{{ '' | hash('sha256') }}",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            ("{{ 'yes' | bool }} {{ 'no' | bool }} {{ 1 | bool }}", "True False True"),
            ("{{ {'a': 1} | dict2items }}", "[{'key': 'a', 'value': 1}]"),
            ("{{ [{'key': 'a', 'value': 1}] | items2dict }}", "{'a': 1}"),
            (
                "{{ [1, [2, [3, none]]] | flatten }} {{ [1, [2, [3]]] | flatten(levels=1) }}",
                "[1, 2, 3] [1, 2, [3]]",
            ),
            (
                "{{ [1, 2] | union([2, 3]) }}{{ [1, 2] | intersect([2]) }}{{ [1, 2] | difference([2]) }}",
                "[1, 2, 3][2][1]",
            ),
            ("{{ [1, 2] is contains(2) }}", "True"),
            ("{{ 'abc' | mandatory }}", "abc"),
        ] {
            assert_eq!(render(source), wanted, "{source}");
        }
    }

    #[test]
    fn long_strings_are_folded_as_pyyaml_folds_them() {
        let text = render("{{ {'a': long} | to_nice_yaml }}");
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [83, 75], "{text}");
        assert_eq!(render("{{ {'a': long} | to_nice_yaml(width=1000) }}").lines().count(), 1);
    }

    #[test]
    fn wrong_values_say_why() {
        for (source, wanted) in [
            ("{{ gone | mandatory('give it') }}", "give it"),
            ("{{ 'x' | b64decode }}", "this is not Base64"),
            ("{{ 'x' | hash }}", "`hash` knows no `sha1`: use `hash('sha256')`"),
            ("{{ [1] | combine({}) }}", "a mapping is needed, and this is a sequence"),
            ("{{ 'x' | to_json(wrong=1) }}", "too many arguments: unknown keyword argument 'wrong'"),
        ] {
            assert_eq!(render(source), format!("render `t`: {wanted}"), "{source}");
        }
    }
}
