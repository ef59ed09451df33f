//! Reads YAML as kubectl does (`yes` is a boolean, `0644` is octal), within limits, into objects that have at
//! least a kind and a name. Knows no kind in particular.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options, Spanned};

use super::excerpt;
use crate::error::Failure;

/// The largest manifest in bytes: etcd takes no object above 1.5 MiB, and a file may hold many.
const LIMIT: usize = 64 << 20;

/// An object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The object itself: a mapping with `apiVersion`, `kind` and `metadata.name`.
    pub value: Value,
    /// The manifest it was read from.
    pub file: String,
    /// The line in it, counted from 1; for a template in what was rendered.
    pub line: u64,
}

impl Object {
    /// `Deployment/greet`, for messages.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.text("/kind"), self.text("/metadata/name"))
    }

    /// A string in it, empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.text("/apiVersion").rsplit_once('/').map_or("", |(group, _)| group)
    }
}

/// The one document in a text.
pub fn value(text: &str) -> Result<Value, String> {
    read(|options| serde_saphyr::from_str_with_options(text, options), text).map_err(|(message, _)| message)
}

/// All documents in a text; empty ones are left out.
pub fn values(text: &str) -> Result<Vec<Value>, String> {
    read(|options| serde_saphyr::from_multiple_with_options(text, options), text)
        .map_err(|(message, _)| message)
}

/// The objects of a manifest, in order; lists are flattened, empty documents left out. `file` is shown in
/// errors.
pub fn objects(file: &str, text: &str) -> Result<Vec<Object>, Failure> {
    let documents: Vec<Spanned<Value>> =
        read(|options| serde_saphyr::from_multiple_with_options(text, options), text).map_err(
            |(message, place)| {
                let failure = Failure::new(format!("read `{file}`: {message}"));
                match place {
                    Some(at) => failure.detail(excerpt(file, text, at..at + 1)),
                    None => failure,
                }
            },
        )?;
    let mut found = Vec::new();
    for document in documents {
        let line = document.referenced.line();
        flatten(document.value, file, line, &mut found)
            .map_err(|why| Failure::new(format!("read `{file}`: the document at line {line} {why}")))?;
    }
    Ok(found)
}

