//! Getting at machines: keys, absent ones, and what is left behind.

use std::fs;
use std::time::{Duration, Instant};

use crate::rig::{self, Kind, Node};
use crate::support::servers::Line;
use crate::support::{Project, memory};

const UPLOAD: &str = "[upload.u]\nfrom = ['data']\nhosts = 'nodes'\ndir = '/srv/x'\n";

fn project(nodes: &[&Node], more: &str) -> Project {
    let project = Project::new().config(&format!("{}{UPLOAD}", rig::hosts(nodes, more)));
    rig::introduce(&project, nodes, "root");
    project.write("data", "data");
    project
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
}

#[test]
fn keys_are_checked() {
    let mut node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "");
    project.write("known_hosts", "");
    says(
        &project.run("u").failure(1).stderr,
        &["the host key of `n` is not known", "hint: `vcbuild hosts trust n`"],
    );
    // Known by a name that is the host's in the project, not by where it is.
    rig::introduce(&project, &[&node], "root");
    project.run("u").success();
    node.rebuild();
    says(
        &project.run("u").failure(1).stderr,
        &[
            "`n` shows another host key than the one that is known",
            "hint: if the machine was rebuilt: `vcbuild hosts trust n`",
        ],
    );
    let done = project.call("hosts trust n").success();
    let fingerprint = String::from_utf8(
        std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(node.path("host.pub"))
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let fingerprint = fingerprint.split(' ').nth(1).unwrap().to_string();
    says(&done.text(), &[&fingerprint]);
    project.run("u").success();
    assert_eq!(project.read("known_hosts"), node.known());
    says(&project.call("hosts trust n").success().text(), &["known already"]);
    // A stranger.
    project.edit("ssh_config", |text| text.replace("/mine\n", "/stranger\n"));
    says(&project.run("u").failure(1).stderr, &["`n` does not let us in as `n`", "hint: ssh has no key"]);
}

#[test]
fn a_pinned_key_is_the_only_one() {
    let node = Node::new("n", Kind::Plain);
    let key = fs::read_to_string(node.path("host.pub")).unwrap();
    let other = fs::read_to_string(node.path("mine.pub")).unwrap();
    let project = project(&[&node], &format!("host_key = '{}'", key.trim()));
    project.write("known_hosts", "");
    project.run("u").success();
    project.edit("vcbuild.toml", |text| text.replace(key.trim(), other.trim()));
    says(&project.run("u").failure(1).stderr, &["`n` shows another host key than the one that is known"]);
    project.edit("vcbuild.toml", |text| text.replace(other.trim(), "accept-new"));
    project.run("u").success();
    assert_eq!(project.read("known_hosts").lines().count(), 1);
}

#[test]
fn who_is_away_is_deferred_and_the_others_are_done() {
    let (a, mut b) = (Node::new("a", Kind::Plain), Node::new("b", Kind::Plain));
    let project = project(&[&a, &b], "");
    b.kill();
    let done = project.run("u").failure(3);
    says(&done.stderr, &["b", "Connection refused"]);
    let ends: Vec<String> = done.event("upload.u")["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|end| end["outcome"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(ends, ["applied", "deferred"]);
    b.start();
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("a".to_string(), 0), ("b".to_string(), 4)].into());
    // A host that takes calls and says nothing.
    b.kill();
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rig::introduce_by(&project, &[&a, &b], "root", &[a.port, deaf.local_addr().unwrap().port()]);
    let began = Instant::now();
    let done = project.run("u").failure(3);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert_eq!(done.sent("upload.u")["a"], 0);
}

#[test]
fn nothing_is_left_here() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "");
    let ours = || {
        let names =
            fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("vcbuild-ssh-")).collect::<Vec<_>>()
    };
    let mut child = project.command(&["run", "u"]).spawn().unwrap();
    let id = child.id().to_string();
    child.wait().unwrap();
    assert!(!ours().iter().any(|name| name.split('-').nth(2) == Some(id.as_str())));
    node.quiet();
}

