//! Secrets to machines and between them, and that nothing of them stays anywhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::Digest;

use crate::rig::{self, Kind, Node};
use crate::support::Project;
use crate::support::servers::Line;

/// What must be nowhere: the bytes, and what names them.
fn traces(secret: &[u8]) -> Vec<Vec<u8>> {
    let sha256 = sha2::Sha256::digest(secret).to_vec();
    let blake3 = blake3::hash(secret).as_bytes().to_vec();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut all = vec![secret[..24].to_vec(), hex(&sha256)[..12].into(), hex(&blake3)[..12].into()];
    all.extend([sha256[..8].to_vec(), blake3[..8].to_vec()]);
    all
}

fn each(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => each(&entry.path(), visit),
            false => visit(&entry.path()),
        }
    }
}

/// Nothing of a secret is in a folder, in names or bytes.
#[track_caller]
fn clean(folder: &Path, secret: &[u8], but: &[PathBuf]) {
    let traces = traces(secret);
    let mut seen = 0;
    each(folder, &mut |path| {
        seen += 1;
        let bytes = fs::read(path).unwrap_or_default();
        let name = path.as_os_str().as_encoded_bytes().to_vec();
        for trace in traces.iter().filter(|_| !but.iter().any(|but| but == path)) {
            let within = |all: &[u8]| all.windows(trace.len()).any(|window| window == trace);
            assert!(!within(&bytes) && !within(&name), "`{}` has a trace of the secret", path.display());
        }
    });
    assert!(seen > 0, "there is nothing in `{}`", folder.display());
}

fn secret(seed: u8, size: usize) -> Vec<u8> {
    let mut state = blake3::Hasher::new();
    state.update(&[seed]);
    let mut bytes = vec![0; size];
    state.finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_secret_of_the_project_leaves_no_trace() {
    let (a, b) = (Node::new("a", Kind::Plain), Node::new("b", Kind::Plain));
    let tasks = "[upload.u]\nfrom = 'keys/token'\nhosts = 'nodes'\ndir = '/srv/keys'\nowner = 'ops'\nsecret = true\n";
    let project = Project::new().config(&format!("{}{tasks}", rig::hosts(&[&a, &b], "sudo = true")));
    rig::introduce(&project, &[&a, &b], "ops");
    let first = secret(1, 100_000);
    fs::create_dir(project.path("keys")).unwrap();
    fs::write(project.path("keys/token"), &first).unwrap();
    let plan = project.call("plan u").success().text();
    assert!(plan.contains("/srv/keys/token secret"), "{plan}");
    let strace = |log: &Path| {
        // All that the process and its children write to files, connections excepted: they go to sshd.
        let vcbuild = project.command(&["-v", "run", "--events", "events.json", "u"]);
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-qq",
            "-y",
            "-s",
            "400000",
            "-xx",
            "-e",
            "trace=write,pwrite64,writev,copy_file_range",
            "-o",
        ]);
        command.arg(log).arg(vcbuild.get_program()).args(vcbuild.get_args()).current_dir(project.root());
        project.clean(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].concat()
    };
    let check = |secret: &[u8], said: &[u8], log: &Path| {
        for node in [&a, &b] {
            assert_eq!(node.sh("cd /srv/keys && stat -c '%a %U %n' * && ls -A"), "600 ops token\ntoken\n");
            assert!(node.exec("cat /srv/keys/token").stdout == secret);
            node.quiet();
            // Their own logs, too; not the folder that is the node's disk for `/srv`, which is in memory.
            clean(node.path("").as_path(), secret, &[]);
        }
        clean(&project.beside(""), secret, &[project.path("keys/token")]);
        let text = fs::read_to_string(log).unwrap();
        let mut files = 0;
        for line in text.lines() {
            // `write(7</path/of/file>, "\x..`: sockets and pipes are shown otherwise.
            let to = line.split('<').nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default();
            if !to.starts_with('/') && !to.starts_with("\\x2f") {
                continue;
            }
            files += 1;
            for trace in traces(secret) {
                let hex: String = trace.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                assert!(!line.contains(&hex), "a trace of the secret was written to `{to}`");
            }
        }
        assert!(files > 0, "strace saw nothing");
        for trace in traces(secret) {
            assert!(!said.windows(trace.len()).any(|window| window == trace), "it was said");
        }
    };
    let log = a.path("strace.log");
    let said = strace(&log);
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    let kept = project.beside("strace.log");
    let only_files: String = text
        .lines()
        .filter(|line| !line.contains("pipe:") && !line.contains("socket:"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&kept, only_files).unwrap();
    check(&first, &said, &kept);
    project.run("u").nothing();
    for verb in ["show upload.u", "why upload.u", "log upload.u", "list", "graph --format json"] {
        let done = project.call(verb);
        for trace in traces(&first) {
            assert!(!done.stdout.windows(trace.len()).any(|window| window == trace), "{verb}");
        }
    }
    // Only one is wrong, and in its mode: no byte goes. An edit goes to both.
    b.sh("chmod 644 /srv/keys/token");
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("a".to_string(), 0), ("b".to_string(), 0)].into());
    let second = secret(2, 100_000);
    fs::write(project.path("keys/token"), &second).unwrap();
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u"), [("a".to_string(), 100_000), ("b".to_string(), 100_000)].into());
    check(&second, b"", &kept);
    assert_eq!(project.call("cache verify").success().stderr.matches("damaged").count(), 0);
}

