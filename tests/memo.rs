//! What a run looks at before it decides that there is nothing to do: any one thing that decides about a
//! key runs exactly the tasks that read it, and a no-op opens no file for a task.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::Project;

/// Three tasks that read different things, a fetch, and an image behind them.
fn project() -> Project {
    let project = Project::new()
        .config(
            "[host.depot]\nlocal = 'depot'\n\
             [compile.list]\ninputs = ['list/**']\npass_env = ['LIST']\n\
             run = [['sh', '-c', 'find list -type f | sort > out; cat list/*.txt >> out']]\noutputs = ['out']\n\
             [compile.one]\ninputs = ['one/a', 'one/b']\ntools = ['mytool']\nrun = [['mytool']]\noutputs = ['out']\n\
             [fetch.f]\nhost = 'depot'\npath = '/etc/f'\n\
             [image.i]\nbase = 'scratch'\nfiles = [{ from = 'compile.list', to = '/list' }, { from = 'compile.one', to = '/one' }, { from = 'fetch.f', to = '/f' }]\n",
        )
        .file("list/a.txt", "a\n")
        .file("list/b.txt", "b\n")
        .file("one/a", "a\n")
        .file("one/b", "b\n")
        .file("depot/files/etc/f", "f\n")
        .program("late/mytool", "#!/bin/sh\ncat one/* > out\n");
    fs::create_dir(project.path("early")).unwrap();
    let path =
        format!("{}:{}:/usr/bin:/bin", project.path("early").display(), project.path("late").display());
    let project = project.env("PATH", path);
    project.settle();
    project.run("").success().did(&["compile.list", "compile.one", "fetch.f", "image.i"]);
    project.run("").nothing();
    project.settle();
    project
}

#[test]
fn each_input_edited_runs_who_reads_it() {
    let project = project();
    for (path, task) in [
        ("list/a.txt", "compile.list"),
        ("list/b.txt", "compile.list"),
        ("one/a", "compile.one"),
        ("one/b", "compile.one"),
        ("late/mytool", "compile.one"),
        ("depot/files/etc/f", "fetch.f"),
    ] {
        project.edit(path, |text| format!("{text}\n# more\n"));
        let behind = if path == "late/mytool" { vec![task] } else { vec![task, "image.i"] };
        project.run("").success().did(&behind);
        project.settle();
        project.run("").nothing();
    }
}

#[test]
fn an_edit_of_the_same_size_and_time_is_seen() {
    let project = project();
    let path = project.path("one/a");
    let before = fs::metadata(&path).unwrap();
    fs::write(&path, "A\n").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before.modified().unwrap());
    project.run("").success().did(&["compile.one", "image.i"]);
}

#[test]
fn edits_right_after_a_run_are_seen() {
    let project = project();
    for round in 0..30 {
        fs::write(project.path("one/a"), format!("{}\n", round % 10)).unwrap();
        let done = project.run("").success();
        let outcome = &done.outcomes()["compile.one"];
        assert_eq!(outcome, if round < 10 { "ran" } else { "hit" }, "round {round}");
        project.call("get compile.one -o got").success();
        assert_eq!(project.read("got"), format!("{}\nb\n", round % 10));
    }
}

#[test]
fn a_file_more_or_less_in_a_glob_is_seen() {
    let project = project();
    project.write("list/c.txt", "c\n");
    project.run("").success().did(&["compile.list", "image.i"]);
    project.write("list/new/deep/d.txt", "d\n");
    project.run("").success().did(&["compile.list", "image.i"]);
    project.settle();
    project.run("").nothing();
    project.write("list/new/deep/e.txt", "e\n");
    project.run("").success().did(&["compile.list", "image.i"]);
    project.remove("list/new");
    let done = project.run("").success();
    assert_eq!(done.event("compile.list")["outcome"], "hit", "as it was before");
    // A link is content too, an empty folder is not.
    std::os::unix::fs::symlink("a.txt", project.path("list/link")).unwrap();
    project.run("").success().did(&["compile.list"]);
}

