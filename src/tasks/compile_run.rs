//! Runs the commands of a `compile`: the work folder is brought to the input tree by difference, the
//! environment is fixed, the outputs are captured. Knows no key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::compile::{CompileAction, What};
use crate::cache::bulk::Bulk;
use crate::cache::draft::Draft;
use crate::cache::{Cache, Lock, folder};
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::glob::Globs;
use crate::host::fs;
use crate::host::node::{At, Spec};
use crate::host::process::{self, Command, Exit};
use crate::work::{Context, TaskName};

/// The variables that vcbuild sets itself.
pub const FIXED: [&str; 7] = ["PATH", "HOME", "TMPDIR", "LANG", "TZ", "SOURCE_DATE_EPOCH", "VCBUILD_WORK"];

/// Those that are always the same.
pub const ALWAYS: [(&str, &str); 3] = [("LANG", "C.UTF-8"), ("TZ", "UTC"), ("SOURCE_DATE_EPOCH", "0")];

/// What is replaced, after the key was made, by the work folder.
const WORK: &str = "${VCBUILD_WORK}";

/// The output that is kept: more than this is cut in the middle.
const LONGEST_LOG: usize = 64 << 20;

/// Lines of output shown with a failure.
const SHOWN: usize = 20;

/// Runs the commands and stores their outputs.
pub fn run(action: &CompileAction, context: &Context<'_>) -> Result<Digest> {
    let (what, cas) = (&action.what, &context.cache.cas);
    // A host that is a folder here keeps its own.
    let (work, keep) = match &action.how.host {
        Some(Spec { at: At::Local(folder), .. }) => {
            let folder = context.owner.0.join(folder);
            (folder.join("work"), folder.join("keep"))
        }
        _ => (context.cache.path("work"), context.cache.path("keep")),
    };
    let place = Place::take(&work, context)?;
    let (work, keep) = (place.path.join("tree"), keep_folders(&keep, action, context)?);
    let spare = Globs::new(&what.incremental).map_err(Error::failed)?;
    let dir = if what.dir.is_empty() { work.clone() } else { work.join(&what.dir) };
    for output in &what.outputs {
        folder::remove(&work, &Path::new(&what.dir).join(output))?;
    }
    folder::bring(cas, &what.tree, &work, &spare)?;
    if !dir.is_dir() {
        return Err(Error::failed(format!("the input tree has no folder `{}`", what.dir)));
    }
    for output in &what.outputs {
        if let Some(above) = dir.join(output).parent() {
            fs::make_folder(above)?;
        }
    }
    let scratch = context.cache.scratch()?;
    let env = environment(action, &work, scratch.path(), &keep.paths)?;
    let deadline = action.how.timeout.map(|timeout| Instant::now() + timeout);
    for argv in &what.run {
        command(argv, &dir, &env, &work, deadline, action, context)?;
    }
    let (mut draft, bulk) = (Draft::empty(cas), Bulk::new(cas));
    for output in &what.outputs {
        if folder::capture(&bulk, &dir.join(output), &mut draft, output.as_bytes())?.is_none() {
            let inside = dir.join(output).parent().map(Path::to_path_buf).unwrap_or_default();
            let near = fs::list(&inside).unwrap_or_default();
            let near: Vec<String> = near.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            return Err(missing(output, &near, what, context));
        }
    }
    bulk.finish()?;
    let tree = draft.store()?;
    drop(scratch);
    Ok(tree)
}

/// The commands did not make an output; these names are beside where it should be.
pub fn missing(output: &str, near: &[String], what: &What, context: &Context<'_>) -> Error {
    let mut failure = Failure::new(format!("the commands ended well, but did not make `{output}`"));
    let name =
        Path::new(output).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    failure.hints.extend(crate::error::did_you_mean(&name, near.iter().map(String::as_str)));
    if failure.hints.is_empty() {
        let dir = if what.dir.is_empty() { "the root of the tree" } else { &what.dir };
        failure.hints.push(format!("`outputs` are relative to `dir` (here {dir})"));
    }
    Failure { log: Some(context.log.borrow().clone()), ..failure }.into()
}

fn command(
    argv: &[String],
    dir: &Path,
    env: &[(OsString, OsString)],
    work: &Path,
    deadline: Option<Instant>,
    action: &CompileAction,
    context: &Context<'_>,
) -> Result<()> {
    let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let words = argv.iter().map(|text| replaced(text, &work.to_string_lossy()).into()).collect();
    let command = Command { argv: words, dir: dir.to_path_buf(), env: env.to_vec(), timeout };
    let exit =
        process::run(&command, &mut |bytes| keep_log(&mut context.log.borrow_mut(), bytes), context.stop)?;
    ended(exit, argv, action, context)
}

/// Fails if a command did.
pub fn ended(exit: Exit, argv: &[String], action: &CompileAction, context: &Context<'_>) -> Result<()> {
    if exit == Exit::Code(0) {
        return Ok(());
    }
    let shown = shown(argv);
    let log = context.log.borrow().clone();
    let how = match exit {
        Exit::TimedOut => {
            let limit = action.how.timeout.unwrap_or_default();
            format!("took longer than its `timeout` of {} s and was ended", limit.as_secs_f64())
        }
        exit => format!("failed: {exit}"),
    };
    let text = String::from_utf8_lossy(&log).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    let from = lines.len().saturating_sub(SHOWN);
    let mut failure = Failure::new(format!("`{shown}` {how}"));
    if from > 0 {
        failure.detail.push(format!("… {from} lines before"));
    }
    failure.detail.extend(lines[from..].iter().cloned());
    failure.log = Some(log);
    Err(failure.into())
}

