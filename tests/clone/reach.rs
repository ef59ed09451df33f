//! Getting there: git's own daemon, a web server, sshd; who is let in and who is not; lines that break, vcbuild
//! that is killed, a mirror that is damaged, and no network.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{config, get, mirrors, user_config};
use crate::support::folder::{self, Damage};
use crate::support::repository::{Repository, noise};
use crate::support::servers::{Client, Line, Server, git_daemon, ssh, web, web_of_files};
use crate::support::{Done, Project};

/// A project, and a repository in a folder that can be served; `file` holds much that cannot be compressed.
fn served() -> (Project, Repository, Vec<String>) {
    let project = Project::new();
    let repository = Repository::new(project.beside("served/repo"));
    let mut commits = Vec::new();
    for number in 0..3_u8 {
        let mut content = noise(300_000);
        content[0] = number;
        repository.write("big", content);
        commits.push(repository.commit("words", &[("file", &format!("{number}\n"))]));
    }
    (project, repository, commits)
}

/// Checks what `get` gave.
#[track_caller]
fn holds(project: &Project, number: u8) {
    get(project);
    let mut content = noise(300_000);
    content[0] = number;
    assert!(std::fs::read(project.path("got/big")).unwrap() == content);
    assert_eq!(project.read("got/file"), format!("{number}\n"));
    // Nothing half is left.
    for mirror in mirrors(project) {
        for name in folder::files(&mirror) {
            let name = name.display().to_string();
            assert!(!name.contains("tmp_") && !name.ends_with(".lock"), "{name}");
        }
    }
}