#[test]
fn a_folder_that_became_a_link_to_itself_is_seen() {
    // Not one stamp of a file is another one: only the way to them is.
    let project = Project::new()
        .config(
            "[compile.c]\ninputs = ['way/to/a']\nrun = [['cp', 'way/to/a', 'out']]\noutputs = ['out']\n\
             [image.i]\nbase = 'scratch'\nfiles = [{ from = 'deep/to/b', to = '/b' }]\n\
             [image.j]\nbase = 'scratch'\nfiles = [{ from = 'glob/{a,b}/*', to = '/' }]\n",
        )
        .file("way/to/a", "a\n")
        .file("deep/to/b", "b\n")
        .file("glob/a/a", "a\n")
        .file("glob/b/b", "b\n");
    project.settle();
    project.run("").success();
    project.run("").nothing();
    for (folder, task) in [("way", "compile.c"), ("deep", "image.i"), ("glob", "image.j")] {
        fs::rename(project.path(folder), project.path("real")).unwrap();
        std::os::unix::fs::symlink("real", project.path(folder)).unwrap();
        assert_eq!(project.run("").failure(1).event(task)["outcome"], "failed");
        fs::remove_file(project.path(folder)).unwrap();
        fs::rename(project.path("real"), project.path(folder)).unwrap();
        project.run("").success().did(&[]);
        project.settle();
    }
}

#[test]
fn a_file_that_is_no_input_may_change_while_a_task_runs() {
    let project = Project::new()
        .config(
            "[compile.c]\ninputs = ['src/*', '!**/b']\nenv = { ROOT = '@ROOT@' }\n\
             run = [['sh', '-c', 'cat src/a > out; echo more >> $ROOT/notes']]\noutputs = ['out']\n",
        )
        .file("src/a", "a\n")
        .file("notes", "one\n");
    let root = project.root().display().to_string();
    project.edit("vcbuild.toml", |text| text.replace("@ROOT@", &root));
    project.settle();
    let done = project.run("").success().did(&["compile.c"]);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    project.settle();
    project.write("notes", "two\n");
    project.run("").nothing();
}

#[test]
fn a_mode_is_an_input_and_a_touch_is_not() {
    let project = project();
    fs::set_permissions(project.path("one/a"), fs::Permissions::from_mode(0o755)).unwrap();
    project.run("").success().did(&["compile.one"]);
    fs::write(project.path("one/a"), "a\n").unwrap();
    project.run("").success().did(&[]);
    fs::set_permissions(project.path("one/a"), fs::Permissions::from_mode(0o700)).unwrap();
    project.run("").success().did(&[]);
    project.write("unrelated", "x");
    project.run("").success().did(&[]).nothing();
}

#[test]
fn a_tool_put_earlier_in_path_is_seen() {
    let project = project().program("early/mytool", "#!/bin/sh\necho early > out\n");
    project.run("").success().did(&["compile.one", "image.i"]);
    project.remove("early/mytool");
    let done = project.run("").success();
    assert_eq!(done.event("compile.one")["outcome"], "hit");
    let project = project.env("PATH", "/usr/bin:/bin");
    project.run("").failure(1);
}

#[test]
fn a_named_variable_is_an_input_and_others_are_not() {
    let project = project().env("OTHER", "x");
    project.run("").success().did(&[]).nothing();
    let project = project.env("LIST", "x");
    project.run("").success().did(&["compile.list"]);
    project.run("").nothing();
    let project = project.env("LIST", "");
    project.run("").success().did(&["compile.list"]);
}

#[test]
fn the_configuration_is_an_input() {
    let project = project();
    project.edit("vcbuild.toml", |text| format!("# Only words.\n{text}"));
    project.run("").success().did(&[]);
    project.edit("vcbuild.toml", |text| text.replace("cat list/*.txt >> out", "cat list/b.txt >> out"));
    project.run("").success().did(&["compile.list", "image.i"]);
}

