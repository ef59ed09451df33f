//! Images as trees of what a container would see: layers, owners, links, what is removed, users; and
//! what is wrong with a table.

use std::collections::BTreeMap;

use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Digest, Hasher};
use crate::error::Result;
use crate::oci::contents::{self, Item, Kind, Reader};
use crate::oci::descriptor::Platform;
use crate::oci::find::Found;
use crate::oci::layer::Xattrs;
use crate::tasks::image::Image;
use crate::tasks::samples::World;
use crate::tasks::{layout, shipped};
use crate::work::{Action, TaskName, Work};

/// A world with `clone.tree` (two folders) and `compile.bin` (a program and a deep file).
fn world() -> World {
    let mut world = World::new(&[]);
    let cas = &world.cache.cas;
    let mut tree = Draft::empty(cas);
    for path in ["etc/app/app.conf", "etc/motd", "srv/one", "srv/two"] {
        tree.put_file(path.as_bytes(), 0o644, path.as_bytes()).unwrap();
    }
    tree.insert(b"srv/link", Entry::Link { target: b"one".to_vec() }).unwrap();
    let tree = tree.store().unwrap();
    let mut bin = Draft::empty(cas);
    bin.put_file(b"out/app", 0o755, b"program").unwrap();
    bin.put_file(b"out/share/deep/file", 0o644, b"deep").unwrap();
    let bin = bin.store().unwrap();
    world.value("clone.tree", tree);
    world.value("compile.bin", bin);
    let outputs = vec!["out/app".to_string(), "out/share".to_string()];
    world.outputs.insert(TaskName("compile.bin".into()), outputs);
    world
}

fn action(world: &World, text: &str) -> Result<Box<dyn Action>> {
    let mut table: Image = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(world.resolve(&mut table), Vec::<String>::new(), "{text}");
    let (work, noted) = world.work(&table);
    for (blob, stamp, path) in &noted.seen.sources {
        assert!(world.cache.cas.put_known(path, stamp, blob).unwrap());
    }
    match work? {
        Work::Action(action) => Ok(action),
        Work::Effect(_) => panic!("not an action"),
    }
}

fn value(world: &World, text: &str) -> Result<Digest> {
    world.run(&*action(world, text)?)
}

fn told(world: &World, text: &str) -> String {
    value(world, text).unwrap_err().to_string()
}

fn read(world: &World, value: &Digest) -> Found {
    let named = layout::read_all(&world.cache.cas, value).unwrap();
    let here = named.images().find(|image| image.config().platform.matches(&layout::platform()));
    let names = named.tags.iter().map(ToString::to_string).collect();
    Found { image: here.unwrap_or(&named.image).clone(), names }
}

/// Entries with their content.
#[derive(Default)]
struct All(Vec<Item>);

impl Reader for All {
    fn item(&mut self, item: &Item) -> crate::error::Result<usize> {
        self.0.push(Item { kept: Some(Vec::new()), ..item.clone() });
        Ok(usize::MAX)
    }

    fn content(&mut self, _item: &Item, bytes: &[u8]) -> crate::error::Result<()> {
        self.0.last_mut().unwrap().kept = Some(bytes.to_vec());
        Ok(())
    }
}

/// The entries of each layer.
fn layers(world: &World, value: &Digest) -> Vec<Vec<Item>> {
    let mut all = Vec::new();
    for layer in read(world, value).image.layers() {
        let mut items = All::default();
        contents::read(layer, &world.cache.cas, &mut items).unwrap();
        let is = world.cache.content_digest(&layer.part, crate::digest::Hasher::sha256()).unwrap();
        assert_eq!(is, layer.diff_id);
        all.push(items.0);
    }
    all
}

