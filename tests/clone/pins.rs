//! Pins: a run never moves one, `update` does and says what it does; what upstream has changed behind our back
//! is an error.

use super::{config, get, mirrors};
use crate::support::Project;
use crate::support::repository::Repository;
use crate::support::servers::{Server, git_daemon};

/// A repository behind a git daemon, with three commits on `main` and a tag at the second.
fn served(rev: &str) -> (Project, Repository, Server, Vec<String>) {
    let project = Project::new();
    let (repository, first) = Repository::with(project.beside("served/repo"), &[("file", "1\n")]);
    let second = repository.commit("second: \u{1b}[31mred", &[("file", "2\n")]);
    repository.git("tag -a -m words v1");
    let third = repository.commit("third", &[("file", "3\n")]);
    let server = git_daemon(&project.beside("served"));
    let project = project.config(&config(&format!("git://127.0.0.1:{}/repo", server.port), rev, ""));
    (project, repository, server, vec![first, second, third])
}

fn pin(project: &Project, commit: &str) {
    project.edit("vcbuild.lock", |text| {
        let at = text.find("commit = \"").unwrap() + 10;
        format!("{}{commit}{}", &text[..at], &text[at + 40..])
    });
}

fn forget(project: &Project) {
    project.remove("cache");
}

/// The words of an output, with the port that changes replaced.
fn words(text: &str, server: &Server) -> String {
    text.replace(&server.port.to_string(), "PORT")
}

