//! The same file with machines in place of folders: sshd and containerd as Debian has them, no profile.

use std::fs;

use super::{ALL, GO, LIBRARY, project_of, says};
use crate::rig::{self, Kind, Node};
use crate::support::folder;

#[test]
fn machines_get_archives_plugin_and_images_that_run() {
    let control = Node::new("ctrlplane", Kind::Plain);
    let workers = [Node::new("worker1", Kind::Containerd), Node::new("worker2", Kind::Containerd)];
    let nodes = [&control, &workers[0], &workers[1]];
    let project = project_of(
        "--set base=scratch --set images_dir=/srv/images --set plugin_dir=/srv/bin --set ssh_user=root",
    );
    // Only how the machines are reached is another thing here.
    project.edit("vcbuild.toml", |text| {
        let reached = regex::Regex::new(r#"ssh +=.*@k8s[a-z0-9]*""#).unwrap();
        let (head, tables) = text.split_once("[host.ctrlplane]").unwrap();
        let mut tables = format!("[host.ctrlplane]{tables}");
        for node in nodes {
            let way = format!("ssh = \"{}\"\nssh_config = \"ssh_config\"", node.name);
            tables = reached.replace(&tables, way).into_owned();
        }
        format!("{head}{tables}")
    });
    rig::introduce(&project, &nodes, "root");

    let done = project.run("").success().did(&ALL);
    let sent = done.sent("import.workers");
    assert!(sent["worker1"] > 0 && sent["worker1"] == sent["worker2"], "{sent:?}");
    let names = control.sh("ls /srv/images && stat -c %a /srv/bin/kubectl-vc && /srv/bin/kubectl-vc");
    assert_eq!(
        names,
        "vc_manager-amd64.tar\nvc_syncer-amd64.tar\nvc_vn-agent-amd64.tar\n755\n\
         kubectl-vc version v1.0.0+p1.p2.p3.p4.p5-main 1970-01-01T00:00:00Z\n"
    );
    for worker in &workers {
        for component in ["manager", "syncer", "vn-agent"] {
            let tag = format!("docker.io/virtualcluster/{component}-amd64:latest");
            let said = worker.sh(&format!("ctr -n k8s.io run --rm --snapshotter overlayfs {tag} t$$"));
            assert!(said.starts_with(&format!("{component} v1.0.0+p1")), "{said}");
        }
    }
    project.run("").nothing();

    // What the agent alone is made of: of three images one moves.
    project.edit("patches/0005-vn-agent-missing-file.patch", |text| {
        text.replace("return err != nil || fi.Size() == 0", "return err == nil && fi.Size() == 0")
    });
    let less = project.run("").success().sent("import.workers");
    assert!(less["worker1"] * 2 < sent["worker1"], "{less:?} of {sent:?}");
}

#[test]
fn a_build_host_makes_what_this_machine_would() {
    let builder = Node::new("builder", Kind::Plain);
    let project = project_of("--profile remote-build");
    project.edit("vcbuild.toml", |text| {
        let go = GO.join("go").display().to_string();
        let text = text.replace("\"/usr/local/go/bin/go\"", &format!("\"{go}\""));
        text.replace("\"{{ ssh_user }}@k8sbuilder01\"", "\"builder\"\nssh_config = \"ssh_config\"")
    });
    rig::introduce(&project, &[&builder], "ops");
    let kept = builder.path("home/ops/.cache/vcbuild/keep/go-build");
    fs::create_dir_all(&kept).unwrap();
    folder::copy(&LIBRARY.path().join("built"), &kept);
    builder.sh("chown -R ops:ops /home/ops/.cache");
    let programs =
        ["kubectl-vc", "manager", "syncer", "vn-agent"].map(|name| format!("compile.bin[{name}]"));
    let all = ["clone.source", "patch.patched"].into_iter().chain(programs.iter().map(String::as_str));
    project.run("compile.bin").success().did(&all.collect::<Vec<_>>());
    fs::create_dir(project.path("said")).unwrap();
    assert!(says(&project, "syncer").starts_with("syncer v1.0.0+p1"));
    project.run("compile.bin").nothing();
    // This machine with the same Go has nothing to do.
    project.run("compile.bin --set build_host= --set go=go").success().did(&[]);
    project.edit("patches/0005-vn-agent-missing-file.patch", |text| {
        text.replace("return err != nil || fi.Size() == 0", "return err == nil && fi.Size() == 0")
    });
    project.run("compile.bin").success().did(&["patch.patched", "compile.bin[vn-agent]"]);
    builder.quiet();
}
