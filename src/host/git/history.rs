//! What lies between two commits of a mirror, and which submodules a commit has: asked of git itself,
//! which knows shallow histories and the syntax of its own files.

use std::collections::BTreeMap;

use super::mirror::{Depth, Mirror};
use super::remote::Remote;
use crate::error::Result;
use crate::host::process::Exit;

/// The way from one commit to another.
#[derive(Debug, PartialEq, Eq)]
pub struct Between {
    /// Whether the first is an ancestor of the second.
    pub is_forward: bool,
    /// Short names and subjects of the commits that the second has and the first has not, latest first;
    /// not all of them if there are many.
    pub commits: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl Mirror {
    /// What lies between two commits that are here; at most `most` commits are listed. `None` if that
    /// cannot be found out. Fetches more history if it needs it.
    pub fn between(
        &self,
        remote: &Remote<'_>,
        old: &str,
        new: &str,
        most: usize,
    ) -> Result<Option<Between>> {
        let forward = || -> Result<Option<bool>> {
            let done = remote.git_in(self.path(), &["merge-base", "--is-ancestor", old, new])?;
            Ok(match done.exit {
                Exit::Code(0) => Some(true),
                Exit::Code(1) => Some(false),
                _ => None,
            })
        };
        let mut is_forward = forward()?;
        if is_forward != Some(true) && self.is_shallow() {
            // It may be one behind where the history here ends.
            if self.fetch(remote, new, Depth::All).is_err() {
                remote.stop.check()?;
                return Ok(None);
            }
            is_forward = forward()?;
        }
        let Some(is_forward) = is_forward else { return Ok(None) };
        let (range, limit) = (format!("{old}..{new}"), format!("--max-count={most}"));
        let count = remote.git_in(self.path(), &["rev-list", "--count", &range, "--"])?;
        let list = ["rev-list", "--encoding=UTF-8", "--format=%x09%h %s", &limit, &range, "--"];
        let list = remote.git_in(self.path(), &list)?;
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        let commits: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix('\t').map(str::to_string)).collect();
        let count = String::from_utf8_lossy(&count.stdout).trim().parse().unwrap_or(commits.len());
        Ok(Some(Between { is_forward, commits, count }))
    }

    /// The submodules that a `.gitmodules` file declares: path and address as written.
    pub fn modules(&self, remote: &Remote<'_>, file: git2::Oid) -> Result<BTreeMap<Vec<u8>, String>> {
        let blob = format!("--blob={file}");
        let done = remote.git_in(self.path(), &["config", &blob, "--null", "--list"])?;
        if done.exit != Exit::Code(0) {
            return Err(remote.failed("read `.gitmodules` of", &done));
        }
        let (mut paths, mut urls) = (BTreeMap::new(), BTreeMap::new());
        for entry in done.stdout.split(|&byte| byte == 0) {
            let mut parts = entry.splitn(2, |&byte| byte == b'\n');
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            let Some(name) = key.strip_prefix(b"submodule.") else { continue };
            if let Some(name) = name.strip_suffix(b".path") {
                paths.insert(name.to_vec(), value.to_vec());
            } else if let Some(name) = name.strip_suffix(b".url") {
                urls.insert(name.to_vec(), String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(paths.into_iter().filter_map(|(name, path)| Some((path, urls.get(&name)?.clone()))).collect())
    }
}
