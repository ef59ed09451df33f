//! Runs the commands of a `compile` on a host: its work folder is brought to the input tree by what differs, the
//! environment is fixed as it is here, the outputs come back. Knows no key, and no script.

use std::collections::BTreeMap;
use std::time::Instant;

use super::compile::CompileAction;
use super::compile_run::{self, ALWAYS, Place, declared, keep_log, replaced};
use super::compile_sync::{self, Have, There, called};
use super::shipping::{self, Told};
use crate::cache::cas::{Cas, Writing};
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{Error, Failure, Result};
use crate::glob::Globs;
use crate::host::node::{self, Spec, Trouble};
use crate::host::ssh::workplace::{Deadline, Found, Given, Kind, Made, Piece, Which, Workplace};
use crate::host::ssh::{Address, Remote};
use crate::recipe::Sink;
use crate::work::Context;

/// Runs the commands there and stores their outputs.
pub fn run(action: &CompileAction, spec: &Spec, context: &Context<'_>) -> Result<Digest> {
    let node::At::Ssh(address) = &spec.at else { panic!("BUG: `{}` is this machine", spec.name) };
    shipping::allowed(spec, context.network)?;
    // Processes of this machine keep apart by their own lock: who has the folder there is not waited for.
    let place = Place::take(&context.cache.path("work"), context)?;
    let once = || attempt(action, spec, address, &place.names(), context);
    let done = match once() {
        Err(Trouble::Cut(failure)) => {
            context.tell.note(format!("{}: once more", failure.message));
            context.log.borrow_mut().clear();
            once()
        }
        done => done,
    };
    done.map_err(|trouble| shipping::failed(&spec.name, trouble))
}

fn attempt(
    action: &CompileAction,
    spec: &Spec,
    address: &Address,
    names: &[String],
    context: &Context<'_>,
) -> Result<Digest, Trouble> {
    let (what, cas) = (&action.what, &context.cache.cas);
    let told = Told::source(&spec.name, context.stop, context.tell, None);
    let watch = Deadline::new(&told);
    let node = Remote::open(&spec.name, address, context.owner.0, context.links, &watch)?;
    let mut place = Workplace::take(&node, names, &watch)?;
    bring(action, cas, &mut place)?;
    prepare(action, &mut place)?;
    let work = format!("{}/tree", place.path);
    let dir = if what.dir.is_empty() { work.clone() } else { format!("{work}/{}", what.dir) };
    let env = environment(action, &place.path, &work);
    let until = action.how.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    for argv in &what.run {
        let words: Vec<String> = argv.iter().map(|text| replaced(text, &work)).collect();
        let mut output = |bytes: &[u8]| keep_log(&mut context.log.borrow_mut(), bytes);
        let exit = place.run(&words, &dir, &env, until, &mut output)?;
        if let Err(failed) = compile_run::ended(exit, argv, action, context) {
            place.leave()?;
            return Err(failed.into());
        }
    }
    let tree = take(action, cas, &mut place, context)?;
    place.leave()?;
    Ok(tree)
}

/// Brings the work folder to the input tree.
fn bring(action: &CompileAction, cas: &Cas, place: &mut Workplace<'_>) -> Result<(), Trouble> {
    let what = &action.what;
    let wanted = compile_sync::entries(cas, &what.tree)?;
    let odd = |(path, entry): &&(Vec<u8>, Entry)| {
        path.contains(&b'\n') || matches!(entry, Entry::Link { target } if target.contains(&b'\n'))
    };
    if let Some((path, _)) = wanted.iter().find(odd) {
        let path = String::from_utf8_lossy(path).into_owned();
        let message = format!("`{path}` has a line feed in its name or target: it cannot go to a host");
        return Err(Failure::new(message).into());
    }
    // Of what was brought last only the name is told, if it is still known here.
    let last = place.state.as_ref().and_then(|state| compile_sync::entries(cas, &state.parse().ok()?).ok());
    let there = match last {
        Some(last) => altered(compile_sync::there(&last), place.look(Which::Changed)?),
        None => altered(There::new(), place.look(Which::All)?),
    };
    let below = |output: &String| match what.dir.as_str() {
        "" => output.clone().into_bytes(),
        dir => format!("{dir}/{output}").into_bytes(),
    };
    let outputs: Vec<Vec<u8>> = what.outputs.iter().map(below).collect();
    let spare = Globs::new(&what.incremental).map_err(Error::failed)?;
    let steps = compile_sync::steps(&there, &wanted, &outputs, &spare);
    if !steps.drop.is_empty() {
        place.drop(&steps.drop)?;
    }
    let pieces: Vec<Piece> = steps.put.iter().map(|(path, entry)| piece(path, entry)).collect();
    place.put(&pieces, cas)?;
    let tree = what.tree.to_string();
    if !pieces.is_empty() || place.state.as_ref() != Some(&tree) {
        place.settle(&tree)?;
    }
    let modes: Vec<(String, String)> = steps
        .modes
        .iter()
        .map(|(mode, path)| (format!("{mode:04o}"), String::from_utf8_lossy(path).into_owned()))
        .collect();
    let calls: Vec<Vec<&str>> = modes.iter().map(|(mode, path)| vec!["mode", mode, path]).collect();
    if calls.is_empty() { Ok(()) } else { place.call(&calls) }
}

