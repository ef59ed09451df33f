//! `compile` as its commands see it: environment, PATH, the work folder before, between and after runs;
//! and how it ends when they fail, hang, leave daemons behind or are interrupted.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use snapbox::str;

use crate::support::Project;

/// A compile of a shell script over `in/**`, giving `out`.
fn script(text: &str, more: &str) -> Project {
    let run = text.replace('\'', "'\\''");
    assert!(!run.contains("'''"));
    Project::new()
        .config(&format!(
            "[compile.c]\ninputs = ['in/**']\nrun = [['sh', '-euc', '''\n{text}''']]\noutputs = ['out']\n{more}\n"
        ))
        .file("in/a", "a\n")
        .file("in/b", "b\n")
}

/// What the task's output holds.
fn out(project: &Project) -> String {
    project.call("get compile.c -o got").success();
    project.read("got")
}

/// Waits until a condition holds.
#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is there and is not a zombie.
fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    status
        .rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}

#[test]
fn the_environment_is_fixed() {
    let project = script("env | sort > out; umask >> out; pwd >> out", "env = { MINE = 'here: ${VCBUILD_WORK}' }\npass_env = ['PASSED', 'ABSENT']\nlocate_env = ['LOCATED']\nkeep = { KEPT = 'kept' }")
        .env("PASSED", "p")
        .env("LOCATED", "l")
        .env("SECRET", "s")
        .env("LANG", "de_DE.UTF-8")
        .env("CFLAGS", "-O3");
    project.run("").success();
    let text = out(&project);
    let work = text.lines().last().unwrap().to_string();
    assert!(Path::new(&work).starts_with(project.cache("work")), "{work}");
    let scratch = text.lines().find_map(|line| line.strip_prefix("HOME=")).unwrap();
    let scratch = scratch.strip_suffix("/home").unwrap().to_string();
    assert!(!Path::new(&scratch).exists(), "HOME is scratch");
    let text = text
        .replace(&work, "[WORK]")
        .replace(&scratch, "[SCRATCH]")
        .replace(project.root().to_str().unwrap(), "[ROOT]");
    snapbox::assert_data_eq!(
        text,
        str![[r#"
HOME=[SCRATCH]/home
KEPT=[ROOT]/cache/v1/keep/kept
LANG=C.UTF-8
LOCATED=l
MINE=here: [WORK]
PASSED=p
PATH=[SCRATCH]/bin:/usr/bin:/bin
PWD=[WORK]
SOURCE_DATE_EPOCH=0
TMPDIR=[SCRATCH]/tmp
TZ=UTC
VCBUILD_WORK=[WORK]
0022
[WORK]

"#]]
    );
}

#[test]
fn path_has_the_declared_tools_first_and_nothing_of_the_users() {
    let project = script(
        "mytool > out; other >> out || echo no other >> out; cat --version | head -1 | cut -c1-3 >> out",
        "tools = ['mytool', 'cat']",
    )
    .program("tools/mytool", "#!/bin/sh\necho mine\n")
    .program("tools/other", "#!/bin/sh\necho other\n")
    .program("tools/cat", "#!/bin/sh\necho MEOW\n");
    let path = format!("{}:/usr/bin:/bin", project.path("tools").display());
    let project = project.env("PATH", path);
    project.run("").success();
    assert_eq!(out(&project), "mine\nno other\nMEO\n");
}

#[test]
fn only_declared_inputs_are_there() {
    let project = script("find . -type f | sort > ../listing; mv ../listing out", "");
    project.write("elsewhere/c", "c");
    project.run("").success();
    assert_eq!(out(&project), "./in/a\n./in/b\n");
}

#[test]
fn inputs_are_put_back_outputs_removed_and_the_rest_cleaned() {
    let project = script(
        "test ! -e out; test ! -e left; cat in/a in/b > new; echo changed > in/a; rm in/b; touch left; mkdir -p deep/er; touch deep/er/x; mv new out",
        "",
    );
    project.run("").success();
    assert_eq!(out(&project), "a\nb\n");
    project.write("in/b", "B\n");
    project.run("").success().did(&["compile.c"]);
    assert_eq!(out(&project), "a\nB\n");
    let work = std::fs::read_dir(project.cache("work")).unwrap().count();
    assert_eq!(work, 1, "one work folder, used again");
}

#[test]
fn unchanged_inputs_keep_their_time_and_incremental_files_stay() {
    let project = script(
        "mkdir -p build; stat -c %Y.%y in/a >> build/times; echo run >> build/log; cp build/log out; test ! -e other; touch other; cp build/times times",
        "incremental = ['build/**']",
    );
    project.run("").success();
    assert_eq!(out(&project), "run\n");
    project.write("in/b", "other\n");
    project.run("").success().did(&["compile.c"]);
    assert_eq!(out(&project), "run\nrun\n");
    let folder = std::fs::read_dir(project.cache("work")).unwrap().next().unwrap().unwrap().path();
    let times = std::fs::read_to_string(folder.join("tree/build/times")).unwrap();
    let times: Vec<_> = times.lines().collect();
    assert_eq!(times[0], times[1], "an unchanged input was written again");
}

#[test]
fn keep_folders_outlive_runs_and_are_not_in_the_key() {
    let project = script("echo run >> \"$CACHE/log\"; cp \"$CACHE/log\" out", "keep = { CACHE = 'mine' }");
    let first = project.run("").success();
    let key = first.event("compile.c")["key"].clone();
    project.write("in/a", "A\n");
    project.run("").success();
    assert_eq!(out(&project), "run\nrun\n");
    project.write("in/a", "a\n");
    project.edit("vcbuild.toml", |text| text.replace("'mine'", "'other'"));
    let hit = project.run("").success().did(&[]);
    assert_eq!(hit.event("compile.c")["key"], key);
}

#[test]
fn a_pool_of_one_runs_one_at_a_time() {
    let one = |pool: &str| {
        Project::new().config(&format!(
            "[project]\nname = 'p'\npools = {{ one = 1 }}\n\
             [compile.c]\nmatrix = {{ i = ['1', '2', '3', '4'] }}\n{pool}inputs = ['vcbuild.toml']\nkeep = {{ K = 'k' }}\nenv = {{ I = '{{{{ i }}}}' }}\n\
             run = [['sh', '-c', 'echo + >> $K/log; sleep 0.15; echo - >> $K/log; touch out']]\noutputs = ['out']\n"
        ))
    };
    let project = one("pool = 'one'\n");
    project.run("-j 4").success();
    let log = std::fs::read_to_string(project.cache("keep/k/log")).unwrap();
    assert_eq!(log, "+\n-\n".repeat(4));
    let project = one("");
    project.run("-j 4").success();
    let log = std::fs::read_to_string(project.cache("keep/k/log")).unwrap();
    assert_ne!(log, "+\n-\n".repeat(4), "without a pool they overlap");
}

#[test]
fn a_timeout_ends_everything_also_daemons() {
    let project = script(
        "sleep 300 & echo $! > $K/child\n(setsid sh -c 'echo $$ > $K/session; sleep 300' &)\n\
         (setsid sh -c '(trap \"\" TERM HUP INT; echo $$ > $K/double; sleep 300; sleep 300) & exit' &)\nsleep 300\n",
        "timeout = '700ms'\nkeep = { K = 'k' }",
    );
    let began = Instant::now();
    project.run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: `sh -euc 'sleep 300 & echo $! > $K/child (setsid sh -c '\''echo $$ > $K/session; sleep 300'\'' &) (setsid sh -c '\''(trap "" TERM HUP INT; echo $$ > $K/double; sleep 300; sleep 300) & exit'\'' &) sleep 300 '` took longer than its `timeout` of [TIME] and was ended
error: 1 task failed:
    `compile.c`: `sh -euc 'sleep 300 & echo $! > $K/child (setsid sh -c '\''echo $$ > $K/session; sleep 300'\'' &) (setsid sh -c '\''(trap "" TERM HUP INT; echo $$ > $K/double; sleep 300; sleep 300) & exit'\'' &) sleep 300 '` took longer than its `timeout` of [TIME] and was ended
failed: 1 failed ([TIME])

"#]]);
    assert!(began.elapsed() < Duration::from_secs(15));
    for name in ["child", "session", "double"] {
        let pid = std::fs::read_to_string(project.cache("keep/k").join(name)).unwrap();
        assert!(!lives(&pid), "`{name}` lives on");
    }
}

#[test]
fn daemons_of_a_task_that_ended_well_are_ended_too() {
    let project = script(
        "(setsid sh -c 'echo $$ > $K/daemon; exec sleep 300' > /dev/null 2>&1 &)\nwhile ! test -s $K/daemon; do sleep 0.01; done; echo done > out",
        "keep = { K = 'k' }",
    );
    project.run("").success();
    let pid = std::fs::read_to_string(project.cache("keep/k/daemon")).unwrap();
    assert!(!lives(&pid));
    assert_eq!(out(&project), "done\n");
}

#[test]
fn interrupted_it_ends_everything_and_the_next_run_continues() {
    let project = script(
        "echo $$ > $K/self\n(setsid sh -c 'echo $$ > $K/daemon; exec sleep 300' &)\nif test -e $K/go; then echo fine > out; exit; fi; sleep 300\n",
        "keep = { K = 'k' }\n[compile.before]\ninputs = ['in/**']\nrun = [['touch', 'o']]\noutputs = ['o']",
    );
    let mut command = project.command(&["run", "-j", "1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ready = |name: &str| {
        std::fs::read_to_string(project.cache("keep/k").join(name)).is_ok_and(|text| text.ends_with('\n'))
    };
    eventually("it runs", || ready("self") && ready("daemon"));
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["self", "daemon"] {
        let pid = std::fs::read_to_string(project.cache("keep/k").join(name)).unwrap();
        assert!(!lives(&pid), "`{name}` lives on");
    }
    std::fs::write(project.cache("keep/k/go"), "").unwrap();
    project.run("compile.c").success().did(&["compile.c"]);
    assert_eq!(out(&project), "fine\n");
    let temporary = std::fs::read_dir(project.cache("tmp")).unwrap().count();
    assert_eq!(temporary, 0, "something temporary was left");
}

#[test]
fn a_failing_command_shows_itself_and_its_last_lines() {
    let project = Project::new()
        .config("[compile.c]\ninputs = ['a.c']\nrun = [['cc', '-c', 'a.c', '-o', 'a.o']]\noutputs = ['a.o']\n[image.i]\nbase = 'scratch'\nfiles = [{ from = 'compile.c', to = '/' }]\n")
        .file("a.c", "int main(void) { return x; }\n");
    let done = project.run("").failure(1);
    for part in [
        "  failed compile.c  ",
        "error: `compile.c` failed: `cc -c a.c -o a.o` failed: exit status 1\n",
        "    a.c:1:25: error: ",
        "hint: `vcbuild log compile.c` shows all of its output\n",
        " skipped image.i",
        "failed: 1 failed, 1 skipped (",
    ] {
        assert!(done.stderr.contains(part), "no {part:?} in\n{}", done.stderr);
    }
    assert!(project.call("log compile.c").success().text().starts_with("a.c: In function"));
    project.write("a.c", "int main(void) { return 0; }\n");
    project.run("").success().did(&["compile.c", "image.i"]);
}

#[test]
fn long_output_is_cut_in_the_message_and_whole_in_the_log() {
    let project = script("i=0; while test $i -lt 100; do echo line $i; i=$((i+1)); done; exit 7", "");
    project.run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: `sh -euc 'i=0; while test $i -lt 100; do echo line $i; i=$((i+1)); done; exit 7'` failed: exit status 7
    … 80 lines before
    line 80
    line 81
    line 82
    line 83
    line 84
    line 85
    line 86
    line 87
    line 88
    line 89
    line 90
    line 91
    line 92
    line 93
    line 94
    line 95
    line 96
    line 97
    line 98
    line 99
hint: `vcbuild log compile.c` shows all of its output
error: 1 task failed:
    `compile.c`: `sh -euc 'i=0; while test $i -lt 100; do echo line $i; i=$((i+1)); done; exit 7'` failed: exit status 7
failed: 1 failed ([TIME])

"#]]);
    let log = project.call("log c").success().text();
    assert_eq!((log.lines().count(), log.lines().next()), (100, Some("line 0")));
}

#[test]
fn a_command_that_is_ended_by_a_signal_and_one_that_is_not_there() {
    script("kill -9 $$", "").run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: `sh -euc 'kill -9 $$'` failed: ended by SIGKILL
error: 1 task failed:
    `compile.c`: `sh -euc 'kill -9 $$'` failed: ended by SIGKILL
failed: 1 failed ([TIME])

"#]]);
    let project = Project::new().config(
        "[compile.c]\ninputs = ['vcbuild.toml']\nrun = [['no-such-program', 'x']]\noutputs = ['o']\n",
    );
    project.run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: start `no-such-program`: no such file or directory
error: 1 task failed:
    `compile.c`: start `no-such-program`: no such file or directory
failed: 1 failed ([TIME])

"#]]);
}

#[test]
fn a_missing_output() {
    script("touch ouput", "").run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: the commands ended well, but did not make `out`
hint: did you mean `ouput`?
error: 1 task failed:
    `compile.c`: the commands ended well, but did not make `out`
failed: 1 failed ([TIME])

"#]]);
    script("mkdir sub; touch sub/out", "dir = 'in'").run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: the commands ended well, but did not make `out`
hint: `outputs` are relative to `dir` (here in)
error: 1 task failed:
    `compile.c`: the commands ended well, but did not make `out`
failed: 1 failed ([TIME])

"#]]);
    script("touch out", "dir = 'none'").run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: the input tree has no folder `none`
error: 1 task failed:
    `compile.c`: the input tree has no folder `none`
failed: 1 failed ([TIME])

"#]]);
}

#[test]
fn an_output_that_is_a_socket() {
    let project =
        script("perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"out\", Listen => 1)'", "");
    project.run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: `out` is a socket, pipe or device: only files, folders and links can be kept
error: 1 task failed:
    `compile.c`: `out` is a socket, pipe or device: only files, folders and links can be kept
failed: 1 failed ([TIME])

"#]]);
    script("mkfifo out", "").run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: `out` is a socket, pipe or device: only files, folders and links can be kept
error: 1 task failed:
    `compile.c`: `out` is a socket, pipe or device: only files, folders and links can be kept
failed: 1 failed ([TIME])

"#]]);
}

#[test]
fn a_failed_task_is_not_recorded_and_others_go_on() {
    let project = Project::new().config(
        "[compile.bad]\ninputs = ['vcbuild.toml']\nrun = [['false']]\noutputs = ['o']\n\
         [compile.good]\ninputs = ['vcbuild.toml']\nrun = [['touch', 'o']]\noutputs = ['o']\n\
         [compile.behind]\ntree = 'compile.bad'\nrun = [['touch', 'p']]\noutputs = ['p']\n",
    );
    let done = project.run("-j 1").failure(1);
    let outcomes: Vec<_> = done.outcomes().into_iter().collect();
    let expected = [("compile.bad", "failed"), ("compile.behind", "skipped"), ("compile.good", "ran")];
    assert_eq!(outcomes, expected.map(|(task, outcome)| (task.to_string(), outcome.to_string())));
    project.run("").failure(1).did(&["compile.bad", "compile.behind"]);
    let done = project.run("--fail-fast").failure(1);
    assert_eq!(done.outcomes()["compile.bad"], "failed");
}

#[test]
fn outputs_keep_modes_links_and_folders() {
    let project = script(
        "mkdir -p out/empty out/full; echo x > out/full/x; chmod 750 out/full/x; ln -s ../nowhere out/full/link; touch 'out/odd \"name'",
        "",
    );
    project.run("").success();
    project.call("get compile.c -o tree").success();
    use std::os::unix::fs::PermissionsExt;
    let mode =
        |path: &str| std::fs::symlink_metadata(project.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("tree/out/full/x"), 0o750);
    assert!(project.path("tree/out/empty").is_dir());
    assert!(project.path("tree/out/odd \"name").is_file());
    assert_eq!(std::fs::read_link(project.path("tree/out/full/link")).unwrap(), Path::new("../nowhere"));
}

#[test]
fn how_is_not_in_the_key_and_what_is() {
    let config = "[project]\nname = 'p'\npools = { one = 1 }\n[compile.c]\ninputs = ['in/**']\nrun = [['touch', 'out']]\noutputs = ['out']\n";
    let project = Project::new().file("in/a", "").config(config);
    project.run("").success().did(&["compile.c"]);
    for how in ["timeout = '5m'", "pool = 'one'", "keep = { K = 'k' }", "locate_env = ['HOME_OF_TOOL']"] {
        project.write("vcbuild.toml", &format!("{config}{how}\n"));
        project.run("").success().did(&[]);
    }
    for what in [
        "env = { A = 'a' }",
        "pass_env = ['A']",
        "tools = ['cc']",
        "packages = ['libc6']",
        "reads = ['/etc/hostname']",
        "dir = 'in'",
        "incremental = ['x']",
        "files = [{ from = 'vcbuild.toml', to = 'x/' }]",
        "tools = ['true']\nversion = [['true', '--version']]",
    ] {
        project.write("vcbuild.toml", &format!("{config}{what}\n"));
        project.run("").success().did(&["compile.c"]);
    }
}

#[test]
fn a_version_that_changes_meanwhile_is_not_remembered() {
    let project = Project::new().file("in/a", "").file("said", "one\n").file("next", "two\n");
    let (said, next) = (project.path("said"), project.path("next"));
    let (said, next) = (said.display(), next.display());
    project.write("tool", &format!("#!/bin/sh\ncat '{said}'\n"));
    std::fs::set_permissions(project.path("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let run = format!("tool >out; test ! -e '{next}' || cat '{next}' >'{said}'");
    let project = project.config(&format!(
        "[compile.c]\ninputs = ['in/**']\ntools = ['./tool']\nversion = [['tool']]\noutputs = ['out']\nrun = [['sh', '-euc', \"\"\"{run}\"\"\"]]\n"
    ));
    let done = project.run("").success().did(&["compile.c"]);
    assert!(done.stderr.contains("an input changed while it ran"), "{}", done.stderr);
    project.write("said", "one\n");
    project.remove("next");
    project.run("").success().did(&["compile.c"]);
    project.run("").nothing();
}
