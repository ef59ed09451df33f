//! Compiling on machines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::rig::{self, Kind, Node};
use crate::support::Project;
use crate::support::servers::Line;

/// A project whose `compile.c` runs a script on the first of some machines, as an ordinary user.
fn project(nodes: &[&Node], script: &str, more: &str) -> Project {
    let project = Project::new()
        .config(&format!(
            "{}[compile.c]\nhost = '{}'\ninputs = ['in/**']\nrun = [['sh', '-euc', '''{script}''']]\noutputs = ['out']\n{more}\n",
            rig::hosts(nodes, ""),
            nodes[0].name
        ))
        .file("in/a", "a\n")
        .file("in/b", "b\n");
    rig::introduce(&project, nodes, "ops");
    project.settle();
    project
}

/// What `compile.c` has made.
fn out(project: &Project) -> String {
    project.call("get compile.c -o got --force").success();
    project.read("got")
}

/// The work folders on a machine.
fn places(node: &Node) -> Vec<PathBuf> {
    let folder = node.path("home/ops/.cache/vcbuild/work");
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// The files in the only work folder of a machine.
fn tree(node: &Node) -> PathBuf {
    let places = places(node);
    assert_eq!(places.len(), 1, "{places:?}");
    places[0].join("tree")
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
}

/// Bytes that nothing compresses.
fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    use std::io::Read;
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn only_what_differs_goes_there() {
    let node = Node::new("n", Kind::Plain);
    let project = project(
        &[&node],
        "cat in/a in/b in/deep/c >out; test ! -e left; touch left; stat -c %Y.%y in/b >&2",
        "",
    );
    for number in 0..300 {
        project.write(&format!("in/many/f{number}"), &format!("{number}"));
    }
    fs::write(project.path("in/big"), noise(3 << 20)).unwrap();
    project.write("in/deep/c", "c\n");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "ops", &[line.port]);
    project.settle();
    project.run("").success().did(&["compile.c"]);
    let first = line.upward();
    assert!((3 << 20..4 << 20).contains(&first), "{first}");
    assert_eq!(out(&project), "a\nb\nc\n");
    let time = project.call("log compile.c").success().text();
    project.run("").nothing();
    // One input: it goes, and nothing else.
    line.upward();
    project.run("").nothing();
    let idle = line.upward();
    project.write("in/a", "A\n");
    project.run("").success().did(&["compile.c"]);
    let second = line.upward();
    assert!(second < idle + 40_000, "{second} bytes for an edit of two, {idle} for nothing");
    assert_eq!(out(&project), "A\nb\nc\n");
    assert_eq!(
        project.call("log compile.c").success().text(),
        time,
        "an unchanged input was written again"
    );
    // What is no input any more goes, there too; a mode is seen.
    project.remove("in/many");
    project.remove("in/deep");
    project.write("in/deep/c", "C\n");
    project.edit("vcbuild.toml", |text| {
        text.replace("cat in/a", "find . -type f | sort >../list; mv ../list list; cat list in/a")
    });
    project.run("").success();
    assert_eq!(out(&project), "./in/a\n./in/b\n./in/big\n./in/deep/c\nA\nb\nC\n");
    assert!(line.upward() < 60_000);
    // After a start of the machine all is read again there, and goes only if it is something else.
    let known = tree(&node).with_file_name("known");
    let text = fs::read_to_string(&known).unwrap();
    let (boot, _) = text.split_once(' ').unwrap();
    fs::write(&known, format!("another{}", &text[boot.len()..])).unwrap();
    line.upward();
    project.write("in/a", "b\n");
    project.run("").success();
    assert_eq!(out(&project), "./in/a\n./in/b\n./in/big\n./in/deep/c\nb\nb\nC\n");
    let again = line.upward();
    assert!(again < 60_000, "{again}");
    let text = fs::read_to_string(&known).unwrap().replacen(boot, "another", 1);
    let wrong = |line: &str| match line.ends_with(" in/big") {
        true => {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            format!("{} {} {}\n", words[0], "0".repeat(64), words[2])
        }
        false => format!("{line}\n"),
    };
    fs::write(&known, text.lines().map(wrong).collect::<String>()).unwrap();
    project.write("in/a", "A\n");
    project.write("in/b", "B\n");
    project.run("").success();
    let again = line.upward();
    assert!((3 << 20..4 << 20).contains(&again), "{again}");
    project.write("in/b", "b\n");
    project.run("").success().did(&[]);
    // Back to what was: a hit, without a word to the work folder.
    project.edit("vcbuild.toml", |text| {
        text.replace("find . -type f | sort >../list; mv ../list list; cat list in/a", "cat in/a")
    });
    project.run("").success().did(&["compile.c"]);
    project.write("in/a", "a\n");
    project.run("").success().did(&["compile.c"]);
    project.write("in/a", "A\n");
    project.run("").success().did(&[]);
    node.quiet();
    assert!(!tree(&node).with_file_name("scratch").exists());
}