#[test]
fn the_lock_is_an_input() {
    let project = Project::hello();
    project.run("").success();
    project.settle();
    project.run("").nothing();
    project.edit("vcbuild.lock", |text| {
        let line = text.lines().find(|line| line.starts_with("commit = ")).unwrap().to_string();
        text.replace(&line, "commit = \"0000000000000000000000000000000000000000\"")
    });
    let done = project.run("").failure(1);
    assert_eq!(done.event("clone.source")["outcome"], "failed");
}

#[test]
fn what_is_lost_and_made_anew_differently_reaches_all_that_read_it() {
    let mut config = String::from(
        "[compile.moment]\ninputs = ['seed']\nrun = [['sh', '-c', 'date +%s%N > moment']]\noutputs = ['moment']\n",
    );
    for name in ["one", "two"] {
        config += &format!(
            "[compile.{name}]\ninputs = ['{name}']\nfiles = [{{ from = 'compile.moment', to = 'moment' }}]\n\
             run = [['sh', '-c', 'cat moment {name} > out']]\noutputs = ['out']\n"
        );
    }
    for idle in 0..9 {
        config +=
            &format!("[image.idle{idle}]\nbase = 'scratch'\nfiles = [{{ from = 'seed', to = '/' }}]\n");
    }
    let project = Project::new().config(&config).file("seed", "").file("one", "1\n").file("two", "2\n");
    project.settle();
    project.run("").success();
    project.write("one", "3\n");
    fs::remove_dir_all(project.cache("cas")).unwrap();
    project.settle();
    project.run("").success().did(&["compile.moment", "compile.one"]);
    // It was left apart, and may be made now.
    project.run("").success().did(&["compile.two"]);
    project.run("").nothing();
    let moment = |name: &str| {
        project.call(&format!("get compile.{name} -o got")).success();
        project.read("got").lines().next().map(str::to_string)
    };
    assert_eq!(moment("one"), moment("two"));
}

#[test]
fn where_tables_stand_is_remembered_by_a_run_of_few_tasks() {
    let compile = |name: usize| {
        format!(
            "[compile.c{name}]\ninputs = ['in']\nrun = [['sh', '-c', 'cat in; echo {name} > out']]\noutputs = ['out']\n"
        )
    };
    let project = Project::new().config(&(0..50).map(compile).collect::<String>()).file("in", "first");
    let size = || {
        let memos = fs::read_dir(project.cache("memo")).unwrap();
        memos.map(|memo| memo.unwrap().metadata().unwrap().len()).collect::<Vec<_>>()
    };
    project.settle();
    project.run("c7").success().did(&["compile.c7"]);
    let first = size();
    for word in ["other", "third"] {
        project.write("in", word);
        project.settle();
        project.run("c7").success().did(&["compile.c7"]);
        assert_eq!(size(), first, "{word}");
    }
}