fn flatten(value: Value, file: &str, line: u64, found: &mut Vec<Object>) -> Result<(), String> {
    let Value::Object(mut fields) = value else {
        return Err("is not a mapping".into());
    };
    for field in ["apiVersion", "kind"] {
        match fields.get(field) {
            Some(Value::String(text)) if !text.is_empty() => {}
            Some(Value::String(_)) | None => return Err(format!("has no `{field}`")),
            Some(_) => return Err(format!("has a `{field}` that is not a string")),
        }
    }
    let is_list = fields["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
        && fields.get("items").is_some_and(Value::is_array);
    if is_list {
        if let Some(Value::Array(items)) = fields.remove("items") {
            for (at, item) in items.into_iter().enumerate() {
                flatten(item, file, line, found)
                    .map_err(|why| format!("is a list whose item {} {why}", at + 1))?;
            }
        }
        return Ok(());
    }
    let object = Object { value: Value::Object(fields), file: file.to_string(), line };
    match object.value.pointer("/metadata/name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        Some(Value::String(_)) | None => return Err("has no `metadata.name`".into()),
        Some(_) => return Err("has a `metadata.name` that is not a string".into()),
    }
    if let Some(namespace) = object.value.pointer("/metadata/namespace")
        && !namespace.is_string()
    {
        return Err("has a `metadata.namespace` that is not a string".into());
    }
    found.push(object);
    Ok(())
}

/// Reads with our options; the error comes with the byte it points at.
fn read<T: DeserializeOwned>(
    read: impl FnOnce(Options) -> Result<T, serde_saphyr::Error>,
    text: &str,
) -> Result<T, (String, Option<usize>)> {
    if text.len() > LIMIT {
        return Err((format!("it is over {} MiB long", LIMIT >> 20), None));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(LIMIT),
            max_documents: 100_000,
            max_depth: 200,
            max_nodes: 4_000_000,
            max_events: 16_000_000,
            max_total_scalar_bytes: LIMIT,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    read(options).map_err(|error| {
        let place = error.location().and_then(|at| byte(text, at.line(), at.column()));
        let message = error.to_string();
        // The rest of a message is advice for whoever calls the parser.
        let message = message.lines().next().unwrap_or_default();
        let message = message.split(", set ").next().unwrap_or_default();
        (lower(strip_place(message)), place)
    })
}

/// The byte at a line and column, both counted from 1, the column in characters.
fn byte(text: &str, line: u64, column: u64) -> Option<usize> {
    let skipped = usize::try_from(line).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(skipped).map(str::len).sum();
    let column = usize::try_from(column).ok()?.saturating_sub(1);
    Some(start + text[start..].chars().take(column).map(char::len_utf8).sum::<usize>())
}

/// A message without the place at its end, which is shown in another way.
fn strip_place(message: &str) -> &str {
    match message.rfind(" at line ").or_else(|| message.rfind(" at ")) {
        Some(at) if message[at..].contains("line ") && message[at..].contains("column ") => &message[..at],
        _ => message,
    }
}

fn lower(text: &str) -> String {
    let text = text.trim_end_matches([':', '.', ' ']);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "it cannot be read".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_and_lists_become_objects() {
        let text = "# nothing\n---\napiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n---\n# empty\n---\n\
            apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: B\n  metadata: {name: b}\n\
            - apiVersion: g/v1\n  kind: C\n  metadata: {name: c, namespace: ns}\n...\n";
        let found = objects("m.yaml", text).unwrap();
        let shown: Vec<_> = found.iter().map(|o| (o.shown(), o.group().to_string(), o.line)).collect();
        assert_eq!(
            shown,
            [
                ("A/a".into(), String::new(), 3),
                ("B/b".into(), String::new(), 10),
                ("C/c".into(), "g".into(), 10),
            ]
        );
        assert_eq!(objects("m.yaml", "").unwrap(), []);
        assert_eq!(objects("m.yaml", "---\n---\n# x\n").unwrap(), []);
    }

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        assert_eq!(
            value("a: yes\nb: 0644\nc: '0644'\nd: 1e3\ne: ~\nf: 10.96.0.1\ng: |\n  x\nh: &x [1]\ni: *x\n"),
            Ok(json!({ "a": true, "b": 420, "c": "0644", "d": 1000.0, "e": null, "f": "10.96.0.1",
                "g": "x\n", "h": [1], "i": [1] }))
        );
    }

    fn message(text: &str) -> String {
        let failure = objects("m.yaml", text).unwrap_err();
        [&[failure.message][..], &failure.detail].concat().join("\n")
    }

    #[test]
    fn what_is_wrong_is_said_whole() {
        for (text, wanted) in [
            (
                "apiVersion: v1\nkind: A\nkind: B\n",
                "read `m.yaml`: duplicate mapping key: kind\n --> m.yaml:3:1\n  |\n3 | kind: B\n  | ^",
            ),
            ("x", "read `m.yaml`: the document at line 1 is not a mapping"),
            ("kind: A", "read `m.yaml`: the document at line 1 has no `apiVersion`"),
            ("apiVersion: v1", "read `m.yaml`: the document at line 1 has no `kind`"),
            (
                "apiVersion: v1\nkind: 3",
                "read `m.yaml`: the document at line 1 has a `kind` that is not a string",
            ),
            (
                "\n---\napiVersion: v1\nkind: A\n",
                "read `m.yaml`: the document at line 3 has no `metadata.name`",
            ),
            (
                "apiVersion: v1\nkind: A\nmetadata: {name: 5}",
                "read `m.yaml`: the document at line 1 has a `metadata.name` that is not a string",
            ),
            (
                "apiVersion: v1\nkind: List\nitems: [{kind: A, apiVersion: v1, metadata: {name: a}}, {kind: A}]",
                "read `m.yaml`: the document at line 1 is a list whose item 2 has no `apiVersion`",
            ),
        ] {
            assert_eq!(message(text), wanted, "{text}");
        }
        for text in ["a: [", "a: b: c", "a: *x", "- a\nb: c", "a: 'x"] {
            let message = message(text);
            assert!(
                message.starts_with("read `m.yaml`: ") && message.contains("--> m.yaml:"),
                "{text}: {message}"
            );
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let before = format!("*a{},", level - 1).repeat(9);
            bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(objects("m.yaml", &bomb).is_err());
        assert!(objects("m.yaml", &format!("a: {}{}", "[".repeat(5000), "]".repeat(5000))).is_err());
    }
}
