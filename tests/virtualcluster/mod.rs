//! The project at the root: its `vcbuild.toml`, patches and templates, all the way to nodes and a cluster that
//! are folders. Upstream is a stand-in; everything else is what users have.

mod machines;
mod templates;
mod upstream;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::support::{Done, Project, folder};

/// All that a run does, in `--profile local`.
const ALL: [&str; 17] = [
    "clone.source",
    "patch.patched",
    "compile.bin[kubectl-vc]",
    "compile.bin[manager]",
    "compile.bin[syncer]",
    "compile.bin[vn-agent]",
    "compile.plugin",
    "image.component[manager]",
    "image.component[syncer]",
    "image.component[vn-agent]",
    "save.archive[manager]",
    "save.archive[syncer]",
    "save.archive[vn-agent]",
    "upload.archives",
    "upload.plugin",
    "import.workers",
    "deploy.preview",
];

const WORKERS: [&str; 4] = ["node1", "node2", "node3", "node4"];

/// The folder of Go's program itself; what is called `go` may be a script that calls it.
static GO: LazyLock<PathBuf> = LazyLock::new(|| {
    let tools = root().join("target/tools/go/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = std::env::split_paths(&path).chain([PathBuf::from("/usr/local/go/bin"), tools]);
    let folder = all.find(|folder| folder.join("go").exists());
    let folder = folder.expect("Go is not installed: `tests/run` does that");
    let mut go = Command::new(folder.join("go"));
    let output = go.args(["env", "GOROOT"]).env("GOTOOLCHAIN", "local").output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()).join("bin")
});

/// What Go has compiled of its own library: it is the same for all tests.
static LIBRARY: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let mut go = Command::new(GO.join("go"));
    go.args(["build", "-trimpath", "fmt", "net", "os"]).current_dir(folder.path());
    go.env_clear().env("PATH", "/usr/bin:/bin").env("CGO_ENABLED", "0").env("HOME", folder.path());
    go.env("GOCACHE", folder.path().join("built")).env("GOTOOLCHAIN", "local");
    let output = go.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// A copy of the project, all of it on this machine.
fn project() -> Project {
    project_of("--profile local")
}

/// A copy of the project, with the stand-in beside it.
fn project_of(options: &str) -> Project {
    let project = Project::new();
    fs::copy(root().join("vcbuild.toml"), project.path("vcbuild.toml")).unwrap();
    for name in ["patches", "templates"] {
        folder::copy(&root().join(name), &project.path(name));
    }
    upstream::repository(project.beside("upstream"));
    folder::copy(&LIBRARY.path().join("built"), &project.cache("keep/go-build"));
    project.settle();
    let path = format!("{}:/usr/bin:/bin", GO.display());
    let upstream = "--set source_repo=../upstream --set source_version=main --set go_builds=2";
    project.env("PATH", path).options(upstream).options(options)
}

