//! Folders to machines: by difference, with links, modes and empty folders, and nothing else in them where
//! that is asked.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::rig::{self, Kind, Node};
use crate::support::Project;

fn project(node: &Node, more: &str, tasks: &str) -> Project {
    let project = Project::new().config(&format!("{}{tasks}", rig::hosts(&[node], more)));
    rig::introduce(&project, &[node], "root");
    project
}

/// A compile whose output is a folder.
const MAKE: &str = "[compile.tree]\ninputs = ['seed']\noutputs = ['t']\nrun = [['sh', '-c', '''
mkdir -p t/sub t/closed t/empty && cp seed t/sub/file && echo in >t/closed/in && ln -s sub/file t/link
echo \"it's \\$odd\" >\"t/sub/it's \\$(odd)\" && chmod 700 t/closed && chmod 750 t/empty && chmod 640 t/sub/file''']]\n";

const LIST: &str = "cd /srv/app && find . -mindepth 1 -printf '%y %m %p %l\\n' | sort -k 3";

#[test]
fn a_folder_is_made_equal_to_a_tree() {
    let node = Node::new("n", Kind::Plain);
    let upload = "[upload.u]\nfrom = 'compile.tree'\nhosts = 'n'\ndir = '/srv/app'\n";
    let project = project(&node, "", &format!("{MAKE}{upload}"));
    project.write("seed", "one");
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u")["n"], 3 + 3 + 10);
    let tree = "d 755 ./t \nd 700 ./t/closed \nf 644 ./t/closed/in \nd 750 ./t/empty \nl 777 ./t/link sub/file\n\
                d 755 ./t/sub \nf 640 ./t/sub/file \nf 644 ./t/sub/it's $(odd) \n";
    assert_eq!(node.sh(LIST), tree);
    project.run("u").nothing();
    // What others have there stays, and what differs is put right.
    node.sh("cd /srv/app/t && echo x >own && chmod 711 empty && ln -sfn away link && rm -r closed && mkdir closed");
    let plan = project.call("plan u").success().text();
    for line in ["/srv/app/t/link link to sub/file", "/srv/app/t/closed/in 3 B"] {
        assert!(plan.contains(line) && !plan.contains("deleted"), "{plan}");
    }
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u")["n"], 3);
    assert_eq!(node.sh("cd /srv/app/t && cat own link && stat -c %a empty"), "x\none711\n");
    project.run("u").nothing();
    // With `delete` all of the folder is the tree's, and nothing outside of it is touched.
    node.sh(
        "mkdir -p /srv/app/old/er /srv/out/in && touch /srv/app/old/a /srv/app/old/er/b '/srv/app/a b' /srv/out/keep \
         && ln -s /srv/out /srv/app/away && ln -s /srv/out /srv/app/old/away && cd /srv/app/t && rm -r sub && ln -s /srv/out sub",
    );
    project.edit("vcbuild.toml", |text| format!("{text}delete = true\n"));
    let plan = project.call("plan u").success().text();
    for line in [
        "/srv/app/a b deleted",
        "/srv/app/away deleted",
        "/srv/app/old/ deleted with 4 in it",
        "/srv/app/t/own deleted",
        "/srv/app/t/sub deleted",
        "/srv/app/t/empty/ mode 0750",
    ] {
        assert!(plan.contains(line), "`{line}` is not in:\n{plan}");
    }
    assert!(node.sh("ls /srv/app").contains("old"));
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u")["n"], 3 + 10);
    assert_eq!(node.sh(LIST), tree);
    assert_eq!(node.sh("cd /srv/out && find . | sort"), ".\n./in\n./keep\n");
    project.run("u").nothing();
    // A file in the place of a folder, and a folder in the place of a file.
    node.sh("cd /srv/app/t && rm -r closed sub/file && echo x >closed && mkdir -p sub/file/deep && touch sub/file/deep/x");
    project.run("u").success();
    assert_eq!(node.sh(LIST), tree);
    node.quiet();
    // A link in place of the folder itself, or on the way to where nothing may be deleted, stops it.
    node.sh("rm -r /srv/app && ln -s out /srv/app");
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("`/srv/app` on `n` is a link or a file: nothing is deleted in it"), "{said}");
    node.sh("rm /srv/app && mkdir -p /srv/out/app && mv /srv/out /srv/lib && ln -s / /srv/root");
    project.edit("vcbuild.toml", |text| text.replace("'/srv/app'", "'/srv/root/home'"));
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("`/srv/root/home` on `n` is `/home`: nothing is deleted in it"), "{said}");
    node.quiet();
}

#[test]
fn a_name_that_cannot_be_told_stops_a_deletion() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[upload.u]\nfrom = 'data'\nhosts = 'n'\ndir = '/srv/app'\ndelete = true\n";
    let project = project(&node, "", tasks);
    project.write("data/one", "1");
    node.sh("mkdir -p /srv/app /srv/keep && touch /srv/keep/x && touch \"/srv/app/a\nd keep\"");
    let said = project.run("u").failure(1).stderr;
    assert!(said.contains("has a name that cannot be dealt with"), "{said}");
    assert_eq!(node.sh("ls /srv/keep"), "x\n");
}

#[test]
fn what_is_mounted_in_the_folder_is_not_entered() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[upload.u]\nfrom = 'tree'\nhosts = 'n'\ndir = '/srv/app'\ndelete = true\n";
    let project = project(&node, "", tasks);
    project.write("tree/da ta\\/one", "1");
    // The same file system, but not what lies there.
    node.sh(r"mkdir -p '/srv/app/da ta\' /srv/app/old /srv/keep && touch /srv/keep/x /srv/app/old/x");
    node.sh(r"mount --bind /srv/keep '/srv/app/da ta\'");
    project.run("u").success();
    assert_eq!(node.sh("ls /srv/app; ls /srv/keep"), "da ta\\\none\nx\n");
    project.run("u").nothing();
}

