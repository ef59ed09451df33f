//! The engine with toy tasks over a real cache: whatever is deleted, damaged or edited, before a run or during
//! one, what comes out is what the tasks say, or the run fails and the next one is right.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use proptest::prelude::*;

use super::*;
use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::local::Local;
use crate::cache::tree::Entry as Item;
use crate::config;
use crate::config::vars::Overrides;
use crate::digest::Digest;
use crate::error::{Error, Result, Source};
use crate::graph::Node;
use crate::host::fs::Durability;
use crate::host::stop::Stop;
use crate::pins::Pins;
use crate::recipe::{Part, Recipe};
use crate::tasks::names::{Declare, Names, Outputs};
use crate::work::{Action, Change, Context, Effect, Env, Fault, Inputs, Network, Reach, Task, Work};

/// What a toy does with the files of its inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// Writes its salt, its local file and all inputs, one after the other.
    Join,
    /// Passes the first input's file on without reading it, and the trees of all.
    Pass,
    /// Refers to all inputs in a recipe.
    Refer,
    /// Writes the same whatever the inputs are.
    Forget,
    /// Writes something else each time.
    Invent,
    /// Fails.
    Fail,
    /// Has a bug.
    Panic,
    /// Writes the first input's file to the folder `sink`.
    Deliver,
}

#[derive(Clone, Debug)]
struct Toy {
    does: Does,
    salt: String,
    file: Option<String>,
    reads: Vec<TaskName>,
    started: Arc<AtomicU64>,
}

