//! What is in a key and what is not: every field that a kind's table can have is edited, in a small
//! project, and the key has to move, or to stay. A field that is missing here fails.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::cache::draft::Draft;
use crate::cache::folder;
use crate::digest::Digest;
use crate::glob::Globs;
use crate::key;
use crate::tasks::names::Declare;
use crate::tasks::samples::World;
use crate::work::{Action, Work};

/// What an edit does to the key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Moves,
    Stays,
}
use Key::{Moves, Stays};

/// A field and its value, as TOML.
type Field<'a> = (&'a str, &'a str);

fn action<T: Declare + DeserializeOwned>(world: &World, fields: &BTreeMap<&str, &str>) -> Box<dyn Action> {
    let text: String = fields.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    let mut table: T = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(world.resolve(&mut table), Vec::<String>::new(), "{text}");
    match world.work(&table).0.unwrap_or_else(|error| panic!("{text}: {error}")) {
        Work::Action(action) => action,
        Work::Effect(_) => panic!("not an action"),
    }
}

fn key_of<T: Declare + DeserializeOwned>(world: &World, fields: &BTreeMap<&str, &str>) -> Digest {
    key::key(&key::preimage(&*action::<T>(world, fields)))
}

/// Makes one edit after the other to the same table.
fn check<T: Declare + DeserializeOwned + JsonSchema>(
    world: &World,
    table: &[Field<'_>],
    edits: &[(&str, &str, Key)],
) {
    let table: BTreeMap<&str, &str> = table.iter().copied().collect();
    let before = key_of::<T>(world, &table);
    assert_eq!(key_of::<T>(world, &table), before, "twice the same");
    let mut seen = BTreeSet::from([before]);
    for (field, value, expected) in edits {
        let mut edited = table.clone();
        edited.insert(field, value);
        assert_ne!(edited.get(field), table.get(field), "`{field}` is not edited");
        let now = key_of::<T>(world, &edited);
        assert_eq!(if now == before { Stays } else { Moves }, *expected, "{field} = {value}");
        if *expected == Moves {
            assert!(seen.insert(now), "two edits give one key: {field} = {value}");
        }
    }
    let schema = schemars::schema_for!(T);
    let known: BTreeSet<&str> = edits.iter().map(|(field, ..)| *field).collect();
    let declared = schema.get("properties").and_then(|fields| fields.as_object()).unwrap();
    for field in declared.keys() {
        assert!(known.contains(field.as_str()), "nobody has edited `{field}`");
    }
}

/// A world with the trees `clone.one` and `clone.two`, and `compile.bin` with an output.
fn world() -> World {
    let mut world = World::new(&["here", "there"]);
    for (task, files) in [
        ("clone.one", vec!["a", "b", "dir/c"]),
        ("clone.two", vec!["a", "dir/c"]),
        ("compile.bin", vec!["out/x"]),
    ] {
        let mut draft = Draft::empty(&world.cache.cas);
        for file in files {
            draft.put_file(file.as_bytes(), 0o755, b"content").unwrap();
        }
        let value = draft.store().unwrap();
        world.value(task, value);
    }
    world.outputs.insert(crate::work::TaskName("compile.bin".into()), vec!["out/x".into()]);
    world
}

#[test]
fn clone() {
    let table = [("url", "'u'"), ("rev", "'0123456789012345678901234567890123456789'")];
    let edits = [
        ("url", "'v'", Stays),
        ("rev", "'1123456789012345678901234567890123456789'", Moves),
        ("depth", "7", Stays),
        ("depth", "0", Stays),
        ("paths", "['a']", Moves),
        ("paths", "['a', 'b']", Moves),
        ("paths", "['a', '!b']", Moves),
        ("submodules", "true", Moves),
        ("submodules", "false", Stays),
        ("lfs", "false", Moves),
    ];
    check::<super::clone::Clone>(&world(), &table, &edits);
}

#[test]
fn patch() {
    let world = world();
    for name in ["p/1.patch", "p/2.patch", "q/1.patch"] {
        world.write(name, b"--- a/x\n+++ b/x\n", 0o644);
    }
    let table = [("tree", "'clone.one'"), ("files", "['p/1.patch']")];
    let edits = [
        ("tree", "'clone.two'", Moves),
        ("files", "['p/*.patch']", Moves),
        ("files", "['p/2.patch', 'p/1.patch']", Moves),
        // The name is in the warnings that are kept with the result.
        ("files", "['q/1.patch']", Moves),
        ("strip", "0", Moves),
        ("fuzz", "1", Moves),
        ("already_applied", "'skip'", Moves),
        ("zero_context", "true", Moves),
        ("basedir", "'dir'", Moves),
    ];
    check::<super::patch::Patch>(&world, &table, &edits);
    let fields = table.into_iter().collect();
    let before = key_of::<super::patch::Patch>(&world, &fields);
    world.write("p/1.patch", b"--- a/y\n+++ b/y\n", 0o644);
    assert_ne!(key_of::<super::patch::Patch>(&world, &fields), before);
}

#[test]
fn compile() {
    let mut world = world();
    world.env.0.insert("PASSED".into(), "1".into());
    world.env.0.insert("TOOL_HOME".into(), "/one".into());
    world.write("tool/t", b"#!/bin/sh\necho 1\n", 0o755);
    world.write("other/t", b"#!/bin/sh\necho 2\n", 0o755);
    world.write("read/me", b"1", 0o644);
    world.write("read/too", b"1", 0o644);
    let table = [
        ("tree", "'clone.one'"),
        ("run", "[['true']]"),
        ("outputs", "['x']"),
        ("tools", "['tool/t']"),
        ("pass_env", "['PASSED']"),
        ("locate_env", "['TOOL_HOME']"),
        ("reads", "['read/me']"),
        ("env", "{ A = '1' }"),
    ];
    let edits = [
        ("tree", "'clone.two'", Moves),
        ("inputs", "['a']", Moves),
        ("inputs", "['**', '!a']", Moves),
        ("dir", "'dir'", Moves),
        ("files", "[{ from = 'compile.bin', to = 'bin/' }]", Moves),
        ("files", "[{ from = 'compile.bin', to = 'bin/y' }]", Moves),
        ("files", "[{ from = 'compile.bin', to = 'bin/', mode = '0600' }]", Moves),
        ("files", "[{ from = 'clone.one', to = 'bin/', path = 'dir/*' }]", Moves),
        ("tools", "['other/t']", Moves),
        ("tools", "['tool/t', '/bin/sh']", Moves),
        ("version", "[['t']]", Moves),
        ("reads", "['read/too']", Moves),
        ("reads", "[]", Moves),
        ("env", "{ A = '2' }", Moves),
        ("env", "{ A = '1', B = '' }", Moves),
        ("env", "{ B = '1' }", Moves),
        ("pass_env", "['MISSING']", Moves),
        ("pass_env", "[]", Moves),
        ("run", "[['true', '']]", Moves),
        ("run", "[['true'], ['true']]", Moves),
        ("outputs", "['y']", Moves),
        ("outputs", "['x', 'y']", Moves),
        ("incremental", "['build/**']", Moves),
        ("locate_env", "['MISSING']", Stays),
        ("locate_env", "[]", Stays),
        ("keep", "{ CACHE = 'c' }", Stays),
        ("timeout", "'5m'", Stays),
        ("host", "'here'", Stays),
        ("host", "'there'", Stays),
        ("host", "''", Stays),
    ];
    let edits = with_packages(&edits);
    check::<super::compile::Compile>(&world, &table, &edits);

    let fields: BTreeMap<&str, &str> = table.into_iter().collect();
    let key = |world: &World| key_of::<super::compile::Compile>(world, &fields);
    let before = key(&world);
    world.env.0.insert("TOOL_HOME".into(), "/two".into());
    world.env.0.insert("UNNAMED".into(), "x".into());
    assert_eq!(key(&world), before);
    for value in ["2", ""] {
        world.env.0.insert("PASSED".into(), value.into());
        assert_ne!(key(&world), before, "PASSED={value}");
    }
    let empty = key(&world);
    world.env.0.remove("PASSED".as_ref() as &std::ffi::OsStr);
    assert_ne!(key(&world), empty, "unset is not empty");
    world.env.0.insert("PASSED".into(), "1".into());
    for file in ["tool/t", "read/me"] {
        let old = world.read(file).unwrap();
        world.write(file, b"#!/bin/sh\necho 3\n", 0o755);
        assert_ne!(key(&world), before, "{file}");
        world.write(file, &old, 0o755);
        assert_eq!(key(&world), before, "{file}");
    }
}

/// Only Debian and what comes from it has a list of packages.
fn with_packages<'a>(edits: &[(&'a str, &'a str, Key)]) -> Vec<(&'a str, &'a str, Key)> {
    let mut edits = edits.to_vec();
    match std::path::Path::new("/var/lib/dpkg/status").exists() {
        true => edits.push(("packages", "['dpkg']", Moves)),
        false => edits.push(("packages", "[ ]", Stays)),
    }
    edits
}

