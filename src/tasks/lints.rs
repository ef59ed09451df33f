//! What will go wrong in an image although it can be made: programs without their loader, libraries or
//! interpreter, an entrypoint that is not there, files that everybody may change, programs that are
//! bad for deltas. Says it with a hint; changes nothing.

use std::collections::BTreeMap;

use super::contents;
use crate::cache::Cache;
use crate::digest::Blob;
use crate::error::Result;
use crate::oci::contents::{Item, Kind, Reader};
use crate::oci::elf::{self, Program};
use crate::oci::image::{Image, Layer};
use crate::oci::quoted;
use crate::oci::root::{NodeKind, Root};
use crate::recipe::Part;

/// Things of one sort that are named; the others are counted.
const MOST_NAMED: usize = 3;
/// `#!` and what follows, at most, as Linux reads it.
const LONGEST_SCRIPT_LINE: usize = 256;

/// Whether the task itself says what the image runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Command {
    /// It does.
    Own,
    /// It is the base's.
    Inherited,
}

/// What looks wrong in the layers that are new, and in the command if it is: lines with a hint after
/// `hint: `. Lower layers are read only if an answer may lie there.
///
/// Errors: `Lost` if a lower layer is to be read and is not there.
pub fn check(cache: &Cache, image: &Image, own: &[Layer], command: Command) -> Result<Vec<String>> {
    let mut found = Found { cache, root: Root::new(), heads: Vec::new(), loose: Vec::new() };
    for layer in own {
        crate::oci::contents::read(layer, &cache.cas, &mut found)?;
        found.root.next_layer();
    }
    let Found { root, heads, loose, .. } = found;
    let mut wanted = Wants { image, root, libraries: BTreeMap::new(), lines: Vec::new() };
    if !wanted.ask(&heads, command) {
        wanted.root = contents::root(cache, image)?;
        wanted.ask(&heads, command);
    }
    let mut lines = wanted.lines;
    lines.sort_by_key(|(sort, _)| *sort);
    let mut all = sorted_out(lines);
    if let Some(paths) = several(&loose) {
        all.push(format!("everybody may change {paths}\nhint: give the files another `mode`"));
    }
    Ok(all)
}

/// What one file of a new layer is.
struct Head {
    path: Vec<u8>,
    what: What,
}

enum What {
    Program(Program),
    Script(Vec<u8>),
}

/// What is found in new layers.
struct Found<'a> {
    cache: &'a Cache,
    root: Root,
    heads: Vec<Head>,
    /// Paths that everybody may change.
    loose: Vec<Vec<u8>>,
}

impl Reader for Found<'_> {
    fn item(&mut self, item: &Item) -> Result<usize> {
        self.root.add(item);
        let changeable = item.attributes.mode & 0o002 != 0;
        match item.kind {
            Kind::File if changeable => self.loose.push(item.path.clone()),
            // With the sticky bit nobody can touch what is another's, as in `/tmp`.
            Kind::Folder if changeable && item.attributes.mode & 0o1000 == 0 => {
                self.loose.push(item.path.clone())
            }
            _ => {}
        }
        Ok(0)
    }

    fn part(&mut self, item: &Item, part: &Part) -> Result<()> {
        let Part::Blob(blob) = part else { return Ok(()) };
        if item.kind != Kind::File || item.attributes.mode & 0o111 == 0 {
            return Ok(());
        }
        if let Some(what) = head(self.cache, blob)? {
            self.heads.push(Head { path: item.path.clone(), what });
        }
        Ok(())
    }
}

fn head(cache: &Cache, blob: &Blob) -> Result<Option<What>> {
    use std::os::unix::fs::FileExt;
    let file = cache.cas.open(blob)?;
    let mut start = [0; LONGEST_SCRIPT_LINE];
    let Ok(read) = file.read_at(&mut start, 0) else { return Ok(None) };
    Ok(match &start[..read] {
        [0x7f, b'E', b'L', b'F', ..] => elf::program(file).map(What::Program),
        [b'#', b'!', line @ ..] => {
            Some(What::Script(line.split(|&byte| byte == b'\n').next().unwrap_or_default().to_vec()))
        }
        _ => None,
    })
}

/// The sorts of what may be wrong, in the order in which they are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Entrypoint,
    Architecture,
    Loader,
    Library,
    Interpreter,
    Debug,
}

/// What is asked of an image.
struct Wants<'a> {
    image: &'a Image,
    root: Root,
    /// Names of files in the image, once they are needed.
    libraries: BTreeMap<Vec<u8>, ()>,
    lines: Vec<(Sort, String)>,
}

