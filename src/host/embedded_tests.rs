//! What an embedded node must withstand: planted links, damage, a full disk, others at work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cache::stamps::Stamps;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::host::fs::{self, Durability};
use crate::host::node::{self, Asked, File, Found, Image, Load, Node, Question, Spec, Trouble, Watch};
use crate::host::ssh::Links;
use crate::recipe::{Nothing, Part};

/// Stops after so many bytes.
#[derive(Default)]
struct Limit {
    most: Option<u64>,
    moved: AtomicU64,
    waited: AtomicU32,
}

impl Watch for Limit {
    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        match self.most {
            Some(most) if self.moved.load(Ordering::Relaxed) >= most => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    fn waits(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }
}

struct Rig {
    home: tempfile::TempDir,
    stamps: Stamps,
    watch: Limit,
    links: Links,
}

impl Rig {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self {
            stamps: Stamps::new(home.path().join("stamps")),
            home,
            watch: Limit::default(),
            links: Links::new([]),
        }
    }

    fn reach(&self, local: &str) -> Result<Box<dyn Node + '_>, Trouble> {
        let spec = Spec::local("n", local);
        node::open(&spec, self.home.path(), &self.links, &self.stamps, &self.watch)
    }

    fn node(&self) -> Box<dyn Node + '_> {
        self.reach("node").unwrap()
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        fs::write(&self.home.path().join(path), bytes, 0o644, Durability::Cache).unwrap();
    }

    /// Everything in the node's folder, but for the lock.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        list(&self.home.path().join("node"), "", &mut all);
        all.remove("lock");
        all
    }
}

fn list(folder: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<u8>>) {
    for name in fs::list(folder).unwrap_or_default() {
        let (path, name) = (folder.join(&name), format!("{prefix}{}", name.to_string_lossy()));
        match path.is_dir() {
            true => list(&path, &format!("{name}/"), all),
            false => drop(all.insert(name, std::fs::read(&path).unwrap())),
        }
    }
}

fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::sha256_of(bytes), size: bytes.len() as u64 }
}

fn file(path: &str, bytes: &[u8], mode: u32) -> (File, Part) {
    let file = File { path: path.into(), mode, blob: blob(bytes), owner: None };
    (file, Part::Inline(bytes.to_vec()))
}

fn files(files: Vec<(File, Part)>) -> Load<'static> {
    Load { files, ..Load::default() }
}

fn blobs(all: &[&[u8]]) -> Load<'static> {
    let blobs = all.iter().map(|bytes| (blob(bytes), Part::Inline(bytes.to_vec()))).collect();
    Load { blobs, ..Load::default() }
}

fn asked(paths: &[&str]) -> Question<'static> {
    let one = |path: &&str| Asked { path: (*path).to_string(), size: None };
    Question { files: paths.iter().map(one).collect(), ..Question::default() }
}

/// An image of one blob with one declared name.
fn image(name: &str, bytes: &[u8]) -> Image {
    let (descriptor, blobs) = (descriptor(bytes), vec![blob(bytes)]);
    Image { tags: vec![name.into()], descriptor, blobs, ..Image::default() }
}

/// Those of the images that have their names.
fn named(rig: &Rig, images: &[Image]) -> Vec<bool> {
    let answer = rig.node().ask(&Question { images, ..Question::default() }).unwrap();
    answer.images.iter().map(|standing| standing.names.is_empty()).collect()
}

fn words(trouble: Trouble) -> String {
    match trouble {
        Trouble::Unreachable(why) => format!("unreachable: {why}"),
        Trouble::Cut(failure) => format!("cut: {}", failure.message),
        Trouble::Error(error) => error.to_string(),
    }
}

fn descriptor(bytes: &[u8]) -> Value {
    json!({ "mediaType": "m", "digest": blob(bytes).digest, "size": bytes.len() })
}

#[test]
fn a_node_that_is_not_there_is_empty_and_is_made_by_sending() {
    let rig = Rig::new();
    let node = rig.reach("deep/below/node").unwrap();
    let answer = node.ask(&asked(&["/x"])).unwrap();
    assert_eq!(answer.files, [Found::Nothing]);
    assert!(!rig.home.path().join("deep").exists());
    let load = files(vec![file("/etc/a/x", b"text", 0o640)]);
    node.send(&load, &Nothing).unwrap();
    node.check(&[load.files[0].0.clone()], &[]).unwrap();
    let found = Found::File { blob: blob(b"text"), mode: 0o640, owner: None };
    let answer = rig.reach("deep/below/node").unwrap().ask(&asked(&["etc//a/./x"])).unwrap();
    assert_eq!(answer.files, [found]);
    assert_eq!(rig.watch.moved.load(Ordering::Relaxed), 4);
}

