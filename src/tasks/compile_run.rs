//! Runs the commands of a `compile`: the work folder is brought to the input tree by difference, the
//! environment is fixed, the outputs are captured. Knows no key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::compile::{CompileAction, What};
use crate::cache::draft::Draft;
use crate::cache::{Cache, Lock, folder};
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::glob::Globs;
use crate::host::fs;
use crate::host::process::{self, Command, Exit};
use crate::work::{Context, TaskName};

/// The variables that vcbuild sets itself.
pub const FIXED: [&str; 7] = ["PATH", "HOME", "TMPDIR", "LANG", "TZ", "SOURCE_DATE_EPOCH", "VCBUILD_WORK"];

/// What is replaced, after the key was made, by the work folder.
const WORK: &str = "${VCBUILD_WORK}";

/// The output that is kept: more than this is cut in the middle.
const LONGEST_LOG: usize = 64 << 20;

/// Lines of output shown with a failure.
const SHOWN: usize = 20;

/// Runs the commands and stores their outputs.
pub fn run(action: &CompileAction, context: &Context<'_>) -> Result<Digest> {
    let (what, cas) = (&action.what, &context.cache.cas);
    let place = Place::take(context)?;
    let (work, keep) = (place.path.join("tree"), keep_folders(action, context)?);
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
    let mut draft = Draft::empty(cas);
    for output in &what.outputs {
        if folder::capture(cas, &dir.join(output), &mut draft, output.as_bytes())?.is_none() {
            return Err(
                Failure { log: Some(context.log.borrow().clone()), ..missing(&dir, output, what) }.into()
            );
        }
    }
    let tree = draft.store()?;
    drop(scratch);
    Ok(tree)
}

fn missing(dir: &Path, output: &str, what: &What) -> Failure {
    let inside =
        Path::new(output).parent().map(|above| dir.join(above)).unwrap_or_else(|| dir.to_path_buf());
    let near = fs::list(&inside).unwrap_or_default();
    let near: Vec<String> = near.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let mut failure = Failure::new(format!("the commands ended well, but did not make `{output}`"));
    let name =
        Path::new(output).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    failure.hints.extend(crate::error::did_you_mean(&name, near.iter().map(String::as_str)));
    if failure.hints.is_empty() {
        let dir = if what.dir.is_empty() { "the root of the tree" } else { &what.dir };
        failure.hints.push(format!("`outputs` are relative to `dir` (here {dir})"));
    }
    failure
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
    let shown = shown(argv);
    let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let argv: Vec<OsString> = argv.iter().map(|text| replaced(text, work).into()).collect();
    let command = Command { argv, dir: dir.to_path_buf(), env: env.to_vec(), timeout };
    let exit =
        process::run(&command, &mut |bytes| keep_log(&mut context.log.borrow_mut(), bytes), context.stop)?;
    if exit == Exit::Code(0) {
        return Ok(());
    }
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
fn keep_log(log: &mut Vec<u8>, bytes: &[u8]) {
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

fn replaced(text: &str, work: &Path) -> String {
    text.replace(WORK, &work.to_string_lossy())
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
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    for (name, value) in &action.how.locate {
        env.insert(name.into(), value.clone());
    }
    for (name, value) in &action.what.pass_env {
        if let Some(value) = value {
            env.insert(name.into(), value.into());
        }
    }
    for (name, path) in keep {
        env.insert(name.into(), path.into());
    }
    for (name, value) in &action.what.env {
        env.insert(name.into(), replaced(value, work).into());
    }
    env.insert("PATH".into(), path);
    env.insert("HOME".into(), home.into());
    env.insert("TMPDIR".into(), tmp.into());
    env.insert("LANG".into(), "C.UTF-8".into());
    env.insert("TZ".into(), "UTC".into());
    env.insert("SOURCE_DATE_EPOCH".into(), "0".into());
    env.insert("VCBUILD_WORK".into(), work.into());
    Ok(env.into_iter().collect())
}

struct Keep {
    paths: Vec<(String, PathBuf)>,
    _locks: Vec<Lock>,
}

/// The folders that outlive runs. Runs share them; whoever clears them takes them alone.
fn keep_folders(action: &CompileAction, context: &Context<'_>) -> Result<Keep> {
    let mut keep = Keep { paths: Vec::new(), _locks: Vec::new() };
    for (variable, name) in &action.how.keep {
        let path = context.cache.path("keep").join(name);
        fs::make_folder(&path)?;
        let waiting = || context.tell.note(format!("waiting for `{name}`, which is being cleared"));
        keep._locks.push(context.cache.lock_shared(
            &lock_of_keep(context.cache, name),
            context.stop,
            waiting,
        )?);
        keep.paths.push((variable.clone(), path));
    }
    Ok(keep)
}

/// The lock of a folder that outlives runs.
pub fn lock_of_keep(cache: &Cache, name: &str) -> PathBuf {
    cache.path("keep").join(format!(".{}.lock", name.replace('/', "_")))
}

/// A work folder that nobody else uses.
struct Place {
    path: PathBuf,
    _lock: Lock,
}

impl Place {
    /// The folder of this project and instance; a fresh one if another process has that.
    fn take(context: &Context<'_>) -> Result<Self> {
        let base = context.cache.path("work");
        let id = id(context.owner.0, context.owner.1);
        for number in 0..1000 {
            let path = match number {
                0 => base.join(&id),
                _ => base.join(format!("{id}-{number}")),
            };
            if let Some(lock) = context.cache.try_lock(&path.join("lock"))? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(Error::failed("a thousand processes compile this task at once"))
    }
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