#[test]
fn what_is_mounted_in_a_folder_here_is_not_entered() {
    let tasks =
        "[host.h]\nlocal = 'h'\n[upload.u]\nfrom = 'tree'\nhosts = 'h'\ndir = '/srv/app'\ndelete = true\n";
    let project =
        Project::new().config(tasks).file("tree/data/one", "1").file("keep/x", "").file("keep/one", "1");
    project.write("h/files/srv/app/data/old", "");
    project.write("h/files/srv/app/old/x", "");
    let run = project.command(&["run", "u"]);
    let mut command = std::process::Command::new("unshare");
    let script = "mount --bind keep h/files/srv/app/data && exec \"$@\"";
    command.args(["-m", "sh", "-c", script, "sh"]).arg(run.get_program()).args(run.get_args());
    command.current_dir(project.root());
    project.clean(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(project.path("keep/x").exists());
    assert!(!project.path("h/files/srv/app/old").exists());
}

#[test]
fn odd_names_are_deleted_as_they_are() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[upload.u]\nfrom = 'tree'\nhosts = 'n'\ndir = '/srv/app'\ndelete = true\n";
    let project = project(&node, "", tasks);
    project.write("tree/one", "1");
    project.write("tree/*/keep", "1");
    project.write("tree/-keep/-f", "1");
    node.sh(
        r"mkdir -p /srv/out /srv/app/-rf '/srv/app/*' '/srv/app/ a ' /srv/app/-keep && cd /srv/app && touch /srv/out/x
          touch ./-rf/x './*/y' ' a /b\c' '$(touch pwned)' ./-keep/-r ./-keep/\;x
          ln -s /srv/out ./-link && ln -s /srv/out './-keep/it'\''s'",
    );
    project.run("u").success();
    assert_eq!(node.sh("cd /srv/app && find . -type f | sort"), "./*/keep\n./-keep/-f\n./one\n");
    assert_eq!(
        node.sh("ls /srv /srv/app /srv/out"),
        "/srv:\napp\nout\n\n/srv/app:\n*\n-keep\none\n\n/srv/out:\nx\n"
    );
    project.run("u").nothing();
    node.quiet();
}

#[test]
fn a_large_folder_is_asked_for_at_once_and_goes_in_few_steps() {
    let node = Node::new("n", Kind::Plain);
    let tasks = "[upload.u]\nfrom = 'data'\nhosts = 'n'\ndir = '/srv/app'\ndelete = true\nowner = 'ops'\n";
    let project = project(&node, "", tasks);
    for folder in 0..40 {
        let path = project.path(format!("data/f{folder}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..100 {
            let path = path.join(format!("-f {file}"));
            fs::write(&path, format!("{folder} {file}")).unwrap();
            if file % 10 == 0 {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
    }
    symlink("f1", project.path("data/link")).unwrap();
    fs::rename(project.path("data/f0/-f 0"), project.path("data/f0/Icon\r")).unwrap();
    project.run("u").success();
    let same = |count: &str| {
        assert_eq!(node.sh("find /srv/app -type f -user ops | wc -l"), count);
        assert_eq!(node.sh("find /srv/app -perm 755 -type f | wc -l"), "400\n");
        assert_eq!(node.sh("find /srv -name '.vcbuild*' -o -user root -name 'f*'"), "");
    };
    same("4000\n");
    project.run("u").nothing();
    // One edit, one file less: that is all that happens.
    project.write("data/f7/-f 7", "edited");
    project.remove("data/f8/-f 8");
    let done = project.run("u").success();
    assert_eq!(done.sent("upload.u")["n"], 6);
    assert_eq!(node.sh("cat '/srv/app/f7/-f 7'; find /srv/app -type f | wc -l"), "edited3999\n");
    project.run("u").nothing();
    node.quiet();
}

#[test]
fn wrong_deletions_are_mistakes() {
    let table = |dir: &str| format!("from = ['vcbuild.toml']\nhosts = 'h'\ndir = '{dir}'\ndelete = true\n");
    let project = Project::new().config(&format!(
        "[host.h]\nlocal = 'h'\n[upload.a]\n{}[upload.b]\n{}[upload.c]\n{}[upload.d]\n{}[upload.e]\n{}[upload.f]\n{}{}",
        table("/"),
        table("/usr/lib"),
        table("/srv/x"),
        table("/srv/x"),
        table("/srv/y/in"),
        table("/srv//y"),
        "[upload.g]\nfrom = 'in'\nhosts = 'h'\ndir = '/srv/./x/in'\n\
         [upload.i]\nfrom = 'vcbuild.toml'\nhosts = 'h'\nto = '/srv/x/file'\n\
         [upload.j]\nfrom = 'vcbuild.toml'\nhosts = 'h'\ndir = '/srv/xx'\n"
    ));
    let said = project.call("list").failure(2).stderr;
    for words in [
        "`/` is not a folder of one's own: nothing is deleted in it",
        "`/usr/lib` is not a folder of one's own: nothing is deleted in it",
        "hint: give a folder that only this upload fills, or take `delete` away",
        "the folder `/srv/x` on `h` is declared twice",
        "only `upload.f` fills `/srv//y` on `h`, and `upload.e` goes there too",
        "only `upload.c` fills `/srv/x` on `h`, and `upload.g` goes there too",
        "only `upload.c` fills `/srv/x` on `h`, and `upload.i` goes there too",
    ] {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
    assert!(!said.contains("`upload.j`"), "{said}");
}
