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

/// A tree with a link, an empty folder, a folder and a file of modes of their own.
fn tree(world: &mut World, file: &[u8]) {
    let mut tree = Draft::empty(&world.cache.cas);
    tree.put_file(b"t/sub/file", 0o640, file).unwrap();
    tree.make_folder(b"t/closed", 0o700).unwrap();
    tree.put_file(b"t/closed/in", 0o600, b"in").unwrap();
    tree.make_folder(b"t/empty", 0o750).unwrap();
    tree.insert(b"t/link", Entry::Link { target: b"sub/file".to_vec() }).unwrap();
    let value = tree.store().unwrap();
    world.value("compile.tree", value);
    world.outputs.insert(TaskName("compile.tree".into()), vec!["t".into()]);
}

#[test]
fn a_folder_goes_whole_and_by_difference() {
    let mut world = world();
    tree(&mut world, b"one");
    let table = "from = 'compile.tree'\nhosts = 'n1'\ndir = '/srv/x'";
    let shipped = effect(&world, table);
    let all = [
        "/srv/x/t/closed/ folder",
        "/srv/x/t/empty/ folder",
        "/srv/x/t/link link to sub/file",
        "/srv/x/t/closed/in 2 B",
        "/srv/x/t/sub/file 3 B",
    ];
    assert_eq!(lines(&world, &*shipped, 0), all);
    assert_eq!(world.ship(&*shipped).unwrap(), [Some(5)]);
    let base = world.path("n1/files/srv/x/t");
    let at = |path: &str| base.join(path);
    let mode = |path: &str| fs::status(at(path), fs::Links::Keep).unwrap().unwrap().mode;
    let modes = ["closed", "empty", "sub", "closed/in", "sub/file"].map(mode);
    assert_eq!(modes, [0o700, 0o750, 0o755, 0o600, 0o640]);
    assert_eq!(std::fs::read_link(at("link")).unwrap().to_str().unwrap(), "sub/file");
    assert_eq!(world.ship(&*shipped).unwrap(), [None]);
    // Whose folder it is may choose its mode, and have more in it.
    world.write("n1/files/srv/x/t/more/own", b"own", 0o644);
    fs::set_mode(&at("empty"), 0o700).unwrap();
    fs::remove_file(&at("link")).unwrap();
    fs::make_link(b"elsewhere", &at("link")).unwrap();
    tree(&mut world, b"two");
    let shipped = effect(&world, table);
    assert_eq!(lines(&world, &*shipped, 0), ["/srv/x/t/link link to sub/file", "/srv/x/t/sub/file 3 B"]);
    assert_eq!(world.ship(&*shipped).unwrap(), [Some(3)]);
    // With `delete` it may not.
    let table = format!("{table}\ndelete = true");
    world.write("n1/files/srv/x/old", b"old", 0o644);
    world.write("n1/files/srv/y/other", b"other", 0o644);
    fs::make_link(b"/srv/y", &at("away")).unwrap();
    let shipped = effect(&world, &table);
    let gone = [
        "/srv/x/t/empty/ mode 0750",
        "/srv/x/old deleted",
        "/srv/x/t/away deleted",
        "/srv/x/t/more/ deleted with 1 in it",
    ];
    assert_eq!(lines(&world, &*shipped, 0), gone);
    assert_eq!(world.ship(&*shipped).unwrap(), [Some(0)]);
    assert_eq!(fs::list(&world.path("n1/files/srv/x")).unwrap(), ["t"]);
    assert_eq!(fs::list(&at("")).unwrap(), ["closed", "empty", "link", "sub"]);
    assert_eq!(world.read("n1/files/srv/y/other").unwrap(), b"other");
    assert_eq!(world.ship(&*shipped).unwrap(), [None]);
    let again = upload::from_wants(&shipped.wants()).unwrap();
    assert!(lines(&world, &*again, 0).is_empty() && again.wants() == shipped.wants());
    // What is of another kind makes way.
    fs::remove_file(&at("sub/file")).unwrap();
    world.write("n1/files/srv/x/t/sub/file/deep/er", b"", 0o644);
    fs::remove_tree(&at("empty")).unwrap();
    fs::make_link(b"/srv/y", &at("empty")).unwrap();
    assert_eq!(
        lines(&world, &*shipped, 0),
        [
            "/srv/x/t/empty/ folder",
            "/srv/x/t/sub/file 3 B",
            "/srv/x/t/empty deleted",
            "/srv/x/t/sub/file/ deleted with 2 in it"
        ]
    );
    world.ship(&*shipped).unwrap();
    assert_eq!(world.read("n1/files/srv/x/t/sub/file").unwrap(), b"two");
    assert_eq!(world.ship(&*shipped).unwrap(), [None]);
    // A link in place of the folder is not gone through.
    fs::remove_tree(&world.path("n1/files/srv/x")).unwrap();
    fs::make_link(b"y", &world.path("n1/files/srv/x")).unwrap();
    let Err(Fault::Error(error)) = shipped.probe(0, &world.reach()) else { panic!("no failure") };
    assert!(error.to_string().contains("is a link"), "{error}");
}

