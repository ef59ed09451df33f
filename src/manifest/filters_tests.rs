//! Filters, against what Ansible gives.

use std::collections::BTreeMap;

use crate::manifest::template::Templates;

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
        ("{{ 'word' | to_yaml }}", "word\n"),
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
        ("{{ '' | hash('sha256') }}", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
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
        ("{{ 'a\n\nb\n' | indent(2) }}.", "a\n\n  b\n."),
        ("{{ 'a\n\nb' | indent(width='> ', first=true, blank=true) }}", "> a\n> \n> b"),
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
