//! What goes over the wire: packed where that pays, once however often it is cut, and by way of a bastion no
//! more connections at a time than its sshd takes.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::rig::{self, Kind, Node};
use crate::support::Project;
use crate::support::servers::Line;

fn noise(size: usize, seed: u8) -> Vec<u8> {
    let mut state = blake3::Hasher::new();
    state.update(&[seed]);
    let mut bytes = vec![0; size];
    state.finalize_xof().fill(&mut bytes);
    bytes
}

/// Text as logs have it: it packs to a quarter or less.
fn text(size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in 0_u64.. {
        if bytes.len() >= size {
            break;
        }
        let number = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.extend(format!("line {line} says {number:016x} and nothing else\n").bytes());
    }
    bytes.truncate(size);
    bytes
}

fn sum(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_packs_goes_packed_and_comes_out_as_it_was() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[upload.u]\nfrom = 'data'\nhosts = 'n'\ndir = '/srv/x'\n";
    let project = Project::new().config(&format!("{}{tasks}", rig::hosts(&[&node], "")));
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    fs::create_dir(project.path("data")).unwrap();
    let (plain, packs) = (noise(12 << 20, 1), text(48 << 20));
    let mixed = [&packs[..6 << 20], &plain[..10 << 20], &packs[..6 << 20]].concat();
    let all = [("noise", &plain), ("text", &packs), ("mixed", &mixed)];
    let mut sent = Vec::new();
    for (name, bytes) in all {
        fs::write(project.path(format!("data/{name}")), bytes).unwrap();
        line.upward();
        let bytes_sent = project.run("u").success().sent("upload.u")["n"];
        let wire = line.upward() as u64;
        assert_eq!(node.sh(&format!("sha256sum </srv/x/{name}")), format!("{}  -\n", sum(bytes)));
        // What is told is what went, but for ssh's own framing.
        assert!(
            wire > bytes_sent && wire < bytes_sent + bytes_sent / 10 + 200_000,
            "{name}: {wire}, {bytes_sent}"
        );
        sent.push(bytes_sent);
    }
    assert!(sent[0] == 12 << 20 && sent[1] < 14 << 20, "{sent:?}");
    assert!((10 << 20..17 << 20).contains(&sent[2]), "{sent:?}");
    project.run("u").nothing();
    // Cut while it is packed, it goes on.
    node.sh("rm /srv/x/text");
    line.cut_upward(4 << 20);
    let failed = project.run("u").failure(1);
    let first = failed.sent("upload.u")["n"];
    node.quiet();
    assert!(failed.stderr.contains("the connection to `n` was lost"), "{}", failed.stderr);
    let part: u64 = node.sh("stat -c %s /srv/x/.vcbuild-*.part").trim().parse().unwrap();
    assert!(part > 10 << 20, "{part}");
    line.mend();
    let rest = project.run("u").success().sent("upload.u")["n"];
    // What was under way when the line was cut is sent again.
    assert!(rest < sent[1] * 3 / 4 && first + rest < sent[1] + (7 << 20), "{first} {rest} {sent:?}");
    assert!(first > 7 << 20, "{first}");
    assert_eq!(node.sh("sha256sum </srv/x/text"), format!("{}  -\n", sum(&packs)));
    // Once within a run: both tries count.
    node.sh("rm /srv/x/text");
    line.cut_upward_once(4 << 20);
    let both = project.run("u").success().sent("upload.u")["n"];
    assert!(both > sent[1] - (1 << 20) && both < sent[1] + (4 << 20), "{both} {sent:?}");
    // A full disk is told.
    node.sh("rm /srv/x/*; mount -o remount,size=4m /srv");
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("on `n`: no space left on device"), "{said}");
    node.quiet();
    assert_eq!(node.sh("find /srv/x -name '.vcbuild*'"), "");
    node.sh("mount -o remount,size=1g /srv; rm -f /srv/x/*");
    // A host without zstd gets it as it is.
    node.sh(": >/home/none && chmod 644 /home/none && mount --bind /home/none /usr/bin/zstd");
    let bytes_sent = project.run("u").success().sent("upload.u")["n"];
    assert_eq!(bytes_sent, (12 + 48 + 22) << 20);
    node.quiet();
}

