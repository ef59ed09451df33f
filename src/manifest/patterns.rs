//! The filters and tests with regular expressions that Ansible adds to Jinja, on the `regex` crate: time is
//! linear, and there are neither look-around nor references back.

use minijinja::value::Value;
use minijinja::{Environment, Error};
use regex::{Regex, RegexBuilder};

use super::filters::{Arguments, Given, wrong};

/// Adds them all.
pub fn add(environment: &mut Environment<'static>) {
    environment.add_filter("regex_replace", replace);
    environment.add_filter("regex_search", search);
    environment.add_filter("regex_findall", find_all);
    environment.add_filter("regex_escape", |text: &str| regex::escape(text));
    environment.add_test("match", |text: &str, given: Given| tested(text, given, Anchor::Start));
    environment.add_test("search", |text: &str, given: Given| tested(text, given, Anchor::None));
    environment.add_test("regex", |text: &str, given: Given| tested(text, given, Anchor::None));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchor {
    None,
    Start,
}

fn compile(arguments: &Arguments, place: usize, anchor: Anchor) -> Result<Regex, Error> {
    let Some(pattern) = arguments.text(place, "pattern")?.or(arguments.text(place, "regex")?) else {
        return Err(wrong("a regular expression is needed"));
    };
    let text = match anchor {
        Anchor::None => pattern.clone(),
        Anchor::Start => format!(r"\A(?:{pattern})"),
    };
    RegexBuilder::new(&text)
        .case_insensitive(arguments.flag(usize::MAX, "ignorecase", false)?)
        .multi_line(arguments.flag(usize::MAX, "multiline", false)?)
        .build()
        .map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            wrong(format!("`{pattern}` is not a regular expression: {why}"))
        })
}

fn replace(text: &str, given: Given) -> Result<String, Error> {
    let arguments = Arguments::new(given)?;
    let pattern = compile(&arguments, 0, Anchor::None)?;
    let new = arguments.text(1, "replacement")?.or(arguments.text(1, "replace")?).unwrap_or_default();
    let count = arguments.number(usize::MAX, "count")?.unwrap_or(0);
    arguments.end()?;
    Ok(pattern.replacen(text, count, python_replacement(&new)).into_owned())
}

/// `\1`, `\g<1>` and `\g<name>` as this crate writes them.
fn python_replacement(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '$' => out.push_str("$$"),
            '\\' => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let digits = digits.min(2);
                let name = rest.strip_prefix("g<").and_then(|name| name.split_once('>'));
                if digits > 0 {
                    out.push_str(&format!("${{{}}}", &rest[..digits]));
                    rest = &rest[digits..];
                } else if let Some((name, after)) = name {
                    out.push_str(&format!("${{{name}}}"));
                    rest = after;
                } else if let Some(escaped) = rest.chars().next() {
                    out.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    });
                    rest = &rest[escaped.len_utf8()..];
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn search(text: &str, given: Given) -> Result<Value, Error> {
    let arguments = Arguments::new(given)?;
    let pattern = compile(&arguments, 0, Anchor::None)?;
    let groups: Vec<String> = arguments.places().iter().skip(1).map(ToString::to_string).collect();
    arguments.end()?;
    let Some(found) = pattern.captures(text) else { return Ok(Value::from(())) };
    if groups.is_empty() {
        return Ok(found[0].into());
    }
    let mut all = Vec::new();
    for group in groups {
        let name = group.trim_start_matches('\\');
        let name = name.strip_prefix("g<").and_then(|name| name.strip_suffix('>')).unwrap_or(name);
        let part = match name.parse::<usize>() {
            Ok(number) => found.get(number),
            Err(_) => found.name(name),
        };
        all.push(part.map_or(Value::from(()), |part| part.as_str().into()));
    }
    Ok(all.into())
}

fn find_all(text: &str, given: Given) -> Result<Value, Error> {
    let arguments = Arguments::new(given)?;
    let pattern = compile(&arguments, 0, Anchor::None)?;
    arguments.end()?;
    let part = |found: &regex::Captures<'_>, at: usize| {
        Value::from(found.get(at).map_or("", |part| part.as_str()))
    };
    let one = |found: regex::Captures<'_>| match found.len() {
        1 => part(&found, 0),
        2 => part(&found, 1),
        groups => (1..groups).map(|at| part(&found, at)).collect(),
    };
    Ok(pattern.captures_iter(text).map(one).collect())
}

fn tested(text: &str, given: Given, anchor: Anchor) -> Result<bool, Error> {
    let arguments = Arguments::new(given)?;
    let pattern = compile(&arguments, 0, anchor)?;
    arguments.end()?;
    Ok(pattern.is_match(text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::template::Templates;

    #[test]
    fn regular_expressions_are_pythons() {
        for (source, wanted) in [
            (r"{{ 'foo42' | regex_replace('^([a-z]+)([0-9]+)$', '\\2-\\1') }}", "42-foo"),
            (r"{{ 'foo' | regex_replace('(?P<x>o)', '\\g<x>$') }}", "fo$o$"),
            ("{{ 'FOO' | regex_replace('o', 'x', ignorecase=true, count=1) }}", "FxO"),
            ("{{ 'v1.2' | regex_search('[0-9.]+') }}", "1.2"),
            (r"{{ 'v1.2' | regex_search('([0-9]).([0-9])', '\\1', '\\2') }}", "['1', '2']"),
            ("{{ 'a1b2' | regex_findall('[0-9]') }}", "['1', '2']"),
            ("{{ 'a.b' | regex_escape }}", "a\\.b"),
            (
                "{{ 'abc' is match('b') }} {{ 'abc' is search('b') }} {{ 'abc' is match('a') }}",
                "False True True",
            ),
            (
                "{{ 'a' | regex_replace('(?<=a)', '') }}",
                "render `t`: `(?<=a)` is not a regular expression: look-around, including look-ahead and look-behind, is not supported",
            ),
        ] {
            let rendered = match Templates::new(BTreeMap::new()).render("t", source, &serde_json::json!({}))
            {
                Ok(text) => text,
                Err(failure) => failure.message,
            };
            assert_eq!(rendered, wanted, "{source}");
        }
    }
}
