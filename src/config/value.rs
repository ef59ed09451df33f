//! A TOML document as a tree of values that know where they were written, and reading such a tree
//! into types. Knows no kind and no expression.

use std::fmt;
use std::ops::Range;

use serde::de::{self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use toml::de::{DeTable, DeValue};

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The bytes of the file that hold it.
    pub span: Range<usize>,
    /// The value.
    pub data: Data,
}

/// The values of TOML; dates are texts.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Keys in the order of the file.
    Table(Vec<(Key, Value)>),
}

/// A key and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The bytes of the file that hold it.
    pub span: Range<usize>,
    /// The key.
    pub name: String,
}

impl Value {
    /// A table without keys.
    pub fn empty() -> Self {
        Self { span: 0..0, data: Data::Table(Vec::new()) }
    }

    /// The table behind a parsed document; the numbers that are too large come with it as mistakes.
    pub fn of_table(table: &DeTable<'_>, span: Range<usize>, wrong: &mut Vec<Wrong>) -> Self {
        let mut entries: Vec<(Key, Self)> = table
            .iter()
            .map(|(key, value)| {
                let key = Key { span: key.span(), name: key.get_ref().to_string() };
                (key, Self::of(value.get_ref(), value.span(), wrong))
            })
            .collect();
        entries.sort_by_key(|(key, _)| key.span.start);
        Self { span, data: Data::Table(entries) }
    }

    fn of(value: &DeValue<'_>, span: Range<usize>, wrong: &mut Vec<Wrong>) -> Self {
        let data = match value {
            DeValue::String(text) => Data::Text(text.to_string()),
            DeValue::Integer(number) => {
                let text = number.as_str().replace('_', "");
                match i64::from_str_radix(text.trim_start_matches('+'), number.radix()) {
                    Ok(number) => Data::Integer(number),
                    Err(_) => {
                        wrong
                            .push(Wrong::new(format!("the number `{text}` is too large")).at(span.clone()));
                        Data::Integer(0)
                    }
                }
            }
            DeValue::Float(number) => {
                Data::Float(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(value) => Data::Bool(*value),
            DeValue::Datetime(date) => Data::Text(date.to_string()),
            DeValue::Array(list) => Data::List(
                list.iter().map(|value| Self::of(value.get_ref(), value.span(), wrong)).collect(),
            ),
            DeValue::Table(table) => return Self::of_table(table, span, wrong),
        };
        Self { span, data }
    }

    /// The same value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.data {
            Data::Bool(value) => (*value).into(),
            Data::Integer(number) => (*number).into(),
            Data::Float(number) => (*number).into(),
            Data::Text(text) => text.as_str().into(),
            Data::List(list) => list.iter().map(Self::to_json).collect(),
            Data::Table(table) => {
                table.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect()
            }
        }
    }

    /// A value from elsewhere, shown at `span`; `null` is an empty text.
    pub fn from_json(json: &serde_json::Value, span: &Range<usize>) -> Self {
        let data = match json {
            serde_json::Value::Null => Data::Text(String::new()),
            serde_json::Value::Bool(value) => Data::Bool(*value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Data::Integer(number),
                None => Data::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Data::Text(text.clone()),
            serde_json::Value::Array(list) => {
                Data::List(list.iter().map(|v| Self::from_json(v, span)).collect())
            }
            serde_json::Value::Object(map) => {
                let key = |name: &String| Key { span: span.clone(), name: name.clone() };
                Data::Table(
                    map.iter().map(|(name, value)| (key(name), Self::from_json(value, span))).collect(),
                )
            }
        };
        Self { span: span.clone(), data }
    }

    /// What kind of value it is, in a word.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Bool(_) => "a boolean",
            Data::Integer(_) => "a whole number",
            Data::Float(_) => "a number",
            Data::Text(_) => "a string",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }

    /// The entries of a table.
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.data {
            Data::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key of a table.
    pub fn entry(&self, name: &str) -> Option<&(Key, Self)> {
        self.entries().iter().find(|(key, _)| key.name == name)
    }

    /// Takes a key out of a table.
    pub fn take(&mut self, name: &str) -> Option<(Key, Self)> {
        match &mut self.data {
            Data::Table(entries) => {
                let at = entries.iter().position(|(key, _)| key.name == name)?;
                Some(entries.remove(at))
            }
            _ => None,
        }
    }
}

/// Why a value cannot be read into a type.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// In words.
    pub message: String,
    /// Where; unknown for a missing key.
    pub span: Option<Range<usize>>,
    /// The key of the outermost table in which it is.
    pub key: Option<String>,
    /// The keys that were possible, if one is unknown.
    pub possible: Option<(String, &'static [&'static str])>,
    /// The key that is missing.
    pub missing: Option<&'static str>,
}