/// How many commits the mirror has.
fn history(project: &Project, commit: &str) -> usize {
    let path = mirrors(project).remove(0);
    let output =
        Command::new("git").arg("--git-dir").arg(path).args(["rev-list", "--count", commit]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().parse().unwrap()
}

#[track_caller]
fn says(done: &Done<'_>, words: &[&str]) {
    for words in words {
        assert!(done.stderr.contains(words), "not `{words}` in:\n{}", done.stderr);
    }
}

fn daemon(project: &Project) -> Server {
    git_daemon(&project.beside("served"))
}

#[test]
fn one_commit_or_as_many_as_are_wanted() {
    for (depth, expected) in [("", 1), ("depth = 2", 2), ("depth = 0", 3)] {
        let (project, _, commits) = served();
        let server = daemon(&project);
        let url = format!("git://127.0.0.1:{}/repo", server.port);
        let project = project.config(&config(&url, "main", depth));
        holds(&project, 2);
        assert_eq!(history(&project, &commits[2]), expected, "{depth}");
        // An older commit, by its name alone: a different key, the same mirror.
        project
            .write("vcbuild.toml", &format!("[project]\nname = 't'\n{}", config(&url, &commits[0], depth)));
        holds(&project, 0);
        assert_eq!(mirrors(&project).len(), 1);
    }
}

#[test]
fn a_server_that_gives_only_branches_is_asked_for_everything() {
    let (project, repository, commits) = served();
    let server = daemon(&project);
    user_config(&project, "[protocol]\n\tversion = 0\n");
    let url = format!("git://127.0.0.1:{}/repo", server.port);
    let project = project.config(&config(&url, &commits[0], ""));
    holds(&project, 0);
    assert_eq!(history(&project, &commits[2]), 3);
    drop(repository);
    // A mirror that is shallow already gets the rest.
    project.remove("cache");
    let with = |rev: &str| {
        project.write("vcbuild.toml", &format!("[project]\nname = 't'\n{}", config(&url, rev, "")))
    };
    with(&commits[2]);
    holds(&project, 2);
    assert_eq!(history(&project, &commits[2]), 1);
    with(&commits[0]);
    holds(&project, 0);
}

#[test]
fn no_network_is_needed_once_the_commit_is_here() {
    let (project, _, commits) = served();
    let server = daemon(&project);
    let url = format!("git://127.0.0.1:{}/repo", server.port);
    let project = project.config(&config(&url, "main", ""));
    says(&project.run("c --offline").failure(1), &["would have to be asked, and `--offline` forbids it"]);
    holds(&project, 2);
    drop(server);
    for part in ["cas", "actions", "memo"] {
        project.remove(&format!("cache/v1/{part}"));
    }
    project.run("c --offline").success().did(&["clone.c"]);
    project.write(
        "vcbuild.toml",
        &format!("[project]\nname = 't'\n{}", config(&url, "main", "paths = ['file']")),
    );
    project.run("c --offline").success().did(&["clone.c"]);
    project.write("vcbuild.toml", &format!("[project]\nname = 't'\n{}", config(&url, &commits[0], "")));
    says(&project.run("c --offline").failure(1), &["`--offline` forbids it"]);
    says(&project.run("c").failure(1), &["git could not fetch from", "unable to connect"]);
}

#[test]
fn a_line_that_breaks_is_a_failure_and_the_next_run_is_right() {
    let (project, _, _) = served();
    let server = daemon(&project);
    let line = Line::new(&server);
    let project = project.config(&config(&format!("git://127.0.0.1:{}/repo", line.port), "main", ""));
    for limit in [0, 10, 700, 5_000, 150_000] {
        line.cut(limit);
        let calls = line.calls();
        says(&project.run("c").failure(1), &["error: `clone.c` failed: git could not"]);
        // It is not asked again and again.
        assert!(line.calls() - calls <= 3, "{} calls", line.calls() - calls);
    }
    line.mend();
    holds(&project, 2);
}

#[test]
fn vcbuild_killed_in_the_middle_of_a_fetch() {
    let (project, _, _) = served();
    let server = daemon(&project);
    let line = Line::new(&server);
    let project = project.config(&config(&format!("git://127.0.0.1:{}/repo", line.port), "main", ""));
    line.hold(150_000);
    let mut child =
        project.command(&["run", "c"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    line.wait();
    child.kill().unwrap();
    child.wait().unwrap();
    // What a git that was itself killed leaves behind.
    let mirror = mirrors(&project).remove(0);
    std::fs::write(mirror.join("shallow.lock"), "").unwrap();
    std::fs::write(mirror.join("objects/pack/tmp_pack_x"), "half").unwrap();
    line.mend();
    holds(&project, 2);
}

#[test]
fn many_at_once_on_one_mirror() {
    let (project, _, commits) = served();
    let server = daemon(&project);
    let url = format!("git://127.0.0.1:{}/repo", server.port);
    let cache = project.path("cache");
    let others: Vec<Project> = (0..4)
        .map(|number| {
            Project::new()
                .config(&config(&url, &commits[number % 3], ""))
                .options(&format!("--cache {}", cache.display()))
        })
        .collect();
    let start = |project: &Project| project.command(&["run", "c"]).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = others.iter().map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(mirrors(&project).len(), 1);
    for (number, project) in others.iter().enumerate() {
        project.call("get clone.c -o got").success();
        assert_eq!(project.read("got/file"), format!("{}\n", number % 3));
    }
}

#[test]
fn a_damaged_mirror_is_made_anew() {
    let (project, _, _) = served();
    let server = daemon(&project);
    let project = project.config(&config(&format!("git://127.0.0.1:{}/repo", server.port), "main", ""));
    holds(&project, 2);
    let mirror = mirrors(&project).remove(0);
    let clean = project.beside("clean");
    folder::copy(&mirror, &clean);
    for name in folder::files(&clean) {
        for how in [Damage::Deleted, Damage::Flipped, Damage::Torn] {
            std::fs::remove_dir_all(&mirror).unwrap();
            folder::copy(&clean, &mirror);
            folder::damage(&mirror.join(&name), how);
            for part in ["cas", "actions", "memo"] {
                project.remove(&format!("cache/v1/{part}"));
            }
            let done = project.run("c").success();
            assert_eq!(done.event("clone.c")["outcome"], "ran", "{} {how:?}", name.display());
        }
        holds(&project, 2);
    }
    // Without the network it says what is wrong, and takes nothing away.
    let pack = folder::files(&clean)
        .into_iter()
        .find(|name| name.extension().is_some_and(|e| e == "pack"))
        .unwrap();
    std::fs::remove_dir_all(&mirror).unwrap();
    folder::copy(&clean, &mirror);
    folder::damage(&mirror.join(&pack), Damage::Flipped);
    for part in ["cas", "actions", "memo"] {
        project.remove(&format!("cache/v1/{part}"));
    }
    says(
        &project.run("c --offline").failure(1),
        &["the mirror of `git://", "is damaged", "`--offline` forbids it"],
    );
    assert!(mirror.join(pack).exists());
    project.run("c").success();
}

#[test]
fn a_web_server_and_its_passwords() {
    let (project, _, _) = served();
    let server = web(&project.beside("served"));
    let line = Line::new(&server);
    let open = format!("http://127.0.0.1:{}/open/repo/.git", line.port);
    let closed = format!("http://127.0.0.1:{}/closed/repo/.git", line.port);
    let project = project.config(&config(&open, "main", ""));
    line.cut(150_000);
    says(&project.run("c").failure(1), &["git could not fetch from"]);
    line.mend();
    holds(&project, 2);
    let with = |url: &str| {
        project.write("vcbuild.toml", &format!("[project]\nname = 't'\n{}", config(url, "main", "")))
    };
    with(&closed);
    let done = project.run("c").failure(1);
    says(
        &done,
        &[
            "terminal prompts disabled",
            "hint: vcbuild never asks for passwords: set up a credential helper",
        ],
    );
    let helper = |word: &str| {
        let text = format!(
            "[credential]\n\thelper = \"!f() {{ echo username=user; echo password={word}; }}; f\"\n"
        );
        user_config(&project, &text);
    };
    helper("s3cr3t-wrong");
    let done = project.run("c").failure(1);
    says(&done, &["Authentication failed for 'http://127.0.0.1:", "the credential helper of git gave"]);
    helper("word");
    project.run("c").success();
    // The user's configuration may rewrite an address, with a password in it.
    project.remove("cache");
    let rewritten = format!("http://user:s3cr3t@127.0.0.1:{}/closed/", line.port);
    with("https://example.invalid/repo/.git");
    user_config(&project, &format!("[url \"{rewritten}\"]\n\tinsteadOf = https://example.invalid/\n"));
    let done = project.run("c").failure(1);
    assert!(!done.stderr.contains("s3cr3t"), "{}", done.stderr);
    let rewritten = rewritten.replace("s3cr3t", "word");
    user_config(&project, &format!("[url \"{rewritten}\"]\n\tinsteadOf = https://example.invalid/\n"));
    project.remove("vcbuild.lock");
    holds(&project, 2);
    // Neither is anywhere in what is kept.
    for (name, (_, content)) in folder::contents(&project.root()) {
        for secret in ["user:word", "s3cr3t", "password="] {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(
                !found && !name.display().to_string().contains(secret),
                "`{secret}` in {}",
                name.display()
            );
        }
    }
    // A proxy of the user's is asked first.
    project.remove("cache");
    user_config(&project, "[http]\n\tproxy = http://127.0.0.1:9\n");
    with(&open);
    says(&project.run("c").failure(1), &["127.0.0.1 port 9"]);
}

#[test]
fn nothing_rewrites_an_address_into_a_command() {
    let (project, _, _) = served();
    let canary = project.beside("canary");
    let evil = format!("ext::touch {} ", canary.display());
    let text = format!(
        "[protocol]\n\tallow = always\n[protocol \"ext\"]\n\tallow = always\n[url \"{evil}\"]\n\tinsteadOf = https://example.invalid/\n"
    );
    user_config(&project, &text);
    let project = project.env("GIT_ALLOW_PROTOCOL", "ext:https");
    let project = project.config(&config("https://example.invalid/x", "main", ""));
    says(&project.run("c").failure(1), &["transport 'ext' not allowed"]);
    assert!(!canary.exists());
}

#[test]
fn who_is_not_there_or_does_not_give_it_is_asked_once() {
    let (project, _, commits) = served();
    let (daemon, web) = (daemon(&project), web(&project.beside("served")));
    for (server, path, words) in [(&daemon, "git", "not exported"), (&web, "http", "' not found")] {
        let line = Line::new(server);
        let open = if path == "http" { "open/" } else { "" };
        let url = |name: &str| format!("{path}://127.0.0.1:{}/{open}{name}", line.port);
        project.write(
            "vcbuild.toml",
            &format!("[project]\nname = 't'\n{}", config(&url("none"), &commits[0], "")),
        );
        says(&project.run("c").failure(1), &[words]);
        assert!(line.calls() <= 2, "{} calls", line.calls());
    }
}

#[test]
fn a_web_server_that_only_has_files() {
    let (project, repository, commits) = served();
    repository.git("update-server-info");
    let server = web_of_files(&project.beside("served"));
    let url = format!("http://127.0.0.1:{}/repo/.git", server.port);
    let project = project.config(&config(&url, &commits[1], ""));
    holds(&project, 1);
}

#[test]
fn ssh_with_and_without_the_right_keys() {
    let (project, repository, _) = served();
    let ssh = ssh(&project.beside("ssh"));
    let project = project.config(&config(&ssh.url(repository.path()), "main", ""));
    let with = |client| user_config(&project, &format!("[core]\n\tsshCommand = {}\n", ssh.client(client)));
    with(Client::NoHost);
    says(&project.run("c").failure(1), &["Host key verification failed", "hint: check the host's key"]);
    with(Client::OtherHost);
    says(
        &project.run("c").failure(1),
        &["has changed and you have requested strict checking", "Host key verification failed"],
    );
    with(Client::Stranger);
    says(
        &project.run("c").failure(1),
        &["Permission denied (publickey", "hint: ssh has no key that is taken there"],
    );
    assert!(!project.path("vcbuild.lock").exists());
    with(Client::Right);
    holds(&project, 2);
    drop(ssh);
    project.remove("cache");
    says(&project.run("c").failure(1), &["Connection refused"]);
}

#[test]
fn ssh_by_the_environment_and_a_server_that_dies() {
    let (project, repository, _) = served();
    let ssh = ssh(&project.beside("ssh"));
    let project = project.env("GIT_SSH_COMMAND", ssh.client(Client::Right));
    // Variables that speak of another repository do not count.
    let project = project.env("GIT_DIR", "/nonexistent").env("GIT_OBJECT_DIRECTORY", "/nonexistent");
    let line = Line::new(&ssh.server);
    let url = ssh.url(repository.path());
    let project = project.config(&config(&url, "main", ""));
    holds(&project, 2);
    project.remove("cache");
    let cut = url.replace(&format!(":{}", ssh.server.port), &format!(":{}", line.port));
    let known = project.beside("ssh").join("client0.known");
    let text = std::fs::read_to_string(&known).unwrap();
    let text = format!("{text}{}", text.replace(&ssh.server.port.to_string(), &line.port.to_string()));
    std::fs::write(known, text).unwrap();
    project.write("vcbuild.toml", &format!("[project]\nname = 't'\n{}", config(&cut, "main", "")));
    line.cut(150_000);
    says(&project.run("c").failure(1), &["git could not fetch from"]);
    line.mend();
    holds(&project, 2);
}

#[test]
fn a_repository_here_is_read_without_its_hooks() {
    let (project, repository, _) = served();
    let canary = project.beside("canary");
    for hook in ["post-checkout", "pre-auto-gc", "reference-transaction", "post-merge"] {
        let hook = format!(".git/hooks/{hook}*");
        repository.write(&hook, format!("#!/bin/sh\ntouch {}\n", canary.display()));
    }
    repository.git_list(&["config", "uploadpack.packObjectsHook", &format!("touch {}", canary.display())]);
    let url = repository.path().to_str().unwrap().to_string();
    let project = project.config(&config(&url, "main", ""));
    holds(&project, 2);
    assert_eq!(history(&project, &repository.git("rev-parse HEAD")), 1);
    assert!(!Path::new(&canary).exists());
}
