//! Files to and from machines.

use std::fs;
use std::time::{Duration, Instant};

use crate::rig::{self, Kind, Node};
use crate::support::Project;
use crate::support::servers::Line;

const UPLOAD: &str = "[upload.u]\nfrom = ['data']\nhosts = 'nodes'\ndir = '/srv/x'\n";

fn project(nodes: &[&Node], more: &str, tasks: &str) -> Project {
    let project = Project::new().config(&format!("{}{tasks}", rig::hosts(nodes, more)));
    rig::introduce(&project, nodes, "root");
    project
}

/// Bytes that nobody guesses and nothing compresses.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size.div_ceil(8)).flat_map(step).take(size).collect()
}

#[test]
fn only_what_is_missing_or_differs_goes() {
    let (a, b) = (Node::new("a", Kind::Plain), Node::new("b", Kind::Plain));
    let project = project(&[&a, &b], "", UPLOAD);
    for (name, content) in [("one", "1"), ("sub/two words", "22"), ("sub/it's a $(trap) \\ \"q\" ;", "333")]
    {
        project.write(&format!("data/{name}"), content);
    }
    let done = project.run("u").success().did(&["upload.u"]);
    assert_eq!(done.sent("upload.u"), [("a".to_string(), 6), ("b".to_string(), 6)].into());
    for node in [&a, &b] {
        let listed = node.sh("cd /srv/x && find . -type f | sort | xargs -d '\\n' stat -c '%a %U %n'");
        let expected =
            ["644 root ./one", "644 root ./sub/it's a $(trap) \\ \"q\" ;", "644 root ./sub/two words"];
        assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
        assert_eq!(node.sh("cat '/srv/x/sub/two words'"), "22");
        assert_eq!(node.sh("find /srv -name '.vcbuild*'"), "");
    }
    project.run("u").nothing();
    // What somebody changed there is put right, there only; a mode needs no bytes.
    b.sh("echo x >>/srv/x/one");
    a.sh("chmod 600 /srv/x/one");
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("a".to_string(), 0), ("b".to_string(), 1)].into());
    assert_eq!(a.sh("stat -c %a /srv/x/one") + &b.sh("cat /srv/x/one"), "644\n1");
    // An edit of the same size.
    project.write("data/sub/two words", "33");
    let plan = project.call("plan u").success().text();
    assert!(plan.contains("/srv/x/sub/two words 2 B"), "{plan}");
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("a".to_string(), 2), ("b".to_string(), 2)].into());
    project.run("u").nothing();
    a.quiet();
    b.quiet();
}

#[test]
fn a_user_with_sudo_gives_files_to_others() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[upload.u]\nfrom = ['data']\nhosts = 'n'\nto = '/srv/etc/conf'\nmode = '0640'\nowner = 'ops:daemon'\n";
    let project = project(&[&node], "sudo = true", tasks);
    rig::introduce(&project, &[&node], "ops");
    project.write("data", "secret");
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("n".to_string(), 6)].into());
    assert_eq!(
        node.sh("stat -c '%a %U:%G' /srv/etc/conf; stat -c '%U' /srv/etc"),
        "640 ops:daemon\nroot\n"
    );
    project.run("u").nothing();
    node.sh("chown root:root /srv/etc/conf");
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("n".to_string(), 0)].into());
    assert_eq!(node.sh("stat -c '%U:%G' /srv/etc/conf"), "ops:daemon\n");
    node.quiet();
    // Without sudo the same user may not.
    project.edit("vcbuild.toml", |text| text.replace("sudo = true", ""));
    project.run("u").nothing();
    node.sh("chown root:root /srv/etc/conf");
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("read `/srv/etc/conf` on `n`: permission denied"), "{said}");
    node.sh("rm -r /srv/etc; chmod 755 /srv");
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("write `/srv/etc/conf` on `n`: permission denied"), "{said}");
    assert!(
        said.contains("hint: log in as a user who may write there, or become root: `sudo = true`"),
        "{said}"
    );
    // Sudo that wants a password is refused in words.
    project.edit("vcbuild.toml", |text| text.replace("ssh = 'n'", "ssh = 'n'\nsudo = true"));
    node.sh("rm /etc/sudoers.d/ops");
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("`n` lets us not become root") && said.contains("NOPASSWD"), "{said}");
    node.quiet();
}

