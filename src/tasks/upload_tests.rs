//! Uploads to embedded nodes.

use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::Error;
use crate::host::fs;
use crate::recipe::Recipe;
use crate::tasks::samples::World;
use crate::tasks::upload::{self, Upload};
use crate::work::{Effect, Fault, Task, TaskName};

fn upload(world: &World, table: &str) -> Upload {
    let mut upload: Upload = toml::from_str(table).unwrap();
    assert_eq!(world.resolve(&mut upload), Vec::<String>::new());
    upload
}

fn effect(world: &World, table: &str) -> Box<dyn Effect> {
    world.effect(&upload(world, table)).unwrap()
}

fn failure(world: &World, table: &str) -> String {
    match world.effect(&upload(world, table)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("no failure"),
    }
}

fn lines(world: &World, effect: &dyn Effect, destination: usize) -> Vec<String> {
    effect.probe(destination, &world.reach()).map_err(|_| "a fault").unwrap().lines()
}

/// Two nodes, and two tasks with values: an archive that is a recipe, and a command's outputs.
fn world() -> World {
    let mut world = World::new(&["n1", "n2"]);
    let mut archive = Recipe::new();
    archive.inline(b"begin ");
    archive.blob(world.cache.cas.put(&vec![b'x'; 100_000]).unwrap());
    let part = world.cache.cas.put_recipe(&archive).unwrap();
    let crate::recipe::Part::Recipe { recipe, size } = part else { panic!("not a recipe") };
    let mut tree = Draft::empty(&world.cache.cas);
    tree.insert(b"images.tar", Entry::Recipe { mode: 0o644, recipe, size }).unwrap();
    let value = tree.store().unwrap();
    let mut tree = Draft::empty(&world.cache.cas);
    tree.put_file(b"out/bin/tool", 0o755, b"#!/bin/sh").unwrap();
    tree.put_file(b"out/share/doc/a", 0o600, b"a").unwrap();
    tree.put_file(b"out/share/b", 0o644, b"b").unwrap();
    let outputs = tree.store().unwrap();
    world.value("save.archives", value);
    world.value("compile.tool", outputs);
    world.outputs.insert(TaskName("compile.tool".into()), vec!["out/bin/tool".into(), "out/share".into()]);
    world
}

#[test]
fn outputs_go_by_their_last_names_and_only_what_is_missing_goes() {
    let world = world();
    let table = "from = ['save.archives', 'compile.tool']\nhosts = 'all'\ndir = '/var/cache/x/'";
    let shipped = effect(&world, table);
    assert_eq!(
        lines(&world, &*shipped, 0),
        [
            "/var/cache/x/images.tar 100.0 kB",
            "/var/cache/x/share/b 1 B",
            "/var/cache/x/share/doc/a 1 B",
            "/var/cache/x/tool 9 B"
        ]
    );
    assert_eq!(world.ship(&*shipped).unwrap(), [Some(100_017), Some(100_017)]);
    let tar = [b"begin ", &[b'x'; 100_000][..]].concat();
    for node in ["n1", "n2"] {
        let read = |path: &str| world.read(&format!("{node}/files/var/cache/x/{path}")).unwrap();
        assert_eq!(read("images.tar"), tar);
        assert_eq!(read("share/doc/a"), b"a");
        let mode = |path: &str| {
            let path = world.path(&format!("{node}/files/var/cache/x/{path}"));
            fs::status(path, fs::Links::Keep).unwrap().unwrap().mode
        };
        assert_eq!((mode("tool"), mode("share/doc/a")), (0o755, 0o600));
        assert_eq!(fs::list(&world.path(node)).unwrap(), ["files", "lock"]);
    }
    assert_eq!(world.heard.progress.lock().unwrap()[&Some("n2".into())], (100_017, Some(100_017)));
    assert_eq!(world.ship(&*shipped).unwrap(), [None, None]);
    // What is remembered is enough to see that nothing is missing, and what is.
    let again = upload::from_wants(&shipped.wants()).unwrap();
    assert_eq!(again.wants(), shipped.wants());
    assert_eq!(again.destinations(), ["n1", "n2"]);
    assert!(lines(&world, &*again, 0).is_empty());
    fs::remove_tree(&world.path("n1")).unwrap();
    world.write("n2/files/var/cache/x/share/b", b"c", 0o644);
    assert_eq!(lines(&world, &*again, 0).len(), 4);
    assert_eq!(lines(&world, &*again, 1), ["/var/cache/x/share/b 1 B"]);
    assert_eq!(world.ship(&*effect(&world, table)).unwrap(), [Some(100_017), Some(1)]);
}

#[test]
fn without_a_declaration_all_at_the_top_is_an_output() {
    let mut world = world();
    world.outputs.clear();
    let shipped = effect(&world, "from = 'compile.tool'\nhosts = 'n1'\ndir = 'x'");
    assert_eq!(
        lines(&world, &*shipped, 0),
        ["x/out/bin/tool 9 B", "x/out/share/b 1 B", "x/out/share/doc/a 1 B"]
    );
}

#[test]
fn a_mode_is_set_without_sending() {
    let world = world();
    let table = "from = 'save.archives'\nhosts = 'n1'\nto = '/srv/all.tar'\nmode = '0600'";
    assert_eq!(world.ship(&*effect(&world, table)).unwrap(), [Some(100_006)]);
    let table = table.replace("0600", "4755");
    let shipped = effect(&world, &table);
    assert_eq!(lines(&world, &*shipped, 0), ["/srv/all.tar mode 4755"]);
    assert_eq!(world.ship(&*shipped).unwrap(), [Some(0)]);
    assert_eq!(world.ship(&*shipped).unwrap(), [None]);
    assert_eq!(shipped.wants()["files"][0]["mode"], "4755");
}

