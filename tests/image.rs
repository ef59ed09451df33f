//! Images as other people's programs see them: the same files and config through umoci and through us
//! unpack to the same tree; the digest depends on nothing but what is in the image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::Project;

/// Runs somebody else's program in a folder.
fn tool(folder: &Path, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}; apt-get install skopeo umoci"));
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {out}{error}");
    out.into_owned()
}

/// Everything below a folder: type, mode, owner, time, extended attributes, content or target.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(path) = open.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let content = if data.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if data.is_symlink() {
            fs::read_link(&path).unwrap().to_string_lossy().into_owned()
        } else {
            String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
        };
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
        let mut xattrs: Vec<String> = Vec::new();
        for key in names[..length].split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            let mut value = vec![0; 4096];
            let key = String::from_utf8_lossy(key).into_owned();
            let length = rustix::fs::lgetxattr(&path, key.as_str(), &mut value[..]).unwrap();
            xattrs.push(format!("{key}={:?}", &value[..length]));
        }
        xattrs.sort();
        let (mode, mtime) = (data.mode(), data.mtime());
        // The root is no part of a layer.
        if !name.is_empty() {
            all.insert(
                name,
                format!("{mode:o} {}:{} {mtime} {xattrs:?} {content}", data.uid(), data.gid()),
            );
        }
    }
    all
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Makes a base with umoci: `base/`, tag `b`, with folders of odd modes, owners and times.
fn umoci_base(project: &Project) {
    let root = project.path("rootfs");
    for folder in ["usr/bin", "tmp", "etc", "opt/odd"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/motd"), "hello\n").unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(root.join("opt/odd"), fs::Permissions::from_mode(0o2750)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(root.join("opt/odd"), Some(7), Some(8)).unwrap();
    }
    tool(&root, "touch -h -d @86400 etc/passwd etc/motd bin usr/bin usr tmp etc opt/odd opt");
    let dir = project.path("");
    tool(&dir, "umoci init --layout base");
    tool(&dir, "umoci new --image base:b");
    tool(
        &dir,
        "umoci config --image base:b --architecture amd64 --os linux --config.env A=1 --config.cmd sh",
    );
    insert(&dir, "base:b", "rootfs", "/");
    fs::remove_dir_all(root).unwrap();
}

fn rootless() -> &'static str {
    if is_root() { "" } else { " --rootless" }
}

fn insert(dir: &Path, image: &str, from: &str, to: &str) {
    tool(dir, &format!("umoci insert{} --image {image} {from} {to}", rootless()));
}

fn unpacked(dir: &Path, image: &str, to: &str) -> BTreeMap<String, String> {
    tool(dir, &format!("umoci unpack{} --image {image} {to}", rootless()));
    tree(&dir.join(to).join("rootfs"))
}

const CONFIG: &str = r#"
[image.x]
base = "oci:base"
remove = ["/etc/motd"]
files = [
  { from = "app", to = "/bin/app", mode = "0755" },
  { from = "conf", to = "/opt/odd/conf/", owner = "OWNER" },
  { from = "app", to = "/tmp/", mode = "4711" },
  { link = "../bin/app", to = "/usr/sbin/app" },
]
env = { B = "2" }
entrypoint = ["/bin/app"]
user = "65532"
workdir = "/tmp"
labels = { l = "v" }
ports = [8080]
volumes = ["/data"]
stop_signal = "SIGINT"
"#;