#[test]
fn the_environment_is_that_of_here() {
    let node = Node::new("n", Kind::Plain);
    let script = "env -u PWD | sort >out; umask >>out; pwd >>out; ls $CACHE; echo x >>$CACHE/log; wc -l <$CACHE/log >>out; \
                  tr '\\\\0' ' ' </proc/$PPID/cmdline >>out";
    let more = "keep = { CACHE = 'mine' }\nenv = { MINE = \"it's: ${VCBUILD_WORK}\" }\npass_env = ['SECRET', 'MISSING']\nlocate_env = ['WHERE']\n";
    let project = project(&[&node], script, more).env("SECRET", "se cret").env("WHERE", "/w");
    let done = std::sync::atomic::AtomicBool::new(false);
    let watching = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = String::new();
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                seen.push_str(&node.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' || :"));
            }
            seen
        });
        let ended = project.run("");
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        ended.success();
        watch.join().unwrap()
    });
    assert!(watching.contains("vcbuild") && !watching.contains("se cret"));
    let work = "/home/ops/.cache/vcbuild/work";
    let id = tree(&node).parent().unwrap().file_name().unwrap().to_str().unwrap().to_string();
    let text = out(&project).replace(&format!("{work}/{id}"), "[PLACE]");
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        "CACHE=/home/ops/.cache/vcbuild/keep/mine",
        "HOME=[PLACE]/scratch/home",
        "LANG=C.UTF-8",
        "MINE=it's: [PLACE]/tree",
        "PATH=[PLACE]/scratch/bin:/usr/bin:/bin",
        "SECRET=se cret",
        "SOURCE_DATE_EPOCH=0",
        "TMPDIR=[PLACE]/scratch/tmp",
        "TZ=UTC",
        "VCBUILD_WORK=[PLACE]/tree",
        "WHERE=/w",
        "0022",
        "[PLACE]/tree",
        "1",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert!(!text.contains("SECRET='"), "{text}");
    // Nothing of it stays there.
    let found = node.exec("grep -rl 'se cret' /home/ops/.cache --include='*' --exclude=out").stdout;
    assert_eq!(String::from_utf8_lossy(&found), "");
    // What is kept outlives the run.
    project.write("in/a", "A\n");
    project.run("").success();
    assert!(out(&project).contains("\n2\n"));
    assert_eq!(node.sh("stat -c %U /home/ops/.cache/vcbuild/keep/mine/log"), "ops\n");
    node.quiet();
}

