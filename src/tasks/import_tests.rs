//! Imports into embedded nodes, read by others.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{At, Error};
use crate::host::fs;
use crate::recipe::{Part, Recipe};
use crate::tasks::import::{self, Import};
use crate::tasks::samples::World;
use crate::work::{Change, Effect, Fault, Task, TaskName};

/// An image task's value: a shared base layer, a layer that is a recipe, config, manifest, index.
fn image(world: &World, binary: &[u8], tags: &[&str]) -> (Digest, Value) {
    let cas = &world.cache.cas;
    let mut tree = Draft::empty(cas);
    let mut descriptors = Vec::new();
    let base = tar("base", &[7; 40_000]);
    let stored = cas
        .put_with(Hasher::sha256(), |w| w.write_all(&base).at("write", std::path::Path::new("base")))
        .unwrap();
    let mut put = |media: &str, bytes: &[u8], entry: Entry| {
        let digest = Digest::sha256_of(bytes);
        tree.insert(format!("blobs/sha256/{}", digest.hex()).as_bytes(), entry).unwrap();
        json!({ "mediaType": media, "digest": digest, "size": bytes.len() })
    };
    let layer_type = "application/vnd.oci.image.layer.v1.tar";
    descriptors.push(put(layer_type, &base, Entry::File { mode: 0o644, blob: stored }));
    let layer = tar("binary", binary);
    let mut recipe = Recipe::new();
    recipe.inline(&layer[..512]);
    recipe.blob(cas.put(&layer[512..]).unwrap());
    let Part::Recipe { recipe, size } = cas.put_recipe(&recipe).unwrap() else { panic!("not a recipe") };
    descriptors.push(put(layer_type, &layer, Entry::Recipe { mode: 0o644, recipe, size }));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": descriptors.iter().map(|d| &d["digest"]).collect::<Vec<_>>() },
    })
    .to_string();
    let file = |bytes: &[u8]| Entry::File { mode: 0o644, blob: cas.put(bytes).unwrap() };
    let config_type = "application/vnd.oci.image.config.v1+json";
    let config = put(config_type, config.as_bytes(), file(config.as_bytes()));
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": descriptors,
    })
    .to_string();
    let top = put(manifest_type, manifest.as_bytes(), file(manifest.as_bytes()));
    let named = |tag: &&str| {
        let mut entry = top.clone();
        entry["annotations"] =
            json!({ "org.opencontainers.image.ref.name": tag, "io.containerd.image.name": tag });
        entry
    };
    let entries: Vec<Value> =
        if tags.is_empty() { vec![top.clone()] } else { tags.iter().map(named).collect() };
    let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    tree.put_file(b"index.json", 0o644, index.as_bytes()).unwrap();
    tree.put_file(b"oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    (tree.store().unwrap(), top)
}

/// A tar with one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

fn import(world: &World) -> Import {
    let mut import: Import =
        toml::from_str("images = ['image.a', 'image.b[x]']\nhosts = ['n1', 'n2']").unwrap();
    assert_eq!(world.resolve(&mut import), Vec::<String>::new());
    import
}

fn effect(world: &World) -> Box<dyn Effect> {
    world.effect(&import(world)).unwrap()
}

/// Two nodes and two images: one with three tags in two repositories, one without any.
fn world() -> (World, [Value; 2]) {
    let mut world = World::new(&["n1", "n2"]);
    let tags = ["docker.io/team/a:1", "docker.io/team/a:latest", "other.example:5000/a:1"];
    let (a, a_top) = image(&world, &[1; 5000], &tags);
    let (b, b_top) = image(&world, &[2; 5000], &[]);
    world.value("image.a", a);
    world.value("image.b[x]", b);
    (world, [a_top, b_top])
}

fn tag_of(repository: &str, top: &Value) -> String {
    format!("{repository}:vc-{}", &top["digest"].as_str().unwrap()["sha256:".len()..][..16])
}

/// The names on a node, and what they mean.
fn names(world: &World, node: &str) -> BTreeMap<String, Value> {
    let Some(bytes) = world.read(&format!("{node}/images/index.json")) else { return BTreeMap::new() };
    let index: Value = serde_json::from_slice(&bytes).unwrap();
    let name =
        |entry: &Value| entry["annotations"]["io.containerd.image.name"].as_str().unwrap().to_string();
    index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (name(entry), entry["digest"].clone()))
        .collect()
}

