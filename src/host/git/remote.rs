//! The `git` program: how it is run, and what it is asked of a repository elsewhere. Knows no mirror.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::address::shown;
use crate::error::{Error, Failure, Result, did_you_mean};
use crate::host::process::{self, Captured, Command, Exit};
use crate::host::stop::Stop;

/// Where a repository is, and how to get at it.
pub struct Remote<'a> {
    /// An address as git takes it, or an absolute path to a repository or a bundle.
    pub url: &'a str,
    /// Who has named the address.
    pub trust: Trust,
    /// The user's environment.
    pub env: Vec<(OsString, OsString)>,
    /// The user's wish to stop.
    pub stop: &'a Stop,
}

/// Who has named an address: git does not go everywhere a repository sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The user.
    User,
    /// A repository, in its `.gitmodules`: what is on this machine is not read, unless the user's
    /// configuration of git allows it (`protocol.file.allow`).
    Repository,
}

/// What a name means elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the name is.
    pub kind: Kind,
    /// The object it names.
    pub id: String,
    /// The commit behind the object, if that was said.
    pub commit: Option<String>,
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A branch, or another reference: it is there to move.
    Branch,
    /// A tag: it should not move.
    Tag,
}

/// A transfer that takes longer than this is ended.
const LONGEST: Duration = Duration::from_secs(3 * 3600);
/// A git that has said nothing for so long, not even how far it has come, waits for somebody who is gone.
const SILENCE: Duration = Duration::from_secs(300);
/// What git may print, in bytes.
const MOST: usize = 64 << 20;

/// What is set whatever the user's configuration says: nothing of a repository is run, no address runs a
/// command, nothing is cleared away behind our back, and what is fetched is there as a whole or not at all.
const SETTINGS: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=0",
    "protocol.ext.allow=never",
    "protocol.fd.allow=never",
    "fetch.unpackLimit=1",
    "fetch.writeCommitGraph=false",
    "submodule.recurse=false",
];

/// The variables of git that say how the user gets at other machines, by their beginning; all others
/// speak of some repository.
const KEPT: [&str; 6] = ["GIT_SSH", "GIT_ASKPASS", "GIT_CONFIG_", "GIT_SSL_", "GIT_PROXY_", "GIT_HTTP_"];

fn is_kept(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let ours = name == "LC_ALL" || name == "GIT_CONFIG_PARAMETERS";
    !ours && (!name.starts_with("GIT_") || KEPT.iter().any(|start| name.starts_with(start)))
}

