//! YAML that is written: readable, and read back as it was.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn canonical_yaml_is_readable() {
    let value = json!({
        "kind": "ConfigMap", "apiVersion": "v1", "empty": {}, "none": null, "list": [],
        "data": { "on": "yes", "port": "80", "n": 80, "f": 1e300, "text": "a: b\nc\n", "tail": "x\ny",
            "many": "x\n\n", "odd": " lead\n", "tab": "a\tb", "ip": "10.96.0.1", "url": "http://a/b#c",
            "time": "12:30", "sha": "1e3", "args": ["--a=b", "- c", "#", "a # b", "{x}", "", "é", "a:"] },
        "spec": { "containers": [{ "name": "a", "env": [{ "name": "B" }] }], "deep": [[1, 2], [[]]] },
    });
    let wanted = r##"apiVersion: v1
data:
  args:
  - --a=b
  - '- c'
  - '#'
  - 'a # b'
  - '{x}'
  - ''
  - é
  - 'a:'
  f: 1.0e+300
  ip: 10.96.0.1
  many: |+
    x

  'n': 80
  odd: " lead\n"
  'on': 'yes'
  port: '80'
  sha: '1e3'
  tab: "a\tb"
  tail: |-
    x
    y
  text: |
    a: b
    c
  time: '12:30'
  url: http://a/b#c
empty: {}
kind: ConfigMap
list: []
none: null
spec:
  containers:
  - env:
    - name: B
    name: a
  deep:
  - - 1
    - 2
  - - []
"##;
    assert_eq!(canonical(&value), wanted);
}

fn values() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[-+.0-9:eExob_ ]{0,8}",
        "(yes|no|on|null|true|~|y|N|<<|=|---|\\.\\.\\.|- |\\? |: |#|'|\"|\\{|\\[|&a|\\*a|!x|%|@|`|>|\\|){1,2}",
        "([a-z:# ]|\n|\t|é|\u{85}|\u{2028}|\u{feff}|\u{0}){0,12}",
        "[a-z ]{120,140}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e12..1e12).prop_map(|float: f64| json!(float)),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in values()) {
        let object = json!({ "a": value });
        for style in [
            CANONICAL,
            Style { indent: 4, lines: Lines::Quoted, leaves: Leaves::Block, width: 80 },
            Style { indent: 2, lines: Lines::Quoted, leaves: Leaves::Flow, width: 80 },
        ] {
            let text = yaml(&Node::from(&object), &style);
            let back = super::super::yaml::value(&text);
            prop_assert_eq!(back.as_ref(), Ok(&object), "{}", text);
        }
    }
}