#[test]
fn update_lists_the_commits_between() {
    let (project, repository, server, commits) = served("main");
    get(&project);
    let mirror = &mirrors(&project)[0];
    assert!(mirror.join("shallow").exists(), "history was fetched");
    pin(&project, &commits[0]);
    for number in 0..25 {
        repository.commit(&format!("number {number}"), &[]);
    }
    let last = repository.git("rev-parse HEAD");
    let said = words(&project.call("update").success().text(), &server);
    let mut lines = said.lines();
    let first = format!("`main` of `git://127.0.0.1:PORT/repo`: {} -> {last}", commits[0]);
    assert_eq!(lines.next(), Some(first.as_str()));
    assert!(lines.next().unwrap().ends_with(" number 24"), "{said}");
    assert_eq!(said.lines().last(), Some("    and 7 more"), "{said}");
    assert_eq!(said.lines().count(), 22, "{said}");
    get(&project);
    // In one cache that has never seen the old commit the answer is the same.
    forget(&project);
    pin(&project, &commits[0]);
    let again = words(&project.call("update").success().text(), &server);
    assert_eq!(said, again);
    repository.git("reset -q --hard HEAD~25");
    repository.commit("fourth: \u{1b}[31mred\u{7}", &[("file", "4\n")]);
    let said = project.call("update").success().text();
    assert!(said.contains("not a fast-forward") && said.contains(" fourth: red"), "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains('\u{7}'), "{said:?}");
}

#[test]
fn a_branch_that_was_forced_elsewhere_stays_where_it_is_pinned() {
    let (project, repository, server, commits) = served("main");
    get(&project);
    repository.git("reset -q --hard HEAD~2");
    repository.commit("other", &[("file", "other\n")]);
    let lock = project.read("vcbuild.lock");
    project.run("c").nothing();
    // The server still has the commit, though no branch leads to it.
    forget(&project);
    project.run("c").success();
    assert_eq!((project.read("vcbuild.lock"), project.read("got")), (lock, "3\n".into()));
    // Now it has not.
    repository.git("reflog expire --expire=now --all");
    repository.git("gc -q --prune=now");
    forget(&project);
    let done = project.run("c").failure(1);
    let said = words(&done.stderr, &server);
    let gone = format!(
        "`git://127.0.0.1:PORT/repo` no longer has the commit `{}`, to which `main` is pinned",
        commits[2]
    );
    assert!(said.contains(&gone), "{said}");
    assert!(said.contains("hint: `vcbuild update` moves the pin; `main` is at"), "{said}");
    let said = project.call("update").success().text();
    assert!(said.contains("what is in between cannot be found out"), "{said}");
    get(&project);
    assert_eq!(project.read("got"), "other\n");
}

#[test]
fn a_tag_that_moved_is_an_error_until_somebody_names_its_task() {
    let (project, repository, server, commits) = served("v1");
    get(&project);
    assert_eq!(project.read("got"), "2\n");
    repository.git("tag -f -a -m moved v1 HEAD");
    // Nobody has to ask as long as the commit is here.
    project.run("c").nothing();
    forget(&project);
    let url = "git://127.0.0.1:PORT/repo";
    let moved =
        format!("the tag `v1` of `{url}` has moved: it was `{}`, and is `{}`", commits[1], commits[2]);
    let done = project.run("c").failure(1);
    assert!(words(&done.stderr, &server).contains(&moved), "{}", done.stderr);
    let lock = project.read("vcbuild.lock");
    let done = project.call("update").failure(1);
    assert!(words(&done.stderr, &server).contains(&moved), "{}", done.stderr);
    assert_eq!(project.read("vcbuild.lock"), lock);
    let said = words(&project.call("update clone.c").success().text(), &server);
    assert!(
        said.starts_with(&format!(
            "`v1` of `{url}`: the tag has moved: {} -> {}\n",
            commits[1], commits[2]
        )),
        "{said}"
    );
    get(&project);
    assert_eq!(project.read("got"), "3\n");
}

#[test]
fn names_that_are_not_there_and_commits() {
    let (project, repository, server, commits) = served("mian");
    let done = project.run("c").failure(1);
    assert!(done.stderr.contains("has no branch and no tag `mian`"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: did you mean `main`?"), "{}", done.stderr);
    let url = format!("git://127.0.0.1:{}/repo", server.port);
    let with = |rev: &str| {
        project.write("vcbuild.toml", &format!("[project]\nname = 't'\n{}", config(&url, rev, "")))
    };
    with(&commits[0][..10]);
    let done = project.run("c").failure(1);
    assert!(done.stderr.contains("a commit is written with all of its 40 digits"), "{}", done.stderr);
    for (rev, expected) in
        [(commits[0].as_str(), "1\n"), ("refs/heads/main", "3\n"), ("refs/tags/v1", "2\n"), ("HEAD", "3\n")]
    {
        with(rev);
        get(&project);
        assert_eq!(project.read("got"), expected, "{rev}");
    }
    let nowhere = "0123456789012345678901234567890123456789";
    with(nowhere);
    let done = project.run("c").failure(1);
    assert!(done.stderr.contains(&format!("does not have the commit `{nowhere}`")), "{}", done.stderr);
    let tree = repository.git("rev-parse HEAD^{tree}");
    repository.git(&format!("tag tree {tree}"));
    with("tree");
    let done = project.run("c").failure(1);
    assert!(done.stderr.contains("is not a commit"), "{}", done.stderr);
    repository.git("branch v1");
    with("v1");
    let done = project.run("c").failure(1);
    assert!(done.stderr.contains("is both a branch and a tag"), "{}", done.stderr);
}

#[test]
fn bundles_too() {
    let project = Project::new().config(&config("up.bundle", "v1", ""));
    let (repository, _) = Repository::with(project.beside("repo"), &[("file", "1\n")]);
    let bundle = project.path("up.bundle");
    repository.git("tag -a -m words v1");
    repository.git_list(&["bundle", "create", "-q", bundle.to_str().unwrap(), "--all"]);
    get(&project);
    assert_eq!(project.read("got"), "1\n");
    let second = repository.commit("second", &[("file", "2\n")]);
    repository.git("tag -f -a -m words v1");
    repository.git_list(&["bundle", "create", "-q", bundle.to_str().unwrap(), "--all"]);
    forget(&project);
    let done = project.run("c").failure(1);
    assert!(done.stderr.contains("has moved") && done.stderr.contains(&second), "{}", done.stderr);
    project.call("update c").success();
    get(&project);
    assert_eq!(project.read("got"), "2\n");
}
