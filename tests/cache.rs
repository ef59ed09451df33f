//! The cache from outside: shared by processes, looked after by its verbs, unwritable, and lost in parts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use snapbox::str;

use crate::support::Project;
use crate::support::folder::{self, Damage};

/// A task that says how often it ran, in a file outside.
fn counted() -> Project {
    let project = Project::new().file("in", "x\n");
    let count = project.beside("count").display().to_string();
    project.config("[compile.c]\ninputs = ['in']\nlocate_env = ['COUNT']\nrun = [['sh', '-c', 'echo run >> $COUNT; sleep 0.3; cp in out']]\noutputs = ['out']\n")
    .env("COUNT", count)
}

fn count(project: &Project) -> usize {
    fs::read_to_string(project.beside("count")).unwrap().lines().count()
}

#[test]
fn equal_work_in_several_processes_runs_once() {
    let project = counted();
    let children: Vec<_> = (0..4)
        .map(|_| project.command(&["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(count(&project), 1);
}

#[test]
fn waiting_for_another_process_is_said() {
    let project = counted();
    let mut first = project.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    while !project.beside("count").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    project.call("run").success().stderr(str![[r#"
note: `compile.c`: waiting for another process that does the same
nothing to do: 1 task up to date ([TIME])

"#]]);
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_cache_folder_that_cannot_be_written() {
    let project = counted().file("a-file", "");
    project.call("run --cache a-file").failure(1).stderr(str![[r#"
error: the cache cannot be written: make the folder `[ROOT]/a-file/v1/cas`: not a directory
hint: choose another folder with `--cache DIR` or `VCBUILD_CACHE`

"#]]);
    project.call("run --cache /proc/cache").failure(1).stderr(str![[r#"
error: the cache cannot be written: make the folder `/proc/cache/v1/cas`: no such file or directory
hint: choose another folder with `--cache DIR` or `VCBUILD_CACHE`

"#]]);
    let folder = project.path("closed");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(folder.join("try"), "").is_err() {
        project.call("run --cache closed").failure(1).stderr(str![[r#"
error: the cache cannot be written: make the folder `[ROOT]/closed/v1/cas`: permission denied
hint: choose another folder with `--cache DIR` or `VCBUILD_CACHE`

"#]]);
    }
}

#[test]
fn size_verify_and_clear() {
    let project = counted();
    project.settle();
    project.run("").success();
    let size = project.call("cache size").success().text();
    let parts: Vec<_> = size.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(
        parts,
        ["cas", "actions", "git", "keep", "work", "stamps", "memo", "runs", "tmp", "edit", "all"]
    );
    assert!(size.starts_with(project.cache("").to_str().unwrap().trim_end_matches('/')), "{size}");
    project.call("cache verify").success();
    let cas = project.cache("cas");
    let blob = folder::files(&cas)
        .into_iter()
        .find(|name| fs::metadata(cas.join(name)).unwrap().len() > 0)
        .unwrap();
    folder::damage(&cas.join(&blob), Damage::Flipped);
    let record = folder::files(&project.cache("actions"))
        .into_iter()
        .find(|name| !name.starts_with("locks"))
        .unwrap();
    folder::damage(&project.cache("actions").join(record), Damage::Torn);
    let said = project.call("cache verify").failure(1);
    assert!(said.stderr.starts_with("error: 2 parts damaged and taken away\n"), "{}", said.stderr);
    assert!(said.stderr.ends_with("hint: the next run that needs one makes it again\n"), "{}", said.stderr);
    assert!(!cas.join(&blob).exists());
    project.call("cache verify").success();
    project.run("").nothing();
    project.call("get compile.c -o got").success();
    assert_eq!((count(&project), project.read("got").as_str()), (2, "x\n"), "the record was lost");
    project.call("cache clear").success();
    let left = folder::contents(&project.cache(""));
    let left: Vec<_> = left.iter().filter(|(_, (_, bytes))| !bytes.is_empty()).collect();
    assert!(left.is_empty(), "more than locks is left: {left:?}");
    project.run("").success().did(&["compile.c"]);
    assert_eq!(count(&project), 3);
}

#[test]
fn nothing_that_is_restored_can_write_into_the_cache() {
    let project = counted();
    project.run("").success();
    project.call("get compile.c -o got").success();
    fs::write(project.path("got"), "spoiled\n").unwrap();
    for name in folder::files(&project.cache("work")) {
        if !name.ends_with("lock") {
            fs::write(project.cache("work").join(name), "spoiled\n").unwrap();
        }
    }
    project.call("cache verify").success();
    project.call("get compile.c -o again").success();
    assert_eq!(project.read("again"), "x\n");
}

#[test]
fn content_of_the_cache_is_read_only() {
    let project = counted();
    project.run("").success();
    for name in folder::files(&project.cache("cas")) {
        let mode = fs::metadata(project.cache("cas").join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o222, 0, "{name:?} can be written");
    }
}

#[test]
fn many_small_files_are_one_in_the_cache() {
    let project = Project::new().config(
        "[compile.c]\ninputs = ['in/**']\nrun = [['cp', '-r', 'in', 'out']]\noutputs = ['out']\n\
         [image.i]\nbase = 'scratch'\nfiles = [{ from = 'compile.c', to = '/' }, { from = 'in', to = '/in/' }]\n\
         [save.s]\nimages = ['image.i']\nformat = 'oci-archive'\n",
    );
    for number in 0..200 {
        project.write(&format!("in/{number}"), &format!("{number}\n").repeat(number));
    }
    project.settle();
    project.call("get save.s -o clean").success();
    let packs = || folder::files(&project.cache("cas/packs"));
    assert_eq!(packs().len(), 1, "what was made is what was read");
    assert!(folder::files(&project.cache("cas")).len() < 20);
    let clean = fs::read(project.path("clean")).unwrap();
    for how in [Damage::Deleted, Damage::Flipped, Damage::Torn] {
        for name in packs() {
            folder::damage(&project.cache("cas/packs").join(name), how);
        }
        project.run("").nothing();
        // Twice: what was made again is found, also beside what is damaged.
        for made in [1, 0] {
            project.call("get save.s -o got").success();
            assert!(fs::read(project.path("got")).unwrap() == clean, "{how:?}, {made}");
        }
        if !matches!(how, Damage::Deleted) {
            let said = project.call("cache verify").failure(1);
            assert!(said.stderr.contains("damaged and taken away\n"), "{}", said.stderr);
        }
        project.call("cache verify").success();
        project.call("get save.s -o got").success();
        assert!(fs::read(project.path("got")).unwrap() == clean, "{how:?}, taken away");
    }
    project.run("").nothing();
}

#[test]
fn lost_content_is_made_again_for_whoever_reads_it() {
    let project = counted();
    project.settle();
    project.run("").success();
    fs::remove_dir_all(project.cache("cas")).unwrap();
    project.run("").nothing();
    project.call("get compile.c -o got").success();
    assert_eq!(project.read("got"), "x\n");
    assert_eq!(count(&project), 2);
}

#[test]
fn an_output_that_is_another_when_made_again_still_ends() {
    let project = Project::new()
        .config(
            "[compile.c]\ninputs = ['in']\nrun = [['sh', '-c', 'cat /proc/sys/kernel/random/uuid > out']]\noutputs = ['out']\n\
             [image.i]\nbase = 'scratch'\nfiles = [{ from = 'compile.c', to = '/' }]\n\
             [import.n]\nimages = ['image.i']\nhosts = 'n'\n[host.n]\nlocal = 'n'\n",
        )
        .file("in", "");
    project.run("").success();
    fs::remove_dir_all(project.cache("cas")).unwrap();
    project.remove("n");
    project.run("").success();
    project.settle();
    project.run("").nothing();
}