#[test]
fn a_secret_goes_from_host_to_host_and_leaves_no_trace() {
    let (a, b) = (Node::new("a", Kind::Plain), Node::new("b", Kind::Plain));
    let tasks = "[fetch.token]\nhost = 'a'\npath = '/srv/token'\nsecret = true\n\
                 [upload.u]\nfrom = 'fetch.token'\nhosts = 'b'\nto = '/srv/keys/it'\nsecret = true\n";
    // One host at a time, and the one that is read from besides.
    let head = "[project]\nname = 'p'\nparallel_hosts = 1\n";
    let project = Project::new().config(&format!("{head}{}{tasks}", rig::hosts(&[&a, &b], "")));
    rig::introduce(&project, &[&a, &b], "root");
    let done = project.run("u").failure(1).stderr;
    assert!(done.contains("there is no `/srv/token` on `a`"), "{done}");
    let bytes = secret(3, 9 << 20);
    fs::create_dir_all(a.path("home/x")).unwrap();
    fs::write(a.path("home/x/token"), &bytes).unwrap();
    a.sh("mv /home/x/token /srv/token");
    let done = project.run("u").success();
    assert_eq!(done.outcomes()["fetch.token"], "unchanged");
    assert_eq!(done.sent("upload.u")["b"], 9 << 20);
    assert_eq!(b.sh("stat -c '%a %n' /srv/keys/*; ls -A /srv/keys"), "600 /srv/keys/it\nit\n");
    assert!(b.exec("cat /srv/keys/it").stdout == bytes);
    clean(&project.beside(""), &bytes, &[]);
    project.run("u").nothing();
    // The other way out: `get`, into a file for its owner alone.
    project.write("got", "before");
    fs::set_permissions(project.path("got"), fs::Permissions::from_mode(0o644)).unwrap();
    project.call("get fetch.token -o got").success();
    assert!(fs::read(project.path("got")).unwrap() == bytes);
    assert_eq!(fs::metadata(project.path("got")).unwrap().permissions().mode() & 0o777, 0o600);
    clean(&project.beside(""), &bytes, &[project.path("got")]);
    project.remove("got");
    // Cut off, nothing partial stays, and the next run begins anew.
    let bytes = secret(4, 9 << 20);
    fs::write(a.path("home/x/token"), &bytes).unwrap();
    a.sh("mv /home/x/token /srv/token");
    let line = Line::to(b.port);
    rig::introduce_by(&project, &[&a, &b], "root", &[a.port, line.port]);
    line.cut_upward(6 << 20);
    let done = project.run("u").failure(1);
    b.quiet();
    // What went in both tries is told.
    let sent = done.sent("upload.u")["b"];
    assert!((8 << 20..14 << 20).contains(&sent), "{sent}");
    assert_eq!(b.sh("ls -A /srv/keys"), "it\n");
    line.mend();
    project.run("u").success();
    assert!(b.exec("cat /srv/keys/it").stdout == bytes);
    clean(&project.beside(""), &bytes, &[]);
    for node in [&a, &b] {
        node.quiet();
        clean(node.path("").as_path(), &bytes, &[]);
    }
}

#[test]
fn wrong_uses_are_mistakes() {
    let project = Project::new().config(
        "[host.h]\nlocal = 'h'\n[fetch.s]\nhost = 'h'\npath = '/x'\nsecret = true\n\
         [fetch.f]\nhost = 'h'\npath = '/y'\n\
         [upload.a]\nfrom = 'fetch.s'\nhosts = 'h'\ndir = '/a'\n\
         [upload.b]\nfrom = 'fetch.f'\nhosts = 'h'\ndir = '/b'\nsecret = true\n\
         [upload.c]\nfrom = 'k*'\nhosts = 'h'\ndir = '/c'\nsecret = true\n\
         [upload.d]\nfrom = 'k'\nhosts = 'h'\ndir = '/srv/d'\nsecret = true\nmode = '0644'\n\
         [image.i]\nbase = 'scratch'\nfiles = [{ from = 'fetch.s', to = '/' }]\n\
         [compile.c]\ntree = 'fetch.s'\nrun = [['true']]\noutputs = ['o']\n\
         [upload.e]\nfrom = 'k'\nhosts = 'h'\ndir = '/srv/e'\nafter = ['fetch.s']\n",
    );
    let said = project.call("list").failure(2).stderr;
    for words in [
        "`fetch.s` is secret, and this upload is not",
        "hint: write `secret = true` here, too",
        "what `fetch.f` makes is in the cache, and no secret",
        "`k*` is a glob, and a secret is one file",
        "a secret is for its owner alone",
        "`fetch.s` is secret, and what reads it here would keep it",
        "hint: only an `upload` with `secret = true` and `vcbuild get` take it",
        "error: 6 mistakes in `vcbuild.toml`",
    ] {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
}
