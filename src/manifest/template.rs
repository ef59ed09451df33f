//! Templates and expressions as Ansible has them, on minijinja: whatever is undefined is an error, and
//! `default` and `is defined` look through whole chains. Knows variables as plain data and images by
//! name; no file, no configuration.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, Rest, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use super::chain::{self, Rewritten};
use super::{data, emit, excerpt, filters};
use crate::error::{Failure, did_you_mean};

/// Steps after which a template is stopped.
const FUEL: u64 = 20_000_000;
/// Depth at which macros that call each other are stopped.
const RECURSION: usize = 200;

/// What `image("component[syncer]")` gives to a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The content tag: `docker.io/a/syncer:vc-0123456789abcdef`.
    pub reference: String,
    /// Registry and path, without a tag.
    pub repository: String,
    /// The tag alone: `vc-0123456789abcdef`.
    pub tag: String,
    /// The digest of the top descriptor: `sha256:…`.
    pub digest: String,
}

impl Object for Image {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "ref" => Some(self.reference.as_str().into()),
            "repository" => Some(self.repository.as_str().into()),
            "tag" => Some(self.tag.as_str().into()),
            "digest" => Some(self.digest.as_str().into()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["digest", "ref", "repository", "tag"])
    }
}

/// Renders templates that all see the same images.
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// Templates that see these images, by the name of their task without its kind.
    pub fn new(images: BTreeMap<String, Image>) -> Self {
        let mut environment = environment();
        environment.add_function("image", move |name: &str| match image(&images, name) {
            Some(image) => Ok(Value::from_object(image.clone())),
            None => Err(minijinja::Error::new(ErrorKind::InvalidOperation, unknown_image(&images, name))),
        });
        Self { environment }
    }

    /// Renders a template; `name` is shown in errors.
    pub fn render(
        &self,
        name: &str,
        source: &str,
        variables: &serde_json::Value,
    ) -> Result<String, Failure> {
        let rewritten = chain::rewrite(source);
        self.environment
            .template_from_named_str(name, &rewritten.text)
            .and_then(|template| template.render(Value::from(Serde(variables))))
            .map(|text| end(text, source))
            .map_err(|error| failure(name, source, &rewritten, &error, variables))
    }
}

/// Gives a text as many line ends at its end as its template has: those behind a last block were cut off.
fn end(mut text: String, source: &str) -> String {
    let count = |text: &str| text.len() - text.trim_end_matches('\n').len();
    let missing = count(source).saturating_sub(count(&text));
    text.extend(std::iter::repeat_n('\n', missing));
    text
}

fn image<'a>(images: &'a BTreeMap<String, Image>, name: &str) -> Option<&'a Image> {
    images.get(name.strip_prefix("image.").unwrap_or(name))
}

fn unknown_image(images: &BTreeMap<String, Image>, name: &str) -> String {
    let hint = did_you_mean(name, images.keys().map(String::as_str));
    let known = match (hint, images.is_empty()) {
        (Some(hint), _) => format!(", {hint}"),
        (None, true) => ", which is empty".into(),
        (None, false) => {
            let names: Vec<_> = images.keys().map(|name| format!("`{name}`")).collect();
            format!(", there are {}", names.join(", "))
        }
    };
    format!("`{name}` is not in the list `images` of this task{known}")
}

/// Whether a text holds anything that is evaluated.
pub fn has_expression(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(2).any(|pair| pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#'))
}

/// Evaluates a value of `vcbuild.toml`. A text that is one whole `{{ }}` keeps the type of what is in it;
/// any other is a string. Undefined is an error. `context` is an object.
pub fn expression(text: &str, context: &serde_json::Value) -> Result<serde_json::Value, String> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    if !has_expression(text) {
        return Ok(text.into());
    }
    let environment = ENVIRONMENT.get_or_init(environment);
    let rewritten = chain::rewrite(text);
    let inner = whole(&rewritten.text);
    let result = match inner {
        Some(inner) => environment
            .compile_expression(inner)
            .and_then(|compiled| compiled.eval(Value::from(Serde(context))))
            .and_then(|value| match value.is_undefined() {
                true => {
                    Err(minijinja::Error::new(ErrorKind::UndefinedError, format!("`{}`", inner.trim())))
                }
                false => data::plain(&value),
            }),
        None => environment
            .template_from_str(&rewritten.text)
            .and_then(|template| template.render(Value::from(Serde(context))))
            .map(serde_json::Value::String),
    };
    result.map_err(|error| {
        // Ranges of a whole expression count from its inside.
        let start = inner.map_or(0, |inner| inner.as_ptr() as usize - rewritten.text.as_ptr() as usize);
        let found = Found::new(text, &rewritten, &error, start);
        match hint(&error, &found, context) {
            Some(hint) => format!("{}, {hint}", found.message),
            None => found.message,
        }
    })
}

