//! Writes YAML: canonically, to be stored, compared and read by people; and as PyYAML lays it out, for the
//! filters that Ansible's users know. What could be taken for anything but a string is quoted, in YAML 1.1
//! and in 1.2. Knows no Kubernetes.

use std::fmt::Write;
use std::sync::OnceLock;

use regex::Regex;

/// Plain data with the keys in a chosen order.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is written in JSON.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// A mapping; keys are scalars.
    Map(Vec<(Self, Self)>),
}

impl From<&serde_json::Value> for Node {
    /// Keys are sorted.
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => Self::Number(match number.as_f64() {
                Some(float) if number.is_f64() => float_text(float),
                _ => number.to_string(),
            }),
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(all) => Self::List(all.iter().map(Self::from).collect()),
            serde_json::Value::Object(all) => {
                let mut all: Vec<_> = all.iter().collect();
                all.sort_by_key(|(key, _)| *key);
                Self::Map(all.into_iter().map(|(k, v)| (Self::Text(k.clone()), v.into())).collect())
            }
        }
    }
}

impl Node {
    /// Sorts the keys of all mappings.
    pub fn sort(&mut self) {
        match self {
            Self::List(all) => all.iter_mut().for_each(Self::sort),
            Self::Map(all) => {
                all.iter_mut().for_each(|(_, value)| value.sort());
                all.sort_by_key(|(key, _)| key.key_text());
            }
            _ => {}
        }
    }

    /// A key as JSON writes it.
    pub fn key_text(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(flag) => flag.to_string(),
            Self::Number(text) | Self::Text(text) => text.clone(),
            Self::List(_) | Self::Map(_) => String::new(),
        }
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Map(_))
    }
}

/// A finite number as Python writes it: `1.0`, `1e-07`.
pub fn float_text(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(rest) => ('-', rest),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// How YAML is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns from one level to the next.
    pub indent: usize,
    /// How strings of several lines are written.
    pub lines: Lines,
    /// How collections of nothing but scalars are written.
    pub leaves: Leaves,
    /// Strings are folded at the first blank behind this column.
    pub width: usize,
}

/// How strings of several lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// As they are, after a `|`, where that is possible.
    Literal,
    /// In single quotes, as PyYAML does.
    Quoted,
}

/// How collections of nothing but scalars are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// One line for each element.
    Block,
    /// In brackets.
    Flow,
}

/// How objects are stored and shown.
pub const CANONICAL: Style =
    Style { indent: 2, lines: Lines::Literal, leaves: Leaves::Block, width: usize::MAX };

/// One document, ending in a newline.
pub fn yaml(node: &Node, style: &Style) -> String {
    let mut emitter = Emitter { out: String::new(), column: 0, style };
    emitter.value(node, 0, Place::Root);
    if !emitter.out.ends_with('\n') {
        emitter.out.push('\n');
    }
    emitter.out
}

/// An object as it is stored: keys sorted, block style.
pub fn canonical(value: &serde_json::Value) -> String {
    yaml(&Node::from(value), &CANONICAL)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    /// After `key:`.
    Key,
    /// After `-`.
    Item,
}

/// Where a scalar stands: what it may look like depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Block,
    Flow,
    SimpleKey,
}

struct Emitter<'a> {
    out: String,
    column: usize,
    style: &'a Style,
}