#[test]
fn inputs_are_put_back_and_only_incremental_files_stay() {
    let node = Node::new("n", Kind::Plain);
    let script = "mkdir -p build/deep; echo run >>build/deep/log; cp build/deep/log out; test ! -e build/gone; touch build/gone other; \
                  test $(cat in/a) = a; echo x >in/a; chmod 600 in/b; rm -r in/sub; ln -s a in/link2; mkdir -p other.d/deep; touch other.d/deep/x";
    let project = project(&[&node], script, "incremental = ['build/**', '!build/gone']");
    project.write("in/sub/x", "x");
    std::os::unix::fs::symlink("a", project.path("in/link")).unwrap();
    project.settle();
    project.run("").success();
    project.write("in/new", "");
    project.run("").success();
    assert_eq!(out(&project), "run\nrun\n");
    assert_eq!(places(&node).len(), 1);
    // Somebody else's cache knows nothing of what is there.
    project.remove("cache");
    project.run("").success();
    assert_eq!(out(&project), "run\nrun\nrun\n");
    project.edit("vcbuild.toml", |text| text.replace("test ! -e build/gone", "find . | sort >&2"));
    project.run("").success();
    let listed = project.call("log compile.c").success().text();
    let expected = [
        ".",
        "./build",
        "./build/deep",
        "./build/deep/log",
        "./in",
        "./in/a",
        "./in/b",
        "./in/link",
        "./in/new",
        "./in/sub",
        "./in/sub/x",
        "./out",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn outputs_keep_modes_links_and_folders() {
    let node = Node::new("n", Kind::Plain);
    let script = "mkdir -p out/empty out/full; echo x >out/full/x; chmod 750 out/full/x; ln -s ../nowhere out/full/link; \
                  touch 'out/odd \"name' 'out/a\\b'; head -c 5000000 /dev/zero >out/zero; chmod 700 out/empty";
    let project = project(&[&node], script, "");
    project.run("").success();
    project.call("get compile.c -o there").success();
    // The same here.
    project.edit("vcbuild.toml", |text| text.replace("host = 'n'", "").replace("in/**", "in/*"));
    project.remove("cache");
    project.run("").success().did(&["compile.c"]);
    project.call("get compile.c -o here").success();
    let list = |folder: &str| {
        let output = std::process::Command::new("sh")
            .args(["-c", "find . -printf '%y %m %s %p %l\\n' | grep -v '^d' | sort; find . -type d -printf '%m %p\\n' | sort; find . -type f | sort | xargs -d '\\n' sha256sum"])
            .current_dir(project.path(folder))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(list("there"), list("here"));
    assert!(list("here").contains("l 777 10 ./out/full/link ../nowhere"), "{}", list("here"));
    // What cannot be kept.
    let project = self::project(&[&node], "mkfifo out", "");
    says(&project.run("").failure(1).stderr, &["`out` is a socket, pipe or device"]);
    project.edit("vcbuild.toml", |text| text.replace("mkfifo out", "touch ouput"));
    says(
        &project.run("").failure(1).stderr,
        &["the commands ended well, but did not make `out`", "hint: did you mean `ouput`?"],
    );
    project.edit("vcbuild.toml", |text| text.replace("inputs =", "dir = 'none'\ninputs ="));
    says(&project.run("").failure(1).stderr, &["the input tree has no folder `none`"]);
    node.quiet();
}

#[test]
fn which_host_it_was_is_not_in_the_key() {
    let (a, b) = (Node::new("a", Kind::Plain), Node::new("b", Kind::Plain));
    let more = "tools = ['cc']\nversion = [['cc', '--version']]\npackages = ['libc6']\nreads = ['/etc/hostname']\n";
    let project = project(&[&a, &b], "cp in/a out", more).env("PATH", "/usr/bin:/bin");
    let key = project.run("").success().did(&["compile.c"]).event("compile.c")["key"].clone();
    project.edit("vcbuild.toml", |text| text.replace("host = 'a'", "host = 'b'"));
    let done = project.run("").success().did(&[]);
    assert_eq!(done.event("compile.c")["key"], key);
    // Nor whether it was here.
    for here in ["", "host = ''"] {
        project.edit("vcbuild.toml", |text| {
            text.replace("host = 'b'", here).replace("host = ''\n", &format!("{here}\n"))
        });
        let done = project.run("").success().did(&[]);
        assert_eq!(done.event("compile.c")["key"], key);
        project.edit("vcbuild.toml", |text| text.replacen("inputs", "host = 'b'\ninputs", 1));
    }
    // Another tool there is another key, and it is seen by a run that has nothing else to do.
    project.edit("vcbuild.toml", |text| text.replace("host = ''", ""));
    project.run("").success().did(&[]);
    project.run("").nothing();
    b.sh("cp /usr/bin/cc /srv/cc && printf x >>/srv/cc && mount --bind /srv/cc $(readlink -f /usr/bin/cc)");
    let done = project.run("").success().did(&["compile.c"]);
    assert_ne!(done.event("compile.c")["key"], key);
    says(done.event("compile.c")["why"].as_str().unwrap(), &["the tool `cc` changed"]);
}

#[test]
fn what_changes_there_meanwhile_is_not_remembered() {
    let node = Node::new("n", Kind::Plain);
    let script = "cat /srv/d/said in/a >out; test ! -e /srv/d/next || cat /srv/d/next >/srv/d/said";
    let project = project(&[&node], script, "reads = ['/srv/d/said']");
    node.sh("mkdir -m 777 /srv/d && echo one >/srv/d/said && echo two >/srv/d/next && chmod 666 /srv/d/*");
    let done = project.run("").success().did(&["compile.c"]);
    says(&done.stderr, &["an input changed while it ran: the result is used, but not remembered"]);
    node.sh("echo one >/srv/d/said && rm /srv/d/next");
    project.run("").success().did(&["compile.c"]);
    project.run("").nothing();
}

#[test]
fn what_a_start_of_the_machine_took_comes_again() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "cat in/* >out", "");
    project.run("").success().did(&["compile.c"]);
    let known = tree(&node).with_file_name("known");
    let text = fs::read_to_string(&known).unwrap();
    let (boot, _) = text.split_once(' ').unwrap();
    fs::write(&known, text.replacen(boot, "another", 1)).unwrap();
    fs::remove_file(tree(&node).join("in/b")).unwrap();
    project.write("in/a", "A\n");
    project.run("").success().did(&["compile.c"]);
    assert_eq!(out(&project), "A\nb\n");
}

#[test]
fn a_folder_that_is_cleared_away_is_not_used() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "cat in/* >out", "");
    project.run("").success().did(&["compile.c"]);
    let place = tree(&node).parent().unwrap().to_path_buf();
    let lock = |place: &PathBuf| {
        let lock = fs::File::options().append(true).create(true).open(place.join("lock")).unwrap();
        let owner = fs::metadata(place.with_file_name("")).unwrap();
        for path in [place.clone(), place.join("lock")] {
            std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        lock.lock().unwrap();
        lock
    };
    let first = lock(&place);
    project.write("in/a", "A\n");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| project.run("").success().did(&["compile.c"]));
        std::thread::sleep(Duration::from_secs(2));
        fs::rename(&place, place.with_extension("gone")).unwrap();
        fs::create_dir(&place).unwrap();
        // Somebody else has come first.
        let _second = lock(&place);
        drop(first);
        run.join().unwrap();
    });
    assert_eq!(out(&project), "A\nb\n");
    assert!(!place.join("tree").exists());
    assert!(places(&node).iter().any(|place| place.to_string_lossy().ends_with("-1")));
    // What nobody has used for long is cleared away.
    node.sh("cd /home/ops/.cache/vcbuild/work && touch -d '40 days ago' */lock && mkdir .gone.1");
    project.write("in/a", "a a\n");
    project.run("").success().did(&["compile.c"]);
    let left = places(&node);
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn offline_no_host_is_asked_whether_it_is_as_it_was() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "cat in/* >out", "");
    project.run("").success().did(&["compile.c"]);
    project.run("").nothing();
    let said = project.run("--offline").failure(1).stderr;
    says(&said, &["`n` is not on this machine"]);
}

