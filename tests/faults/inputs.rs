//! Inputs that change under vcbuild's hands, and other processes beside it.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Project;

/// A compile that runs a line of shell in which `$P` is the project's folder.
fn compile(line: &str, more: &str) -> Project {
    let project = Project::new();
    let root = project.root();
    let root = root.to_str().unwrap();
    let project = project
        .config(&format!(
            "[compile.c]\ninputs = ['in/*.txt']\nrun = [['sh', '-euc', 'P={root}; {line}']]\n\
             outputs = ['out']\n{more}\n"
        ))
        .file("in/a.txt", "a\n");
    project.settle();
    project
}

#[test]
fn an_input_edited_meanwhile_is_not_remembered() {
    let project = compile("test -e $P/done || echo b >> $P/in/a.txt; touch $P/done; cp in/a.txt out", "");
    let first = project.run("").did(&["compile.c"]);
    assert!(first.stderr.contains("an input changed while it ran"), "{}", first.stderr);
    first.success();
    project.settle();
    project.run("").did(&["compile.c"]).success();
    project.call("get compile.c -o got").success();
    assert_eq!(project.read("got"), "a\nb\n");
}

#[test]
fn a_file_beside_the_inputs_does_not_count() {
    let project = compile("touch $P/in/.a.txt.swp $P/other; cp in/a.txt out", "");
    let first = project.run("").did(&["compile.c"]);
    assert!(!first.stderr.contains("warning"), "{}", first.stderr);
    first.success();
    project.run("").did(&[]).success();
}

#[test]
fn an_edit_of_the_same_size_and_time_is_seen() {
    let project = compile("cp in/a.txt out", "");
    project.run("").success();
    for text in ["b\n", "c\n", "d\n"] {
        let path = project.path("in/a.txt");
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, text).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        project.run("").did(&["compile.c"]).success();
        project.call("get compile.c -o got").success();
        assert_eq!(project.read("got"), text);
    }
}

#[test]
fn what_was_no_program_in_path_counts_when_it_becomes_one() {
    let project = Project::new()
        .config("[compile.c]\ninputs = ['in/**']\ntools = ['t']\nrun = [['sh', '-c', 't > out']]\noutputs = ['out']")
        .file("in/a", "")
        .program("two/t", "#!/bin/sh\necho two\n")
        .file("one/t/folder", "");
    let path = format!("{}:{}:/usr/bin:/bin", project.path("one").display(), project.path("two").display());
    let project = project.env("PATH", path);
    project.settle();
    project.run("").success();
    project.run("").nothing();
    project.remove("one/t");
    let project = project.program("one/t", "#!/bin/sh\necho one\n");
    project.run("").did(&["compile.c"]).success();
    project.call("get compile.c -o got").success();
    assert_eq!(project.read("got"), "one\n");
}

#[test]
fn a_tool_that_says_another_version_counts() {
    let project = Project::new();
    let says = project.path("says");
    let project = project
        .config(
            "[compile.c]\ninputs = ['in/**']\ntools = ['bin/t']\nversion = [['t', '--version']]\n\
             run = [['t', 'out']]\noutputs = ['out']",
        )
        .file("in/a", "")
        .program(
            "bin/t",
            &format!("#!/bin/sh\ncat {0} > ${{1#--version}} 2>/dev/null || cat {0}\n", says.display()),
        )
        .file("says", "1\n");
    project.settle();
    project.run("").success();
    project.run("").nothing();
    project.write("says", "2\n");
    project.run("").did(&["compile.c"]).success();
}

#[test]
fn what_another_place_is_linked_to_is_not_cleared() {
    let project =
        compile("rm -rf link; ln -s $P/precious link; cp in/a.txt link/out", "").file("precious/x", "");
    project.edit("vcbuild.toml", |text| text.replace("['out']", "['link/out']"));
    project.run("").success();
    assert_eq!(project.read("precious/out"), "a\n");
    project.edit("vcbuild.toml", |text| {
        text.replace("cp in/a.txt link/out", "mkdir link; cp in/a.txt link/out").replace("ln -s", "echo")
    });
    project.run("").success();
    assert_eq!(project.read("precious/out"), "a\n");
}

fn start(project: &Project, arguments: &[&str]) -> Child {
    project.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Takes the locks of all keys, as somebody who runs everything.
fn busy(project: &Project) -> Vec<File> {
    let folder = project.cache("actions/locks");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = |number| {
        let file = File::create(folder.join(format!("{number:02x}"))).unwrap();
        file.lock().unwrap();
        file
    };
    (0..256).map(lock).collect()
}

#[test]
fn a_wait_for_another_process_can_be_interrupted() {
    let project = compile("cp in/a.txt out", "");
    let _busy = busy(&project);
    let mut run = start(&project, &["run"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.try_wait().unwrap().is_none(), "it did not wait");
    Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    let begun = Instant::now();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn clearing_waits_for_what_runs() {
    let project = compile("cp in/a.txt out", "");
    project.run("").success();
    let locks = busy(&project);
    let mut clear = start(&project, &["cache", "clear"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(clear.try_wait().unwrap().is_none(), "it did not wait");
    assert!(std::fs::read_dir(project.cache("work")).unwrap().next().is_some());
    drop(locks);
    assert_eq!(clear.wait().unwrap().code(), Some(0));
    assert!(
        !project.cache("work").exists()
            || std::fs::read_dir(project.cache("work")).unwrap().next().is_none()
    );
    project.run("").did(&["compile.c"]).success();
}

#[test]
fn equal_work_runs_once() {
    let project = compile("echo x >> $P/count; sleep 1; cp in/a.txt out", "");
    let runs: Vec<Child> = (0..4).map(|_| start(&project, &["run"])).collect();
    for mut run in runs {
        assert_eq!(run.wait().unwrap().code(), Some(0));
    }
    assert_eq!(project.read("count"), "x\n");
}
