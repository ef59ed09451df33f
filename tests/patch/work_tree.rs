//! The work tree of a patch: what is in it, who may change it, and what outlives a failure.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use snapbox::str;

use super::{BOTH, FIRST, SECOND, others_agree, project};
use crate::support::Project;

#[test]
fn the_work_tree_is_one_of_git_with_the_patch_as_its_difference() {
    let project = project().file("src/.gitattributes", "* text eol=crlf\n").file("src/crlf", "a\r\nb\r\n");
    let script = "(git diff | tail -n +3; git log --format=%s; git status --short) > ../../../../../said";
    edit!(project, "2-second", script).success();
    let said = SECOND.replace(" v\n", "").to_string() + "the tree before patches/2-second.patch\n M f\n";
    assert_eq!(project.read("said").replace("@@ r\n", "@@\n"), said);
}

#[test]
fn what_fails_is_kept_and_goes_on() {
    let project = project();
    let done = edit!(project, "1-first", "sed -i 's/^C$/kept/' f; exit 3").failure(1);
    assert!(
        done.stderr.starts_with(
            "error: `sh`: exit status 3; nothing was written\nhint: all changes are kept in `"
        ),
        "{}",
        done.stderr
    );
    assert_eq!(project.read("patches/1-first.patch"), FIRST);
    // Again: what was changed is still there.
    edit!(project, "1-first", "grep -q kept f && sed -i 's/^kept$/better/' f && false").failure(1);
    project.call("patch refresh 1-first").success().stderr(str![[r#"
wrote `patches/1-first.patch`: 1 file

"#]]);
    assert!(project.read("patches/1-first.patch").contains("+better\n"));
    others_agree(&project, BOTH);
    edit!(project, "1-first", "rm f; false").failure(1);
    project.call("patch edit 1-first --discard").success();
    project.call("patch edit 1-first --discard").failure(1);
    edit!(project, "1-first", "true").success();
}

#[test]
fn a_kill_loses_nothing() {
    let project = project();
    let mut child = project
        .command(&[
            "patch",
            "edit",
            "2-second",
            "--",
            "sh",
            "-c",
            "sed -i 's/^V$/edited/' f; echo now; sleep 60",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 4];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    // While it lives nobody else gets in.
    project.call("patch edit 2-second --discard").failure(1).stderr(str![[r#"
error: `patches/2-second.patch` is being edited by another vcbuild

"#]]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(project.read("patches/2-second.patch"), SECOND);
    project.call("patch refresh 2-second --keep").success();
    assert_eq!(
        project.read("patches/2-second.patch"),
        SECOND.replace("+V\n", "+edited\n").replace("@@\n s", "@@ r\n s")
    );
    edit!(project, "2-second", "sed -i 's/^edited$/V/' f").success();
    others_agree(&project, BOTH);
}

#[test]
fn somebody_else_changed_the_file_meanwhile() {
    let project = project();
    let done = edit!(
        project,
        "2-second",
        "sed -i 's/^V$/W/' f; echo '# more' >> ../../../../../patches/2-second.patch"
    )
    .failure(1);
    assert!(
        done.stderr.starts_with(
            "error: `patches/2-second.patch` was changed by somebody else while it was edited\n"
        ),
        "{}",
        done.stderr
    );
    let done = edit!(project, "2-second", "true").failure(1);
    assert!(
        done.stderr
            .starts_with("error: `patches/2-second.patch` has changed since its work tree was made\n")
    );
    project.write("patches/2-second.patch", SECOND);
    project.call("patch refresh 2-second").success();
    assert!(project.read("patches/2-second.patch").contains("+W\n"));
}

#[test]
fn what_git_ignores_is_left_out() {
    let project = project().file("src/.gitignore", "*.o\n");
    edit!(project, "1-first", "echo x > f.o; echo y > added.c").success();
    let text = project.read("patches/1-first.patch");
    assert!(text.contains("added.c") && !text.contains("f.o"), "{text}");
}

#[test]
fn a_work_tree_for_an_ide() {
    let project = project();
    let place = project.call("patch edit 1-first --open").success().text();
    let place = std::path::PathBuf::from(place.trim_end());
    fs::write(place.join("g"), "from the ide\n").unwrap();
    project.call("patch refresh 1-first --keep").success();
    assert!(project.read("patches/1-first.patch").contains("+from the ide\n"));
    fs::write(place.join("g"), "again\n").unwrap();
    project.call("patch refresh 1-first").success();
    assert!(project.read("patches/1-first.patch").contains("+again\n"));
    assert!(!place.exists());
    // In a folder of one's own, which stays.
    let mine = project.beside("mine");
    project.call("patch new 3 --open --at ../mine").success();
    project.call("patch edit 3 --at ../other -- true").failure(1);
    fs::write(mine.join("g"), "mine\n").unwrap();
    fs::create_dir(project.path("sub")).unwrap();
    project.call("patch refresh 3").success();
    assert!(mine.join(".git").is_dir());
    let done = project.call("patch edit 3 --open --at ../mine").failure(1);
    assert!(done.stderr.contains("is not empty\nhint: name a new folder with `--at`\n"), "{}", done.stderr);
    others_agree(&project, &[BOTH, &["patches/3.patch"]].concat());
}

/// Runs `vcbuild` in a terminal and types.
fn in_a_terminal(project: &Project, arguments: &str, env: &[(&str, &str)], typed: &str) -> (i32, String) {
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_vcbuild"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(project.root());
    project.clean(&mut command);
    command.env("SHELL", "/bin/sh").env("TERM", "dumb").envs(env.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A terminal that is asked for input before anybody reads keeps it.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for piece in typed.split_inclusive(['\n', '\x03']) {
        std::io::Write::write_all(&mut stdin, piece.as_bytes()).unwrap();
        // Ctrl-C makes a terminal forget what was not read yet.
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn in_a_terminal_there_is_an_editor_or_a_shell() {
    let project = project().program("editor", "#!/bin/sh\ntest -t 0 && test -t 1 || exit 9\necho \"$@\" > ../../../../../said\nsed -i 's/^C$/seen/' \"$2\"\n");
    let editor = format!("{} --wait", project.path("editor").display());
    let (code, said) =
        in_a_terminal(&project, "patch edit 1-first", &[("VISUAL", &editor), ("EDITOR", "false")], "");
    assert_eq!(code, 0, "{said}");
    assert_eq!(project.read("said"), "--wait f\n");
    assert!(project.read("patches/1-first.patch").contains("+seen\n"));
    let (code, said) = in_a_terminal(&project, "patch new 3", &[], "sed -i s/^g$/typed/ g\nexit\n");
    assert_eq!(code, 0, "{said}");
    assert!(project.read("patches/3.patch").contains("+typed\n"));
    // Ctrl-C ends what runs in the shell, then the shell says that nothing is to be written.
    let (code, said) =
        in_a_terminal(&project, "patch edit 3", &[], "echo lost > g; sleep 60\n\x03exit 1\n");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nothing was written"), "{said}");
    // Ctrl-C to a command: it ends, we do not.
    let (code, said) = in_a_terminal(&project, "patch edit 3 -- sleep 60", &[], "\x03");
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("`sleep` was interrupted; nothing was written"), "{said}");
    project.call("patch refresh 3").success();
    assert!(project.read("patches/3.patch").contains("+lost\n"), "{}", project.read("patches/3.patch"));
}

#[test]
fn a_folder_that_cannot_be_written() {
    let project = project();
    fs::set_permissions(project.path("patches"), fs::Permissions::from_mode(0o555)).unwrap();
    let edit = ["patch", "edit", "1-first", "--", "sed", "-i", "s/^C$/D/", "f"];
    let mut command = project.command(&edit);
    if rustix::process::getuid().is_root() {
        // Without this even root has to keep to permissions.
        let mut without = Command::new("setpriv");
        without
            .arg("--bounding-set=-dac_override,-dac_read_search")
            .arg(env!("CARGO_BIN_EXE_vcbuild"))
            .args(edit);
        without.current_dir(project.root()).stdin(Stdio::null());
        project.clean(&mut without);
        command = without;
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("permission denied\nhint: all changes are kept in `"), "{said}");
    fs::set_permissions(project.path("patches"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(project.read("patches/1-first.patch"), FIRST);
    project.call("patch refresh 1-first").success();
    assert!(project.read("patches/1-first.patch").contains("+D\n"));
}