impl Emitter<'_> {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn line(&mut self, indent: usize) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    /// Starts an entry of a block collection: on the line of the dash before it, or on a new one.
    fn entry(&mut self, indent: usize, place: Place, first: bool) {
        if first && place == Place::Item {
            let missing = indent.saturating_sub(self.column).max(1);
            self.put(&" ".repeat(missing));
        } else {
            self.line(indent);
        }
    }

    fn is_flow<'n>(&self, mut children: impl Iterator<Item = &'n Node>) -> bool {
        self.style.leaves == Leaves::Flow && children.all(Node::is_scalar)
    }

    fn value(&mut self, node: &Node, indent: usize, place: Place) {
        let below = match place {
            Place::Root => 0,
            _ => indent + self.style.indent,
        };
        match node {
            Node::Map(all) if !all.is_empty() && !self.is_flow(all.iter().flat_map(|(k, v)| [k, v])) => {
                for (at, (key, value)) in all.iter().enumerate() {
                    self.entry(below, place, at == 0);
                    self.key(key, below);
                    self.value(value, below, Place::Key);
                }
            }
            Node::List(all) if !all.is_empty() && !self.is_flow(all.iter()) => {
                // A list in a mapping is not indented.
                let below = if place == Place::Key { indent } else { below };
                for (at, value) in all.iter().enumerate() {
                    self.entry(below, place, at == 0);
                    self.put("-");
                    self.value(value, below, Place::Item);
                }
            }
            _ => {
                if place != Place::Root {
                    self.put(" ");
                }
                self.leaf(node, indent + self.style.indent);
            }
        }
    }

    fn key(&mut self, key: &Node, indent: usize) {
        let text = key.key_text();
        if text.chars().count() < 128 && !text.contains('\n') {
            self.scalar(key, indent, Scalar::SimpleKey);
            self.put(":");
        } else {
            self.put("? ");
            self.scalar(key, indent + self.style.indent, Scalar::Block);
            self.line(indent);
            self.put(":");
        }
    }

    /// A scalar, or a collection in brackets; `indent` is that of its further lines.
    fn leaf(&mut self, node: &Node, indent: usize) {
        let below = indent + self.style.indent;
        match node {
            Node::List(all) => {
                self.put("[");
                for (at, value) in all.iter().enumerate() {
                    self.separate(at, indent);
                    self.scalar(value, below, Scalar::Flow);
                }
                self.put("]");
            }
            Node::Map(all) => {
                self.put("{");
                for (at, (key, value)) in all.iter().enumerate() {
                    self.separate(at, indent);
                    self.scalar(key, below, Scalar::SimpleKey);
                    self.put(": ");
                    self.scalar(value, below, Scalar::Flow);
                }
                self.put("}");
            }
            scalar => self.scalar(scalar, indent, Scalar::Block),
        }
    }

    fn separate(&mut self, at: usize, indent: usize) {
        if at > 0 {
            self.put(",");
        }
        if self.column > self.style.width {
            self.line(indent);
        } else if at > 0 {
            self.put(" ");
        }
    }

    fn scalar(&mut self, node: &Node, indent: usize, place: Scalar) {
        match node {
            Node::Null => self.put("null"),
            Node::Bool(flag) => self.put(if *flag { "true" } else { "false" }),
            // YAML 1.1 knows no exponent without a point and a sign.
            Node::Number(text) if text.contains('e') && !text.contains('.') => {
                self.put(&text.replacen('e', ".0e", 1));
            }
            Node::Number(text) => self.put(text),
            Node::Text(text) => self.text(text, indent, place),
            Node::List(_) | Node::Map(_) => panic!("BUG: a collection where only a scalar can be"),
        }
    }

    fn text(&mut self, text: &str, indent: usize, place: Scalar) {
        let lines = text.contains('\n');
        if lines && place == Scalar::Block && self.style.lines == Lines::Literal && is_literal(text) {
            self.literal(text, indent);
        } else if !lines && is_plain(text, place) {
            self.folded(text, indent, place);
        } else if is_single(text)
            && (!lines || (self.style.lines == Lines::Quoted && place != Scalar::SimpleKey))
        {
            self.put("'");
            self.folded(&text.replace('\'', "''"), indent, place);
            self.put("'");
        } else {
            self.double(text);
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        let body = text.trim_end_matches('\n');
        self.put(match text.len() - body.len() {
            0 => "|-",
            1 => "|",
            _ => "|+",
        });
        self.out.push('\n');
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if !line.is_empty() {
                self.out.extend(std::iter::repeat_n(' ', indent));
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
        self.column = 0;
    }

    /// Text without quotes or inside single ones. Single blanks behind the width become line ends,
    /// and line ends are doubled, because one is read as a blank.
    fn folded(&mut self, text: &str, indent: usize, place: Scalar) {
        if place == Scalar::SimpleKey || (self.style.width == usize::MAX && !text.contains('\n')) {
            return self.put(text);
        }
        let bytes = text.as_bytes();
        let mut after_break = false;
        for (at, c) in text.char_indices() {
            let single = c == ' '
                && at > 0
                && at + 1 < bytes.len()
                && !matches!(bytes[at - 1], b' ' | b'\n')
                && !matches!(bytes[at + 1], b' ' | b'\n');
            match c {
                '\n' => {
                    if !after_break {
                        self.out.push('\n');
                    }
                    self.out.push('\n');
                    after_break = true;
                    continue;
                }
                _ if after_break => self.line(indent),
                _ => {}
            }
            after_break = false;
            if single && self.column > self.style.width {
                self.line(indent);
            } else {
                self.out.push(c);
                self.column += 1;
            }
        }
        if after_break {
            self.line(indent);
        }
    }

    fn double(&mut self, text: &str) {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\0' => quoted.push_str("\\0"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\t' => quoted.push_str("\\t"),
                '\n' => quoted.push_str("\\n"),
                '\x0b' => quoted.push_str("\\v"),
                '\x0c' => quoted.push_str("\\f"),
                '\r' => quoted.push_str("\\r"),
                '\x1b' => quoted.push_str("\\e"),
                c if is_printable(c) => quoted.push(c),
                c if u32::from(c) < 0x100 => {
                    let _ = write!(quoted, "\\x{:02X}", u32::from(c));
                }
                c if u32::from(c) < 0x1_0000 => {
                    let _ = write!(quoted, "\\u{:04X}", u32::from(c));
                }
                c => {
                    let _ = write!(quoted, "\\U{:08X}", u32::from(c));
                }
            }
        }
        quoted.push('"');
        self.put(&quoted);
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// Whether a text can stand after a `|` without an indentation indicator.
fn is_literal(text: &str) -> bool {
    text.chars().all(|c| is_printable(c) || matches!(c, '\n' | '\t'))
        && !text.starts_with([' ', '\t', '\n'])
        && !text.lines().any(|line| line.ends_with([' ', '\t']))
}

/// Whether a text can stand in single quotes.
fn is_single(text: &str) -> bool {
    text.chars().all(|c| is_printable(c) || c == '\n') && !text.contains(" \n") && !text.contains("\n ")
}

/// Whether a text without line ends can stand without quotes.
fn is_plain(text: &str, place: Scalar) -> bool {
    let bytes = text.as_bytes();
    let Some(&first) = bytes.first() else { return false };
    let blank_after = |at: usize| matches!(bytes.get(at + 1), None | Some(b' '));
    let free = bytes.iter().enumerate().all(|(at, byte)| match byte {
        b':' => !blank_after(at) && place != Scalar::Flow && at > 0,
        b'#' => at > 0 && bytes[at - 1] != b' ',
        b',' | b'?' | b'[' | b']' | b'{' | b'}' => place == Scalar::Block,
        _ => true,
    });
    free && text.chars().all(is_printable)
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !b"#,[]{}&*!|>'\"%@`?:".contains(&first)
        && !(first == b'-' && blank_after(0))
        && !resolves(text)
}

/// Whether a text without quotes would be read as something else than a string.
fn resolves(text: &str) -> bool {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let pattern = r"(?x)^(?:
            ~ | null | Null | NULL | <<? | =
            | (?i: y | n | yes | no | on | off | true | false)
            | [-+]? 0b [01_]+ | [-+]? 0o? [0-7_]+ | [-+]? 0x [0-9a-fA-F_]+
            | [-+]? [0-9] [0-9_]*
            | [-+]? [0-9] [0-9_]* (?: : [0-5]? [0-9] )+ (?: \. [0-9_]* )?
            | [-+]? (?: [0-9] [0-9_]* (?: \. [0-9_]* )? | \. [0-9_]+ ) (?: [eE] [-+]? [0-9]+ )?
            | [-+]? \. (?i: inf | nan )
            | (?i: [-+]? (?: inf | infinity | nan ) )
            | [0-9]{4} - [0-9]{1,2} - [0-9]{1,2} (?: (?: [Tt] | [\x20\t]+ ) [0-9:.]+ .* )?
        )$";
        match Regex::new(pattern) {
            Ok(pattern) => pattern,
            Err(error) => panic!("BUG: {error}"),
        }
    });
    pattern.is_match(text)
}

#[cfg(test)]
#[path = "emit_tests.rs"]
mod tests;