/// What is there: what was, but for what was found.
fn altered(mut there: There, found: Vec<Found>) -> There {
    for gone in found.iter().filter(|found| found.kind.is_none()) {
        there.remove(&gone.path);
    }
    for Found { path, kind, mode, called } in found {
        if let Some(kind) = kind {
            there.insert(path, Have { kind, mode, called });
        }
    }
    there
}

fn piece(path: &[u8], entry: &Entry) -> Piece {
    let kind = match (entry, entry.part()) {
        (Entry::Folder { mode, .. }, _) => Kind::Folder(mode | 0o700),
        (Entry::Link { target }, _) => Kind::Link(target.clone()),
        (Entry::File { mode, .. } | Entry::Recipe { mode, .. }, Some(part)) => Kind::File(*mode, part),
        (Entry::File { .. } | Entry::Recipe { .. }, None) => panic!("BUG: a file without content"),
    };
    Piece { path: path.to_vec(), kind, called: called(entry) }
}

/// Makes what commands find beside their inputs.
fn prepare(action: &CompileAction, place: &mut Workplace<'_>) -> Result<(), Trouble> {
    let (what, how) = (&action.what, &action.how);
    let mut calls = vec![vec!["dir".to_string(), what.dir.clone()]];
    for (name, path) in &how.tools {
        calls.push(vec!["tool".into(), path.to_string_lossy().into_owned(), name.clone()]);
    }
    for (_, name) in &how.keep {
        calls.push(vec!["keep".into(), name.clone()]);
    }
    for output in &what.outputs {
        if let Some((above, _)) = output.rsplit_once('/') {
            calls.push(vec!["above".into(), format!("{}/{above}", what.dir)]);
        }
    }
    let calls: Vec<Vec<&str>> =
        calls.iter().map(|call| call.iter().map(String::as_str).collect()).collect();
    place.call(&calls)
}

/// The whole environment of the commands, as it is here.
fn environment(action: &CompileAction, place: &str, work: &str) -> BTreeMap<String, String> {
    let scratch = format!("{place}/scratch");
    // `WORK/NAME` in the folder that also holds `keep`.
    let base = place.rsplitn(3, '/').nth(2).unwrap_or_default();
    let mut env = BTreeMap::new();
    for (name, value) in &action.how.locate {
        env.insert(name.clone(), value.to_string_lossy().into_owned());
    }
    for (name, folder) in &action.how.keep {
        env.insert(name.clone(), format!("{base}/keep/{folder}"));
    }
    env.extend(declared(&action.what, work));
    env.insert("PATH".into(), format!("{scratch}/bin:/usr/bin:/bin"));
    env.insert("HOME".into(), format!("{scratch}/home"));
    env.insert("TMPDIR".into(), format!("{scratch}/tmp"));
    env.insert("VCBUILD_WORK".into(), work.to_string());
    env.extend(ALWAYS.map(|(name, value)| (name.to_string(), value.to_string())));
    env
}

/// Takes the outputs.
fn take(
    action: &CompileAction,
    cas: &Cas,
    place: &mut Workplace<'_>,
    context: &Context<'_>,
) -> Result<Digest, Trouble> {
    let what = &action.what;
    let mut blobs: BTreeMap<usize, Blob> = BTreeMap::new();
    let mut keep = |index: usize, read: &mut dyn FnMut(&mut dyn Sink) -> Result<()>| {
        let blob = cas.put_with(Hasher::blake3(), |writer| read(&mut Writing(writer)))?;
        blobs.insert(index, blob);
        Ok(())
    };
    let made = match place.give(&what.dir, &what.outputs, &mut keep)? {
        Given::All(made) => made,
        Given::Missing(output, near) => {
            return Err(compile_run::missing(&output, &near, what, context).into());
        }
    };
    let mut draft = Draft::empty(cas);
    for (index, (path, one)) in made.into_iter().enumerate() {
        match one {
            Made::Folder(mode) => draft.make_folder(&path, mode)?,
            Made::Link(target) => draft.insert(&path, Entry::Link { target })?,
            Made::File(mode, _) => {
                let Some(blob) = blobs.remove(&index) else { panic!("BUG: a file came without content") };
                draft.insert(&path, Entry::File { mode, blob })?;
            }
        }
    }
    Ok(draft.store()?)
}