#[test]
fn nothing_stays_of_a_secret() {
    let world = world();
    let secret = b"correct horse battery staple".repeat(4000);
    world.write("key", &secret, 0o644);
    let table = "from = './key'\nhosts = 'all'\nto = '/etc/app/key'\nsecret = true";
    let shipped = effect(&world, table);
    assert_eq!(lines(&world, &*shipped, 0), ["/etc/app/key secret"]);
    assert_eq!(world.ship(&*shipped).unwrap(), [Some(112_000), Some(112_000)]);
    for node in ["n1", "n2"] {
        let path = format!("{node}/files/etc/app/key");
        assert_eq!(world.read(&path).unwrap(), secret);
        assert_eq!(fs::status(world.path(&path), fs::Links::Keep).unwrap().unwrap().mode, 0o600);
    }
    assert_eq!(world.ship(&*shipped).unwrap(), [None, None]);
    fs::set_mode(&world.path("n2/files/etc/app/key"), 0o644).unwrap();
    world.later();
    let again = upload::from_wants(&shipped.wants()).unwrap();
    assert_eq!(lines(&world, &*again, 1), ["/etc/app/key mode 0600"]);
    assert_eq!(world.ship(&*again).unwrap(), [None, Some(0)]);
    // An edit is seen by what is remembered alone, and sent by it.
    world.write("key", b"another", 0o600);
    let again = upload::from_wants(&shipped.wants()).unwrap();
    assert_eq!(world.ship(&*again).unwrap(), [Some(7), Some(7)]);
    world.later();
    for wrong in [&secret[..], b"another"] {
        for digest in [Digest::of(wrong), Digest::sha256_of(wrong)] {
            assert!(!world.cache.cas.path(&digest).exists());
            let raw = digest.bytes();
            for (path, bytes) in everything(&world.path("cache")) {
                let within = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
                let hex = digest.hex();
                assert!(!within(raw) && !within(hex.as_bytes()) && !within(&wrong[..7]), "{path}");
            }
        }
    }
    let none = effect(&world, &table.replace("./key", "./none"));
    let Err(Fault::Error(error)) = none.probe(0, &world.reach()) else { panic!("no failure") };
    assert_eq!(error.to_string(), "read the secret `none`: there is no `none`");
}

fn everything(folder: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for name in fs::list(folder).unwrap_or_default() {
        let path = folder.join(name);
        match path.is_dir() {
            true => all.extend(everything(&path)),
            false => all.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default())),
        }
    }
    all
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
        ("dir = '/etc'\ndelete = true", "`/etc` is not a folder of one's own: nothing is deleted in it"),
        ("to = '/a/b'\ndelete = true", "`/a/b` is one file: there is nothing to delete beside it"),
        ("dir = '/a'\nsecret = true", "what `save.archives` makes is in the cache, and no secret"),
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
    fs::make_link(b"a\nb", &world.path("link")).unwrap();
    assert_eq!(failure(&world, &table("'./link'", "/x/")), "the link `link` to `a\nb` cannot be uploaded");
    world.outputs.insert(TaskName("compile.tool".into()), vec!["gone".into()]);
    assert_eq!(failure(&world, &table("'compile.tool'", "/x/")), "the output `gone` is not there");
    let upload = upload(&world, &table("['save.archives', 'save.archives']", "/"));
    assert_eq!(upload.needs(), [TaskName("save.archives".into())]);
}

#[test]
fn a_folder_is_not_emptied_for_nothing() {
    let mut world = World::new(&["n1"]);
    let mut tree = Draft::empty(&world.cache.cas);
    tree.make_folder(b"dist/empty", 0o755).unwrap();
    let value = tree.store().unwrap();
    world.value("compile.site", value);
    world.value("clone.nothing", Draft::empty(&world.cache.cas).store().unwrap());
    world.outputs.insert(TaskName("compile.site".into()), vec!["dist".into()]);
    for from in ["compile.site", "clone.nothing"] {
        let table = format!("from = '{from}'\nhosts = 'n1'\ndir = '/srv/www'");
        effect(&world, &table);
        assert_eq!(
            failure(&world, &format!("{table}\ndelete = true")),
            "there is no file to upload, and `delete` would empty `/srv/www`"
        );
    }
}
