//! The filters and tests that Ansible adds to Jinja, as far as templates of manifests use them. What would
//! differ from run to run (`now`, `random`, `lookup`) is not here. Knows values only.

use base64::Engine;
use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind};

use super::{collections, data, patterns};

/// Adds them all.
pub fn add(environment: &mut Environment<'static>) {
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("mandatory", mandatory);
    environment.add_filter("bool", boolean);
    environment.add_filter("ternary", ternary);
    environment.add_filter("indent", indent);
    environment.add_filter("b64encode", |text: &str| base64::prelude::BASE64_STANDARD.encode(text));
    environment.add_filter("b64decode", b64decode);
    environment
        .add_filter("basename", |path: &str| path.rsplit('/').next().unwrap_or_default().to_string());
    environment.add_filter("dirname", dirname);
    environment.add_filter("splitext", splitext);
    environment.add_filter("quote", quote);
    environment.add_filter("hash", hash);
    data::add(environment);
    collections::add(environment);
    patterns::add(environment);
}

pub(super) fn wrong(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

pub(super) fn undefined() -> Error {
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

    /// The arguments given by name only.
    pub fn names(&self) -> &Kwargs {
        &self.names
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

/// Jinja's own: unlike minijinja's it keeps a line end at the end.
fn indent(text: &str, given: Given) -> Result<String, Error> {
    let arguments = Arguments::new(given)?;
    let margin = match arguments.value(0, "width")? {
        Some(width) if width.as_str().is_some() => width.to_string(),
        _ => " ".repeat(arguments.number(0, "width")?.unwrap_or(4)),
    };
    let first = arguments.flag(1, "first", false)?;
    let blank = arguments.flag(2, "blank", false)?;
    arguments.end()?;
    let mut out = String::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        out.push_str(if at == 0 { "" } else { "\n" });
        if (at > 0 && (blank || !line.is_empty())) || (at == 0 && first) {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn b64decode(text: &str) -> Result<String, Error> {
    let clean: String = text.split_ascii_whitespace().collect();
    let bytes = base64::prelude::BASE64_STANDARD.decode(clean).map_err(|_| wrong("this is not Base64"))?;
    String::from_utf8(bytes).map_err(|_| wrong("what is in this Base64 is not text"))
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
#[path = "filters_tests.rs"]
mod tests;
