//! Keys. An action's key is the BLAKE3 of its preimage: canonical JSON of its kind, the platform, the
//! kind's revision and its *what*. Knows no kind: what is in a key is what `Action::what` gives.

use serde_json::Value;

use crate::digest::Digest;
use crate::work::Action;

/// What an action's key is made of.
pub fn preimage(action: &dyn Action) -> Value {
    serde_json::json!({
        "kind": action.kind(),
        "platform": action.platform(),
        "revision": action.revision(),
        "what": action.what(),
    })
}

/// The key of a preimage.
pub fn key(preimage: &Value) -> Digest {
    let mut text = String::new();
    canonical(preimage, &mut text);
    Digest::of(text.as_bytes())
}

/// Writes JSON in its one canonical form: sorted keys, no spaces, whole numbers only.
pub fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(&map[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Number(number) if number.is_f64() => panic!("BUG: a fraction in a preimage: {number}"),
        other => out.push_str(&other.to_string()),
    }
}

/// One leaf that two preimages do not share.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The way to the leaf.
    pub path: Vec<String>,
    /// The value before, if there was one.
    pub before: Option<Value>,
    /// The value now, if there is one.
    pub now: Option<Value>,
}

/// The leaves in which two values differ, in order.
pub fn differences(before: &Value, now: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), Some(before), Some(now), &mut found);
    found
}

fn compare(
    path: &mut Vec<String>,
    before: Option<&Value>,
    now: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    if before == now {
        return;
    }
    let names: Option<std::collections::BTreeSet<String>> = match (before, now) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            Some(a.keys().chain(b.keys()).cloned().collect())
        }
        _ => None,
    };
    if let Some(names) = names {
        for name in names {
            let side = |value: Option<&Value>| value.and_then(|value| value.get(&name)).cloned();
            let (old, new) = (side(before), side(now));
            path.push(name);
            compare(path, old.as_ref(), new.as_ref(), found);
            path.pop();
        }
        return;
    }
    if let (Some(Value::Array(a)), Some(Value::Array(b))) = (before, now)
        && a.len() == b.len()
    {
        for (i, (old, new)) in a.iter().zip(b).enumerate() {
            path.push(i.to_string());
            compare(path, Some(old), Some(new), found);
            path.pop();
        }
        return;
    }
    found.push(Difference { path: path.clone(), before: before.cloned(), now: now.cloned() });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_fields_does_not_count() {
        let a: Value = serde_json::from_str(r#"{"b":[1,"x"],"a":{"d":null,"c":true}}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"a":{"c":true,"d":null},"b":[1,"x"]}"#).unwrap();
        assert_eq!(key(&a), key(&b));
        let mut text = String::new();
        canonical(&a, &mut text);
        assert_eq!(text, r#"{"a":{"c":true,"d":null},"b":[1,"x"]}"#);
    }

    #[test]
    fn differences_name_the_leaf() {
        let found = differences(&json!({"a": {"b": 1, "c": [1, 2]}}), &json!({"a": {"b": 1, "c": [1, 3]}}));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, ["a", "c", "1"]);
        assert_eq!((&found[0].before, &found[0].now), (&Some(json!(2)), &Some(json!(3))));
    }
}
