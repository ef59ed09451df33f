//! Warnings of image tasks: each is said once when the image is made, kept with the result, and gone
//! when the reason is.

use std::fs;
use std::process::Command;

use snapbox::str;

use crate::support::{Done, Project};

const MAIN: &str = "int main(void) { return 0; }\n";

fn compiled(project: &Project, name: &str, arguments: &[&str], source: &str) {
    project.write("source.c", source);
    let status = Command::new("gcc")
        .args(arguments)
        .args(["-o", name, "source.c"])
        .current_dir(project.root())
        .status()
        .unwrap();
    assert!(status.success());
}

/// One image on `base` with these files.
fn project(base: &str, files: &str, rest: &str) -> Project {
    Project::new().config(&format!("[image.app]\nbase = '{base}'\nfiles = [{files}]\n{rest}\n"))
}

/// What the run says beside that it did something.
fn warnings(done: &Done<'_>) -> String {
    let lines = done.stderr.lines().filter(|line| !line.starts_with("image.") && !line.contains(" ran"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_program_without_its_loader_and_libraries() {
    let files = "{ from = 'program', to = '/bin/', mode = '0755' }";
    let project = project("scratch", files, "entrypoint = ['/bin/program']");
    compiled(&project, "program", &[], MAIN);
    snapbox::assert_data_eq!(
        warnings(&project.run("image.app").success()),
        str![[r#"
warning: `image.app`: `/bin/program` needs the loader `/lib64/ld-linux-x86-64.so.2`, which the image lacks
hint: link it statically (Go: `CGO_ENABLED=0`), or take a base that has this C library
warning: `image.app`: `/bin/program` needs the library `libc.so.6`, which the image lacks
hint: link it statically, put the library into `files`, or take a base that has it

"#]]
    );
    // Kept with the result.
    let check = project.call("check").text();
    assert!(check.contains("needs the library `libc.so.6`"), "{check}");
    compiled(&project, "program", &["-static"], MAIN);
    snapbox::assert_data_eq!(warnings(&project.run("image.app").success()), str![[r#""#]]);
}

#[test]
fn a_base_that_has_them_is_enough() {
    let files =
        "{ from = 'program', to = '/bin/', mode = '0755' }, { from = 'run', to = '/bin/', mode = '0755' }";
    let project =
        project("image.base", files, "entrypoint = ['run']").file("run", "#! /usr/bin/env -S sh -e\n");
    compiled(&project, "program", &[], MAIN);
    compiled(&project, "static", &["-static"], MAIN);
    let needed = Command::new("ldd").arg(project.path("program")).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    let loader = needed.split_whitespace().find(|word| word.starts_with("/lib64/")).unwrap().to_string();
    let config = project.read("vcbuild.toml");
    project.write(
        "vcbuild.toml",
        &format!(
            "{config}[image.base]\nbase = 'scratch'\nfiles = [{{ from = 'static', to = '/usr/lib/real-loader', mode = '0755' }}, {{ from = 'static', to = '/usr/lib/x/libc.so.6' }}, {{ from = 'links', to = '/' }}]\n"
        ),
    );
    fs::create_dir_all(project.path("links/usr/bin")).unwrap();
    fs::create_dir_all(project.path("links/bin")).unwrap();
    std::os::unix::fs::symlink("usr/lib", project.path("links/lib64")).unwrap();
    fs::create_dir_all(project.path("links/usr/lib")).unwrap();
    let link = project.path("links/usr/lib").join(loader.trim_start_matches("/lib64/"));
    std::os::unix::fs::symlink("real-loader", link).unwrap();
    fs::copy(project.path("static"), project.path("links/usr/bin/env")).unwrap();
    fs::copy(project.path("static"), project.path("links/bin/sh")).unwrap();
    snapbox::assert_data_eq!(warnings(&project.run("image.app").success()), str![[r#""#]]);
    project.remove("links/bin/sh");
    project.remove("links/lib64");
    snapbox::assert_data_eq!(
        warnings(&project.run("image.app").success()),
        str![[r#"
warning: `image.app`: `/bin/program` needs the loader `/lib64/ld-linux-x86-64.so.2`, which the image lacks
hint: link it statically (Go: `CGO_ENABLED=0`), or take a base that has this C library
warning: `image.app`: `/bin/run` is run by `sh`, which the image lacks
hint: take a base that has it, or put it into `files`

"#]]
    );
}

#[test]
fn scripts_entrypoints_and_modes() {
    let files = "{ from = 'scripts', to = '/bin/' }, { from = 'data', to = '/data/', mode = '0666' }";
    let project = project("scratch", files, "cmd = ['/bin/missing']")
        .program("scripts/a", "#!/bin/bash\n")
        .program("scripts/b", "#!/bin/bash -e\n")
        .program("scripts/c", "#!\n")
        .program("scripts/d", "#!/usr/bin/python3\n")
        .program("scripts/e", "#! /bin/sh\n")
        .file("scripts/not-run", "#!/bin/nothing\n");
    for name in ["1", "2", "3", "4", "5"] {
        project.write(&format!("data/{name}"), "x");
    }
    snapbox::assert_data_eq!(
        warnings(&project.run("image.app").success()),
        str![[r#"
warning: `image.app`: the program to run, `/bin/missing`, is not in the image
hint: name the path at which `files` puts the program
warning: `image.app`: `/bin/a` is run by `/bin/bash`, which the image lacks
warning: `image.app`: `/bin/b` is run by `/bin/bash`, which the image lacks
warning: `image.app`: `/bin/d` is run by `/usr/bin/python3`, which the image lacks, and 1 more like it
hint: take a base that has it, or put it into `files`
warning: `image.app`: everybody may change `/data/1`, `/data/2`, `/data/3`, and 2 more
hint: give the files another `mode`

"#]]
    );
    for (command, expected) in [
        (
            "'/bin/not-run'",
            str![[r#"
warning: `image.app`: the program to run, `/bin/not-run`, is not executable
hint: give it `mode = "0755"`
"#]],
        ),
        (
            "'not-run'",
            str![[r#"
warning: `image.app`: the program to run, `not-run`, is not executable
hint: give it `mode = "0755"`
"#]],
        ),
        (
            "'/bin'",
            str![[r#"
warning: `image.app`: the program to run, `/bin`, is no file
hint: name the path at which `files` puts the program
"#]],
        ),
        ("'c'", str![[r#""#]]),
    ] {
        project.edit("vcbuild.toml", |text| {
            let (head, _) = text.split_once("cmd = ").unwrap();
            format!("{head}cmd = [{command}]\n")
        });
        let first = warnings(&project.run("image.app").success());
        let first =
            first.lines().take_while(|line| !line.contains("is run by")).collect::<Vec<_>>().join("\n");
        snapbox::assert_data_eq!(first, expected);
    }
}

#[test]
fn programs_for_another_machine_and_for_slow_deltas() {
    let files = "{ from = 'go', to = '/', mode = '0755' }, { from = 'arm', to = '/', mode = '0755' }";
    let project = project("scratch", files, "");
    let source = format!("__attribute__((section(\".go.buildinfo\"))) int marker = 1;\n{MAIN}");
    compiled(&project, "go", &["-static", "-g", "-gz=zlib"], &source);
    compiled(&project, "arm", &["-static"], MAIN);
    let mut bytes = fs::read(project.path("arm")).unwrap();
    bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
    fs::write(project.path("arm"), bytes).unwrap();
    snapbox::assert_data_eq!(
        warnings(&project.run("image.app").success()),
        str![[r#"
warning: `image.app`: `/arm` is for `arm64`, and the image for `linux/amd64`
hint: compile it for the image's platform
warning: `image.app`: `/go` has compressed debug sections
hint: each change moves almost all of it: build with `-ldflags=-compressdwarf=false`, or `-s -w`

"#]]
    );
    compiled(&project, "go", &["-static", "-g"], &source);
    compiled(&project, "arm", &["-static"], MAIN);
    snapbox::assert_data_eq!(warnings(&project.run("image.app").success()), str![[r#""#]]);
}

#[test]
fn a_base_is_read_only_if_an_answer_may_lie_there() {
    let files = "{ from = 'run', to = '/job', mode = '0755' }";
    let project = project("oci:packed", files, "")
        .file("run", "just data\n")
        .program("sh", "pretends to be a shell\n");
    let config = project.read("vcbuild.toml");
    project.write("vcbuild.toml", "[project]\nname = 'test'\n[image.base]\nbase = 'scratch'\nfiles = [{ from = 'sh', to = '/bin/' }]\n");
    project.call("get image.base -o plain").success();
    let copied = Command::new("skopeo")
        .args(["copy", "-q", "--dest-compress", "oci:plain", "oci:packed:x"])
        .current_dir(project.root())
        .status();
    assert!(copied.unwrap().success());
    project.write("vcbuild.toml", &config);
    project.remove("cache");
    // Manifest and config are there from the beginning.
    let fetched = || crate::support::folder::files(&project.cache("cas/sha256")).len() > 2;
    snapbox::assert_data_eq!(
        warnings(&project.run("image.app").success()),
        str![[r#"
note: `image.app`: pinned `oci:packed` for linux/amd64 to `sha256:[..]`

"#]]
    );
    assert!(!fetched());
    project.write("run", "#!/bin/sh\n");
    snapbox::assert_data_eq!(warnings(&project.run("image.app").success()), str![[r#""#]]);
    assert!(fetched());
    // What the layer holds is remembered: it need not be there for the next question.
    project.remove("cache/v1/cas/sha256");
    project.write("run", "#!/bin/bash\n");
    snapbox::assert_data_eq!(
        warnings(&project.run("image.app").success()),
        str![[r#"
warning: `image.app`: `/job` is run by `/bin/bash`, which the image lacks
hint: take a base that has it, or put it into `files`

"#]]
    );
    assert!(!fetched());
    let shown = project.call("show image.app --files").success().text();
    assert!(shown.contains("/bin/sh"), "{shown}");
}