#[test]
fn what_a_version_says_is_in_the_key() {
    let mut world = world();
    world.env.0.insert("TOOL_HOME".into(), "/one".into());
    world.write("tool/t", b"#!/bin/sh\necho $TOOL_HOME\n", 0o755);
    let fields = BTreeMap::from([
        ("tree", "'clone.one'"),
        ("run", "[['true']]"),
        ("outputs", "['x']"),
        ("tools", "['tool/t']"),
        ("locate_env", "['TOOL_HOME']"),
        ("version", "[['t']]"),
    ]);
    let before = key_of::<super::compile::Compile>(&world, &fields);
    world.env.0.insert("TOOL_HOME".into(), "/two".into());
    assert_ne!(key_of::<super::compile::Compile>(&world, &fields), before);
}

#[test]
fn image() {
    let mut world = world();
    let fields = BTreeMap::from([("base", "'scratch'"), ("files", "[{ from = 'clone.one', to = '/' }]")]);
    let layout = world.run(&*action::<super::image::Image>(&world, &fields)).unwrap();
    world.value("image.base", layout);
    for path in ["one", "same"] {
        folder::bring(&world.cache.cas, &layout, &world.path(path), &Globs::new::<&str>(&[]).unwrap())
            .unwrap();
    }
    let fields = BTreeMap::from([("base", "'scratch'"), ("cmd", "['x']")]);
    let other = world.run(&*action::<super::image::Image>(&world, &fields)).unwrap();
    folder::bring(&world.cache.cas, &other, &world.path("other"), &Globs::new::<&str>(&[]).unwrap())
        .unwrap();
    for name in ["one", "two"] {
        world.write(&format!("ca/{name}.pem"), name.as_bytes(), 0o644);
    }
    let fetched = |name: &str, digit: &str| {
        let digest = digit.repeat(64);
        format!("[{{ url = 'http://x/{name}', sha256 = '{digest}', to = '/bin/' }}]")
    };
    let table = [("base", "'oci:one'"), ("files", "[{ from = 'compile.bin', to = '/bin/' }]")];
    let edits = [
        ("base", "'oci:same'", Stays),
        ("base", "'oci:other'", Moves),
        ("base", "'scratch'", Moves),
        ("base", "'image.base'", Moves),
        ("files", "[]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/sbin/' }]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/', mode = '0700' }]", Moves),
        ("files", "[{ from = 'clone.one', to = '/bin/' }]", Moves),
        ("files", "[{ from = 'clone.one', to = '/bin/', path = 'a' }]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/' }, { from = 'clone.one', to = '/src/' }]", Moves),
        (
            "files",
            "[{ from = 'compile.bin', to = '/bin/', layer = 'l' }, { from = 'clone.one', to = '/src/', layer = 'l' }]",
            Moves,
        ),
        // A layer's own name is nowhere in the image.
        ("files", "[{ from = 'compile.bin', to = '/bin/', layer = 'l' }]", Stays),
        ("entrypoint", "['/bin/x']", Moves),
        ("entrypoint", "[]", Moves),
        ("cmd", "['/bin/x']", Moves),
        ("env", "{ A = '1' }", Moves),
        ("labels", "{ A = '1' }", Moves),
        ("user", "'1'", Moves),
        ("workdir", "'/x'", Moves),
        ("annotations", "{ A = '1' }", Moves),
        ("ports", "[80]", Moves),
        ("ports", "['80/udp']", Moves),
        ("volumes", "['/v']", Moves),
        ("stop_signal", "'SIGINT'", Moves),
        ("stop_signal", "9", Moves),
        ("healthcheck", "{ test = 'true' }", Moves),
        ("healthcheck", "{ test = ['CMD', 'true'] }", Moves),
        ("healthcheck", "{ test = 'true', interval = '1s' }", Moves),
        ("healthcheck", "{ test = 'true', timeout = '1s' }", Moves),
        ("healthcheck", "{ test = 'true', start_period = '1s' }", Moves),
        ("healthcheck", "{ test = 'true', start_interval = '1s' }", Moves),
        ("healthcheck", "{ test = 'true', retries = 1 }", Moves),
        ("shell", "['/bin/bash', '-c']", Moves),
        ("author", "'me'", Moves),
        ("created", "1", Moves),
        ("created", "'2026-01-31T00:00:00Z'", Moves),
        ("created", "0", Stays),
        ("remove", "['/etc/motd']", Moves),
        ("users", "[{ name = 'app', uid = 1 }]", Moves),
        ("users", "[{ name = 'app2', uid = 1 }]", Moves),
        ("users", "[{ name = 'app', uid = 2 }]", Moves),
        ("users", "[{ name = 'app', uid = 1, gid = 2 }]", Moves),
        ("users", "[{ name = 'app', uid = 1, home = '/h' }]", Moves),
        ("users", "[{ name = 'app', uid = 1, shell = '/bin/sh' }]", Moves),
        ("ca_certificates", "'ca/one.pem'", Moves),
        ("ca_certificates", "'ca/two.pem'", Moves),
        ("ca_certificates", "false", Stays),
        ("platforms", "[]", Stays),
        ("layer_size", "'1M'", Moves),
        ("layer_size", "'2M'", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/', owner = '1:2' }]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/', owner = 'app' }]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/', capabilities = ['net_raw'] }]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/', capabilities = ['CAP_KILL', 'kill'] }]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/', strip_prefix = '' }]", Moves),
        ("files", "[{ from = 'compile.bin', to = '/bin/', strip_prefix = 'out' }]", Stays),
        ("files", "[{ link = 'x', to = '/bin/y' }]", Moves),
        ("files", "[{ link = 'y', to = '/bin/y' }]", Moves),
        ("files", "[{ to = '/bin/' }]", Moves),
        ("files", "[{ to = '/bin/', mode = '1777' }]", Moves),
        ("files", &fetched("a", "1"), Moves),
        ("files", &fetched("b", "1"), Moves),
        ("files", &fetched("b", "2"), Moves),
        ("tags", "['example.com/x:1']", Moves),
        ("tags", "['example.com/x:2']", Moves),
        ("sbom", "true", Moves),
    ];
    check::<super::image::Image>(&world, &table, &edits);

    let edits = [
        ("platforms", "['linux/arm64']", Moves),
        ("platforms", "['linux/arm64', 'linux/arm']", Moves),
        ("platforms", "['linux/arm', 'linux/arm64']", Moves),
    ];
    for (field, value, expected) in edits {
        let key =
            |fields: &[Field<'_>]| key_of::<super::image::Image>(&world, &fields.iter().copied().collect());
        let moved = key(&[("base", "'scratch'"), (field, value)]) != key(&[("base", "'scratch'")]);
        assert_eq!(moved, expected == Moves, "{value}");
    }

    // Where a file is to be had does not matter.
    let key = |url: &str| {
        let files = format!("[{{ url = '{url}', sha256 = '{}', to = '/bin/x' }}]", "1".repeat(64));
        key_of::<super::image::Image>(&world, &[("base", "'scratch'"), ("files", &files[..])].into())
    };
    assert_eq!(key("http://one/x"), key("https://two/y"));
}

