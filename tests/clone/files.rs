//! What is taken of a commit: all of it as it is, a part, pointer files.

use snapbox::str;

use super::{config, get, user_config};
use crate::support::Project;
use crate::support::folder;
use crate::support::repository::Repository;

#[test]
fn bytes_modes_and_links_are_those_of_the_commit_whatever_the_user_has_set() {
    let project = Project::new().config(&config("repo", "main", ""));
    let repository = Repository::new(project.path("repo"));
    repository.write("crlf.txt", "a\r\nb\r\n");
    repository.write("lf.txt", "a\nb\n");
    repository.write(".gitattributes", "*.txt text=auto eol=crlf\n*.f filter=mine ident export-subst\n");
    repository.write("x.f", "$Id$ $Format:%H$ as it is\n");
    repository.write("bin/tool*", "#!/bin/sh\n");
    repository.write("ünïcode \n name", [0, 159, 146, 150]);
    repository.write("empty", "");
    repository.link("link", "bin/tool");
    repository.link("dangling", "../../outside");
    repository.commit("first", &[]);
    user_config(
        &project,
        "[core]\n\tautocrlf = true\n\tsymlinks = false\n\tfileMode = false\n\
         [filter \"mine\"]\n\tsmudge = sed s/as/SMUDGED/\n\trequired = true\n",
    );
    get(&project);
    let names = folder::files(&project.path("got"));
    let known = repository.git_list(&["ls-tree", "-r", "-z", "--name-only", "HEAD"]);
    assert_eq!(names.len(), known.split_terminator('\0').count());
    for (name, (mode, content)) in folder::contents(&project.path("got")) {
        let is_link = project.path("got").join(&name).is_symlink();
        let name = name.to_str().unwrap();
        let entry = repository.git_list(&["--literal-pathspecs", "ls-tree", "-z", "HEAD", "--", name]);
        let (kind, id) = (&entry[..6], &entry[12..52]);
        std::fs::write(project.beside("content"), &content).unwrap();
        let path = project.beside("content");
        let own = repository.git_list(&["hash-object", "--no-filters", path.to_str().unwrap()]);
        assert_eq!(own, id, "{name}");
        let expected = if is_link { "120000".to_string() } else { format!("100{mode:o}") };
        assert_eq!(kind, expected, "{name}");
    }
}

/// A repository with files in three folders, and a project that takes a part of them.
fn part(paths: &str) -> Project {
    let project = Project::new().config(&config("repo", "main", paths));
    let files = [
        ("a/x.c", "1"),
        ("a/x.o", "2"),
        ("a/deep/y.c", "3"),
        ("b/x.c", "4"),
        ("c/d/e/z", "5"),
        ("top", "6"),
    ];
    Repository::with(project.path("repo"), &files);
    project
}

#[track_caller]
fn takes(paths: &str, expected: &[&str]) {
    let project = part(&format!("paths = [{paths}]"));
    get(&project);
    let names = folder::files(&project.path("got"));
    assert_eq!(names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(), expected, "{paths}");
    // No folder is left that holds nothing.
    let folders = std::fs::read_dir(project.path("got")).unwrap().count();
    let tops: std::collections::BTreeSet<_> = names.iter().map(|name| name.iter().next()).collect();
    assert_eq!(folders, tops.len(), "{paths}");
}

#[test]
fn a_part_by_globs_that_mean_what_they_mean_elsewhere() {
    takes("'a'", &["a/deep/y.c", "a/x.c", "a/x.o"]);
    takes("'a/*.c', 'top'", &["a/x.c", "top"]);
    takes("'**/*.c'", &["a/deep/y.c", "a/x.c", "b/x.c"]);
    takes("'**', '!a', '!**/z'", &["b/x.c", "top"]);
    takes("'{b,c/d}/**', '!b/*.c', 'b/x.c'", &["b/x.c", "c/d/e/z"]);
}