/// One line for each entry of a layer.
fn lines(items: &[Item]) -> Vec<String> {
    let one = |item: &Item| {
        let (a, path) = (item.attributes, String::from_utf8_lossy(&item.path));
        let kind = match &item.kind {
            Kind::Folder => "/".to_string(),
            Kind::Link(target) => format!(" -> {}", String::from_utf8_lossy(target)),
            Kind::File => format!(" = {}", String::from_utf8_lossy(item.kept.as_ref().unwrap())),
            Kind::Removed => " gone".to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(a.mtime, 0);
        format!("{:04o} {}:{} {path}{kind}", a.mode, a.uid, a.gid)
    };
    items.iter().map(one).collect()
}

/// The only layer that an image adds.
fn layer(world: &World, text: &str) -> Vec<String> {
    let made = value(world, text).unwrap();
    lines(layers(world, &made).last().unwrap())
}

/// A base with links, odd folders and users.
const BASE: &str = r#"
base = "scratch"
[[files]]
to = "/tmp/"
mode = "1777"
layer = "base"
[[files]]
to = "/usr/bin/"
owner = "0:5"
layer = "base"
[[files]]
to = "/bin"
link = "usr/bin"
layer = "base"
[[files]]
from = "etc/passwd"
to = "/etc/"
layer = "base"
[[files]]
from = "etc/group"
to = "/etc/"
layer = "base"
[[files]]
from = "motd"
to = "/etc/"
layer = "base"
[[files]]
from = "motd"
to = "/tmp/old/deep/motd"
layer = "base"
"#;

fn with_base() -> World {
    let mut world = world();
    world.write("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n", 0o644);
    world.write("etc/group", b"root:x:0:\nstaff:x:50:\n", 0o644);
    world.write("motd", b"hello", 0o644);
    let base = value(&world, BASE).unwrap();
    world.value("image.base", base);
    world
}

#[test]
fn each_kind_of_entry_is_placed() {
    let world = world();
    let made = layer(
        &world,
        r#"
base = "scratch"
files = [
  { from = "compile.bin", path = "app", to = "/usr/bin/program", mode = "4750", owner = "1:2", layer = "l" },
  { from = "compile.bin", path = "share/**", to = "/usr/", owner = "7", layer = "l" },
  { link = "../bin/program", to = "/usr/sbin/app", owner = "3:4", layer = "l" },
  { to = "/var/lib/app/", mode = "0700", owner = "65532", layer = "l" },
  { from = "clone.tree", strip_prefix = "etc/app", path = "etc/app/*", to = "/etc/", layer = "l" },
]"#,
    );
    assert_eq!(
        made,
        [
            "0755 0:0 etc/",
            "0644 0:0 etc/app.conf = etc/app/app.conf",
            "0755 0:0 usr/",
            "0755 0:0 usr/bin/",
            "4750 1:2 usr/bin/program = program",
            "0755 0:0 usr/sbin/",
            "0777 3:4 usr/sbin/app -> ../bin/program",
            "0755 7:7 usr/share/",
            "0755 7:7 usr/share/deep/",
            "0644 7:7 usr/share/deep/file = deep",
            "0755 0:0 var/",
            "0755 0:0 var/lib/",
            "0700 65532:65532 var/lib/app/",
        ]
    );
}

#[test]
fn what_the_base_has_stays_as_it_is() {
    let world = with_base();
    let made = |files: &str| layer(&world, &format!("base = 'image.base'\nfiles = [{files}]"));
    assert_eq!(
        made("{ from = 'motd', to = '/bin/app', owner = 'web' }"),
        ["0755 0:0 usr/", "0755 0:5 usr/bin/", "0644 33:34 usr/bin/app = hello"]
    );
    assert_eq!(
        made("{ from = 'motd', to = '/tmp/x/', owner = 'web:staff' }"),
        ["1777 0:0 tmp/", "0755 0:0 tmp/x/", "0644 33:50 tmp/x/motd = hello"]
    );
    // Said of a folder itself, it changes.
    assert_eq!(made("{ to = '/bin/', owner = '9:9' }"), ["0755 0:0 usr/", "0755 9:9 usr/bin/"]);
    // Later layers see what earlier ones did.
    let all = layers(&world, &value(&world, "base = 'image.base'\nfiles = [{ to = '/data/', owner = '9:9' }, { from = 'motd', to = '/data/sub/' }]").unwrap());
    assert_eq!(lines(&all[2]), ["0755 9:9 data/", "0755 0:0 data/sub/", "0644 0:0 data/sub/motd = hello"]);
    assert_eq!(
        told(&world, "base = 'image.base'\nfiles = [{ from = 'motd', to = '/tmp' }]"),
        "`/tmp` is a folder, and a file would take its place"
    );
    assert_eq!(
        told(&world, "base = 'image.base'\nfiles = [{ from = 'motd', to = '/etc/motd/x' }]"),
        "`etc/motd` cannot be a folder: `etc/motd` is a file"
    );
    assert_eq!(
        told(&world, "base = 'image.base'\nfiles = [{ from = 'motd', to = '/x', owner = 'nobody' }]"),
        "the image has no user `nobody`"
    );
    assert_eq!(
        told(
            &world,
            "base = 'scratch'\nfiles = [{ from = 'motd', to = '/x', layer = 'l' }, { from = 'etc/group', to = '/x', layer = 'l' }]"
        ),
        "two different files are placed at `x`"
    );
}

#[test]
fn what_is_removed_is_gone_for_later_layers() {
    let world = with_base();
    let all = layers(
        &world,
        &value(&world, "base = 'image.base'\nremove = ['/tmp/old', '/etc/motd', '/bin/']\nfiles = [{ from = 'motd', to = '/bin/' }]").unwrap(),
    );
    assert_eq!(
        lines(&all[1]),
        [
            "0644 0:0 bin gone",
            "0755 0:0 etc/",
            "0644 0:0 etc/motd gone",
            "1777 0:0 tmp/",
            "0644 0:0 tmp/old gone"
        ]
    );
    assert_eq!(lines(&all[2]), ["0755 0:0 bin/", "0644 0:0 bin/motd = hello"]);
    assert_eq!(
        told(&world, "base = 'image.base'\nremove = ['/etc/nothing']"),
        "the base has no `/etc/nothing` that could be removed"
    );
    assert_eq!(
        told(&world, "base = 'image.base'\nremove = ['/tmp/old', '/tmp/old/deep']"),
        "the base has no `/tmp/old/deep` that could be removed"
    );
}

#[test]
fn users_are_added_to_those_of_the_base() {
    let world = with_base();
    let text = "base = 'image.base'\nusers = [{ name = 'app', uid = 1000, gid = 1001, home = '/home/app' }]\nfiles = [{ from = 'motd', to = '/home/app/', owner = 'app' }]";
    let all = layers(&world, &value(&world, text).unwrap());
    assert_eq!(
        lines(&all[1]),
        [
            "0755 0:0 etc/",
            "0644 0:0 etc/group = root:x:0:\nstaff:x:50:\napp:x:1001:\n",
            "0644 0:0 etc/passwd = root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\napp:x:1000:1001::/home/app:/sbin/nologin\n",
            "0755 0:0 home/",
            "0700 1000:1001 home/app/",
        ]
    );
    assert_eq!(
        lines(&all[2]),
        ["0755 0:0 home/", "0700 1000:1001 home/app/", "0644 1000:1001 home/app/motd = hello"]
    );
    let clash = "base = 'image.base'\nusers = [{ name = 'a', uid = 1 }]\nfiles = [{ from = 'motd', to = '/etc/passwd' }]";
    assert_eq!(told(&world, clash), "`/etc/passwd` comes from `files`, and `users` adds to the base's");
}

#[test]
fn certificates_and_capabilities() {
    let world = world();
    let pem = b"# x\n-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    world.write("ca.pem", pem, 0o644);
    world.write("not.pem", b"nothing", 0o644);
    let made = layer(&world, "base = 'scratch'\nca_certificates = 'ca.pem'");
    assert_eq!(
        made.last().unwrap(),
        &format!("0644 0:0 etc/ssl/certs/ca-certificates.crt = {}", String::from_utf8_lossy(pem))
    );
    assert_eq!(
        told(&world, "base = 'scratch'\nca_certificates = 'not.pem'"),
        "what `ca_certificates` names has no certificate in it"
    );
    if std::path::Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        let made = layer(&world, "base = 'scratch'\nca_certificates = true");
        assert!(made[3].contains("-----BEGIN CERTIFICATE-----"));
    }
    let text = "base = 'scratch'\nfiles = [{ from = 'compile.bin', path = 'app', to = '/app', capabilities = ['CAP_NET_RAW', 'kill'] }]";
    let all = layers(&world, &value(&world, text).unwrap());
    let set = b"\x01\0\0\x02\x20\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    assert_eq!(all[0][0].xattrs, Xattrs::from([(b"security.capability".to_vec(), set)]));
}