#[test]
fn save() {
    let mut world = world();
    for (task, name) in [("image.one", "1"), ("image.two", "2")] {
        let mut draft = Draft::empty(&world.cache.cas);
        draft.put_file(b"index.json", 0o644, name.as_bytes()).unwrap();
        let value = draft.store().unwrap();
        world.value(task, value);
    }
    let table = [("images", "['image.one']"), ("format", "'oci-archive'")];
    let edits = [
        ("images", "['image.two']", Moves),
        ("images", "['image.one', 'image.two']", Moves),
        ("images", "['image.two', 'image.one']", Moves),
        ("images", "['image.one', 'image.one']", Stays),
        ("format", "'docker-archive'", Moves),
        ("format", "'oci-layout'", Moves),
        ("name", "'x.tar'", Moves),
        ("compression", "'none'", Stays),
        ("compression", "'gzip'", Moves),
        ("compression", "'zstd'", Moves),
        ("sbom", "true", Moves),
    ];
    check::<super::save::Save>(&world, &table, &edits);
}

#[test]
fn fetch() {
    let world = world();
    for path in ["here/files/x", "there/files/x", "here/files/y", "here/files/d/x"] {
        world.write(path, b"same", 0o644);
    }
    world.write("here/files/e/x", b"else", 0o644);
    let table = [("host", "'here'"), ("path", "'x'")];
    let edits = [
        ("host", "'there'", Stays),
        ("path", "'d/x'", Stays),
        ("path", "'y'", Moves),
        ("path", "'e/x'", Moves),
        ("secret", "false", Stays),
    ];
    check::<super::fetch::Fetch>(&world, &table, &edits);
}