impl Remote<'_> {
    /// Runs git with the user's configuration, but without hooks, prompts and foreign `GIT_*` variables.
    pub fn git(&self, arguments: &[&str]) -> Result<Captured> {
        let mut argv: Vec<OsString> = vec!["git".into()];
        for setting in SETTINGS {
            argv.extend(["-c".into(), setting.into()]);
        }
        argv.extend(arguments.iter().map(OsString::from));
        let mut env: Vec<_> = self.env.iter().filter(|(name, _)| is_kept(name)).cloned().collect();
        env.push(("GIT_TERMINAL_PROMPT".into(), "0".into()));
        env.push(("LC_ALL".into(), "C".into()));
        if self.trust == Trust::Repository {
            env.push(("GIT_PROTOCOL_FROM_USER".into(), "0".into()));
        }
        let command = Command { argv, dir: "/".into(), env, timeout: Some(LONGEST) };
        let stuck = |error: Error| error.context(format!("git on `{}`", shown(self.url)));
        process::capture_while_heard(&command, MOST, Some(SILENCE), self.stop).map_err(stuck)
    }

    /// Runs git on a repository of ours.
    pub fn git_in(&self, folder: &Path, arguments: &[&str]) -> Result<Captured> {
        let folder = folder.to_string_lossy().into_owned();
        self.git(&[&["--git-dir", &folder][..], arguments].concat())
    }

    /// The branch, tag or whole name of a reference `rev` as it is there now; `None` if there is none.
    pub fn find(&self, rev: &str) -> Result<Option<Found>> {
        let (branch, tag) = (format!("refs/heads/{rev}"), format!("refs/tags/{rev}"));
        let behind = |name: &str| format!("{name}^{{}}");
        let asked = [branch.clone(), tag.clone(), behind(&tag), rev.to_string(), behind(rev)];
        let refs = self.refs(&asked.iter().map(String::as_str).collect::<Vec<_>>())?;
        let id = |name: &str| refs.iter().find(|(_, known)| known == name).map(|(id, _)| id.clone());
        let found = |kind, name: &str| {
            let commit = match kind {
                Kind::Branch => id(name),
                Kind::Tag => id(&behind(name)),
            };
            Some(Found { kind, id: id(name)?, commit })
        };
        let whole = if rev.starts_with("refs/tags/") { Kind::Tag } else { Kind::Branch };
        match (found(Kind::Branch, &branch), found(Kind::Tag, &tag)) {
            (Some(one), Some(other)) if Some(&one.id) != other.commit.as_ref().or(Some(&other.id)) => {
                let message = format!("`{rev}` of `{}` is both a branch and a tag", shown(self.url));
                let hint = format!("write `refs/heads/{rev}` or `refs/tags/{rev}`");
                Err(Failure::new(message).hint(hint).into())
            }
            (Some(found), _) | (None, Some(found)) => Ok(Some(found)),
            (None, None) => Ok(found(whole, rev)),
        }
    }

    /// What `rev` is there now; there must be such a name.
    pub fn resolve(&self, rev: &str) -> Result<Found> {
        if let Some(found) = self.find(rev)? {
            return Ok(found);
        }
        let refs = self.refs(&[])?;
        let short = |name: &str| -> Option<String> {
            let name = name.strip_prefix("refs/heads/").or(name.strip_prefix("refs/tags/"))?;
            Some(name.to_string())
        };
        let names: Vec<String> = refs.iter().filter_map(|(_, name)| short(name)).collect();
        let mut failure = Failure::new(format!("`{}` has no branch and no tag `{rev}`", shown(self.url)));
        if rev.len() >= 7 && rev.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            failure.hints.push("a commit is written with all of its 40 digits, in lower case".into());
        } else {
            failure.hints.extend(did_you_mean(rev, names.iter().map(String::as_str)));
        }
        Err(failure.into())
    }

    /// Objects and names of the references there that match; all if none is asked for.
    fn refs(&self, asked: &[&str]) -> Result<Vec<(String, String)>> {
        let done = self.git(&[&["ls-remote", "--", self.url][..], asked].concat())?;
        if done.exit != Exit::Code(0) {
            return Err(self.failed("ask", &done));
        }
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let refs = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(refs.map(|(id, name)| (id.to_string(), name.to_string())).collect())
    }

    /// A git that did not do what it should, as a failure with the end of what it said.
    pub fn failed(&self, doing: &str, done: &Captured) -> Error {
        let said = shown(&String::from_utf8_lossy(&done.stderr));
        let lines: Vec<String> = said.lines().filter_map(last_words).map(str::to_string).collect();
        let from = lines.len().saturating_sub(10);
        let mut failure =
            Failure::new(format!("git could not {doing} `{}`: {}", shown(self.url), done.exit))
                .detail(lines[from..].iter().cloned());
        failure.hints.extend(hint(&said).map(str::to_string));
        failure.into()
    }
}

/// What is left of a line on a screen, if it says more than how far something has come.
fn last_words(line: &str) -> Option<&str> {
    let last = line.trim_end_matches('\r').rsplit('\r').next()?;
    let progress = ["objects:", "deltas:", "connectivity:"].iter().any(|word| last.contains(word));
    let done = last.starts_with("remote: Enumerating") || last.starts_with("remote: Total");
    (!progress && !done).then_some(last)
}

/// What to do about what git said.
fn hint(said: &str) -> Option<&'static str> {
    let hints = [
        (
            "terminal prompts disabled",
            "vcbuild never asks for passwords: set up a credential helper of git",
        ),
        ("Authentication failed", "the credential helper of git gave a user or password that is not taken"),
        (
            "Permission denied (publickey",
            "ssh has no key that is taken there: `ssh-add -l` lists what it has",
        ),
        ("Host key verification failed", "check the host's key and add it to `~/.ssh/known_hosts`"),
        ("' not allowed", "a repository may not send git there; `protocol.NAME.allow` of git changes that"),
        ("dubious ownership", "git reads no repository of another user, unless `safe.directory` says so"),
    ];
    hints.iter().find(|(words, _)| said.contains(words)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_not_what_git_has_to_say() {
        let said = "remote: Enumerating objects: 9, done.\nReceiving objects:  5% (1/9)\rReceiving objects:  9% (2/9)\r\
                    fatal: early EOF\nremote: sorry\n";
        assert_eq!(
            said.lines().filter_map(last_words).collect::<Vec<_>>(),
            ["fatal: early EOF", "remote: sorry"]
        );
    }

    #[test]
    fn only_variables_about_the_way_are_kept() {
        for name in ["HOME", "PATH", "https_proxy", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT"]
        {
            assert!(is_kept(&name.into()), "{name}");
        }
        for name in
            ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_ALLOW_PROTOCOL", "GIT_CONFIG", "LC_ALL"]
        {
            assert!(!is_kept(&name.into()), "{name}");
        }
    }
}