impl Declare for Toy {
    fn resolve(&mut self, _names: &mut dyn Names) {}

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Toy {
    fn class(&self) -> work::Class {
        if self.does == Does::Deliver { work::Class::Effect } else { work::Class::Action }
    }

    fn needs(&self) -> Vec<TaskName> {
        self.reads.clone()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let values: Vec<Digest> = self.reads.iter().map(|read| inputs.value(read)).collect();
        let mut file = None;
        if let Some(path) = &self.file {
            let entry = inputs.look(|local, stamps, seen| local.entry(path, stamps, seen))?;
            file = entry.and_then(|entry| entry.part());
        }
        if self.does == Does::Deliver {
            return Ok(Work::Effect(Box::new(Delivery { name: self.salt.clone(), value: values[0] })));
        }
        Ok(Work::Action(Box::new(Doing { toy: self.clone(), values, file })))
    }
}

struct Doing {
    toy: Toy,
    values: Vec<Digest>,
    file: Option<Part>,
}

/// What a tree has as its file.
fn part(cache: &Cache, value: &Digest) -> Result<Part> {
    let entry = cache.cas.entry(value, "out")?;
    entry.and_then(|entry| entry.part()).ok_or_else(|| Error::failed("there is no `out`"))
}

fn text(cache: &Cache, part: &Part) -> Result<String> {
    let (mut recipe, mut bytes) = (Recipe::new(), Vec::new());
    recipe.push(part);
    recipe.send(&cache.cas, &mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap())
}

impl Action for Doing {
    fn kind(&self) -> &'static str {
        "toy"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> serde_json::Value {
        let file = self.file.as_ref().map(|part| match part {
            Part::Blob(blob) => blob.digest,
            _ => panic!("not a file"),
        });
        serde_json::json!({
            "does": format!("{:?}", self.toy.does), "salt": self.toy.salt, "values": self.values, "file": file,
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        let (cache, number) =
            (context.cache, self.toy.started.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let mut draft = Draft::empty(&cache.cas);
        let mut written = self.toy.salt.clone();
        match self.toy.does {
            Does::Pass if !self.values.is_empty() => {
                for (at, value) in self.values.iter().enumerate() {
                    draft.insert(
                        format!("in/{at}").as_bytes(),
                        Item::Folder { mode: 0o755, tree: *value },
                    )?;
                }
                let entry = match part(cache, &self.values[0])? {
                    Part::Blob(blob) => Item::File { mode: 0o644, blob },
                    Part::Recipe { recipe, size } => Item::Recipe { mode: 0o644, recipe, size },
                    Part::Inline(_) => panic!("not in a tree"),
                };
                draft.insert(b"out", entry)?;
                return draft.store();
            }
            Does::Refer => {
                let mut recipe = Recipe::new();
                recipe.inline(self.toy.salt.as_bytes());
                for value in &self.values {
                    recipe.push(&part(cache, value)?);
                }
                let Part::Recipe { recipe, size } = cache.cas.put_recipe(&recipe)? else {
                    panic!("no recipe")
                };
                draft.insert(b"out", Item::Recipe { mode: 0o644, recipe, size })?;
                return draft.store();
            }
            Does::Join => {
                if let Some(part) = &self.file {
                    written.push_str(&text(cache, part)?);
                }
                for value in &self.values {
                    written.push_str(&text(cache, &part(cache, value)?)?);
                }
            }
            Does::Invent => written.push_str(&number.to_string()),
            Does::Fail => return Err(Error::failed("as it should")),
            Does::Panic => panic!("boom"),
            Does::Forget | Does::Pass | Does::Deliver => {}
        }
        draft.put_file(b"out", 0o644, written.as_bytes())?;
        draft.store()
    }
}

struct Delivery {
    name: String,
    value: Digest,
}

impl Effect for Delivery {
    fn wants(&self) -> serde_json::Value {
        serde_json::json!({ "name": self.name, "value": self.value })
    }

    fn destinations(&self) -> Vec<String> {
        vec!["sink".into()]
    }

    fn probe(&self, _destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        let wanted = text(reach.cache, &part(reach.cache, &self.value)?)?;
        let path = reach.path("sink").join(&self.name);
        let there = fs::read(&path, 1 << 30)?;
        Ok(Box::new(Writing {
            path,
            wanted: (there.as_deref() != Some(wanted.as_bytes())).then_some(wanted),
        }))
    }
}

struct Writing {
    path: std::path::PathBuf,
    wanted: Option<String>,
}

impl Change for Writing {
    fn lines(&self) -> Vec<String> {
        self.wanted.iter().map(|_| "a file".to_string()).collect()
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn apply(&self, _reach: &Reach<'_>) -> Result<u64, Fault> {
        if let Some(wanted) = &self.wanted {
            fs::write(&self.path, wanted.as_bytes(), 0o644, Durability::Cache)?;
        }
        Ok(0)
    }
}

/// A project of toys; each run has a cache that is opened anew, as a process of its own has.
struct World {
    folder: tempfile::TempDir,
    toys: Vec<(TaskName, Toy)>,
}

/// Remembers all events.
#[derive(Default)]
struct Ear(Vec<Event>);

impl Report for Ear {
    fn event(&mut self, event: &Event) {
        self.0.push(event.clone());
    }
}

struct Ran {
    verdict: Verdict,
    done: BTreeMap<String, Done>,
}

impl Ran {
    fn outcomes(&self) -> BTreeMap<&str, Outcome> {
        self.done.iter().map(|(name, done)| (name.as_str(), done.outcome)).collect()
    }

    fn said(&self) -> Vec<String> {
        self.done
            .values()
            .filter_map(|done| done.failure.as_ref())
            .map(|failure| failure.message.clone())
            .collect()
    }
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), toys: Vec::new() }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    fn toy(&mut self, name: &str, does: Does, salt: &str, reads: &[&str]) {
        let reads = reads.iter().map(|read| TaskName((*read).into())).collect();
        let toy = Toy { does, salt: salt.into(), file: None, reads, started: Arc::default() };
        self.toys.push((TaskName(name.into()), toy));
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(&self.path(path), text.as_bytes(), 0o644, Durability::Cache).unwrap();
    }

    fn run(&self) -> Ran {
        let cache = Cache::open(&self.path("cache")).unwrap();
        let text = "[project]\nname = 'toys'\n".to_string();
        let source = Source { name: "vcbuild.toml".into(), text };
        let config = config::load(source, &Overrides::default()).unwrap_or_else(|_| panic!("config"));
        let mut graph = Graph::new(config).unwrap_or_else(|_| panic!("graph"));
        for (name, toy) in &self.toys {
            let reads = toy.reads.iter().map(|read| graph.find(&read.0).unwrap()).collect();
            graph.add(Node::new(name.clone(), Box::new(toy.clone()), reads));
        }
        let local = Local::new(self.folder.path().to_path_buf(), vec![self.path("cache")]);
        let (env, pins) = (Env(BTreeMap::new()), Pins::default());
        let stop = Stop::new(Duration::ZERO).unwrap();
        let (network, links) = (Network::Allowed, crate::host::ssh::Links::new([]));
        let session = Session {
            cache: &cache,
            local: &local,
            env: &env,
            pins: &pins,
            stop: &stop,
            links: &links,
            network,
            jobs: 3,
        };
        let earlier = Earlier::new(cache.history(self.folder.path()));
        let options = Options {
            on_failure: OnFailure::GoOn,
            effects: Effects::Apply,
            logs: Logs::Keep,
            earlier: &earlier,
            known: None,
            apart: BTreeMap::new(),
        };
        let mut ear = Ear::default();
        let all = graph.ids().collect();
        let summary = super::run(&graph, &all, &session, &options, &mut ear, &mut |_| Vec::new());
        cache.cas.stamps.flush().unwrap();
        let mut done = BTreeMap::new();
        for event in ear.0 {
            if let Event::Done(one) = event {
                done.insert(one.task.clone(), one);
            }
        }
        Ran { verdict: summary.verdict, done }
    }

    /// What a task's file has to be.
    fn expected(&self, name: &TaskName) -> String {
        let (_, toy) = self.toys.iter().find(|(known, _)| known == name).unwrap();
        let inputs = || toy.reads.iter().map(|read| self.expected(read)).collect::<String>();
        let file = || toy.file.as_ref().map(|path| std::fs::read_to_string(self.path(path)).unwrap());
        match toy.does {
            Does::Pass | Does::Deliver if !toy.reads.is_empty() => self.expected(&toy.reads[0]),
            Does::Join => format!("{}{}{}", toy.salt, file().unwrap_or_default(), inputs()),
            Does::Refer => format!("{}{}", toy.salt, inputs()),
            _ => toy.salt.clone(),
        }
    }

    /// Holds everything that was delivered against what it has to be.
    fn check(&self) {
        for (name, toy) in self.toys.iter().filter(|(_, toy)| toy.does == Does::Deliver) {
            let found = std::fs::read_to_string(self.path("sink").join(&toy.salt)).unwrap();
            assert!(found == self.expected(name), "`{name}` delivered something else");
        }
    }

    /// Deletes or damages some of the files in the cache's folders.
    fn harm(&self, parts: &[&str], random: &mut Random, share: u64) {
        for part in parts {
            for path in files(&self.path("cache/v1").join(part)) {
                if random.below(share) > 0 {
                    continue;
                }
                let Ok(mut bytes) = std::fs::read(&path) else { continue };
                let _ = fs::remove_file(&path);
                let half = bytes.len() / 2;
                match random.below(4) {
                    0 => continue,
                    1 if !bytes.is_empty() => bytes[half] ^= 4,
                    2 => bytes.truncate(half),
                    _ => bytes.push(b'?'),
                }
                let _ = fs::write(&path, &bytes, 0o444, Durability::Cache);
            }
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for name in fs::list(folder).unwrap_or_default() {
        let path = folder.join(&name);
        match path.is_dir() {
            true if name != "locks" => found.extend(files(&path)),
            true => {}
            // Whoever writes it has not given it its name yet.
            false if name.to_string_lossy().starts_with("tmp.") => {}
            false => found.push(path),
        }
    }
    found
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn it_runs_once_and_is_cut_off_early() {
    let mut world = World::new();
    world.write("source", "one");
    world.toy("t.a", Does::Join, "a", &[]);
    world.toys[0].1.file = Some("source".into());
    world.toy("t.b", Does::Forget, "b", &["t.a"]);
    world.toy("t.c", Does::Join, "c", &["t.b"]);
    world.toy("t.d", Does::Deliver, "d", &["t.c"]);
    let ran = world.run();
    assert!(ran.verdict == Verdict::Ok && ran.done["t.c"].outcome == Outcome::Ran);
    world.check();
    let hit = BTreeMap::from([
        ("t.a", Outcome::Hit),
        ("t.b", Outcome::Hit),
        ("t.c", Outcome::Hit),
        ("t.d", Outcome::Unchanged),
    ]);
    assert_eq!(world.run().outcomes(), hit);
    world.write("source", "two");
    let ran = world.run();
    let changed = BTreeMap::from([
        ("t.a", Outcome::Ran),
        ("t.b", Outcome::Ran),
        ("t.c", Outcome::Hit),
        ("t.d", Outcome::Unchanged),
    ]);
    assert_eq!(ran.outcomes(), changed);
    world.write("source", "one");
    assert_eq!(world.run().outcomes(), hit);
}

#[test]
fn failures_and_bugs_stop_only_what_depends_on_them() {
    let mut world = World::new();
    world.toy("t.bug", Does::Panic, "", &[]);
    world.toy("t.wrong", Does::Fail, "", &[]);
    world.toy("t.fine", Does::Join, "fine", &[]);
    world.toy("t.after-bug", Does::Join, "", &["t.bug", "t.fine"]);
    world.toy("t.after-wrong", Does::Deliver, "x", &["t.wrong"]);
    world.toy("t.good", Does::Deliver, "good", &["t.fine"]);
    for outcome in [Outcome::Ran, Outcome::Hit] {
        let ran = world.run();
        assert!(ran.verdict == Verdict::Failed);
        let expected = BTreeMap::from([
            ("t.bug", Outcome::Failed),
            ("t.wrong", Outcome::Failed),
            ("t.fine", outcome),
            ("t.after-bug", Outcome::Skipped),
            ("t.after-wrong", Outcome::Skipped),
            ("t.good", if outcome == Outcome::Ran { Outcome::Applied } else { Outcome::Unchanged }),
        ]);
        assert_eq!(ran.outcomes(), expected);
        assert_eq!(ran.said(), ["a bug in vcbuild: boom", "as it should"]);
    }
    assert_eq!(std::fs::read_to_string(world.path("sink/good")).unwrap(), "fine");
}

#[test]
fn who_invents_is_read_by_all_alike() {
    let mut random = Random(7);
    let mut world = World::new();
    world.toy("t.new", Does::Invent, "number ", &[]);
    world.toy("t.pass", Does::Pass, "", &["t.new"]);
    world.toy("t.refer", Does::Refer, "", &["t.pass"]);
    world.toy("t.one", Does::Deliver, "one", &["t.new"]);
    world.toy("t.two", Does::Deliver, "two", &["t.pass"]);
    world.toy("t.three", Does::Deliver, "three", &["t.refer"]);
    for _ in 0..20 {
        let ran = world.run();
        assert!(ran.verdict == Verdict::Ok, "{:?}", ran.said());
        let read = |name: &str| std::fs::read_to_string(world.path("sink").join(name)).unwrap();
        assert_eq!((read("one"), read("two")), (read("two"), read("three")));
        world.harm(&["cas"], &mut random, 2);
    }
}

#[test]
fn damage_is_not_blamed_on_another_for_good() {
    // Whoever cannot be read might hold what is lost, and is made again in vain.
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.toy(&format!("t.{name}"), Does::Join, &name.repeat(9), &[]);
    }
    world.toy("t.all", Does::Join, "", &["t.a", "t.b", "t.c"]);
    world.toy("t.sink", Does::Deliver, "sink", &["t.all"]);
    assert!(world.run().verdict == Verdict::Ok);
    for path in files(&world.path("cache/v1/cas")) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes, 0o444, Durability::Cache).unwrap();
    }
    fs::remove_tree(&world.path("sink")).unwrap();
    let ran = world.run();
    assert!(ran.verdict == Verdict::Ok, "{:?}", ran.said());
    world.check();
}

/// One thing that happens to a project.
#[derive(Clone, Debug)]
enum Op {
    Run,
    /// Somebody harms the cache while it runs.
    RunUnderFire(u64),
    Harm {
        seed: u64,
        share: u64,
        all: bool,
    },
    Edit(u8),
    Forget,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        2 => Just(Op::Run),
        2 => any::<u64>().prop_map(Op::RunUnderFire),
        4 => (any::<u64>(), 1..6_u64, any::<bool>()).prop_map(|(seed, share, all)| Op::Harm { seed, share, all }),
        2 => any::<u8>().prop_map(Op::Edit),
        1 => Just(Op::Forget),
    ];
    prop::collection::vec(op, 1..8)
}

/// For each task what it does, whether it is large, and which of those before it it reads.
fn shapes() -> impl Strategy<Value = Vec<(u8, bool, u8)>> {
    prop::collection::vec((any::<u8>(), prop::bool::weighted(0.2), any::<u8>()), 1..8)
}

fn build(shapes: &[(u8, bool, u8)]) -> World {
    let mut world = World::new();
    for (at, (does, large, reads)) in shapes.iter().enumerate() {
        let does = [Does::Join, Does::Pass, Does::Refer, Does::Forget][usize::from(*does) % 4];
        let names: Vec<String> =
            (0..at).filter(|bit| reads >> bit & 1 == 1).map(|bit| format!("t.{bit}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let salt = if *large { format!("{at} ").repeat(40_000) } else { format!("{} ", at % 3) };
        world.toy(&format!("t.{at}"), does, &salt, &names);
        if does == Does::Join && names.is_empty() {
            let path = format!("source/{at}");
            world.write(&path, "first");
            world.toys[at].1.file = Some(path);
        }
    }
    for at in 0..shapes.len() {
        world.toy(&format!("sink.{at}"), Does::Deliver, &format!("sink-{at}"), &[&format!("t.{at}")]);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn lost_is_allowed_and_wrong_never(shapes in shapes(), ops in ops()) {
        let world = build(&shapes);
        for op in ops.into_iter().chain([Op::Forget, Op::Run]) {
            match op {
                Op::Run => {
                    let ran = world.run();
                    prop_assert!(ran.verdict == Verdict::Ok, "{:?}", ran.said());
                    world.check();
                }
                Op::RunUnderFire(seed) => {
                    let over = AtomicBool::new(false);
                    let ran = std::thread::scope(|scope| {
                        scope.spawn(|| {
                            let mut random = Random(seed);
                            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                                world.harm(&["cas", "actions"], &mut random, 4);
                                std::thread::sleep(Duration::from_millis(random.below(4)));
                            }
                        });
                        let ran = world.run();
                        over.store(true, std::sync::atomic::Ordering::Relaxed);
                        ran
                    });
                    match ran.verdict {
                        Verdict::Ok => world.check(),
                        _ => for said in ran.said() {
                            prop_assert!(
                                said.contains("lost") || said.contains("became shorter"), "{said}"
                            );
                        },
                    }
                }
                Op::Harm { seed, share, all } => {
                    let parts: &[&str] = if all { &["cas", "actions", "stamps"] } else { &["cas"] };
                    world.harm(parts, &mut Random(seed), share);
                }
                Op::Edit(to) => {
                    for path in files(&world.path("source")) {
                        // In place, often of the same size, and right after the last run.
                        let mut file = std::fs::File::options().write(true).truncate(true).open(path).unwrap();
                        std::io::Write::write_all(&mut file, format!("text {}", to % 10).as_bytes()).unwrap();
                    }
                }
                Op::Forget => fs::remove_tree(&world.path("sink")).unwrap(),
            }
        }
    }
}