#[test]
fn a_cut_is_gone_on_with() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "", UPLOAD.replace("['data']", "['big', 'small']").as_str());
    let big = noise(24 << 20, 7);
    fs::write(project.path("big"), &big).unwrap();
    project.write("small", "s");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    // Cut once: the second try within the run goes on where it was.
    line.cut_upward_once(9 << 20);
    project.run("u").success();
    let wire = line.upward();
    assert!(wire < (24 << 20) + (4 << 20), "{wire} bytes for a file that was cut off once");
    assert_eq!(node.sh("sha256sum </srv/x/big"), format!("{}  -\n", sha256(&big)));
    project.run("u").nothing();
    // Cut for good: the next run goes on.
    node.sh("rm /srv/x/big");
    line.cut_upward(9 << 20);
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("the connection to `n` was lost") || said.contains("n: "), "{said}");
    node.quiet();
    let part: u64 = node.sh("stat -c %s /srv/x/.vcbuild-*.part").trim().parse().unwrap();
    assert!(part > 4 << 20, "{part}");
    assert_eq!(node.sh("ls /srv/x"), "small\n");
    line.mend();
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("n".to_string(), (24 << 20) - part)].into());
    assert_eq!(node.sh("sha256sum </srv/x/big"), format!("{}  -\n", sha256(&big)));
    assert_eq!(node.sh("ls -A /srv/x"), "big\nsmall\n");
    // A partial file that is wrong is found out and not used.
    node.sh(
        "cd /srv/x && h=$(sha256sum <big) && head -c 5000000 /dev/zero >.vcbuild-${h%% *}.part && rm big",
    );
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("other bytes came than were sent"), "{said}");
    project.run("u").success();
    assert_eq!(node.sh("sha256sum </srv/x/big"), format!("{}  -\n", sha256(&big)));
    node.quiet();
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_full_disk_leaves_nothing() {
    let node = Node::with("n", Kind::Plain, "8m");
    let project = project(&[&node], "", UPLOAD);
    fs::create_dir(project.path("data")).unwrap();
    fs::write(project.path("data/a"), noise(2 << 20, 1)).unwrap();
    fs::write(project.path("data/b"), noise(20 << 20, 2)).unwrap();
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("write `/srv/x/b` on `n`: no space left on device"), "{said}");
    assert_eq!(node.sh("ls -A /srv/x"), "a\n");
    node.quiet();
    fs::write(project.path("data/b"), b"small").unwrap();
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("n".to_string(), 5)].into());
}

#[test]
fn a_file_is_fetched_and_verified() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[fetch.f]\nhost = 'n'\npath = '/srv/a b/it'\n";
    let project = project(&[&node], "", tasks);
    let said = project.run("f").failure(1).stderr;
    assert!(said.contains("there is no `/srv/a b/it` on `n`"), "{said}");
    let bytes = noise(6 << 20, 3);
    fs::create_dir_all(node.path("home/x")).unwrap();
    fs::write(node.path("home/x/it"), &bytes).unwrap();
    node.sh("mkdir '/srv/a b'; cp /home/x/it '/srv/a b/it'");
    project.run("f").success().did(&["fetch.f"]);
    project.call("get fetch.f -o got").success();
    assert!(fs::read(project.path("got")).unwrap() == bytes);
    project.run("f").nothing();
    // Cut once, it goes on; and an edit of the same size is seen.
    node.sh("printf x | dd of='/srv/a b/it' bs=1 seek=77 conv=notrunc 2>/dev/null");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    line.cut_once(3 << 20);
    project.run("f").success().did(&["fetch.f"]);
    assert!(line.downward() < 8 << 20, "{} bytes came", line.downward());
    project.call("get fetch.f -o got --force").success();
    let got = fs::read(project.path("got")).unwrap();
    assert!(got.len() == bytes.len() && got[77] == b'x' && got[78..] == bytes[78..]);
    node.sh("rm '/srv/a b/it'; ln -s /etc/passwd '/srv/a b/it'");
    let said = project.run("f").failure(1).stderr;
    assert!(said.contains("`/srv/a b/it` on `n` is a link"), "{said}");
    node.quiet();
}

#[test]
fn sshd_killed_in_mid_transfer_and_a_stop_leave_no_process() {
    let mut node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "", UPLOAD.replace("data", "big").as_str());
    fs::write(project.path("big"), noise(64 << 20, 9)).unwrap();
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    // Ctrl-C.
    line.hold_upward(6 << 20);
    let mut child = project.command(&["run", "u"]).spawn().unwrap();
    line.wait();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let began = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    line.mend();
    node.quiet();
    // Killed.
    line.hold_upward(6 << 20);
    let mut child = project.command(&["run", "u"]).spawn().unwrap();
    line.wait();
    child.kill().unwrap();
    child.wait().unwrap();
    line.mend();
    node.quiet();
    // Power cut.
    line.hold_upward(6 << 20);
    let mut child = project.command(&["run", "u"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    line.wait();
    node.kill();
    line.mend();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    node.start();
    project.run("u").success();
    assert_eq!(node.sh("ls -A /srv/x"), "big\n");
    node.quiet();
}

#[test]
fn no_more_goes_than_the_limit_allows() {
    let (a, b) = (Node::new("a", Kind::Plain), Node::new("b", Kind::Plain));
    let project = project(&[&a, &b], "limit = '2M'", UPLOAD);
    fs::write(project.path("data"), noise(2_000_000, 5)).unwrap();
    let timed = |least: f64, most: f64| {
        let began = Instant::now();
        project.run("u").success();
        let took = began.elapsed().as_secs_f64();
        assert!((least..most).contains(&took), "{took} s");
        a.sh("rm -r /srv/x");
        b.sh("rm -r /srv/x");
    };
    timed(0.9, 4.0);
    project.edit("vcbuild.toml", |text| text.replace("[project]\n", "[project]\nlimit = '1M'\n"));
    timed(3.9, 9.0);
}
