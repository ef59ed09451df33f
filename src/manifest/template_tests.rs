//! Templates and expressions: what they give, and what they say when they are wrong.

use serde_json::json;

use super::*;

fn images() -> BTreeMap<String, Image> {
    let image = Image {
        reference: "docker.io/vc/syncer:vc-0123456789abcdef".into(),
        repository: "docker.io/vc/syncer".into(),
        tag: "vc-0123456789abcdef".into(),
        digest: "sha256:00".into(),
    };
    BTreeMap::from([("component[syncer]".to_string(), image)])
}

fn render(source: &str) -> Result<String, Failure> {
    let variables = json!({
        "name": "hello", "port": 80, "on": true, "nothing": null, "list": [1, 2, 3],
        "resources": { "limits": { "cpu": "1" } }, "empty": "",
    });
    Templates::new(images()).render("t/x.yaml.j2", source, &variables)
}

#[test]
fn templates_render_as_ansible_renders_them() {
    for (source, wanted) in [
        ("{{ name }}:{{ port }}", "hello:80"),
        ("{{ on }} {{ nothing }}|{{ list }}", "True |[1, 2, 3]"),
        ("{% if on %}\na\n{% endif %}\nb\n", "a\nb\n"),
        ("{% if on %}a{% endif %}\n\n", "a\n\n"),
        ("{{ 'a' if not on }}b {{ 1.5 }} {{ 1e20 }}", "b 1.5 1e+20"),
        ("  {% if on %}\na\n  {% endif %}\nb", "  a\n  b"),
        ("{{ resources.limits.cpu | default('2') }}", "1"),
        ("{{ resources.requests.cpu | default('2') }}", "2"),
        ("{{ gone.a.b | d('x') }}", "x"),
        ("{{ gone['a'].b is defined }} {{ name is defined }}", "False True"),
        ("{{ empty | default('x', true) }}", "x"),
        ("{{ empty | default(default_value='x', boolean=true) }}", "x"),
        ("{% for k, v in resources.items() %}{{ k }}={{ v.limits | d('-') }}{% endfor %}", "limits=-"),
        ("{{ name.upper() }} {{ 'a,b'.split(',') | last }}", "HELLO b"),
        ("{{ image('component[syncer]').ref }}", "docker.io/vc/syncer:vc-0123456789abcdef"),
        ("{{ image('image.component[syncer]').tag }}", "vc-0123456789abcdef"),
        ("{% raw %}{{ name }}{% endraw %}", "{{ name }}"),
        (
            "{% set x = namespace(n=0) %}{% for i in list %}{% set x.n = x.n + i %}{% endfor %}{{ x.n }}",
            "6",
        ),
    ] {
        assert_eq!(render(source).unwrap(), wanted, "{source}");
    }
}

#[test]
fn whatever_is_undefined_is_an_error() {
    for source in [
        "{{ gone }}",
        "{{ name.gone }}",
        "{{ resources.gone.cpu }}",
        "{% if gone %}x{% endif %}",
        "{% if not gone %}x{% endif %}",
        "{% for i in gone %}x{% endfor %}",
        "{{ gone ~ 'x' }}",
        "{{ 'a' if gone == 'x' else 'b' }}",
        "{{ gone | lower }}",
        "{{ [gone] | to_json }}",
        "{{ gone | to_yaml }}",
        "{{ gone | mandatory }}",
        "{{ gone.x | mandatory }}",
    ] {
        let failure = render(source).unwrap_err();
        assert!(failure.message.contains("is undefined"), "{source}: {}", failure.message);
    }
}

#[test]
fn errors_show_where() {
    let failure = render("kind: X\nname: {{ resources.limit.cpu }}\n").unwrap_err();
    assert_eq!(failure.message, "render `t/x.yaml.j2`: `resources.limit` is undefined");
    assert_eq!(
        failure.detail,
        [
            " --> t/x.yaml.j2:2:10",
            "  |",
            "2 | name: {{ resources.limit.cpu }}",
            "  |          ^^^^^^^^^^^^^^^^^^^",
        ]
    );
    assert_eq!(failure.hints, ["did you mean `limits`?"]);

    let failure = render("a\n{{ image('component[sync]').ref }}").unwrap_err();
    assert_eq!(
        failure.message,
        "render `t/x.yaml.j2`: `component[sync]` is not in the list `images` of this task, did you mean \
         `component[syncer]`?"
    );
    let failure = render("a\n\n{% if x").unwrap_err();
    assert!(failure.message.starts_with("render `t/x.yaml.j2`: syntax error: "), "{}", failure.message);
    assert_eq!(failure.detail[0], " --> t/x.yaml.j2:3:7");
    let failure = render("{{ name | to_jsn }}").unwrap_err();
    assert_eq!(failure.message, "render `t/x.yaml.j2`: filter to_jsn is unknown");
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let source =
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a %}{% endfor %}{% endfor %}";
    let failure = render(source).unwrap_err();
    assert_eq!(failure.message, format!("render `t/x.yaml.j2`: it was stopped after {FUEL} steps"));
    assert!(render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").is_err());
}

#[test]
fn a_whole_expression_keeps_its_type() {
    let context =
        json!({ "n": 3, "list": ["a"], "name": "x", "flag": false, "none": null, "deep": {"a": 1} });
    for (text, wanted) in [
        ("plain", json!("plain")),
        ("{{ n }}", json!(3)),
        ("{{ n + 1 }}", json!(4)),
        ("{{- n -}}", json!(3)),
        ("{{ n }}{{ n }}", json!("33")),
        (" {{ n }}", json!(" 3")),
        ("{{ list }}", json!(["a"])),
        ("{{ flag }}", json!(false)),
        ("{{ {'a': {'b': n}} }}", json!({"a": {"b": 3}})),
        ("{{ '}}' }}", json!("}}")),
        ("a-{{ name }}", json!("a-x")),
        ("{{ deep.b.c | default(7) }}", json!(7)),
        ("{% raw %}{{ n }}{% endraw %}", json!("{{ n }}")),
        ("{% if flag %}a{% else %}b{% endif %}", json!("b")),
    ] {
        assert_eq!(expression(text, &context), Ok(wanted), "{text}");
    }
}

#[test]
fn a_wrong_expression_says_why() {
    let context = json!({ "name": "x", "components": [] });
    for (text, wanted) in [
        ("{{ component }}", "`component` is undefined, did you mean `components`?"),
        ("a/{{ nme }}", "`nme` is undefined, did you mean `name`?"),
        ("{{ [zzzzzzzz] }}", "something is undefined"),
        ("{{ namespace }}", "this is a function: call it, or is a variable of that name missing?"),
        ("x-{{ namespace }}", "this is a function: call it, or is a variable of that name missing?"),
        ("{{ name.x.y }}", "`name.x` is undefined"),
    ] {
        assert_eq!(expression(text, &context), Err(wanted.to_string()), "{text}");
    }
    for text in ["{{ name", "{{ }}", "{% if %}", "{{ name | nofilter }}", "{{ 1 / 0 }}"] {
        assert!(expression(text, &context).is_err(), "{text}");
    }
}

#[test]
fn only_braces_are_expressions() {
    for (text, wanted) in
        [("", false), ("{", false), ("a{b}", false), ("{{", true), ("x{% y", true), ("{#", true)]
    {
        assert_eq!(has_expression(text), wanted, "{text}");
    }
}