/// The inside of a text that is one `{{ }}` and nothing else.
fn whole(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("{{")?;
    let end = chain::expression_end(text, 2)?;
    if end + 2 != text.len() {
        return None;
    }
    let inside = &inside[..end - 2];
    Some(inside.strip_prefix('-').unwrap_or(inside).strip_suffix('-').unwrap_or(inside))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    let syntax = SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build();
    match syntax {
        Ok(syntax) => environment.set_syntax(syntax),
        Err(error) => panic!("BUG: the delimiters are wrong: {error}"),
    }
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_debug(true);
    // Ansible prints nothing for `none` ("finalize" of its Jinja environment).
    environment.set_formatter(|out, state, value| match value.kind() {
        // Only an `if` without an `else` comes this far.
        ValueKind::Undefined | ValueKind::None => Ok(()),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) if number.is_finite() => Ok(out.write_str(&emit::float_text(number))?),
            _ => minijinja::escape_formatter(out, state, value),
        },
        // Most likely `namespace` was meant to be a variable, and there is none.
        ValueKind::Plain => Err(data::function()),
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_function(chain::FUNCTION, walk);
    filters::add(&mut environment);
    environment
}

/// Follows a chain; a link that is undefined makes all that follow undefined.
fn walk(arguments: Rest<Value>) -> Result<Value, minijinja::Error> {
    let Some((head, links)) = arguments.split_first() else {
        panic!("BUG: a chain without a head");
    };
    let mut value = head.clone();
    for link in links {
        if link.is_undefined() {
            return Err(ErrorKind::UndefinedError.into());
        }
        if value.is_undefined() || value.is_none() {
            return Ok(Value::UNDEFINED);
        }
        value = value.get_item(link)?;
    }
    Ok(value)
}

/// An error with its place in the original text.
struct Found {
    message: String,
    range: Option<std::ops::Range<usize>>,
    line: Option<usize>,
    undefined: bool,
}

impl Found {
    fn new(source: &str, rewritten: &Rewritten, error: &minijinja::Error, start: usize) -> Self {
        let range = error
            .range()
            .map(|range| rewritten.original(range.start + start..range.end + start))
            .map(|range| whole_chain(source, range))
            .filter(|range| range.start < range.end && source.get(range.clone()).is_some());
        let undefined = error.kind() == ErrorKind::UndefinedError;
        let place = range.clone().and_then(|range| source.get(range)).map(str::trim);
        let message = match (error.kind(), error.detail(), place) {
            (ErrorKind::UndefinedError, detail, place) => {
                undefined_words(detail.filter(|_| !rewritten_call(error)), place)
            }
            (ErrorKind::OutOfFuel, ..) => format!("it was stopped after {FUEL} steps"),
            (ErrorKind::SyntaxError, Some(detail), _) => format!("syntax error: {detail}"),
            (ErrorKind::InvalidOperation, Some(detail), _) => detail.to_string(),
            (ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction, ..) => {
                unknown_words(error)
            }
            (kind, Some(detail), _) => format!("{kind}: {detail}"),
            (kind, None, _) => kind.to_string(),
        };
        Self { message, range, line: error.line(), undefined }
    }
}

/// What fails in a chain is pointed at from a dot on: the start of the chain belongs to it.
fn whole_chain(source: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    if !source.get(range.clone()).is_some_and(|text| text.starts_with(['.', '['])) {
        return range;
    }
    let before = source[..range.start].trim_end_matches(|c: char| c.is_alphanumeric() || "_.".contains(c));
    before.len()..range.end
}

/// Whether the description of what is undefined speaks of the rewritten text.
fn rewritten_call(error: &minijinja::Error) -> bool {
    error.detail().is_some_and(|detail| detail.contains(chain::FUNCTION))
}

fn undefined_words(detail: Option<&str>, place: Option<&str>) -> String {
    let quoted = detail.and_then(|detail| detail.split(['`', '\'', '"']).nth(1));
    match quoted.or(place).filter(|text| !text.is_empty() && !text.contains('\n')) {
        Some(text) => format!("`{text}` is undefined"),
        None => "something is undefined".into(),
    }
}

fn unknown_words(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => detail.to_string(),
        None => error.kind().to_string(),
    }
}

/// The name that was most likely meant.
fn hint(error: &minijinja::Error, found: &Found, variables: &serde_json::Value) -> Option<String> {
    if !found.undefined || error.kind() != ErrorKind::UndefinedError {
        return None;
    }
    let name = found.message.split('`').nth(1)?;
    let (mut at, mut links) = (variables, name.split('.').peekable());
    while let Some(link) = links.next() {
        match at.get(link) {
            Some(value) => at = value,
            None if links.peek().is_some() && at.as_object().is_none() => return None,
            None => return did_you_mean(link, at.as_object()?.keys().map(String::as_str)),
        }
    }
    None
}

fn failure(
    name: &str,
    source: &str,
    rewritten: &Rewritten,
    error: &minijinja::Error,
    variables: &serde_json::Value,
) -> Failure {
    let found = Found::new(source, rewritten, error, 0);
    let mut failure = Failure::new(format!("render `{name}`: {}", found.message));
    failure.detail = match (&found.range, found.line) {
        (Some(range), _) => excerpt(name, source, range.clone()),
        (None, Some(line)) => excerpt(name, source, line_range(source, line)),
        (None, None) => Vec::new(),
    };
    failure.hints.extend(hint(error, &found, variables));
    failure
}

/// The bytes of a line, counted from 1, without blanks around them.
fn line_range(source: &str, line: usize) -> std::ops::Range<usize> {
    let start = source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let text = source[start..].lines().next().unwrap_or_default();
    let start = start + text.len() - text.trim_start().len();
    start..start + text.trim().len()
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
