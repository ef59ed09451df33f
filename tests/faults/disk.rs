//! Disks that are full or failing: a clear error, nothing half written, and the next run is right.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::faults::strace::{chain, places, tampered};
use crate::support::{Project, folder};

/// How long each test may go on; what it has not come to then is left out.
const BUDGET: Duration = Duration::from_secs(20);

/// Lets one call after the other fail, each in a run of its own from an empty cache.
fn fail_each(calls: &str, error: &str, words: &str) {
    let project = chain();
    let places = places(&project, calls, &["run", "-j1"]);
    project.call("get compile.x -o out").success();
    let clean = folder::contents(&project.path("out"));
    let start = Instant::now();
    let mut seen = 0;
    for (call, number) in places {
        if start.elapsed() > BUDGET {
            break;
        }
        project.remove("cache");
        let with = format!("error={error}");
        let failed = tampered(&project, &call, number, &with, &["run", "-j1"]);
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(!said.contains("BUG") && !said.contains("panicked"), "{call} {number}: {said}");
        match failed.status.code() {
            Some(0) => {}
            // Also the libraries that vcbuild needs are files.
            Some(127) => {}
            Some(1 | 2) if said.contains(words) => seen += 1,
            _ => {
                // The call was the command's, or was made to say what is wrong.
                assert!(
                    said.contains("failed: exit status") || said.is_empty() || said.contains("there is no"),
                    "{call} {number}: {failed:?}"
                );
            }
        }
        project.call("cache verify").success();
        project.run("").success();
        project.remove("out");
        project.call("get compile.x -o out").success();
        assert!(folder::contents(&project.path("out")) == clean, "after {call} {number}: {said}");
    }
    assert!(seen > 3, "only {seen} failures said `{words}`");
}

#[test]
fn a_failing_disk() {
    fail_each("openat,read,write,renameat2,mkdir,fchmod,copy_file_range", "EIO", "input/output error");
}

#[test]
fn a_full_disk_at_every_write() {
    fail_each("write,copy_file_range,mkdir,renameat2", "ENOSPC", "no space left on device");
}

/// Runs a script that may mount; it gets the project's folder as its first argument.
fn mounting(project: &Project, script: &str) -> String {
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-euc", script, "sh"]).arg(env!("CARGO_BIN_EXE_vcbuild"));
    project.clean(&mut command);
    let done = command.current_dir(project.root()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!said.contains("unshare: "), "a small disk needs the right to mount: {said}");
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stdout));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn a_small_tmpfs() {
    let project = chain();
    project.run("").success();
    project.call("get compile.x -o out").success();
    let clean = folder::contents(&project.path("out"));
    for size in ["20k", "200k", "300k", "600k", "800k", "1100k", "1200k", "1400k"] {
        let script = format!(
            "mkdir -p small; mount -t tmpfs -o size={size} small small
            code=0; \"$1\" --cache small run >said 2>&1 || code=$?
            \"$1\" --cache small cache verify >&2
            mount -o remount,size=50m small
            \"$1\" --cache small -q run; \"$1\" --cache small -q get compile.x -o got
            echo $code"
        );
        if project.path("got").exists() {
            project.remove("got");
        }
        let code = mounting(&project, &script);
        let said = project.read("said").to_lowercase();
        match code.trim() {
            "0" => {}
            "1" => assert!(said.contains("no space left on device"), "{size}: {said}"),
            code => panic!("{size}: exit {code}: {said}"),
        }
        assert!(folder::contents(&project.path("got")) == clean, "{size}");
    }
}
