//! The JSON schema of `vcbuild.toml`, made from the same types that read it. Knows no file.

use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::registries::Registry;
use super::{Cluster, Common, Group, Host, Project};
use crate::tasks::names::Declare;
use crate::tasks::{self, KINDS};

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let anything = json!({ "type": "object", "additionalProperties": true });
    let mut properties = Map::new();
    properties.insert("project".into(), table::<Project>(&mut generator));
    properties.insert("vars".into(), anything.clone());
    properties.insert(
        "profile".into(),
        json!({ "type": "object", "additionalProperties":
            { "type": "object", "properties": { "vars": anything }, "additionalProperties": false } }),
    );
    properties.insert("host".into(), many(table::<Host>(&mut generator)));
    properties.insert("hosts".into(), many(table::<Group>(&mut generator)));
    properties.insert("cluster".into(), many(table::<Cluster>(&mut generator)));
    properties.insert("registry".into(), many(table::<Registry>(&mut generator)));
    let common = table::<Common>(&mut generator);
    for kind in KINDS {
        let mut schema = tasks::visit(kind, Table(&mut generator));
        if let Some(Value::Object(fields)) = schema.get_mut("properties") {
            for (name, field) in common["properties"].as_object().into_iter().flatten() {
                fields.insert(name.clone(), field.clone());
            }
            let matrix = json!({ "description": "The axes of this task: one instance for each combination",
                "type": "object", "additionalProperties": true });
            fields.insert("matrix".into(), matrix);
        }
        properties.insert(kind.into(), many(schema));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vcbuild.toml",
        "type": "object",
        "properties": properties,
        "required": ["project"],
        "additionalProperties": false,
    })
}

fn many(one: Value) -> Value {
    json!({ "type": "object", "additionalProperties": one })
}

struct Table<'a>(&'a mut SchemaGenerator);

impl tasks::Visit for Table<'_> {
    type Output = Value;

    fn visit<T: Declare + DeserializeOwned + JsonSchema + 'static>(self) -> Value {
        table::<T>(self.0)
    }
}

/// The schema of one table: any value in it may also be an expression.
fn table<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema = T::json_schema(generator).to_value();
    if let Some(Value::Object(fields)) = schema.get_mut("properties") {
        for field in fields.values_mut() {
            allow_expression(field);
        }
    }
    schema
}

fn allow_expression(field: &mut Value) {
    if field["type"] == "string" && field.get("enum").is_none() {
        return;
    }
    let Value::Object(map) = field else { return };
    let description = map.remove("description");
    let default = map.remove("default");
    let mut wide = Map::new();
    for (name, value) in [("description", description), ("default", default)] {
        if let Some(value) = value {
            wide.insert(name.into(), value);
        }
    }
    let expression = json!({ "type": "string", "pattern": "\\{\\{" });
    wide.insert("anyOf".into(), json!([Value::Object(map.clone()), expression]));
    *field = Value::Object(wide);
}