#[test]
fn what_is_not_mounted_is_unreachable() {
    let rig = Rig::new();
    let home = rig.home.path().display();
    fs::make_link(b"/nowhere", &rig.home.path().join("link")).unwrap();
    rig.write("file", b"");
    let error = |local: &str| words(rig.reach(local).err().unwrap());
    assert_eq!(error("link"), format!("unreachable: `{home}/link` is a link that leads nowhere"));
    assert_eq!(error("link/node"), format!("unreachable: `{home}/link` is a link that leads nowhere"));
    let absolute = format!("{home}/missing/node");
    assert_eq!(error(&absolute), format!("unreachable: the folder `{home}/missing` is not there"));
    assert_eq!(error("file"), "`file` is not a folder");
    assert_eq!(error("file/node"), "`file/node` is not a folder");
    assert!(rig.reach(&format!("{home}/node")).is_ok());
}

#[test]
fn nothing_gets_out_of_the_node() {
    let rig = Rig::new();
    rig.write("outside/x", b"secret");
    fs::make_folder(&rig.home.path().join("node/files")).unwrap();
    let outside = rig.home.path().join("outside");
    let link = |at: &str| {
        fs::make_link(outside.as_os_str().as_encoded_bytes(), &rig.home.path().join("node").join(at))
            .unwrap();
    };
    link("files/etc");
    let told = "`node/files/etc` is a link, and links inside an embedded node are not followed";
    let node = rig.node();
    let load = files(vec![file("/etc/y", b"", 0o644)]);
    assert_eq!(words(node.send(&load, &Nothing).unwrap_err()), told);
    assert_eq!(words(node.ask(&asked(&["/etc/x"])).unwrap_err()), told);
    assert_eq!(words(node.read("/etc/x", 0, &mut Vec::new()).unwrap_err()), told);
    // A link at the end is never read through, and is replaced itself.
    fs::make_link(outside.join("x").as_os_str().as_encoded_bytes(), &rig.home.path().join("node/files/x"))
        .unwrap();
    let target = outside.join("x").to_str().map(str::to_string);
    assert_eq!(node.ask(&asked(&["x"])).unwrap().files, [Found::Link { target, owner: None }]);
    node.send(&files(vec![file("x", b"new", 0o644)]), &Nothing).unwrap();
    for path in ["../x", "a/../../x", "..", ".", "", "/", "x/", "a\0b"] {
        let message = format!("`{path}` cannot be the path of a file on a host");
        assert_eq!(words(node.ask(&asked(&[path])).unwrap_err()), message);
        assert_eq!(words(node.send(&files(vec![file(path, b"", 0o644)]), &Nothing).unwrap_err()), message);
        assert_eq!(words(node.read(path, 0, &mut Vec::new()).unwrap_err()), message);
    }
    for at in ["tmp", "images"] {
        link(at);
        assert!(node.send(&blobs(&[b"b"]), &Nothing).is_err(), "{at}");
        assert!(node.name(&[&image("a", b"b")]).is_err(), "{at}");
        fs::remove_file(&rig.home.path().join("node").join(at)).unwrap();
    }
    fs::remove_file(&rig.home.path().join("node/lock")).unwrap();
    link("lock");
    assert!(node.send(&blobs(&[b"b"]), &Nothing).is_err());
    assert_eq!(fs::list(&outside).unwrap(), ["x"]);
    assert_eq!(std::fs::read(outside.join("x")).unwrap(), b"secret");
}

#[test]
fn damage_is_seen_by_its_stamp_and_nothing_else_is_read() {
    let rig = Rig::new();
    let load = Load { files: files(vec![file("f", b"one", 0o644)]).files, ..blobs(&[b"two"]) };
    rig.node().send(&load, &Nothing).unwrap();
    let two = [image("two", b"two")];
    let question = Question { images: &two, ..asked(&["f"]) };
    std::thread::sleep(Duration::from_millis(30));
    rig.stamps.flush().unwrap();
    let good = rig.node().ask(&question).unwrap();
    assert_eq!(good.files[0], Found::File { blob: blob(b"one"), mode: 0o644, owner: None });
    assert!(good.images[0].missing.is_empty());
    let hex = blob(b"two").digest.hex();
    for path in ["node/files/f".to_string(), format!("node/images/blobs/sha256/{hex}")] {
        // The same size, and the time of change set back.
        let path = rig.home.path().join(path);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"X", 1).unwrap();
        file.set_modified(before).unwrap();
    }
    let bad = rig.node().ask(&question).unwrap();
    assert_eq!(bad.files[0], Found::File { blob: blob(b"oXe"), mode: 0o644, owner: None });
    assert_eq!(bad.images[0].missing, [blob(b"two")]);
    assert!(rig.node().check(&[], &two).is_err());
    rig.node().send(&load, &Nothing).unwrap();
    rig.node().check(&[load.files[0].0.clone()], &two).unwrap();
}