#[test]
fn umoci_makes_the_same_tree() {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let owner = if is_root() { "web:50" } else { "0:0" };
    let project = Project::new().config(&CONFIG.replace("OWNER", owner));
    project.write("app", "#!/bin/sh\n");
    project.write("conf/a.conf", "a\n");
    project.write("conf/deep/ü", "b\n");
    umoci_base(&project);
    let dir = project.path("");
    project.call("get image.x -o ours").success();

    // The same by hand: each file as it is to be, with the time that we give.
    let their = project.path("their");
    fs::create_dir_all(their.join("conf/deep")).unwrap();
    for (path, text, mode) in [
        ("app", "#!/bin/sh\n", 0o755),
        ("suid", "#!/bin/sh\n", 0o4711),
        ("conf/a.conf", "a\n", 0o644),
        ("conf/deep/ü", "b\n", 0o644),
    ] {
        fs::write(their.join(path), text).unwrap();
        fs::set_permissions(their.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("../bin/app", their.join("link")).unwrap();
    fs::create_dir(their.join("sbin")).unwrap();
    fs::rename(their.join("link"), their.join("sbin/app")).unwrap();
    if is_root() {
        for path in ["conf", "conf/deep", "conf/a.conf", "conf/deep/ü"] {
            let (uid, gid) = if path == "conf" { (0, 0) } else { (33, 50) };
            std::os::unix::fs::chown(their.join(path), Some(uid), Some(gid)).unwrap();
        }
    }
    tool(&their, "touch -h -d @0 app suid conf/a.conf conf/deep/ü conf/deep conf sbin/app sbin");
    tool(&dir, "umoci tag --image base:b t");
    tool(&dir, &format!("umoci insert{} --whiteout --image base:t /etc/motd", rootless()));
    insert(&dir, "base:t", "their/app", "/usr/bin/app");
    insert(&dir, "base:t", "their/conf", "/opt/odd/conf");
    insert(&dir, "base:t", "their/suid", "/tmp/app");
    insert(&dir, "base:t", "their/sbin", "/usr/sbin");
    let tag = "vcbuild.local/x";
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(project.path("ours/index.json")).unwrap()).unwrap();
    assert!(index["manifests"][0]["annotations"].is_null(), "{index}");
    tool(&dir, &format!("skopeo copy -q oci:ours oci:copied:{tag}"));
    let (ours, theirs) = (unpacked(&dir, &format!("copied:{tag}"), "o"), unpacked(&dir, "base:t", "t"));
    for name in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(name), theirs.get(name), "{name}");
    }
    assert!(ours.contains_key("usr/bin/app") && !ours.contains_key("etc/motd") && ours.len() > 12);

    let config: serde_json::Value =
        serde_json::from_str(&tool(&dir, "skopeo inspect --config oci:ours")).unwrap();
    assert_eq!(config["config"]["Env"][0], "A=1");
    assert_eq!(config["config"]["Entrypoint"][0], "/bin/app");
    assert_eq!(config["config"]["ExposedPorts"]["8080/tcp"], serde_json::json!({}));
    assert_eq!(config["config"]["StopSignal"], "SIGINT");
    assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"amd64".into()));
}

#[test]
fn capabilities_are_what_the_kernel_reads() {
    let config = "[image.x]\nbase = 'scratch'\nfiles = [{ from = 'app', to = '/app', mode = '0755', capabilities = ['net_bind_service'] }]\n";
    let project = Project::new().config(config);
    project.write("app", "x");
    project.call("get image.x -o ours").success();
    let dir = project.path("");
    tool(&dir, "skopeo copy -q oci:ours oci:copied:x");
    if is_root() {
        let tree = unpacked(&dir, "copied:x", "o");
        assert!(tree["app"].contains("security.capability=[1, 0, 0, 2, 0, 4, 0, 0,"), "{tree:?}");
    }
}