#[test]
fn a_fetch_goes_on_in_the_next_run() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[fetch.f]\nhost = 'n'\npath = '/srv/it'\n";
    let project = Project::new().config(&format!("{}{tasks}", rig::hosts(&[&node], "")));
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    let put = |bytes: &[u8]| {
        fs::create_dir_all(node.path("home/x")).unwrap();
        fs::write(node.path("home/x/it"), bytes).unwrap();
        node.sh("cp /home/x/it /srv/it");
    };
    let parts = || -> Vec<u64> {
        let all = fs::read_dir(project.cache("tmp")).unwrap().map(|entry| entry.unwrap());
        all.map(|entry| entry.metadata().unwrap().len()).collect()
    };
    let fetched = |bytes: &[u8]| {
        line.downward();
        project.run("f").success().did(&["fetch.f"]);
        let came = line.downward();
        project.call("get fetch.f -o got").success();
        assert!(fs::read(project.path("got")).unwrap() == bytes);
        assert!(parts().is_empty(), "{:?}", parts());
        came
    };
    let bytes = noise(16 << 20, 1);
    put(&bytes);
    line.cut(4 << 20);
    project.run("f").failure(1);
    let [part] = parts()[..] else { panic!("{:?}", parts()) };
    assert!((4 << 20..9 << 20).contains(&part), "{part}");
    line.mend();
    let came = fetched(&bytes);
    assert!(came < (17 << 20) - part as usize, "{came} after {part}");
    // Another file by then: from the beginning.
    let bytes = noise(16 << 20, 2);
    put(&bytes);
    line.cut(4 << 20);
    project.run("f").failure(1);
    line.mend();
    let other = noise(16 << 20, 3);
    put(&other);
    line.downward();
    project.run("f").success();
    assert!(line.downward() > 16 << 20);
    project.call("get fetch.f -o got").success();
    assert!(fs::read(project.path("got")).unwrap() == other);
    // And back: what was there of the first is still good; what is damaged meanwhile is found out.
    put(&bytes);
    let name = fs::read_dir(project.cache("tmp")).unwrap().next().unwrap().unwrap().path();
    let mut wrong = fs::read(&name).unwrap();
    wrong[1000] ^= 1;
    fs::write(&name, wrong).unwrap();
    fetched(&bytes);
    // Text comes packed.
    let bytes = text(24 << 20);
    put(&bytes);
    line.cut(1 << 20);
    project.run("f").failure(1);
    line.mend();
    assert!(fetched(&bytes) < 7 << 20);
    node.quiet();
}

#[test]
fn each_bastion_gets_eight_new_connections_at_a_time() {
    // Two that take calls and say nothing.
    let deaf = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, calls) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let count = calls.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for call in listener.incoming() {
                held.push(call.unwrap());
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        (port, calls)
    };
    let ((one, ones), (two, twos)) = (deaf(), deaf());
    let (mut tables, mut config, mut names) = (String::new(), String::new(), Vec::new());
    for (bastion, port) in [("one", one), ("two", two)] {
        config.push_str(&format!("Host {bastion}\n  HostName 127.0.0.1\n  Port {port}\n"));
        for number in 0..12 {
            let name = format!("{bastion}{number}");
            tables.push_str(&format!("[host.{name}]\nssh = '{name}'\nssh_config = 'ssh_config'\n"));
            config.push_str(&format!("Host {name}\n  ProxyJump {bastion}\n"));
            names.push(format!("'{name}'"));
        }
    }
    let project = Project::new().config(&format!(
        "{tables}[upload.u]\nfrom = 'vcbuild.toml'\nhosts = [{}]\ndir = '/srv/x'\n",
        names.join(", ")
    ));
    project.write("ssh_config", &config);
    let mut child = project.command(&["run", "u"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(8);
    let calls = || (ones.load(Ordering::SeqCst), twos.load(Ordering::SeqCst));
    while calls() != (8, 8) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(calls(), (8, 8));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_bastion_that_takes_no_more_than_nine_lets_all_through() {
    let bastion = Node::new("bastion", Kind::Plain);
    let nodes: Vec<Node> = (0..16).map(|number| Node::new(&format!("n{number}"), Kind::Plain)).collect();
    let config = fs::read_to_string(bastion.path("sshd_config")).unwrap();
    fs::write(bastion.path("sshd_config"), config + "MaxStartups 9:100:9\n").unwrap();
    bastion.sh("kill -HUP $(pgrep -o -f 'sshd -D')");
    std::thread::sleep(Duration::from_millis(300));
    let chosen: Vec<&Node> = nodes.iter().collect();
    let tasks = "[upload.u]\nfrom = 'vcbuild.toml'\nhosts = 'nodes'\ndir = '/srv/x'\n";
    let project = Project::new().config(&format!("{}{tasks}", rig::hosts(&chosen, "")));
    let all: Vec<&Node> = [&[&bastion][..], &chosen].concat();
    rig::introduce(&project, &all, "root");
    project.edit("ssh_config", |text| {
        let text = nodes.iter().fold(text.to_string(), |text, node| {
            let host = format!("Host {}\n", node.name);
            text.replace(&host, &format!("{host}  ProxyJump bastion\n"))
        });
        text.replace("Host bastion\n", "Host bastion\n  HostKeyAlias bastion\n")
    });
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u").len(), 16);
    let log = fs::read_to_string(bastion.path("sshd.log")).unwrap();
    assert!(!log.contains("MaxStartups") && !log.contains("drop connection"), "{log}");
}