#[test]
fn a_configuration_edited_between_a_look_and_a_reading_is_seen() {
    let compile = |name: &str, word: &str| {
        format!(
            "[compile.{name}]\ninputs = ['{name}']\nrun = [['sh', '-c', 'cat {name} > out; echo {word} >> out']]\noutputs = ['out']\n"
        )
    };
    let config = |word: &str| format!("{}{}{}", compile("a", "a"), compile("b", word), compile("c", "c"));
    let project = Project::new().config(&config("old")).file("a", "1\n").file("b", "1\n").file("c", "1\n");
    project.settle();
    project.run("").success();
    project.write("a", "2\n");
    project.settle();
    let file = project.path("vcbuild.toml");
    let mut command = Command::new("/usr/bin/strace");
    command.args(["-f", "-o", "/dev/null", "-e", "inject=openat:delay_enter=1500000", "-P"]).arg(&file);
    command.args([env!("CARGO_BIN_EXE_vcbuild"), "run"]);
    project.clean(&mut command);
    let mut run = command.current_dir(project.root()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    project.edit("vcbuild.toml", |text| text.replace("old", "new"));
    assert!(run.wait().unwrap().success());
    let done = project.run("").success().did(&[]);
    assert_eq!(done.event("compile.b")["outcome"], "hit", "it ran with the new command the first time");
}

#[test]
fn a_pin_that_could_not_be_written_is_asked_for_again() {
    let project = Project::new().config(
        "[compile.block]\ninputs = ['vcbuild.toml']\nrun = [['mkdir', '-p', '@ROOT@/vcbuild.lock', 'out']]\noutputs = ['out']\n\
         [clone.c]\nurl = 'upstream'\nrev = 'main'\nafter = ['compile.block']\n",
    );
    let root = project.root().display().to_string();
    project.edit("vcbuild.toml", |text| text.replace("@ROOT@", &root));
    let script = "git init -q -b main upstream && cd upstream && echo f > f && git add . && \
                  git -c user.name=a -c user.email=a@b commit -q -m first";
    let mut command = Command::new("/bin/sh");
    project.clean(&mut command);
    assert!(command.current_dir(project.root()).args(["-c", script]).status().unwrap().success());
    project.settle();
    let done = project.run("").success().did(&["compile.block", "clone.c"]);
    assert!(done.stderr.contains("the pin could not be written"), "{}", done.stderr);
    fs::remove_dir(project.path("vcbuild.lock")).unwrap();
    project.run("--locked").failure(1);
    let done = project.run("").success();
    assert!(done.stderr.contains("pinned `main`"), "{}", done.stderr);
    project.run("--locked").nothing();
}

#[test]
fn the_program_itself_is_an_input() {
    let project = project();
    let copy = project.beside("vcbuild");
    fs::copy(env!("CARGO_BIN_EXE_vcbuild"), &copy).unwrap();
    let mut command = Command::new(&copy);
    project.clean(&mut command);
    let log = project.beside("trace");
    let output = traced(&project, command.current_dir(project.root()).arg("run"), &log);
    assert!(output.contains("vcbuild.toml\", O_RDONLY"), "the memo of another program was believed");
}

#[test]
fn an_input_edited_while_the_task_runs_is_used_but_not_recorded() {
    let project = Project::new()
        .config(&format!(
            "[compile.c]\ninputs = ['in']\nenv = {{ ROOT = '{}' }}\nrun = [['sh', '-c', 'cat in > out; cp $ROOT/next $ROOT/in']]\noutputs = ['out']\n",
            "@ROOT@"
        ))
        .file("in", "one\n")
        .file("next", "two\n");
    let root = project.root().display().to_string();
    project.edit("vcbuild.toml", |text| text.replace("@ROOT@", &root));
    project.settle();
    let done = project.run("").success().did(&["compile.c"]);
    assert!(
        done.stderr.contains(
            "warning: `compile.c`: an input changed while it ran: the result is used, but not remembered"
        ),
        "{}",
        done.stderr
    );
    // The file it changed is as the last run left it: nothing moves any more.
    project.run("").success().did(&["compile.c"]);
    project.write("in", "one\n");
    project.settle();
    project.run("").success().did(&["compile.c"]);
}

/// Runs a command under strace and gives all system calls it made.
fn traced(project: &Project, command: &mut Command, log: &Path) -> String {
    let mut strace = Command::new("/usr/bin/strace");
    strace.arg("-f").arg("-o").arg(log).arg(command.get_program()).args(command.get_args());
    project.clean(&mut strace);
    let output = strace.current_dir(project.root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(log).unwrap()
}

#[test]
fn a_no_op_opens_no_file_for_a_task() {
    let many = |tasks: usize| {
        let mut config = String::new();
        let project = Project::new();
        for task in 0..tasks {
            config.push_str(&format!(
                "[image.t{task}]\nbase = 'scratch'\nfiles = [{{ from = 'src/{task}', to = '/' }}]\n"
            ));
            for file in 0..2 {
                project.write(&format!("src/{task}/{file}"), "the same\n");
            }
        }
        let project = project.config(&config);
        project.settle();
        project.run("").success();
        project.run("").nothing();
        std::thread::sleep(Duration::from_millis(30));
        let calls = traced(&project, &mut project.command(&["run"]), &project.beside("trace"));
        let count = |name: &str| calls.lines().filter(|line| line.contains(&format!(" {name}("))).count();
        (
            count("openat") + count("open"),
            count("statx"),
            calls.lines().filter(|line| !line.contains(" resumed>")).count(),
        )
    };
    let (few, more) = (many(20), many(10_020));
    assert!(more.0 <= few.0 + 20, "{} files opened for 10,020 tasks, {} for 20", more.0, few.0);
    let looks = more.1 - few.1;
    assert!(looks <= 10_000 * 3 + 100, "{looks} looks for 10,000 tasks with a folder and two files each");
    assert!(more.2 - few.2 <= 10_000 * 3 + 2000, "{} calls more", more.2 - few.2);
}

/// Tasks that read each other and files, and whose outputs are known without vcbuild.
struct Web {
    project: Project,
    /// For each task the earlier ones that it reads.
    reads: Vec<Vec<usize>>,
    /// What each task's own file says.
    files: Vec<String>,
}

impl Web {
    fn new() -> Self {
        let mut config = String::from("[vars]\nkinds = ['x', 'y']\n");
        let reads: Vec<Vec<usize>> = (0..9)
            .map(|task: usize| (0..task).filter(|other| (task * 7 + other * 5).is_multiple_of(4)).collect())
            .collect();
        for (task, reads) in reads.iter().enumerate() {
            let files: Vec<String> = reads
                .iter()
                .map(|other| format!("{{ from = 'compile.t{other}[x]', to = 'in/{other}' }}"))
                .collect();
            config += &format!(
                "[compile.t{task}]\nmatrix = {{ kind = '{{{{ kinds }}}}' }}\ninputs = ['src/{task}']\n\
                 files = [{}]\nrun = [['sh', '-c', 'cat src/{task} in/* > out 2>/dev/null; echo {{{{ kind }}}} >> out']]\n\
                 outputs = ['out']\n",
                files.join(", ")
            );
        }
        // Others, so that an edit concerns the smaller part of the project.
        for idle in 0..20 {
            config +=
                &format!("[image.idle{idle}]\nbase = 'scratch'\nfiles = [{{ from = 'idle', to = '/' }}]\n");
        }
        let files: Vec<String> = (0..9).map(|task| format!("{task}\n")).collect();
        let project = Project::new().config(&config).file("idle/file", "idle\n");
        let web = Self { project, reads, files };
        for task in 0..9 {
            web.write(task);
        }
        web
    }

    fn write(&self, task: usize) {
        self.project.write(&format!("src/{task}"), &self.files[task]);
    }

    fn output(&self, task: usize, kind: &str) -> String {
        let inputs: String = self.reads[task].iter().map(|other| self.output(*other, "x")).collect();
        format!("{}{inputs}{kind}\n", self.files[task])
    }

    /// Every task of the last run gives what it should.
    fn check(&self) {
        for task in 0..9 {
            for kind in ["x", "y"] {
                self.project.call(&format!("get compile.t{task}[{kind}] -o got")).success();
                assert_eq!(self.project.read("got"), self.output(task, kind), "compile.t{task}[{kind}]");
            }
        }
    }
}

#[test]
fn an_edit_is_carried_to_all_that_is_behind_it_and_no_further() {
    let mut web = Web::new();
    web.project.settle();
    web.project.run("").success();
    web.check();
    for round in 0..24 {
        let edited = (round * 5 + 3) % 9;
        web.files[edited] = format!("{edited} in round {round}\n");
        web.write(edited);
        // Now and then another file of the cache is gone, or the edit comes right after the run.
        if round % 5 == 4 {
            fs::remove_dir_all(web.project.cache("cas")).unwrap();
        }
        if round % 3 == 0 {
            web.project.settle();
        }
        let done = web.project.run("").success();
        assert_eq!(done.outcomes().len(), 9 * 2 + 20, "each task of the run is told once");
        let ran = |name: &str| done.outcomes()[name] == "ran";
        assert!(ran(&format!("compile.t{edited}[x]")) && ran(&format!("compile.t{edited}[y]")));
        assert!(!(0..20).any(|idle| ran(&format!("image.idle{idle}"))));
        if round % 4 == 3 {
            web.check();
        }
        web.project.run("").nothing();
    }
    web.check();
}