#[test]
fn a_pattern_without_a_match_is_a_failure() {
    let project = part("paths = ['a', 'missing/**']");
    project.run("c").failure(1).stderr(str![[r#"
note: `clone.c`: pinned `main` of `repo` to `[DIGEST]`
  failed clone.c  [TIME]
error: `clone.c` failed: `missing/**` matches nothing in commit `[DIGEST]` of `[ROOT]/repo`
hint: paths are relative to the root of the commit
error: 1 task failed:
    `clone.c`: `missing/**` matches nothing in commit `[DIGEST]` of `[ROOT]/repo`
failed: 1 failed ([TIME])

"#]]);
}

#[test]
fn mistakes() {
    let more = "paths = ['../x', '!a']\nlfs = true\n";
    let project = Project::new().config(&config("ext::sh -c x", "ma in", more));
    project.call("list").failure(2).stderr(str![[r#"
error: `ext::sh -c x` would run a command
 --> vcbuild.toml:4:7
  |
4 | url = 'ext::sh -c x'
  |       ^^^^^^^^^^^^^^

error: `ma in` is not an address or revision
 --> vcbuild.toml:5:7
  |
5 | rev = 'ma in'
  |       ^^^^^^^

error: the path `../x` leaves the project
 --> vcbuild.toml:6:10
  |
6 | paths = ['../x', '!a']
  |          ^^^^^^
hint: paths are relative, without `..`

error: what git-LFS keeps is not fetched
 --> vcbuild.toml:7:7
  |
7 | lfs = true
  |       ^^^^
hint: `lfs = false` takes the pointer files as they are; without it they are refused

error: 4 mistakes in `vcbuild.toml`

"#]]);
    let project = Project::new().config(&config("-uevil", "main~1", "paths = ['!a']\n"));
    project.call("list").failure(2).stderr(str![[r#"
error: `-uevil` is not an address or revision
 --> vcbuild.toml:4:7
  |
4 | url = '-uevil'
  |       ^^^^^^^^

error: `main~1` is not an address or revision
 --> vcbuild.toml:5:7
  |
5 | rev = 'main~1'
  |       ^^^^^^^^

error: `paths` takes nothing
 --> vcbuild.toml:6:10
  |
6 | paths = ['!a']
  |          ^^^^
hint: begin with `**` to exclude from everything

error: 3 mistakes in `vcbuild.toml`

"#]]);
}

#[test]
fn a_password_in_an_address_is_refused_and_nowhere_shown() {
    for url in ["https://user:pa55word@example.com/x", "https://pa55wordpa55wordpa55word@example.com/x"] {
        let project = Project::new().config(&config(url, "main", ""));
        for verb in ["run", "list", "check", "update", "show clone.c", "run --set a=b"] {
            let done = project.call(verb).failure(2);
            assert!(!format!("{}{}", done.stderr, done.text()).contains("pa55word"), "{}", done.stderr);
            assert!(
                done.stderr.contains("the `url` of `clone.c` holds a password or token"),
                "{}",
                done.stderr
            );
        }
    }
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

#[test]
fn pointer_files_of_lfs_are_refused_unless_they_are_wanted() {
    let project = Project::new().config(&config("repo", "main", ""));
    let similar = POINTER.replace("oid sha256:", "oid md5:");
    let files =
        [("data/big.bin", POINTER), ("data/more.bin", POINTER), ("src/a.c", "x"), ("similar", &similar)];
    Repository::with(project.path("repo"), &files);
    project.run("c").failure(1).stderr(str![[r#"
note: `clone.c`: pinned `main` of `repo` to `[DIGEST]`
  failed clone.c  [TIME]
error: `clone.c` failed: the content of 2 files is kept by git-LFS, and is not in the repository
    data/big.bin
    data/more.bin
hint: leave them out with `paths = ["**", "!…"]`, or take the pointer files as they are with `lfs = false`
error: 1 task failed:
    `clone.c`: the content of 2 files is kept by git-LFS, and is not in the repository
failed: 1 failed ([TIME])

"#]]);
    project.write(
        "vcbuild.toml",
        &format!("[project]\nname = 't'\n{}", config("repo", "main", "paths = ['**', '!data']")),
    );
    get(&project);
    assert!(!project.path("got/data").exists() && project.path("got/src/a.c").exists());
    project.write(
        "vcbuild.toml",
        &format!("[project]\nname = 't'\n{}", config("repo", "main", "lfs = false")),
    );
    get(&project);
    assert_eq!(project.read("got/data/big.bin"), POINTER);
}

#[test]
fn names_that_lead_out_are_refused() {
    let project = Project::new().config(&config("repo", "main", ""));
    let (repository, _) = Repository::with(project.path("repo"), &[("a", "x")]);
    let blob = repository.git("rev-parse HEAD:a");
    for name in ["..", ".git", ".GIT", "."] {
        let bytes: Vec<u8> =
            (0..40).step_by(2).map(|i| u8::from_str_radix(&blob[i..i + 2], 16).unwrap()).collect();
        let tree = [format!("100644 {name}\0").as_bytes(), &bytes].concat();
        std::fs::write(project.beside("tree"), tree).unwrap();
        let path = project.beside("tree");
        let tree = repository.git_list(&[
            "hash-object",
            "-t",
            "tree",
            "-w",
            "--literally",
            path.to_str().unwrap(),
        ]);
        let commit = repository.git_list(&["commit-tree", &tree, "-m", "hostile"]);
        repository.git(&format!("update-ref refs/heads/main {commit}"));
        let _ = std::fs::remove_file(project.path("vcbuild.lock"));
        let done = project.run("c").failure(1);
        assert!(done.stderr.contains(&format!("the commit has a file `{name}`")), "{}", done.stderr);
    }
}