#[test]
fn a_large_layer_is_divided_and_one_file_moves_one_of_them() {
    let mut world = world();
    let mut files: BTreeMap<String, Vec<u8>> =
        (0..3000_u32).map(|n| (format!("{}/{n}", n % 7), n.to_le_bytes().repeat(1000))).collect();
    let text = "base = 'scratch'\nlayer_size = '1M'\nfiles = [{ from = 'clone.many', to = '/srv/' }]";
    let mut made = |files: &BTreeMap<String, Vec<u8>>| {
        let mut draft = Draft::empty(&world.cache.cas);
        for (path, bytes) in files {
            draft.put_file(path.as_bytes(), 0o644, bytes).unwrap();
        }
        let tree = draft.store().unwrap();
        world.value("clone.many", tree);
        let made = value(&world, text).unwrap();
        let held: usize =
            layers(&world, &made).iter().flatten().filter(|item| matches!(item.kind, Kind::File)).count();
        assert_eq!(held, files.len());
        read(&world, &made).image.layers().iter().map(|layer| layer.diff_id).collect::<Vec<_>>()
    };
    let before = made(&files);
    assert!(before.len() > 12 && before.len() < 49, "{}", before.len());
    *files.get_mut("3/1900").unwrap() = b"changed".to_vec();
    let after = made(&files);
    assert_eq!(after.iter().filter(|layer| !before.contains(layer)).count(), 1);
    assert_eq!(after.len(), before.len());
}