/// Adds output to a log of bounded length: the beginning and the end are kept.
pub fn keep_log(log: &mut Vec<u8>, bytes: &[u8]) {
    log.extend_from_slice(bytes);
    if log.len() > LONGEST_LOG + LONGEST_LOG / 4 {
        let (head, tail) = (LONGEST_LOG / 2, log.len() - LONGEST_LOG / 2);
        log.splice(head..tail, b"\n[... output cut here ...]\n".iter().copied());
    }
}

/// A command as one would type it.
fn shown(argv: &[String]) -> String {
    let word = |text: &String| {
        let plain = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte));
        if plain { text.clone() } else { format!("'{}'", text.replace('\'', "'\\''")) }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A text with the work folder in it.
pub fn replaced(text: &str, work: &str) -> String {
    text.replace(WORK, work)
}

/// The whole environment of the commands.
fn environment(
    action: &CompileAction,
    work: &Path,
    scratch: &Path,
    keep: &[(String, PathBuf)],
) -> Result<Vec<(OsString, OsString)>> {
    let (home, tmp, bin) = (scratch.join("home"), scratch.join("tmp"), scratch.join("bin"));
    for folder in [&home, &tmp, &bin] {
        fs::make_folder(folder)?;
    }
    for (name, path) in &action.how.tools {
        use std::os::unix::ffi::OsStrExt;
        fs::make_link(path.as_os_str().as_bytes(), &bin.join(name))?;
    }
    let mut path = bin.into_os_string();
    path.push(":/usr/bin:/bin");
    let text = work.to_string_lossy();
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    for (name, value) in &action.how.locate {
        env.insert(name.into(), value.clone());
    }
    for (name, path) in keep {
        env.insert(name.into(), path.into());
    }
    for (name, value) in declared(&action.what, &text) {
        env.insert(name.into(), value.into());
    }
    env.insert("PATH".into(), path);
    env.insert("HOME".into(), home.into());
    env.insert("TMPDIR".into(), tmp.into());
    env.insert("VCBUILD_WORK".into(), work.into());
    env.extend(ALWAYS.map(|(name, value)| (name.into(), value.into())));
    Ok(env.into_iter().collect())
}

/// The variables that are in the key, with the work folder in them.
pub fn declared(what: &What, work: &str) -> BTreeMap<String, String> {
    let passed = what.pass_env.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    let mut all: BTreeMap<String, String> = passed.collect();
    all.extend(what.env.iter().map(|(name, value)| (name.clone(), replaced(value, work))));
    all
}

struct Keep {
    paths: Vec<(String, PathBuf)>,
    _locks: Vec<Lock>,
}

/// The folders that outlive runs. Runs share them; whoever clears them takes them alone.
fn keep_folders(base: &Path, action: &CompileAction, context: &Context<'_>) -> Result<Keep> {
    let mut keep = Keep { paths: Vec::new(), _locks: Vec::new() };
    for (variable, name) in &action.how.keep {
        let path = base.join(name);
        fs::make_folder(&path)?;
        let waiting = || context.tell.note(format!("waiting for `{name}`, which is being cleared"));
        keep._locks.push(context.cache.lock_shared(&lock_in(base, name), context.stop, waiting)?);
        keep.paths.push((variable.clone(), path));
    }
    Ok(keep)
}

/// The lock of a folder that outlives runs.
pub fn lock_of_keep(cache: &Cache, name: &str) -> PathBuf {
    lock_in(&cache.path("keep"), name)
}

fn lock_in(base: &Path, name: &str) -> PathBuf {
    base.join(format!(".{}.lock", name.replace('/', "_")))
}

/// A work folder that nobody else uses.
pub struct Place {
    path: PathBuf,
    number: usize,
    id: String,
    _lock: Lock,
}

impl Place {
    /// The folder of this project and instance in `base`; a fresh one if another process has that.
    pub fn take(base: &Path, context: &Context<'_>) -> Result<Self> {
        let id = id(context.owner.0, context.owner.1);
        for number in 0..1000 {
            let path = base.join(numbered(&id, number));
            if let Some(lock) = context.cache.try_lock(&path.join("lock"))? {
                return Ok(Self { path, number, id, _lock: lock });
            }
        }
        Err(Error::failed("a thousand processes compile this task at once"))
    }

    /// Its name, and the names of a few others.
    pub fn names(&self) -> Vec<String> {
        (self.number..self.number + 8).map(|number| numbered(&self.id, number)).collect()
    }
}

fn numbered(id: &str, number: usize) -> String {
    if number == 0 { id.to_string() } else { format!("{id}-{number}") }
}

fn id(root: &Path, task: &TaskName) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut hasher = blake3::Hasher::new();
    hasher.update(root.as_os_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(task.0.as_bytes());
    hasher.finalize().to_hex()[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_cut_in_the_middle() {
        let mut log = Vec::new();
        for i in 0..200 {
            keep_log(&mut log, &vec![b'a' + (i % 26) as u8; 1 << 20]);
        }
        assert!(log.len() <= LONGEST_LOG + LONGEST_LOG / 4 + 100);
        assert_eq!((log[0], log[log.len() - 1]), (b'a', b'a' + (199 % 26) as u8));
    }

    #[test]
    fn commands_are_shown_as_typed() {
        assert_eq!(
            shown(&["cc".into(), "-o".into(), "a b".into(), "it's".into()]),
            r"cc -o 'a b' 'it'\''s'"
        );
    }
}