#[test]
fn content_that_is_not_what_was_promised_gets_no_name() {
    let rig = Rig::new();
    rig.node().send(&files(vec![file("x", b"old", 0o644)]), &Nothing).unwrap();
    let before = rig.files();
    let (wanted, _) = file("x", b"new", 0o644);
    let load = files(vec![(wanted, Part::Inline(b"nEw".to_vec()))]);
    let error = words(rig.node().send(&load, &Nothing).unwrap_err());
    assert!(error.starts_with("write `node/files/x`: `sha256:"), "{error}");
    let lost = Blob { digest: Digest::of(b"lost"), size: 4 };
    let (wanted, _) = file("y", b"lost", 0o644);
    let load = files(vec![(wanted, Part::Blob(lost))]);
    let trouble = rig.node().send(&load, &Nothing).unwrap_err();
    assert!(matches!(trouble, Trouble::Error(Error::Lost(digest)) if digest == lost.digest));
    assert_eq!(rig.files(), before);
}

#[test]
fn a_stop_in_mid_blob_leaves_nothing() {
    let rig = Rig { watch: Limit { most: Some(6), ..Limit::default() }, ..Rig::new() };
    let load = blobs(&[b"first", b"second", b"third"]);
    assert!(matches!(rig.node().send(&load, &Nothing), Err(Trouble::Error(Error::Interrupted))));
    let hex = |bytes| format!("images/blobs/sha256/{}", blob(bytes).digest.hex());
    assert_eq!(
        rig.files().into_keys().collect::<std::collections::BTreeSet<_>>(),
        [hex(b"first"), hex(b"second")].into()
    );
}

#[test]
fn what_a_dead_process_left_is_cleared_at_the_next_contact() {
    let rig = Rig::new();
    rig.node().send(&files(vec![file("x", b"", 0o644)]), &Nothing).unwrap();
    rig.write("node/tmp/tmp", b"half");
    // Somebody at work is left alone.
    let lock = fs::open_lock(&rig.home.path().join("node/lock")).unwrap();
    lock.lock().unwrap();
    rig.node().ask(&asked(&["x"])).unwrap();
    assert!(rig.files().contains_key("tmp/tmp"));
    drop(lock);
    rig.node().ask(&asked(&["x"])).unwrap();
    assert_eq!(rig.files().into_keys().collect::<Vec<_>>(), ["files/x"]);
    rig.write("node/tmp/tmp", b"half");
    rig.node().send(&files(vec![file("y", b"", 0o644)]), &Nothing).unwrap();
    assert_eq!(rig.files().into_keys().collect::<Vec<_>>(), ["files/x", "files/y"]);
    assert!(!rig.home.path().join("node/tmp").exists());
}

#[test]
fn a_wait_is_told() {
    let rig = Rig::new();
    let lock = fs::open_lock(&rig.home.path().join("node/lock")).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(1200));
            drop(lock);
        });
        rig.node().send(&files(vec![file("x", b"", 0o644)]), &Nothing).unwrap();
    });
    assert_eq!(rig.watch.waited.load(Ordering::Relaxed), 1);
}

#[test]
fn modes_are_set_without_sending() {
    let rig = Rig::new();
    let load = files(vec![file("x", b"text", 0o600)]);
    rig.node().send(&load, &Nothing).unwrap();
    let wanted = File { mode: 0o755, ..load.files[0].0.clone() };
    let modes = Load { modes: vec![wanted.clone()], ..Load::default() };
    rig.node().send(&modes, &Nothing).unwrap();
    rig.node().check(&[wanted], &[]).unwrap();
    assert_eq!(rig.watch.moved.load(Ordering::Relaxed), 4);
}