#[test]
fn odd_names_go_there_and_come_back() {
    use std::os::unix::ffi::OsStrExt;
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "cp -r in out; printf x >>'in/-f'; rm 'in/a b'", "");
    let names: [&[u8]; 16] = [
        b"-f",
        b"a b",
        b"it's",
        b"back\\slash",
        b"\\nname",
        b"*",
        b"$(x)",
        b"tab\t",
        b"cr\r",
        b"\xc3\xbc",
        b"\xff\xfe",
        b" lead",
        b"trail ",
        b"x: OK",
        b"\\",
        b"end\\",
    ];
    let path = |folder: &str, name: &[u8]| project.path(folder).join(std::ffi::OsStr::from_bytes(name));
    for round in ["one", "two"] {
        for (number, name) in names.iter().enumerate() {
            if round == "one" || number % 2 == 0 {
                fs::write(path("in", name), format!("{round} {number}")).unwrap();
            }
        }
        project.run("").success().did(&["compile.c"]);
        project.call("get compile.c -o got --force").success();
        for name in &names {
            let name = *name;
            assert_eq!(
                fs::read(path("got/out", name)).unwrap(),
                fs::read(path("in", name)).unwrap(),
                "{name:?}"
            );
        }
        assert_eq!(fs::read_dir(project.path("got/out")).unwrap().count(), names.len() + 2);
    }
    let known = tree(&node).with_file_name("known");
    let text = fs::read(&known).unwrap();
    let space = text.iter().position(|byte| *byte == b' ').unwrap();
    fs::write(&known, [b"another", &text[space..]].concat()).unwrap();
    for name in names {
        fs::write(path("in", name), "three").unwrap();
    }
    project.run("").success().did(&["compile.c"]);
    project.call("get compile.c -o got --force").success();
    for name in names {
        assert_eq!(fs::read(path("got/out", name)).unwrap(), b"three", "{name:?}");
    }
}