impl Wants<'_> {
    /// Asks everything; whether the tree had all that was looked for.
    fn ask(&mut self, heads: &[Head], command: Command) -> bool {
        self.lines.clear();
        self.libraries = self.root.iter().map(|(path, _)| (last_name(path).to_vec(), ())).collect();
        let mut all = true;
        if command == Command::Own {
            all &= self.command();
        }
        for head in heads {
            match &head.what {
                What::Program(program) => all &= self.program(&head.path, program),
                What::Script(line) => all &= self.script(&head.path, line),
            }
        }
        all
    }

    fn say(&mut self, sort: Sort, path: &[u8], what: String) {
        self.lines.push((sort, format!("`/{}` {what}", quoted(path).trim_matches('`'))));
    }

    fn is_file(&self, path: &[u8]) -> bool {
        matches!(self.root.find(path), Some((_, node)) if matches!(node.kind, NodeKind::File(_)))
    }

    fn command(&mut self) -> bool {
        let run = &self.image.config().config;
        let Some(first) = run.entrypoint.first().or_else(|| run.cmd.first()) else { return true };
        let paths: Vec<Vec<u8>> = match first.contains('/') {
            true if first.starts_with('/') => vec![first.clone().into_bytes()],
            true => vec![format!("{}/{first}", run.working_dir).into_bytes()],
            false => self.search_path().iter().map(|folder| join(folder, first.as_bytes())).collect(),
        };
        let found = paths.iter().find_map(|path| self.root.find(path));
        let what = match found {
            None => "is not in the image",
            Some((_, node)) if !matches!(node.kind, NodeKind::File(_)) => "is no file",
            Some((_, node)) if node.mode & 0o111 == 0 => "is not executable",
            Some(_) => return true,
        };
        let hint = match what {
            "is not executable" => "give it `mode = \"0755\"`",
            _ => "name the path at which `files` puts the program",
        };
        let text = format!("the program to run, {}, {what}\nhint: {hint}", quoted(first));
        self.lines.push((Sort::Entrypoint, text));
        // What is here is in the way of what a base has there, unless another folder comes first.
        what == "is not executable" && paths.len() == 1
    }

    fn search_path(&self) -> Vec<Vec<u8>> {
        let env = &self.image.config().config.env;
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        path.split(':').map(|folder| folder.as_bytes().to_vec()).collect()
    }

    fn program(&mut self, path: &[u8], program: &Program) -> bool {
        let mut all = true;
        let platform = &self.image.config().platform;
        if let Some(other) = program.architecture
            && other != platform.architecture
            && !(other == "386" && platform.architecture == "amd64")
        {
            let text = format!("is for `{other}`, and the image for `{platform}`");
            self.say(Sort::Architecture, path, text);
        }
        if program.is_go && program.packed_debug {
            self.say(Sort::Debug, path, "has compressed debug sections".into());
        }
        if let Some(loader) = &program.loader
            && !self.is_file(loader)
        {
            all = false;
            let text = format!("needs the loader {}, which the image lacks", quoted(loader));
            self.say(Sort::Loader, path, text);
        }
        for library in &program.needed {
            if !self.libraries.contains_key(last_name(library)) {
                all = false;
                let text = format!("needs the library {}, which the image lacks", quoted(library));
                self.say(Sort::Library, path, text);
            }
        }
        all
    }

    fn script(&mut self, path: &[u8], line: &[u8]) -> bool {
        let mut words = line
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
            .filter(|word| !word.starts_with(b"-"));
        let Some(interpreter) = words.next() else { return true };
        if !self.is_file(interpreter) {
            let text = format!("is run by {}, which the image lacks", quoted(interpreter));
            self.say(Sort::Interpreter, path, text);
            return false;
        }
        if last_name(interpreter) != b"env" {
            return true;
        }
        let Some(program) = words.find(|word| !word.contains(&b'=')) else { return true };
        let there = match program.contains(&b'/') {
            true => self.is_file(program),
            false => self.search_path().iter().any(|folder| self.is_file(&join(folder, program))),
        };
        if !there {
            let text = format!("is run by {}, which the image lacks", quoted(program));
            self.say(Sort::Interpreter, path, text);
        }
        there
    }
}

/// The lines of each sort: the first few, how many more, and what to do about it.
fn sorted_out(lines: Vec<(Sort, String)>) -> Vec<String> {
    let mut all = Vec::new();
    for sort in lines.chunk_by(|(a, _), (b, _)| a == b) {
        let hint = match sort[0].0 {
            Sort::Entrypoint => None,
            Sort::Architecture => Some("compile it for the image's platform"),
            Sort::Loader => {
                Some("link it statically (Go: `CGO_ENABLED=0`), or take a base that has this C library")
            }
            Sort::Library => {
                Some("link it statically, put the library into `files`, or take a base that has it")
            }
            Sort::Interpreter => Some("take a base that has it, or put it into `files`"),
            Sort::Debug => Some(
                "each change moves almost all of it: build with `-ldflags=-compressdwarf=false`, or `-s -w`",
            ),
        };
        for (at, (_, line)) in sort.iter().take(MOST_NAMED).enumerate() {
            let mut line = line.clone();
            let is_last = at + 1 == sort.len().min(MOST_NAMED);
            if is_last && sort.len() > MOST_NAMED {
                line.push_str(&format!(", and {} more like it", sort.len() - MOST_NAMED));
            }
            if let Some(hint) = hint.filter(|_| is_last) {
                line.push_str(&format!("\nhint: {hint}"));
            }
            all.push(line);
        }
    }
    all
}

fn several(paths: &[Vec<u8>]) -> Option<String> {
    let named: Vec<String> = paths
        .iter()
        .take(MOST_NAMED)
        .map(|path| format!("`/{}`", quoted(path).trim_matches('`')))
        .collect();
    let more = paths.len().saturating_sub(MOST_NAMED);
    (!named.is_empty()).then(|| match more {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    })
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, b"/", name].concat()
}