#[test]
fn the_headers_of_a_base_are_remembered() {
    let mut world = world();
    let mut base = Draft::empty(&world.cache.cas);
    base.put_file(b"opt/x", 0o644, b"x").unwrap();
    let tree = base.store().unwrap();
    world.value("clone.base", tree);
    let base = value(&world, "base = 'scratch'\nfiles = [{ from = 'clone.base', to = '/' }]").unwrap();
    world.value("image.base", base);
    let text = "base = 'image.base'\nfiles = [{ from = 'compile.bin', to = '/opt/' }]";
    let first = value(&world, text).unwrap();
    // The layer's recipe is needed no more: nobody reads it to see what the base has.
    let found = read(&world, &base);
    let crate::recipe::Part::Recipe { recipe, .. } = found.image.layers()[0].part.clone() else { panic!() };
    crate::host::fs::remove_tree(&world.cache.cas.path(&recipe.digest)).unwrap();
    assert_eq!(value(&world, text).unwrap(), first);
    let other = "base = 'image.base'\nfiles = [{ from = 'compile.bin', to = '/opt/other/' }]";
    value(&world, other).unwrap();
}

#[test]
fn a_url_is_fetched_once() {
    use std::io::{Read, Write};
    let world = world();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/dir/tool", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntool")
                .unwrap();
        }
    });
    let sha256 = Digest::sha256_of(b"tool");
    let text = |to: &str, sha256: &str| {
        format!(
            "base = 'scratch'\nfiles = [{{ url = '{url}', sha256 = '{sha256}', to = '{to}', mode = '0755' }}]"
        )
    };
    let right = sha256.hex().to_uppercase();
    assert_eq!(layer(&world, &text("/bin/", &right)), ["0755 0:0 bin/", "0755 0:0 bin/tool = tool"]);
    let wrong = told(&world, &text("/bin/", &"0".repeat(64)));
    assert_eq!(wrong, format!("`{url}` gives another file than its `sha256` says"));
    server.join().unwrap();
    // Nobody listens any more.
    assert_eq!(layer(&world, &text("/x", &right)), ["0755 0:0 x = tool"]);
    let mut hasher = Hasher::sha256();
    hasher.update(b"tool");
    assert_eq!(hasher.finish(), sha256);
}