fn blobs(world: &World, node: &str) -> BTreeSet<String> {
    let names = fs::list(&world.path(&format!("{node}/images/blobs/sha256"))).unwrap_or_default();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

fn probe<'a>(world: &'a World, effect: &'a dyn Effect, destination: usize) -> Box<dyn Change + 'a> {
    effect.probe(destination, &world.reach()).map_err(|_| "a fault").unwrap()
}

#[test]
fn only_missing_blobs_go_and_names_come_last() {
    let (mut world, [a, b]) = world();
    let shipped = effect(&world);
    let total: u64 = {
        let wants = shipped.wants();
        let blobs =
            wants["images"].as_array().unwrap().iter().flat_map(|image| image["blobs"].as_array().unwrap());
        blobs
            .map(|blob| (blob["digest"].clone().to_string(), blob["size"].as_u64().unwrap()))
            .collect::<BTreeMap<_, _>>()
    }
    .into_values()
    .sum();
    let (change, reach) = (probe(&world, &*shipped, 0), world.reach());
    assert_eq!(change.bytes(), total);
    let lines = change.lines();
    assert!(lines[0].starts_with(&format!("{} 4 blobs, ", tag_of("a", &a))), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{} 3 blobs, ", tag_of("b-x", &b))), "{lines:?}");
    let other = tag_of("other.example:5000/a", &a);
    let expected = [&other, "docker.io/team/a:1", "docker.io/team/a:latest", "other.example:5000/a:1"];
    assert_eq!(lines[2..], expected.map(|name| format!("name {name}")));
    assert_eq!(change.apply(&reach).map_err(|_| "a fault").unwrap(), total);
    let fallback = tag_of("vcbuild.local/project/b-x", &b);
    let content = BTreeMap::from([
        (tag_of("docker.io/team/a", &a), a["digest"].clone()),
        (other, a["digest"].clone()),
        (fallback, b["digest"].clone()),
    ]);
    assert_eq!(names(&world, "n1"), content);
    assert_eq!(probe(&world, &*shipped, 0).lines().len(), 3);
    change.finish(&reach).map_err(|_| "a fault").unwrap();
    drop((change, reach));
    assert_eq!(names(&world, "n1").len(), 6);
    assert_eq!(names(&world, "n1")["docker.io/team/a:latest"], a["digest"]);
    assert_eq!(world.ship(&*shipped).unwrap(), [None, Some(total)]);
    assert_eq!(world.ship(&*import::from_wants(&shipped.wants()).unwrap()).unwrap(), [None, None]);
    assert_eq!(world.heard.progress.lock().unwrap()[&Some("n2".into())], (total, Some(total)));

    // Another binary: its layer, config and manifest go, and nothing else.
    let tags = ["docker.io/team/a:1", "docker.io/team/a:latest", "other.example:5000/a:1"];
    let (value, top) = image(&world, &[3; 5000], &tags);
    world.value("image.a", value);
    let (again, before) = (effect(&world), blobs(&world, "n1"));
    assert_eq!(probe(&world, &*again, 0).lines()[0].split(' ').nth(1), Some("3"));
    world.ship(&*again).unwrap();
    assert_eq!(blobs(&world, "n1").difference(&before).count(), 3);
    let now = names(&world, "n1");
    assert_eq!(now["docker.io/team/a:latest"], top["digest"]);
    assert_eq!(now[&tag_of("docker.io/team/a", &top)], top["digest"]);
    // Content tags never move, and old ones stay.
    for (name, digest) in content {
        assert_eq!(now[&name], digest);
    }
    assert_eq!(fs::list(&world.path("n1")).unwrap(), ["images", "lock"]);
}

#[test]
fn what_is_wrong_on_a_node_is_repaired() {
    let (world, [a, _]) = world();
    let shipped = effect(&world);
    world.ship(&*shipped).unwrap();
    world.later();
    // A damaged blob, a foreign name, somebody else's image.
    let config = blobs(&world, "n1").into_iter().next().unwrap();
    let path = world.path(&format!("n1/images/blobs/sha256/{config}"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, &bytes, 0o644, fs::Durability::Cache).unwrap();
    let index = world.read("n1/images/index.json").unwrap();
    let mut index: Value = serde_json::from_slice(&index).unwrap();
    for entry in index["manifests"].as_array_mut().unwrap() {
        if entry["annotations"]["io.containerd.image.name"] == "docker.io/team/a:1" {
            entry["digest"] = json!(Digest::sha256_of(b"foreign"));
        }
    }
    let foreign = json!({ "mediaType": "x", "digest": Digest::sha256_of(b"x"), "size": 1,
        "annotations": { "io.containerd.image.name": "foreign:1" } });
    index["manifests"].as_array_mut().unwrap().push(foreign);
    world.write("n1/images/index.json", index.to_string().as_bytes(), 0o644);
    world.write("n1/images/blobs/sha256/foreign", b"f", 0o644);
    {
        let change = probe(&world, &*shipped, 0);
        assert_eq!(change.bytes(), bytes.len() as u64);
        assert_eq!(change.lines().len(), 2);
        assert_eq!(change.lines()[1], "name docker.io/team/a:1");
    }
    assert!(probe(&world, &*shipped, 1).lines().is_empty());
    world.ship(&*shipped).unwrap();
    bytes[0] ^= 1;
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let now = names(&world, "n1");
    assert_eq!(now["docker.io/team/a:1"], a["digest"]);
    assert_eq!(now["foreign:1"], Digest::sha256_of(b"x").to_string());
    assert!(blobs(&world, "n1").contains("foreign"));
    fs::remove_tree(&world.path("n2")).unwrap();
    assert!(matches!(world.ship(&*shipped).unwrap()[..], [None, Some(_)]));
}

#[test]
fn a_blob_that_is_lost_leaves_no_name() {
    let (world, _) = world();
    let shipped = effect(&world);
    let lost = Blob::of(&tar("binary", &[2; 5000])[512..]).digest;
    fs::remove_file(&world.cache.cas.path(&lost)).unwrap();
    assert!(matches!(world.ship(&*shipped), Err(Fault::Error(Error::Lost(digest))) if digest == lost));
    assert!(names(&world, "n1").is_empty());
    // What arrived before stays, and is not sent again.
    let before = probe(&world, &*shipped, 0).bytes();
    assert!(before < probe(&world, &*shipped, 1).bytes());
    world.cache.cas.put(&tar("binary", &[2; 5000])[512..]).unwrap();
    assert_eq!(world.ship(&*shipped).unwrap()[0], Some(before));
}

#[test]
fn two_images_with_one_name_are_refused() {
    let (mut world, _) = world();
    let (value, _) = image(&world, b"else", &["docker.io/team/a:1"]);
    world.value("image.b[x]", value);
    let error = world.effect(&import(&world)).err().unwrap();
    assert_eq!(error.to_string(), "two images are named `docker.io/team/a:1`");
    let mut broken = Draft::of(&world.cache.cas, value);
    broken.remove(b"index.json").unwrap();
    let value = broken.store().unwrap();
    world.value("image.b[x]", value);
    let error = world.effect(&import(&world)).err().unwrap();
    assert_eq!(error.to_string(), "`image.b[x]`: the layout has no `index.json`");
    assert_eq!(import(&world).needs(), [TaskName("image.a".into()), TaskName("image.b[x]".into())]);
}

#[test]
fn the_order_is_layers_configs_manifests() {
    let (world, [a, _]) = world();
    let wants = effect(&world).wants();
    let blobs = wants["images"][0]["blobs"].as_array().unwrap();
    assert_eq!(blobs.len(), 4);
    assert_eq!(blobs[3]["digest"], a["digest"]);
    assert_eq!(wants["images"][0]["descriptor"], a);
    assert_eq!(wants["destinations"][1], json!({ "name": "n2", "local": "n2" }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn exactly_what_is_missing_or_damaged_is_sent(
        fates in prop::collection::vec(0u8..4, 7),
        kept in prop::collection::vec(any::<bool>(), 6),
    ) {
        let (world, _) = world();
        let shipped = effect(&world);
        world.ship(&*shipped).unwrap();
        let mut expected = 0;
        for (name, fate) in blobs(&world, "n1").into_iter().zip(fates) {
            let path = format!("n1/images/blobs/sha256/{name}");
            let bytes = world.read(&path).unwrap();
            match fate {
                0 => fs::remove_file(&world.path(&path)).unwrap(),
                1 => world.write(&path, &bytes[..bytes.len() - 1], 0o644),
                _ => continue,
            }
            expected += bytes.len() as u64;
        }
        let before: Value = serde_json::from_slice(&world.read("n1/images/index.json").unwrap()).unwrap();
        let mut index = before.clone();
        let mut kept = kept.into_iter();
        index["manifests"].as_array_mut().unwrap().retain(|_| kept.next().unwrap());
        world.write("n1/images/index.json", index.to_string().as_bytes(), 0o644);
        let change = probe(&world, &*shipped, 0);
        prop_assert_eq!(change.bytes(), expected);
        let complete = expected == 0 && index == before;
        prop_assert_eq!(change.lines().is_empty(), complete);
        drop(change);
        prop_assert_eq!(world.ship(&*shipped).unwrap(), [(!complete).then_some(expected), None]);
        prop_assert_eq!(world.ship(&*shipped).unwrap(), [None, None]);
        prop_assert_eq!((names(&world, "n1"), blobs(&world, "n1")), (names(&world, "n2"), blobs(&world, "n2")));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test")]
fn skopeo_reads_the_node() {
    let (world, [a, b]) = world();
    world.ship(&*effect(&world)).unwrap();
    let all = names(&world, "n1");
    assert_eq!(all.len(), 6);
    for (name, digest) in all {
        let copy = tempfile::tempdir().unwrap();
        let output = std::process::Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--preserve-digests"])
            .arg(format!("oci:{}:{name}", world.path("n1/images").display()))
            .arg(format!("dir:{}", copy.path().display()))
            .output()
            .expect("skopeo is installed: `apt-get install skopeo`");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let manifest = std::fs::read(copy.path().join("manifest.json")).unwrap();
        assert_eq!(Digest::sha256_of(&manifest).to_string(), digest, "{name}");
        assert!([&a["digest"], &b["digest"]].contains(&&digest));
    }
}