#[test]
fn wrong_tables_are_mistakes() {
    let project = Project::new().config(
        "[host.a]\nssh = '-oProxyCommand=x'\n[host.b]\n[host.c]\nssh = 'x'\nlocal = 'y'\n\
         [host.d]\nlocal = 'y'\nsudo = true\n[host.e]\nssh = 'x'\nhost_key = 'no'\n\
         [upload.u]\nfrom = ['vcbuild.toml']\nhosts = ['a', 'b', 'c', 'd', 'e']\ndir = '/x'\n",
    );
    let said = project.call("list").failure(2).stderr;
    says(
        &said,
        &[
            "`-oProxyCommand=x` is not a host for ssh",
            "`host.b` is nowhere",
            "`local` and `ssh` exclude each other",
            "`sudo` is for machines, and `d` is a folder here",
            "`no` is not a host key",
        ],
    );
    says(&said, &["error: 5 mistakes in `vcbuild.toml`"]);
}

#[test]
fn offline_reaches_only_this_machine() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "");
    says(
        &project.run("u --offline").failure(1).stderr,
        &["`n` is not on this machine, and the network may not be used"],
    );
}

#[test]
fn by_way_of_a_bastion_and_with_a_certificate() {
    let (bastion, inner) = (Node::new("bastion", Kind::Plain), Node::new("inner", Kind::Plain));
    let project = project(&[&inner], "");
    rig::introduce(&project, &[&bastion, &inner], "ops");
    project.edit("ssh_config", |text| {
        text.replace("Host inner\n", "Host inner\n  ProxyJump bastion\n")
            .replace("Host bastion\n", "Host bastion\n  HostKeyAlias bastion\n")
    });
    // The key of an authority in place of the host's own.
    let authority = inner.path("authority");
    let ssh_keygen = |arguments: &[&str]| {
        let done = std::process::Command::new("ssh-keygen").args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    ssh_keygen(&["-q", "-t", "ed25519", "-N", "", "-f", authority.to_str().unwrap()]);
    let (host, by) = (inner.path("host.pub"), authority.to_str().unwrap().to_string());
    ssh_keygen(&["-q", "-s", &by, "-h", "-I", "inner", "-n", "inner", host.to_str().unwrap()]);
    inner.certify();
    let key = fs::read_to_string(authority.with_extension("pub")).unwrap();
    project.write("known_hosts", &format!("{}@cert-authority in* {key}", bastion.known()));
    inner.sh("chmod 777 /srv");
    project.run("u").success();
    assert_eq!(inner.sh("cat /srv/x/data; stat -c %U /srv/x/data"), "dataops\n");
    assert_eq!(bastion.sh("ls -A /srv"), "");
    // Whom the bastion does not reach is away.
    inner.sh("kill $(pgrep -o -f 'sshd -D')");
    let done = project.run("u").failure(3);
    says(&done.stderr, &["inner"]);
    bastion.quiet();
}

#[test]
fn a_run_with_nothing_to_do_asks_no_more_hosts_at_once() {
    let nodes: Vec<Node> = (0..3).map(|number| Node::new(&format!("n{number}"), Kind::Plain)).collect();
    let nodes: Vec<&Node> = nodes.iter().collect();
    let project = project(&nodes, "");
    project.edit("vcbuild.toml", |text| text.replacen("[project]\n", "[project]\nparallel_hosts = 2\n", 1));
    let lines: Vec<Line> = nodes.iter().map(|node| Line::to(node.port)).collect();
    rig::introduce_by(&project, &nodes, "root", &lines.iter().map(|line| line.port).collect::<Vec<_>>());
    project.run("u").success();
    let calls = || lines.iter().map(Line::calls).sum::<usize>();
    let before = calls();
    for line in &lines {
        line.hold(1);
    }
    let mut child = project.command(&["run", "u"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(calls() - before, 2);
    for line in &lines {
        line.mend();
    }
    assert!(child.wait().is_ok());
}

#[test]
fn many_hosts_at_once_in_little_memory() {
    let nodes: Vec<Node> = (0..32).map(|number| Node::new(&format!("n{number}"), Kind::Plain)).collect();
    let peak = |count: usize| {
        let chosen: Vec<&Node> = nodes.iter().take(count).collect();
        let project = project(&chosen, "");
        fs::write(project.path("data"), vec![count as u8; 8 << 20]).unwrap();
        let mut child = project.command(&["run", "u"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        let peak = memory::peak(&mut child);
        assert!(child.wait().unwrap().success());
        project.run("u").nothing();
        peak
    };
    let (few, many) = (peak(2), peak(32));
    assert!(many < few + 48_000, "{few} kB for 2 hosts, {many} kB for 32");
    for node in &nodes {
        assert_eq!(node.sh("stat -c %s /srv/x/data"), format!("{}\n", 8 << 20));
    }
}
