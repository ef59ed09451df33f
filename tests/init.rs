//! `init`: what it writes runs as it is, and replaces nothing.

use std::fs;

use snapbox::str;

use crate::support::Project;

#[test]
fn init() {
    let project = Project::new();
    project.call("init").success().stderr(str![[r#"
wrote `rootfs/etc/motd`
wrote `.gitignore`
wrote `vcbuild.toml`; `vcbuild run` does what it says

"#]]);
    project.run("").did(&["image.app", "import.node"]);
    project.call("init").failure(2).stderr(str![[r#"
error: there is a `vcbuild.toml` in `[ROOT]` already

error: 1 mistake

"#]]);
    project.run("").nothing();

    // What it shows at its end is right too.
    let text = fs::read_to_string(project.path("vcbuild.toml")).unwrap();
    let shown = text.lines().skip_while(|line| !line.starts_with("# [clone."));
    let shown: String = shown.map(|line| format!("{}\n", line.trim_start_matches(['#', ' ']))).collect();
    assert!(shown.contains("[compile.bin]"), "{shown}");
    let whole =
        text.replace("from = \"rootfs\", to = \"/\"", "from = \"compile.bin\", to = \"/usr/local/bin/\"");
    let project = project.file("vcbuild.toml", &format!("{whole}{shown}")).file("patches/a.patch", "");
    project.call("graph import").success();
}

#[test]
fn init_keeps_what_is_there_and_makes_its_folder() {
    let project = Project::new().file(".gitignore", "/out/").file("rootfs/etc/motd", "mine\n");
    project.call("init").success();
    assert_eq!(fs::read_to_string(project.path(".gitignore")).unwrap(), "/out/\n/cache/\n/nodes/\n");
    assert_eq!(fs::read_to_string(project.path("rootfs/etc/motd")).unwrap(), "mine\n");
    fs::create_dir(project.path("beside")).unwrap();
    project.call("init --dir beside").success();
    assert!(fs::read_to_string(project.path("beside/vcbuild.toml")).unwrap().contains("\"beside\""));
}