#[test]
fn reading_goes_on_from_a_byte() {
    let rig = Rig::new();
    rig.write("node/files/x", b"0123456789");
    let mut bytes = Vec::new();
    rig.node().read("/x", 4, &mut bytes).unwrap();
    assert_eq!(bytes, b"456789");
    assert_eq!(words(rig.node().read("/y", 0, &mut bytes).unwrap_err()), "there is no `/y` on `n`");
}

#[test]
fn a_name_needs_what_it_names() {
    let rig = Rig::new();
    let both = [image("a", b"good"), image("b", b"ghost")];
    rig.node().send(&blobs(&[b"good"]), &Nothing).unwrap();
    let error = words(rig.node().name(&[&both[0], &both[1]]).unwrap_err());
    assert_eq!(error, format!("`b` cannot be given: `{}` is not on `n`", blob(b"ghost").digest));
    assert_eq!(named(&rig, &both), [false, false]);
    rig.node().name(&[&both[0]]).unwrap();
    assert_eq!(named(&rig, &both), [true, false]);
    // Names in a folder that does not say what it is are not names to others.
    fs::remove_file(&rig.home.path().join("node/images/oci-layout")).unwrap();
    assert_eq!(named(&rig, &both), [false, false]);
    rig.node().name(&[&both[0]]).unwrap();
    assert_eq!(named(&rig, &both), [true, false]);
}

#[test]
fn a_list_of_names_that_is_none_is_not_overwritten() {
    let rig = Rig::new();
    rig.write("node/images/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    rig.write("node/images/index.json", b"half a l");
    rig.node().send(&blobs(&[b"b"]), &Nothing).unwrap();
    let all = [image("a", b"b")];
    let error = words(rig.node().name(&[&all[0]]).unwrap_err());
    assert_eq!(error, "`node/images/index.json` is not a list of images");
    assert_eq!(rig.files()["images/index.json"], b"half a l");
    rig.write("node/images/oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#);
    let question = Question { images: &all, ..Question::default() };
    let error = words(rig.node().ask(&question).unwrap_err());
    assert_eq!(error, "`node/images` is an image layout of version `2.0.0`, which is not known");
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let rig = Rig::new();
    let path = rig.home.path().join("node");
    fs::make_folder(&path).unwrap();
    let mounted = Mounted::new(&path);
    let (small, large) = (vec![1; 600 << 10], vec![2; 600 << 10]);
    let load = files(vec![file("a/small", &small, 0o644), file("a/large", &large, 0o644)]);
    let error = words(rig.node().send(&load, &Nothing).unwrap_err());
    assert_eq!(error, "write `node/files/a/large`: no space left on device");
    assert_eq!(rig.files().into_keys().collect::<Vec<_>>(), ["files/a/small"]);
    assert!(!path.join("tmp").exists());
    rig.node().check(&[load.files[0].0.clone()], &[]).unwrap();
    fs::remove_file(&path.join("files/a/small")).unwrap();
    rig.node().send(&files(vec![file("a/large", &large, 0o644)]), &Nothing).unwrap();
    drop(mounted);
}

/// One megabyte of memory as a file system.
struct Mounted(std::path::PathBuf);

#[expect(clippy::disallowed_methods, reason = "a test")]
impl Mounted {
    fn new(path: &Path) -> Self {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path);
        assert!(mount.status().unwrap().success());
        Self(path.to_path_buf())
    }
}

#[expect(clippy::disallowed_methods, reason = "a test")]
impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_sent_is_there_and_nothing_else_changes(
        before in prop::collection::btree_map("[ab]/[cd]{1,2}", prop::collection::vec(any::<u8>(), 0..9), 0..5),
        sent in prop::collection::btree_map(
            "[ab]/[cd]{1,2}", (prop::collection::vec(any::<u8>(), 0..9), 0u32..0o1000), 0..5
        ),
    ) {
        let rig = Rig::new();
        for (path, bytes) in &before {
            rig.write(&format!("node/files/{path}"), bytes);
        }
        let load = files(sent.iter().map(|(path, (bytes, mode))| file(path, bytes, mode | 0o400)).collect());
        rig.node().send(&load, &Nothing).unwrap();
        let wanted: Vec<File> = load.files.iter().map(|(file, _)| file.clone()).collect();
        rig.node().check(&wanted, &[]).unwrap();
        let mut expected = before;
        expected.extend(sent.into_iter().map(|(path, (bytes, _))| (path, bytes)));
        let expected: BTreeMap<String, Vec<u8>> =
            expected.into_iter().map(|(path, bytes)| (format!("files/{path}"), bytes)).collect();
        prop_assert_eq!(rig.files(), expected);
    }
}