#[test]
fn several_platforms_are_read_by_skopeo() {
    let config = r#"
[image.x]
base = "scratch"
platforms = ["linux/amd64", "linux/arm64"]
tags = ["example.com/x:1"]
files = [
  { from = "app", to = "/app" },
  { from = "arm", to = "/arm", platform = "linux/arm64" },
]
[save.a]
images = ["image.x"]
format = "oci-archive"
[save.d]
images = ["image.x"]
format = "docker-archive"
[host.n]
local = "n"
[import.n]
images = ["image.x"]
hosts = "n"
"#;
    let project = Project::new().config(config);
    project.write("app", "x");
    project.write("arm", "y");
    project.call("get save.a -o a.tar").success();
    let dir = project.path("");
    for (architecture, layers) in [("amd64", 1), ("arm64", 2)] {
        let text = tool(
            &dir,
            &format!("skopeo inspect --override-arch {architecture} oci-archive:a.tar:example.com/x:1"),
        );
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["Architecture"], architecture);
        assert_eq!(found["Layers"].as_array().unwrap().len(), layers);
    }
    tool(&dir, "skopeo copy -q --all oci-archive:a.tar:example.com/x:1 oci:all:x");
    let refused = project.call("get save.d -o d.tar").failure(1).stderr;
    assert!(refused.contains("is for several platforms"), "{refused}");
    project.run("import.n").success();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(project.path("n/images/index.json")).unwrap()).unwrap();
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(entry["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    }
    project.settle();
    project.run("import.n").nothing();
    // All platforms are shown, or one.
    let config = "{\n  \"architecture\"";
    let shown = project.call("show image.x").success().text();
    let parts: Vec<&str> = shown.split("\n\n").collect();
    let heads: Vec<&str> = parts.iter().map(|part| part.split(config).next().unwrap()).collect();
    snapbox::assert_data_eq!(
        heads.join("\n"),
        snapbox::str![[r#"
digest    sha256:[..]
name      example.com/x:1
digest    sha256:[..]
platform  linux/amd64
size      2.0 kB in 1 layer
layer     sha256:[..]  2.0 kB  plain  from app

digest    sha256:[..]
platform  linux/arm64
size      4.1 kB in 2 layers
layer     sha256:[..]  2.0 kB  plain  from app
layer     sha256:[..]  2.0 kB  plain  from arm

"#]]
    );
    let data = |arguments: &str| -> serde_json::Value {
        serde_json::from_str(&project.call(&format!("show image.x --json {arguments}")).success().text())
            .unwrap()
    };
    let all = data("--files");
    assert_eq!(all["names"], serde_json::json!(["example.com/x:1"]));
    let arm = data("--files --platform linux/arm64");
    assert_eq!(all["images"][1]["layers"], arm["layers"]);
    assert_eq!(arm["layers"][1]["files"][0]["path"], "arm");
    assert_eq!(arm["names"], all["names"]);
    let refused = project.call("show image.x --platform linux/s390x").failure(1).stderr;
    assert!(refused.contains("no image for `linux/s390x`"), "{refused}");
    let against = project.call("show image.x --against a.tar").success().text();
    assert_eq!(against.matches("to fetch  0 B in 0 layers").count(), 2, "{against}");
}

const EVERYTHING: &str = r#"
[image.base]
base = "scratch"
files = [{ from = "etc", to = "/etc/" }, { to = "/tmp/", mode = "1777" }]
[image.x]
base = "image.base"
remove = ["/etc/gone"]
users = [{ name = "app", uid = 1000, home = "/home/app" }]
ca_certificates = "ca.pem"
layer_size = "1M"
files = [
  { from = "many", to = "/srv/", owner = "app" },
  { from = "many/1", to = "/usr/bin/app", mode = "0755", capabilities = ["net_raw"] },
  { link = "/usr/bin/app", to = "/app" },
]
env = { A = "1" }
annotations = { a = "b" }
healthcheck = { test = ["CMD", "/app"], interval = "30s" }
created = "2026-01-31T12:00:00Z"
tags = ["example.com/x:1"]
"#;

fn everything(at: &Project) -> String {
    at.write("etc/gone", "x");
    at.write("ca.pem", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
    for n in 0..300 {
        at.write(&format!("many/{n}"), &format!("{n}\n").repeat(3000));
    }
    at.write(&format!("many/{}/{}", "d".repeat(150), "ü".repeat(60)), "long\n");
    at.call("get image.x -o out").success();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(at.path("out/index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_string()
}

#[test]
fn the_digest_depends_on_what_is_in_it_only() {
    let one = Project::new().config(EVERYTHING);
    let first = everything(&one);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(first, "sha256:00c5b7c951c54df911330e9b1a1608f1f657b388b6910946019ff623158b71aa");
    }
    // Elsewhere, in another order, with other modes that git does not keep, and other times.
    let other = Project::new().config(EVERYTHING);
    for n in (0..300).rev() {
        other.write(&format!("many/{n}"), &format!("{n}\n").repeat(3000));
        let mode = fs::Permissions::from_mode(if n % 2 == 0 { 0o600 } else { 0o664 });
        fs::set_permissions(other.path(format!("many/{n}")), mode).unwrap();
    }
    assert_eq!(everything(&other), first);
    // With another user, language, zone, mask and number of threads.
    let other = other
        .env("RAYON_NUM_THREADS", "1")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("TZ", "Asia/Tokyo")
        .env("USER", "somebody");
    fs::remove_dir_all(other.path("cache")).unwrap();
    let command = other.command(&["get", "image.x", "-o", "masked"]);
    let masked = Command::new("sh")
        .args(["-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(other.root())
        .output()
        .unwrap();
    assert!(masked.status.success(), "{}", String::from_utf8_lossy(&masked.stderr));
    let index = fs::read_to_string(other.path("masked/index.json")).unwrap();
    assert!(index.contains(&first), "{index}");
}
