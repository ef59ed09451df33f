//! Submodules: each from its own place, at the commit that the outer one names; and those that would lead git
//! elsewhere.

use super::{config, get, mirrors, user_config};
use crate::support::Project;
use crate::support::repository::Repository;
use crate::support::servers::{Client, git_daemon, ssh};

/// Adds a submodule without asking git to fetch it.
fn add(outer: &Repository, inner: &Repository, path: &str, url: &str) {
    let commit = inner.git("rev-parse HEAD");
    outer.git_list(&["config", "-f", ".gitmodules", &format!("submodule.{path}.path"), path]);
    outer.git_list(&["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), url]);
    outer.git("add .gitmodules");
    outer.git_list(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    outer.git("commit -q -m submodule");
}

/// `top` has `libs/mid`, which has `deep`.
fn nested(project: &Project) -> Repository {
    let at = |name: &str| project.beside("served").join(name);
    let (deep, _) = Repository::with(at("deep"), &[("d/file", "deep\n"), ("other", "x")]);
    let (mid, _) = Repository::with(at("group/mid"), &[("file", "mid\n")]);
    add(&mid, &deep, "deep", "../../deep");
    let (top, _) = Repository::with(at("top"), &[("file", "top\n")]);
    add(&top, &mid, "libs/mid", "../group/mid");
    // What the branches are later does not count.
    deep.commit("later", &[("d/file", "later\n")]);
    mid.commit("later", &[("file", "later\n")]);
    top
}

fn check(project: &Project) {
    get(project);
    for (path, content) in
        [("file", "top\n"), ("libs/mid/file", "mid\n"), ("libs/mid/deep/d/file", "deep\n")]
    {
        assert_eq!(project.read(format!("got/{path}")), content);
    }
    assert_eq!(mirrors(project).len(), 3);
}

fn with(project: &Project, url: &str, more: &str) {
    project.write("vcbuild.toml", &format!("[project]\nname = 't'\n{}", config(url, "main", more)));
}

#[test]
fn over_the_network_recursively() {
    let project = Project::new();
    nested(&project);
    let server = git_daemon(&project.beside("served"));
    let url = format!("git://127.0.0.1:{}/top", server.port);
    let project = project.config(&config(&url, "main", ""));
    get(&project);
    assert_eq!(std::fs::read_dir(project.path("got/libs/mid")).unwrap().count(), 0);
    with(&project, &url, "submodules = true");
    check(&project);
    // Offline once they are here.
    drop(server);
    for part in ["cas", "actions", "memo"] {
        project.remove(&format!("cache/v1/{part}"));
    }
    project.run("c --offline").success().did(&["clone.c"]);
    with(&project, &url, "submodules = true\npaths = ['libs/mid/deep/d']");
    project.run("c").success();
    project.call("get clone.c -o one").success();
    assert_eq!(project.read("one"), "deep\n");
}

#[test]
fn beside_a_repository_on_this_machine_and_by_ssh() {
    let project = Project::new();
    let top = nested(&project);
    with(&project, top.path().to_str().unwrap(), "submodules = true");
    check(&project);
    let ssh = ssh(&project.beside("ssh"));
    user_config(&project, &format!("[core]\n\tsshCommand = {}\n", ssh.client(Client::Right)));
    project.remove("cache");
    with(&project, &ssh.url(top.path()), "submodules = true");
    check(&project);
}

#[test]
fn addresses_that_lead_elsewhere() {
    let project = Project::new();
    let (secret, _) = Repository::with(project.beside("secret"), &[("file", "secret\n")]);
    let served = |name: &str| project.beside("served").join(name);
    let server = git_daemon(&project.beside("served"));
    let canary = project.beside("canary");
    let path = secret.path().to_str().unwrap();
    let ext = format!("ext::touch {}", canary.display());
    let cases = [
        ("-upload-pack=touch", "its address `-upload-pack=touch` is not taken"),
        ("../../../evil", "its address `../../../evil` is not taken"),
        ("evil\r", "its address `evil\\r` is not taken"),
        ("beside", "its address `beside` is not taken"),
        ("git://127.0.0.1/%0aevil", "is not taken"),
        ("https:///evil", "its address `https:///evil` is not taken"),
        ("https://u:pa55word@127.0.0.1/x", "its address holds a password or token"),
        (ext.as_str(), "would run a command"),
        (path, "transport 'file' not allowed"),
        (&format!("file://{path}"), "transport 'file' not allowed"),
        ("other::x", "transport 'other' not allowed"),
    ];
    user_config(&project, "[protocol \"ext\"]\n\tallow = always\n");
    for (number, (url, expected)) in cases.iter().enumerate() {
        let (top, _) = Repository::with(served(&format!("top{number}")), &[("file", "top\n")]);
        add(&top, &secret, "sub", url);
        with(&project, &format!("git://127.0.0.1:{}/top{number}", server.port), "submodules = true");
        let done = project.run("c").failure(1);
        assert!(done.stderr.contains(expected), "{url:?}: {}", done.stderr);
        assert!(!done.stderr.contains("pa55word") && !canary.exists(), "{}", done.stderr);
    }
    // The user may allow it.
    user_config(&project, "[protocol \"file\"]\n\tallow = always\n");
    with(&project, &format!("git://127.0.0.1:{}/top8", server.port), "submodules = true");
    get(&project);
    assert_eq!(project.read("got/sub/file"), "secret\n");
}

#[test]
fn what_is_missing_is_named() {
    let project = Project::new();
    let (inner, _) = Repository::with(project.path("inner"), &[("file", "x")]);
    let (top, _) = Repository::with(project.path("top"), &[("file", "top\n")]);
    add(&top, &inner, "sub", "../inner");
    with(&project, "top", "submodules = true");
    let commit = inner.git("rev-parse HEAD");
    std::fs::remove_dir_all(inner.path()).unwrap();
    let (inner, _) = Repository::with(project.path("inner"), &[("other", "y")]);
    let done = project.run("c").failure(1);
    let gone = format!("submodule `sub`: `{}` does not have the commit `{commit}`", inner.path().display());
    assert!(done.stderr.contains(&gone), "{}", done.stderr);
    top.git("rm -q --cached .gitmodules");
    top.git("commit -q -m gone");
    project.remove("vcbuild.lock");
    let done = project.run("c").failure(1);
    assert!(done.stderr.contains("the commit has no address for its submodule `sub`"), "{}", done.stderr);
}
