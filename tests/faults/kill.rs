//! vcbuild is killed at every system call that changes something: nothing wrong is left, and nothing is left
//! for ever.

use std::time::{Duration, Instant};

use crate::faults::strace::{chain, places, tampered};
use crate::support::{Project, folder};

/// How long the test may go on; what it has not come to then is left out. The order is the same each time.
const BUDGET: Duration = Duration::from_secs(45);

/// The calls that change something, or after which something changes.
const CALLS: &str = "openat,write,renameat2,rename,mkdir,unlink,rmdir,fchmod,copy_file_range,flock,symlink,\
                     clone3,execve,sendmsg";

fn forget(project: &Project) {
    for name in ["cache", "out"] {
        if project.path(name).exists() {
            project.remove(name);
        }
    }
}

#[test]
fn at_every_call_of_a_publish() {
    let project = chain();
    let places = places(&project, CALLS, &["run", "-j1"]);
    project.call("get compile.x -o out").success();
    let clean = folder::contents(&project.path("out"));
    let start = Instant::now();
    let mut tried = 0;
    for (call, number) in &places {
        if start.elapsed() > BUDGET {
            break;
        }
        tried += 1;
        forget(&project);
        let killed = tampered(&project, call, *number, "signal=KILL", &["run", "-j1"]);
        project.call("cache verify").success();
        let next = project.run("").success();
        assert_eq!(next.outcomes().len(), 2, "after {call} {number}: {killed:?}");
        project.call("get compile.x -o out").success();
        assert!(folder::contents(&project.path("out")) == clean, "after {call} {number}: {killed:?}");
    }
    assert!(tried > 20, "only {tried} of {} places in {BUDGET:?}", places.len());
}

#[test]
fn what_a_killed_run_leaves_behind_goes() {
    let project = chain();
    let tmp = project.cache("tmp");
    let left = || std::fs::read_dir(&tmp).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    for number in 1..12 {
        let _ = tampered(&project, "fchmod", number, "signal=KILL", &["run", "-j1"]);
    }
    assert!(!left().is_empty(), "nothing was left behind");
    // Whoever is still at it must not lose its file.
    let kept = tmp.join("tmp.kept");
    let file = std::fs::File::create(&kept).unwrap();
    file.try_lock().unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    for path in left() {
        std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    project.edit("src/a", |text| format!("{text}more\n"));
    project.run("").success();
    // It is cleared away by a child that nobody waits for.
    let end = Instant::now() + Duration::from_secs(20);
    while left() != [kept.clone()] {
        assert!(Instant::now() < end, "still there: {:?}", left());
        std::thread::sleep(Duration::from_millis(20));
    }
}