impl Wrong {
    fn new(message: String) -> Self {
        Self { message, span: None, key: None, possible: None, missing: None }
    }

    fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "a boolean".to_string(),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number".into(),
            Unexpected::Float(_) => "a number".into(),
            Unexpected::Str(_) => "a string".into(),
            Unexpected::Seq => "a list".into(),
            Unexpected::Map => "a table".into(),
            other => other.to_string(),
        };
        let expected = match expected.to_string().as_str() {
            "a sequence" => "a list".to_string(),
            "a map" => "a table".into(),
            text if text.starts_with("struct ") => "a table".into(),
            "u8" | "u16" | "u32" | "u64" | "usize" | "i64" | "i32" => "a whole number".into(),
            other => other.to_string(),
        };
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = match expected.to_string().as_str() {
            "u8" | "u16" | "u32" | "u64" | "usize" => {
                "a whole number that is not negative and not too large".into()
            }
            other => other.to_string(),
        };
        match found {
            Unexpected::Signed(number) => Self::new(format!("expected {expected}, found `{number}`")),
            Unexpected::Unsigned(number) => Self::new(format!("expected {expected}, found `{number}`")),
            Unexpected::Str(text) => Self::new(format!("expected {expected}, found `{text}`")),
            other => Self::new(format!("expected {expected}, found {other}")),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut wrong = Self::new(format!("unknown key `{field}`"));
        wrong.possible = Some((field.to_string(), expected));
        wrong
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let list: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
        let mut wrong = Self::new(format!("`{variant}` is not one of {}", list.join(", ")));
        wrong.possible = Some((variant.to_string(), expected));
        wrong
    }

    fn missing_field(field: &'static str) -> Self {
        let mut wrong = Self::new(format!("missing key `{field}`"));
        wrong.missing = Some(field);
        wrong
    }
}

impl<'de> IntoDeserializer<'de, Wrong> for &'de Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Value {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let result = match &self.data {
            Data::Bool(value) => visitor.visit_bool(*value),
            Data::Integer(number) => visitor.visit_i64(*number),
            Data::Float(number) => visitor.visit_f64(*number),
            Data::Text(text) => visitor.visit_borrowed_str(text),
            Data::List(list) => visitor.visit_seq(de::value::SeqDeserializer::new(list.iter())),
            Data::Table(entries) => visitor.visit_map(Entries { left: entries.iter(), now: None }),
        };
        result.map_err(|wrong: Wrong| match wrong.missing {
            Some(_) if wrong.span.is_none() && matches!(self.data, Data::Table(_)) => wrong,
            _ => wrong.at(self.span.clone()),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        if serde_spanned::de::is_spanned(name) {
            let spanned = serde_spanned::de::SpannedDeserializer::new(self, self.span.clone());
            return visitor.visit_map(spanned).map_err(|wrong: Wrong| wrong.at(self.span.clone()));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let result = match &self.data {
            Data::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(Wrong::new(format!("expected a string, found {}", self.kind()))),
        };
        result.map_err(|wrong| wrong.at(self.span.clone()))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Entries<'de> {
    left: std::slice::Iter<'de, (Key, Value)>,
    now: Option<&'de (Key, Value)>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.now = self.left.next();
        let Some((key, _)) = self.now else { return Ok(None) };
        let name: de::value::BorrowedStrDeserializer<'_, Wrong> =
            de::value::BorrowedStrDeserializer::new(&key.name);
        seed.deserialize(name).map(Some).map_err(|wrong| {
            let mut wrong = wrong.at(key.span.clone());
            wrong.key = Some(key.name.clone());
            wrong
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let Some((key, value)) = self.now else { panic!("BUG: a value without a key") };
        seed.deserialize(value).map_err(|wrong| {
            let mut wrong = wrong.at(value.span.clone());
            wrong.key = Some(key.name.clone());
            wrong
        })
    }
}