#[test]
fn folders_that_nobody_may_enter_are_removed() {
    let node = Node::new("n", Kind::Plain);
    let script = "cat in/* >out; mkdir -p left/a/b/c && chmod 0 left/a/b/c left/a/b left/a";
    let project = project(&[&node], script, "");
    for number in 0..3 {
        project.write("in/a", &format!("{number}\n"));
        project.run("").success().did(&["compile.c"]);
        assert_eq!(out(&project), format!("{number}\nb\n"));
    }
}

#[test]
fn what_is_missing_is_named() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "cp in/a out", "tools = ['no-such-tool']");
    let said = project.run("").failure(1).stderr;
    says(&said, &["the tool `no-such-tool` is not on `n`", "looked in ", "tools = [\"/…/no-such-tool\"]"]);
    for (table, words) in [
        ("packages = ['no-such-package']", "the package `no-such-package` is not installed on `n`"),
        ("reads = ['/no/such/file']", "there is no file `/no/such/file` on `n`"),
        (
            "tools = ['false']\nversion = [['false', 'x']]",
            "`false x` on `n` did not say its version: exit status 1",
        ),
        ("tools = ['true']\nversion = [['go']]", "`version` calls `go`, whose program is not in `tools`"),
    ] {
        let text = project.read("vcbuild.toml");
        project.write("vcbuild.toml", &text.replace("tools = ['no-such-tool']", table));
        says(&project.run("").failure(1).stderr, &[words]);
        project.write("vcbuild.toml", &text);
    }
    // A tool that is where nobody looks.
    node.sh(
        "mkdir /srv/bin; printf '#!/bin/sh\\necho mine\\n' >/srv/bin/mytool; chmod 755 /srv/bin/mytool",
    );
    project.edit("vcbuild.toml", |text| {
        text.replace("['no-such-tool']", "['/srv/bin/mytool']").replace("cp in/a out", "mytool >out")
    });
    project.run("").success();
    assert_eq!(out(&project), "mine\n");
    // A program that is not there, and one that fails.
    project.edit("vcbuild.toml", |text| text.replace("['sh', '-euc',", "['nobody', '-euc',"));
    says(&project.run("").failure(1).stderr, &["failed: exit status 127", "there is no program nobody"]);
    project.edit("vcbuild.toml", |text| {
        text.replace("['nobody', '-euc',", "['sh', '-euc',").replace("mytool >out", "echo said; kill -9 $$")
    });
    says(&project.run("").failure(1).stderr, &["failed: ended by SIGKILL", "    said"]);
    says(&project.call("log compile.c").success().text(), &["said\n"]);
    // What cannot be meant.
    project.edit("vcbuild.toml", |text| {
        text.replace("'/srv/bin/mytool'", "'bin/mytool'").replace("run =", "env = { 'A-B' = '1' }\nrun =")
    });
    says(
        &project.call("list").failure(2).stderr,
        &["`bin/mytool` is a path of the project", "`A-B` cannot be the name of a variable on a host"],
    );
    node.quiet();
}

