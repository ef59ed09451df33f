//! Patches: each story runs the real `vcbuild` in a small project, and what is written is also given to git and
//! GNU patch.

use std::fs;
use std::process::Command;

use crate::support::{Project, folder};

/// Twenty-six lines with some replaced.
fn letters(changes: &[(char, &str)]) -> String {
    let line = |letter: char| {
        let change = changes.iter().find(|(known, _)| *known == letter);
        change.map_or(format!("{letter}\n"), |(_, text)| text.to_string())
    };
    ('a'..='z').map(line).collect()
}

const FIRST: &str = "From: somebody\nSubject: the first\n\nWhy it is.\n---\n src/f | 2 +-\n\ndiff --git a/f b/f\nindex 123..456 100644\n--- a/f\n+++ b/f\n@@ -1,6 +1,6 @@ a heading\n a\n b\n-c\n+C\n d\n e\n f\n-- \n2.30\n";

const SECOND: &str = "--- a/f\n+++ b/f\n@@ -19,7 +19,7 @@\n s\n t\n u\n-v\n+V\n w\n x\n y\n";

/// A folder with two patches over it.
fn project() -> Project {
    Project::new()
        .config("[patch.p]\ntree = 'src'\nfiles = ['patches/*.patch']\n")
        .file("src/f", &letters(&[]))
        .file("src/g", "g\n")
        .file("patches/1-first.patch", FIRST)
        .file("patches/2-second.patch", SECOND)
}

/// Everything that the task makes, as git and GNU patch make it of the same files.
#[track_caller]
fn others_agree(project: &Project, patches: &[&str]) {
    project.call("get p -o ../made --force").success();
    for tool in ["git", "patch"] {
        let work = project.beside(tool);
        let _ = fs::remove_dir_all(&work);
        folder::copy(&project.path("src"), &work);
        for name in patches {
            let mut command = Command::new(tool);
            match tool {
                "git" => command.args(["apply", "--whitespace=nowarn"]).arg(project.path(name)),
                _ => command
                    .args(["-p1", "-f", "-s", "-E", "--no-backup-if-mismatch", "-i"])
                    .arg(project.path(name)),
            };
            let output = command
                .current_dir(&work)
                .env("GIT_CEILING_DIRECTORIES", project.beside(""))
                .output()
                .unwrap();
            assert!(output.status.success(), "{tool} {name}: {output:?}\n{}", project.read(name));
        }
        folder::assert_same(&project.beside("made"), &work);
    }
}

const BOTH: &[&str] = &["patches/1-first.patch", "patches/2-second.patch"];

/// Runs `vcbuild patch edit NAME -- sh -c SCRIPT`.
macro_rules! edit {
    ($project:expr, $name:expr, $script:expr) => {
        $project.call_list(&["patch", "edit", $name, "--", "sh", "-c", $script])
    };
}

mod apply;
mod edit;
mod rebase;
mod work_tree;