#[test]
fn several_platforms_make_an_index() {
    let mut world = world();
    world.write("amd64/app", b"for amd64", 0o755);
    world.write("arm64/app", b"for arm64", 0o755);
    let base = r#"
base = "scratch"
platforms = ["linux/amd64", "linux/arm64"]
tags = ["example.com/x:1"]
files = [
  { from = "amd64/app", to = "/bin/", platform = "linux/amd64" },
  { from = "arm64/app", to = "/bin/", platform = "linux/arm64/v8" },
]"#;
    let base = value(&world, base).unwrap();
    world.value("image.base", base);
    let arm: Platform = "linux/arm64".parse().unwrap();
    let text = "base = 'image.base'\nplatforms = ['linux/amd64', 'linux/arm64']\nfiles = [{ from = 'amd64/app', to = '/bin/other' }]";
    let made = value(&world, text).unwrap();
    let (all, under) = (layout::read_all(&world.cache.cas, &made).unwrap(), read(&world, &base));
    assert_eq!(under.names, ["example.com/x:1"]);
    let platforms: Vec<String> = all.images().map(|image| image.config().platform.to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let lowest: Vec<Digest> = all.images().map(|image| image.layers()[0].diff_id).collect();
    assert_ne!(lowest[0], lowest[1]);
    assert_eq!(all.others[0].layers()[1].diff_id, all.image.layers()[1].diff_id);
    let on_arm = layout::read_for(&world.cache.cas, &base, &arm).unwrap().image;
    assert_eq!(on_arm.layers()[0].diff_id, lowest[1]);

    // A node gets what is made for it, under the name of all.
    let whole = shipped::read(&world.cache.cas, &made, "r").unwrap().image;
    assert_eq!(whole.content_tags, [format!("r:vc-{}", &all.top().digest.hex()[..16])]);
    assert_eq!((whole.blobs.len(), whole.variants.len()), (8, 2));
    let amd = &whole.variants[0];
    assert_eq!(amd.descriptor["digest"], all.image.descriptor().digest.to_string());
    let own = whole.only("linux/amd64");
    assert_eq!(
        (&own.content_tags, &own.descriptor, own.blobs.len()),
        (&whole.content_tags, &amd.descriptor, 4)
    );

    // One platform is an image, whatever this machine is.
    let one = value(&world, "base = 'image.base'\nplatforms = ['linux/arm64']\ncmd = ['x']").unwrap();
    assert_eq!(read(&world, &one).image.config().platform, arm);
    assert_eq!(
        told(&world, "base = 'image.base'\nplatforms = ['linux/s390x']"),
        "the layout has no image for `linux/s390x`"
    );
}

#[test]
fn wrong_tables_are_mistakes() {
    let world = world();
    for (field, message) in [
        ("files = [{ to = '/x' }]", "nothing is said to go to `/x`"),
        ("files = [{ from = 'a', link = 'b', to = '/x' }]", "what goes to `/x` is said twice"),
        ("files = [{ link = 'b', to = '/x/' }]", "`/x/` is a folder, and a link is a name"),
        ("files = [{ link = '', to = '/x' }]", "a link leads nowhere"),
        ("files = [{ link = 'b', to = '/x', mode = '0644' }]", "a link has no mode"),
        ("files = [{ to = '/' }]", "the root is no place for a single thing"),
        ("files = [{ to = '/../x/' }]", "`/../x/` is not a place for a file"),
        ("files = [{ to = '/x/', mode = '8' }]", "`8` is not a mode"),
        ("files = [{ to = '/x/', path = 'y' }]", "`path` chooses from a `from`, and there is none"),
        ("files = [{ to = '/x/', capabilities = ['kill'] }]", "only files have capabilities"),
        ("files = [{ from = 'a', to = '/x/', capabilities = ['net'] }]", "`net` is not a capability"),
        ("files = [{ from = 'a', to = '/x/', owner = 'a b' }]", "`a b` is not an owner"),
        ("files = [{ from = 'a', to = '/x/', strip_prefix = '../b' }]", "`../b` is not a folder in `a`"),
        ("files = [{ url = 'https://h/x', to = '/x/' }]", "a `url` needs the `sha256` of its file"),
        ("files = [{ url = 'https://h/x', sha256 = 'abc', to = '/x/' }]", "`abc` is no SHA-256"),
        (
            "files = [{ from = 'a', sha256 = 'abc', to = '/x/' }]",
            "`sha256` belongs to a `url`, and there is none",
        ),
        ("remove = ['etc']", "`etc` cannot be removed"),
        ("remove = ['/']", "`/` cannot be removed"),
        ("remove = ['/etc']", "`/etc` cannot be removed: `scratch` has nothing"),
        ("users = [{ name = '1', uid = 1 }]", "`1` cannot name a user"),
        ("users = [{ name = 'a', uid = 4294967295 }]", "4294967295 is no number of a user or group"),
        ("users = [{ name = 'a', uid = 1, home = 'h' }]", "`h` is not an absolute path"),
        ("layer_size = '64'", "`64` is not a size"),
        ("layer_size = '5X'", "`5X` is not a size"),
        ("env = { 'A=B' = '1' }", "`A=B` cannot be an environment variable"),
        ("labels = { '' = '1' }", "a label has no name"),
        ("user = 'a b'", "`a b` is no user"),
        ("workdir = 'x'", "the working folder `x` is not an absolute path"),
        ("ports = [0]", "`0` is no port"),
        ("ports = ['80/x']", "`80/x` is no port"),
        ("volumes = ['x']", "the volume `x` is not an absolute path"),
        ("stop_signal = 'TERM'", "`TERM` is no signal"),
        ("healthcheck = { test = [] }", "`test` is not a health check"),
        ("healthcheck = { test = 'x', interval = '5' }", "`5` is not a time"),
        ("platforms = ['arm64']", "`arm64` is not a platform"),
        ("platforms = ['linux/arm64', 'linux/arm64/v8']", "the platform `linux/arm64/v8` is there twice"),
        (
            "platforms = ['linux/arm64']\nfiles = [{ to = '/x/', platform = 'linux/amd64' }]",
            "the image is not made for `linux/amd64`",
        ),
        ("created = 'yesterday'", "`yesterday` is not a time"),
        ("created = -1", "`-1` is not a time"),
    ] {
        let mut table: Image = toml::from_str(&format!("base = 'scratch'\n{field}")).unwrap();
        assert_eq!(world.resolve(&mut table), [message], "{field}");
    }
    for url in ["ftp://x/y", "https://", "x", "https://a b/c"] {
        let text = format!(
            "base = 'scratch'\nfiles = [{{ url = '{url}', sha256 = '{}', to = '/x' }}]",
            "0".repeat(64)
        );
        let mut table: Image = toml::from_str(&text).unwrap();
        assert_eq!(world.resolve(&mut table), [format!("`{url}` is no address of a file")]);
    }
    let text = format!(
        "base = 'scratch'\nfiles = [{{ url = 'https://me:secret@h/x', sha256 = '{}', to = '/x' }}]",
        "0".repeat(64)
    );
    let mut table: Image = toml::from_str(&text).unwrap();
    assert_eq!(world.resolve(&mut table), ["a `url` of `test.task` has a user or password in it"]);
}