#[test]
fn a_host_that_does_not_answer_is_a_failure() {
    let mut node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "cp in/a out", "");
    node.kill();
    says(&project.run("").failure(1).stderr, &["`n` does not answer: ", "Connection refused"]);
    says(&project.run("--offline").failure(1).stderr, &["`n` is not on this machine"]);
    node.start();
    project.run("").success();
    node.kill();
    says(&project.run("").failure(1).stderr, &["`n` does not answer: "]);
}

#[test]
fn a_full_disk_there() {
    let node = Node::new("n", Kind::Plain);
    node.sh("mkdir -p /home/ops/.cache && mount -t tmpfs -o size=2m,mode=777 tmpfs /home/ops/.cache");
    let project = project(&[&node], "cp in/a out", "");
    fs::write(project.path("in/big"), noise(6 << 20)).unwrap();
    says(&project.run("").failure(1).stderr, &["the disk of `n` is full", "hint: make room there"]);
    node.quiet();
    project.write("in/big", "small");
    project.run("").success().did(&["compile.c"]);
    // By the command itself.
    project.edit("vcbuild.toml", |text| text.replace("cp in/a out", "head -c 9000000 /dev/zero >out"));
    says(&project.run("").failure(1).stderr, &["failed: exit status 1", "No space left on device"]);
    project.edit("vcbuild.toml", |text| text.replace("head -c 9000000 /dev/zero >out", "cp in/b out"));
    project.run("").success();
    assert_eq!(out(&project), "b\n");
    node.quiet();
}

#[test]
fn a_timeout_ends_everything_there_also_daemons() {
    let node = Node::new("n", Kind::Plain);
    let script = "echo begun; sleep 301 & (setsid sh -c 'sleep 302' &) ; (setsid sh -c 'trap \"\" TERM HUP; sleep 303; sleep 304' &) ; env -i sleep 305";
    let project = project(&[&node], script, "timeout = '1500ms'");
    let began = Instant::now();
    let said = project.run("").failure(1).stderr;
    says(&said, &["took longer than its `timeout` of 1.5 s and was ended", "    begun"]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?} {said}", began.elapsed());
    node.quiet();
    // What a command leaves when it ends well is ended too.
    project.edit("vcbuild.toml", |text| {
        text.replace("env -i sleep 305", "echo fine >out").replace("1500ms", "30s")
    });
    project.run("").success();
    assert_eq!(out(&project), "fine\n");
    node.quiet();
}