/// What a program that was built says.
fn says(project: &Project, program: &str) -> String {
    project.call(&format!("get compile.bin[{program}] -o said/")).success();
    let output = Command::new(project.path("said").join(program)).arg("--version").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The first line of `show` for an image: its digest.
fn digest(project: &Project, component: &str) -> String {
    let shown = project.call(&format!("show image.component[{component}]")).success().text();
    shown.lines().next().unwrap().to_string()
}

fn object(project: &Project, path: &str) -> String {
    project.read(format!("out/preview/objects/{path}.yaml"))
}

#[test]
fn from_source_to_nodes_and_objects() {
    let project = project();
    fs::create_dir(project.path("said")).unwrap();
    project.run("").success().did(&ALL);

    let version = "v1.0.0+p1.p2.p3.p4.p5-main 1970-01-01T00:00:00Z";
    let manager = format!(
        "manager {version}\n[--initial-cluster etcd-0=https://etcd-0.svc:2380,etcd-1=https://etcd-1.svc:2380] in tenant\n\
         [https://10.0.0.1:6443 https://[fd00::1]:6443 https://name.example:6443]\nFailed true\n"
    );
    assert_eq!(says(&project, "manager"), manager);
    assert_eq!(says(&project, "syncer"), format!("syncer {version}\nFailed true\n"));
    assert_eq!(says(&project, "vn-agent"), format!("vn-agent {version}\ntrue\n"));

    // What is where.
    let shown = project.call("show image.component[manager]").success().text();
    assert!(shown.contains("vcbuild: /app and 1 more") && shown.contains("65532:65532"), "{shown}");
    let plugin = project.path("nodes/here/files/usr/local/bin/kubectl-vc");
    assert_eq!(plugin.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    let archives = folder::files(&project.path("nodes/node0/files/tmp/vc-images"));
    let names: Vec<_> = archives.iter().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["vc_manager-amd64.tar", "vc_syncer-amd64.tar", "vc_vn-agent-amd64.tar"]);
    assert!(!project.path("nodes/node0/images/blobs").exists(), "the control plane gets archives only");
    for node in WORKERS {
        let index = project.read(format!("nodes/{node}/images/index.json"));
        for component in ["manager", "syncer", "vn-agent"] {
            assert!(
                index.contains(&format!("docker.io/virtualcluster/{component}-amd64:latest")),
                "{index}"
            );
            assert!(index.contains(&format!("docker.io/virtualcluster/{component}-amd64:vc-")), "{index}");
        }
        folder::assert_same(&project.path("nodes/node1"), &project.path("nodes").join(node));
    }
    for (object_path, component) in [
        ("vc-manager/Deployment.apps/vc-manager", "manager"),
        ("vc-manager/Deployment.apps/vc-syncer", "syncer"),
        ("vc-manager/DaemonSet.apps/vn-agent", "vn-agent"),
    ] {
        let text = object(&project, object_path);
        assert!(text.contains(&format!("docker.io/virtualcluster/{component}-amd64:vc-")), "{text}");
        assert!(text.contains("imagePullPolicy: Never") && !text.contains(":latest"), "{text}");
    }
    let nothing_of_ours = object(&project, "_cluster/ClusterVersion.tenancy.x-k8s.io/cv-k8s-1-31");
    assert!(nothing_of_ours.contains("registry.k8s.io/etcd:3.5.15-0"), "{nothing_of_ours}");
    assert!(!nothing_of_ours.contains("imagePullPolicy"), "{nothing_of_ours}");
    project.run("").nothing();
    project.run("inputs").success();
}

#[test]
fn each_edit_runs_what_it_touches() {
    let project = project();
    project.run("").success();
    let digests = |project: &Project| ["manager", "syncer", "vn-agent"].map(|name| digest(project, name));
    let before = digests(&project);

    // A comment: no line moves, so what is compiled is the same.
    project.edit("patches/0003-kubeconfig-host-names.patch", |text| {
        text.replace("// is ipv4, or a host name", "// is ipv4, or any name")
    });
    project.run("").success().did(&["patch.patched", "compile.bin[manager]"]);
    // The words above a diff.
    project.edit("patches/0001-provisioner-etcd-and-services.patch", |text| format!("More of it.\n{text}"));
    project.run("").success().did(&["patch.patched"]);
    assert_eq!(digests(&project), before);

    // What only the agent is made of.
    project.edit("patches/0005-vn-agent-missing-file.patch", |text| {
        text.replace("return err != nil || fi.Size() == 0", "return err == nil && fi.Size() == 0")
    });
    project.run("").success().did(&[
        "patch.patched",
        "compile.bin[vn-agent]",
        "image.component[vn-agent]",
        "save.archive[vn-agent]",
        "upload.archives",
        "import.workers",
        "deploy.preview",
    ]);
    let after = digests(&project);
    assert!(after[..2] == before[..2] && after[2] != before[2]);

    // What all but the agent are made of.
    project.edit("patches/0004-service-cluster-ips.patch", |text| {
        text.replace("ClusterIPs = nil", "ClusterIPs = s.pService.Spec.ClusterIPs[:0]")
    });
    project.run("").success().did(&[
        "patch.patched",
        "compile.bin[kubectl-vc]",
        "compile.bin[manager]",
        "compile.bin[syncer]",
        "compile.plugin",
        "image.component[manager]",
        "image.component[syncer]",
        "save.archive[manager]",
        "save.archive[syncer]",
        "upload.archives",
        "upload.plugin",
        "import.workers",
        "deploy.preview",
    ]);

    // A node that is lost.
    project.remove("nodes/node2");
    let done = project.run("").success().did(&["import.workers"]);
    assert!(done.sent("import.workers")["node2"] > 0 && done.sent("import.workers")["node1"] == 0);
}

#[test]
fn two_folders_and_caches_give_the_same_bytes() {
    let (one, other) = (project(), project());
    for project in [&one, &other] {
        project.run("upload import").success();
    }
    for component in ["manager", "syncer", "vn-agent"] {
        assert_eq!(digest(&one, component), digest(&other, component));
    }
    folder::assert_same(&one.path("nodes"), &other.path("nodes"));
}

#[test]
fn inputs_that_are_too_wide_or_too_narrow_are_named() {
    let wide = project();
    wide.edit("vcbuild.toml", |text| {
        text.replace(
            "vn-agent = [\n",
            "vn-agent = [\n  \"virtualcluster/pkg/apis/tenancy/v1alpha1/*.go\",\n",
        )
    });
    let done: Done<'_> = wide.run("compile.inputs").failure(1);
    assert!(done.stderr.contains("< pkg/apis/tenancy/v1alpha1"), "{}", done.stderr);
    let narrow = project();
    narrow.edit("vcbuild.toml", |text| {
        text.replace("  \"virtualcluster/pkg/controller/{constants,kubeconfig,pki,secret}/*.go\",\n", "")
    });
    let done = narrow.run("compile.inputs").failure(1);
    assert!(done.stderr.contains("> pkg/controller/kubeconfig"), "{}", done.stderr);
}

#[test]
fn images_in_a_cluster_version_become_content_tags() {
    let project = project().options("--set etcd_image=docker.io/virtualcluster/syncer-amd64:latest");
    project.run("deploy").success();
    let text = object(&project, "_cluster/ClusterVersion.tenancy.x-k8s.io/cv-k8s-1-31");
    assert!(text.contains("image: docker.io/virtualcluster/syncer-amd64:vc-"), "{text}");
    assert_eq!(text.matches("imagePullPolicy: Never").count(), 1, "{text}");
}

#[test]
fn the_plugin_is_not_given_to_anybody_if_it_says_another_version() {
    let project = project();
    project.edit("vcbuild.toml", |text| text.replace("gitVersion={{ version }}", "gitVersion=v0.9.9"));
    let done = project.run("upload.plugin").failure(1);
    assert!(done.stderr.contains("compile.plugin"), "{}", done.stderr);
    assert!(!project.path("nodes/here/files").exists());
}

#[test]
fn the_project_at_the_root_is_in_order() {
    let project = Project::new();
    let root = root();
    let cache = project.beside("cache");
    for profile in ["", "--profile local", "--profile role", "--profile remote-build"] {
        let at = format!("--dir {} --cache {} {profile}", root.display(), cache.display());
        let done = project.call(&format!("{at} check")).success();
        assert!(done.text().contains("patch.patched: not checked: not fetched"), "{}", done.text());
    }
    // Each patch says what it does, and why, and is in what `--version` says.
    let mut patches = folder::files(&root.join("patches"));
    patches.sort();
    let numbers: Vec<_> = (1..=patches.len()).map(|number| format!("p{number}")).collect();
    let config = fs::read_to_string(root.join("vcbuild.toml")).unwrap();
    assert!(config.contains(&format!("patch_set      = \"{}\"", numbers.join("."))));
    for name in patches {
        let text = fs::read_to_string(root.join("patches").join(&name)).unwrap();
        let head = text.split("diff --git").next().unwrap();
        for word in ["What: ", "Why: ", "Evidence: "] {
            assert!(head.contains(word), "`{}` does not say `{word}`", name.display());
        }
    }
    let ignored = fs::read_to_string(root.join("cache/.gitignore")).unwrap();
    assert_eq!(ignored, "*\n!.gitignore\n");
}