#[test]
fn files_and_folders_of_the_project_go_too() {
    let world = world();
    world.write("conf/a.conf", b"a", 0o640);
    world.write("conf/sub/run", b"run", 0o755);
    for (from, expected) in [
        ("conf/a.conf", vec!["/etc/a.conf 1 B"]),
        ("conf", vec!["/etc/a.conf 1 B", "/etc/sub/run 3 B"]),
        ("conf/**/r*", vec!["/etc/run 3 B"]),
    ] {
        let shipped = effect(&world, &format!("from = './{from}'\nhosts = 'n1'\nto = '/etc/'"));
        assert_eq!(lines(&world, &*shipped, 0), expected);
        world.ship(&*shipped).unwrap();
        assert!(lines(&world, &*shipped, 0).is_empty());
        fs::remove_tree(&world.path("n1")).unwrap();
    }
    let table = "from = './conf'\nhosts = 'n1'\nto = '/etc/'";
    let (_, noted) = world.work(&upload(&world, table));
    assert_eq!(noted.seen.sources.len(), 2);
    // An edit after the look is not sent as if it were what was seen.
    world.write("conf/a.conf", b"not stored", 0o644);
    let shipped = effect(&world, table);
    world.write("conf/a.conf", b"b", 0o644);
    let Err(Fault::Error(error)) = world.ship(&*shipped) else { panic!("no failure") };
    assert_eq!(
        error.to_string(),
        format!("`{}` changed while it was uploaded", world.path("conf/a.conf").display())
    );
    assert!(world.read("n1/files/etc/a.conf").is_none());
    // What the cache has wrong is stored again.
    let shipped = effect(&world, table);
    let path = world.cache.cas.path(&Digest::of(b"b"));
    fs::write(&path, b"X", 0o444, fs::Durability::Cache).unwrap();
    assert_eq!(world.ship(&*shipped).unwrap(), [Some(4)]);
    assert_eq!(world.read("n1/files/etc/a.conf").unwrap(), b"b");
}

#[test]
fn lost_content_is_reported() {
    let world = world();
    let shipped = effect(&world, "from = 'save.archives'\nhosts = 'n1'\ndir = '/x'");
    let lost = Blob::of(&vec![b'x'; 100_000]).digest;
    fs::remove_file(&world.cache.cas.path(&lost)).unwrap();
    assert!(matches!(world.ship(&*shipped), Err(Fault::Error(Error::Lost(digest))) if digest == lost));
    assert!(world.read("n1/files/x/images.tar").is_none());
    assert!(!world.path("n1/tmp").exists());
}

#[test]
fn a_node_that_is_away_is_deferred_and_a_wrong_one_fails() {
    let world = world();
    let shipped = effect(&world, "from = 'save.archives'\nhosts = 'all'\ndir = '/x'");
    fs::make_link(b"/nowhere", &world.path("n1")).unwrap();
    world.write("n2", b"", 0o644);
    let reach = world.reach();
    assert!(matches!(shipped.probe(0, &reach), Err(Fault::Unreachable(_))));
    let Err(Fault::Error(error)) = shipped.probe(1, &reach) else { panic!("no failure") };
    assert_eq!(error.to_string(), "`n2` is not a folder");
    fs::remove_file(&world.path("n2")).unwrap();
    fs::make_folder(&world.path("n2/files/x/images.tar")).unwrap();
    let Err(Fault::Error(error)) = shipped.probe(1, &reach) else { panic!("no failure") };
    assert_eq!(error.to_string(), "`/x/images.tar` on `n2` is a folder");
}

#[test]
fn wrong_tables_are_mistakes_and_wrong_inputs_failures() {
    let mut world = world();
    for (rest, message) in [
        ("", "neither `dir` nor `to` is given"),
        ("dir = 'a'\nto = 'b'", "`dir` and `to` exclude each other"),
        ("dir = '/a/../b'", "`/a/../b` cannot be a path on a host"),
        ("to = 'a'\nmode = '999'", "`999` is not a mode"),
    ] {
        let table = format!("from = 'save.archives'\nhosts = 'n1'\n{rest}");
        let mut upload: Upload = toml::from_str(&table).unwrap();
        assert_eq!(world.resolve(&mut upload), [message]);
    }
    let table = |from: &str, to: &str| format!("from = {from}\nhosts = 'n1'\nto = '{to}'");
    assert_eq!(failure(&world, &table("'./none'", "/")), "there is no `none` in the project");
    assert_eq!(failure(&world, &table("'./none*'", "/")), "`none*` matches nothing");
    assert_eq!(
        failure(&world, &table("'compile.tool'", "/x")),
        "`to = \"/x\"` is one file, but there is more"
    );
    world.write("tool", b"", 0o644);
    assert_eq!(
        failure(&world, &table("['compile.tool', './tool']", "/x/")),
        "two files would be uploaded to `/x/tool`"
    );
    fs::make_link(b"tool", &world.path("link")).unwrap();
    assert_eq!(failure(&world, &table("'./link'", "/x/")), "`link` is a link: only files are uploaded");
    world.outputs.insert(TaskName("compile.tool".into()), vec!["gone".into()]);
    assert_eq!(failure(&world, &table("'compile.tool'", "/x/")), "the output `gone` is not there");
    let upload = upload(&world, &table("['save.archives', 'save.archives']", "/"));
    assert_eq!(upload.needs(), [TaskName("save.archives".into())]);
}