#[test]
fn cut_in_mid_command_it_goes_on() {
    let mut node = Node::new("n", Kind::Plain);
    let script =
        "echo $$ >>$K/ran; sync; test -e $K/go || { (setsid sleep 301 &); sleep 300; }; cp in/a out";
    let project = project(&[&node], script, "keep = { K = 'k' }");
    let home = node.path("home/ops");
    let ran = home.join(".cache/vcbuild/keep/k/ran");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "ops", &[line.port]);
    let runs = || fs::read_to_string(&ran).map_or(0, |text| text.lines().count());
    let wait = |count: usize| {
        let end = Instant::now() + Duration::from_secs(60);
        while runs() < count {
            assert!(Instant::now() < end, "it does not run");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // The connection breaks: tried once more, in the same folder, when the first is gone.
    let mut child = project.command(&["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait(1);
    fs::write(home.join(".cache/vcbuild/keep/k/go"), "").unwrap();
    line.cut_once(0);
    assert!(child.wait().unwrap().success());
    assert_eq!(runs(), 2);
    assert_eq!(places(&node).len(), 1);
    node.quiet();
    // Ctrl-C.
    fs::remove_file(home.join(".cache/vcbuild/keep/k/go")).unwrap();
    project.write("in/a", "2\n");
    let mut child = project.command(&["run"]).spawn().unwrap();
    wait(3);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let began = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Killed.
    let mut child = project.command(&["run"]).spawn().unwrap();
    wait(4);
    child.kill().unwrap();
    child.wait().unwrap();
    node.quiet();
    // Power cut.
    let mut child = project.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait(5);
    node.kill();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    node.start();
    fs::write(home.join(".cache/vcbuild/keep/k/go"), "").unwrap();
    project.run("").success().did(&["compile.c"]);
    assert_eq!(out(&project), "2\n");
    assert_eq!(places(&node).len(), 1);
    node.quiet();
}

#[test]
fn cut_while_inputs_go_it_goes_on_where_it_was() {
    let node = Node::new("n", Kind::Plain);
    let project = project(&[&node], "cat in/big* | sha256sum >out", "");
    for number in 0..3 {
        fs::write(project.path(format!("in/big{number}")), noise(40 << 20)).unwrap();
    }
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "ops", &[line.port]);
    project.settle();
    line.cut_upward(100 << 20);
    says(&project.run("").success().stderr, &["the connection to `n` was lost", "once more"]);
    let all = line.upward();
    assert!((130 << 20..150 << 20).contains(&all), "{all} bytes for 120 MiB with a cut after 100");
    line.mend();
    // A file that somebody damages there is not taken for what it was.
    let before = out(&project);
    let tree = tree(&node);
    node.sh(&format!(
        "printf x | dd of={}/in/big1 bs=1 seek=77 conv=notrunc 2>/dev/null",
        tree.display().to_string().replace(node.path("home").to_str().unwrap(), "/home")
    ));
    project.write("in/a", "other");
    project.run("").success();
    assert_eq!(out(&project), before);
}

#[test]
fn two_at_once_keep_apart() {
    let node = Node::new("n", Kind::Plain);
    let script = "echo begun >>$K/log; for i in 1 2 3 4 5 6 7 8; do sleep 0.2; done; cp in/a out; test ! -e stranger; touch stranger; echo ended >>$K/log";
    let project = project(&[&node], script, "keep = { K = 'k' }");
    let children: Vec<_> = (0..2)
        .map(|number| {
            let cache = format!("cache{number}");
            let mut command = project.command(&["--cache", &cache, "run"]);
            command.stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    // Two caches, as two machines have: the second waits for a moment.
    assert_eq!(node.sh("cat /home/ops/.cache/vcbuild/keep/k/log"), "begun\nended\nbegun\nended\n");
    node.quiet();
}

#[test]
fn a_folder_here_is_a_host_too() {
    let project = Project::new()
        .config("[host.n]\nlocal = 'nodes/n'\n[compile.c]\nhost = 'n'\ninputs = ['in/**']\nkeep = { K = 'k' }\nrun = [['sh', '-c', 'cp in/a out; touch $K/x; pwd']]\noutputs = ['out']\n")
        .file("in/a", "a\n");
    let key = project.run("").success().did(&["compile.c"]).event("compile.c")["key"].clone();
    assert_eq!(out(&project), "a\n");
    assert!(project.path("nodes/n/keep/k/x").exists());
    says(&project.call("log c").success().text(), &["/project/nodes/n/work/"]);
    project.edit("vcbuild.toml", |text| text.replace("host = 'n'", ""));
    assert_eq!(project.run("").success().did(&[]).event("compile.c")["key"], key);
}

#[test]
fn root_only_where_the_host_says_so() {
    let node = Node::new("n", Kind::Plain);
    node.sh("mount -t tmpfs tmpfs /root && chmod 700 /root");
    let project = project(&[&node], "id -un >out", "");
    project.run("").success();
    assert_eq!(out(&project), "ops\n");
    assert_eq!(node.sh("ls -A /root"), "");
    // As what it runs is no part of the key, nothing runs again until an input changes.
    project.edit("vcbuild.toml", |text| {
        text.replace("ssh_config = 'ssh_config'", "ssh_config = 'ssh_config'\nsudo = true")
    });
    project.write("in/a", "A\n");
    project.run("").success();
    assert_eq!(out(&project), "root\n");
    assert_eq!(node.sh("ls /root/.cache/vcbuild"), "work\n");
    node.sh("rm /etc/sudoers.d/ops");
    project.write("in/a", "B\n");
    says(&project.run("").failure(1).stderr, &["`n` lets us not become root", "NOPASSWD"]);
    node.quiet();
}
