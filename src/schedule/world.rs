//! A simulated world that drives the schedule: tasks that really compute values out of values, a
//! cache that loses content at any moment, workers that finish in any order. It judges by its own
//! books and knows nothing of the schedule's rules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Digest = u64;
type Value = BTreeSet<Digest>;
type Plan = Schedule<Value, Digest>;

/// A number that depends on all of `parts`.
fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |mut sum, part| {
        sum = (sum ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        sum = (sum ^ (sum >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum ^ (sum >> 31)
    })
}

/// What a task is like.
#[derive(Clone, Debug)]
struct Nature {
    reads: Vec<u8>,
    after: Vec<u8>,
    effect: bool,
    pool: Option<u8>,
    /// How many digests of its own it writes.
    own: u64,
    /// How many local inputs it has.
    local: u64,
    /// Its own digests do not depend on what it reads.
    constant: bool,
    /// Its own digests are others each time.
    restless: bool,
    /// It writes a digest that others write too.
    common: bool,
    /// It needs the bytes of what it reads, not only the names.
    hungry: bool,
    /// A part of what it reads, and of its local inputs, is in its value.
    passes: bool,
    /// It names only one of several lost digests.
    terse: bool,
}

fn nature() -> impl Strategy<Value = Nature> {
    let edges = (prop::collection::vec(any::<u8>(), 0..4), prop::collection::vec(any::<u8>(), 0..2));
    let kind = (prop::bool::weighted(0.2), prop::option::weighted(0.3, 0..2u8), 0..3u64, 0..3u64);
    let ways = (prop::bool::weighted(0.3), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let more = (prop::bool::weighted(0.6), prop::bool::weighted(0.6), any::<bool>());
    (edges, kind, ways, more).prop_map(|((reads, after), (effect, pool, own, local), ways, more)| Nature {
        reads,
        after,
        effect,
        pool,
        own,
        local,
        constant: ways.0,
        restless: ways.1,
        common: ways.2,
        hungry: more.0,
        passes: more.1,
        terse: more.2,
    })
}

/// A whole story.
#[derive(Clone, Debug)]
struct Story {
    natures: Vec<Nature>,
    seed: u64,
    jobs: usize,
    effects: usize,
    /// Whether a run on a whole cache went before.
    warm: bool,
    /// How much of 8 is missing when the run starts.
    missing: u64,
    /// At which steps something is lost.
    losses: Vec<u8>,
    /// Tasks whose local inputs were edited since the warm run.
    edited: Vec<u8>,
}

fn story(most: usize) -> impl Strategy<Value = Story> {
    let cache = (any::<bool>(), prop_oneof![Just(0u64), Just(8), 0..8u64]);
    let events = (prop::collection::vec(0..60u8, 0..6), prop::collection::vec(any::<u8>(), 0..3));
    (prop::collection::vec(nature(), 1..most), any::<u64>(), 1..5usize, 1..4usize, cache, events).prop_map(
        |(natures, seed, jobs, effects, (warm, missing), (losses, edited))| Story {
            natures,
            seed,
            jobs,
            effects,
            warm,
            missing,
            losses,
            edited,
        },
    )
}

/// What goes wrong besides lost content.
#[derive(Clone, Default)]
struct Trouble {
    failing: BTreeSet<u32>,
    unreached: BTreeSet<u32>,
    /// Digests, of 8, that are lost as soon as they are there.
    cursed: u64,
    stop_at: Option<usize>,
    fail_fast: bool,
}

/// When a run does what it does.
#[derive(Clone, Copy, Debug)]
enum Pace {
    AllAtStart,
    ReadsAtStart,
    AllAtEnd,
}

#[derive(Debug)]
struct Worker {
    id: u32,
    mode: Mode<Digest>,
    inputs: BTreeMap<u32, Value>,
    pace: Pace,
    missing: Option<Vec<Loss<Digest>>>,
    finish: Option<Finish<Value, Digest>>,
}

struct World {
    story: Story,
    trouble: Trouble,
    cas: BTreeSet<Digest>,
    records: BTreeMap<u64, Value>,
    stored: BTreeSet<Digest>,
    at_destination: BTreeMap<u32, BTreeMap<u32, Value>>,
    edits: BTreeMap<u32, u64>,
    runs: u64,
    /// How often each digest was there and then was not, or was missing from the start.
    lost: BTreeMap<Digest, usize>,
    /// What a kept run was made from.
    made_from: BTreeMap<u32, BTreeMap<u32, Value>>,
    reported: BTreeMap<u32, BTreeSet<Digest>>,
    /// What a task said that it wrote again.
    rewritten: BTreeSet<(u32, Digest)>,
    random: u64,
    trace: Vec<String>,
    starts: usize,
}

impl World {
    fn new(story: &Story, trouble: &Trouble) -> Self {
        Self {
            random: story.seed,
            story: story.clone(),
            trouble: trouble.clone(),
            cas: BTreeSet::new(),
            records: BTreeMap::new(),
            stored: BTreeSet::new(),
            at_destination: BTreeMap::new(),
            edits: BTreeMap::new(),
            runs: 0,
            lost: BTreeMap::new(),
            made_from: BTreeMap::new(),
            reported: BTreeMap::new(),
            rewritten: BTreeSet::new(),
            trace: Vec::new(),
            starts: 0,
        }
    }

    fn choose(&mut self, of: usize) -> usize {
        self.random = mix(&[self.random, 1]);
        (self.random % of as u64) as usize
    }

    fn nature(&self, id: u32) -> &Nature {
        &self.story.natures[id as usize]
    }

    fn reads(&self, id: u32) -> BTreeSet<u32> {
        let reads = self.nature(id).reads.iter().filter(|_| id > 0).map(|read| u32::from(*read) % id);
        reads.filter(|read| !self.nature(*read).effect).collect()
    }

    fn after(&self, id: u32) -> BTreeSet<u32> {
        let after = self.nature(id).after.iter().filter(|_| id > 0);
        after.map(|before| u32::from(*before) % id).collect()
    }

    fn before(&self, id: u32) -> BTreeSet<u32> {
        &self.reads(id) | &self.after(id)
    }

    fn schedule(&self) -> Plan {
        let entries = (0..self.story.natures.len() as u32).map(|id| {
            let nature = self.nature(id);
            let entry = Entry {
                reads: self.reads(id).into_iter().map(TaskId).collect(),
                after: self.after(id).into_iter().map(TaskId).collect(),
                class: if nature.effect { Class::Effect } else { Class::Action },
                pool: nature.pool.map(|pool| PoolId(pool.into())),
            };
            (TaskId(id), entry)
        });
        let limits = Limits { jobs: self.story.jobs, effects: self.story.effects, pools: vec![1, 2] };
        let on_failure = if self.trouble.fail_fast { OnFailure::Stop } else { OnFailure::GoOn };
        Schedule::new(entries, limits, on_failure)
    }

    fn locals(&self, id: u32) -> BTreeSet<Digest> {
        let edit = self.edits.get(&id).copied().unwrap_or_default();
        (0..self.nature(id).local)
            .map(|at| mix(&[2, id.into(), at, if at == 0 { edit } else { 0 }]))
            .collect()
    }

    fn lose(&mut self, digest: Digest) {
        if self.cas.remove(&digest) {
            *self.lost.entry(digest).or_default() += 1;
            self.trace.push(format!("lost {digest:x}"));
        }
    }

    fn lose_cursed(&mut self) {
        let cursed = self.trouble.cursed;
        for digest in self.cas.clone() {
            if mix(&[3, digest]) % 8 < cursed {
                self.lose(digest);
            }
        }
    }

    fn key(&self, worker: &Worker) -> u64 {
        let mut parts = vec![4, worker.id.into()];
        parts.extend(worker.inputs.values().flatten());
        parts.extend(self.locals(worker.id));
        mix(&parts)
    }

    /// The reading half of a run: what is missing.
    fn read(&mut self, worker: &mut Worker) {
        let id = worker.id;
        let nature = self.nature(id).clone();
        let remake = worker.mode != Mode::LookUp;
        let looked_up = !remake && !nature.effect && self.records.contains_key(&self.key(worker));
        let unchanged = nature.effect && self.at_destination.get(&id) == Some(&worker.inputs);
        let mut missing = Vec::new();
        if !looked_up && !unchanged {
            for digest in self.locals(id) {
                if remake || self.stored.insert(digest) {
                    self.cas.insert(digest);
                }
                if !self.cas.contains(&digest) {
                    missing.push(Loss { digest, owner: TaskId(id) });
                }
            }
            for (owner, value) in &worker.inputs {
                for digest in value.iter().filter(|_| nature.hungry || nature.effect) {
                    if !self.cas.contains(digest) {
                        missing.push(Loss { digest: *digest, owner: TaskId(*owner) });
                    }
                }
            }
        }
        if nature.terse && missing.len() > 1 {
            let at = self.choose(missing.len());
            missing = vec![missing.swap_remove(at)];
        }
        worker.missing = Some(missing);
    }

    /// The writing half of a run.
    fn write(&mut self, worker: &mut Worker) {
        let id = worker.id;
        let nature = self.nature(id).clone();
        let missing = worker.missing.take().unwrap();
        let lost = match &worker.mode {
            Mode::LookUp => Vec::new(),
            Mode::Remake { lost } => lost.clone(),
        };
        let key = self.key(worker);
        let finish = if !missing.is_empty() {
            Finish::Lost(missing)
        } else if self.trouble.failing.contains(&id) {
            Finish::Failed
        } else if self.trouble.unreached.contains(&id) {
            Finish::Unreached
        } else if nature.effect {
            let before = self.at_destination.insert(id, worker.inputs.clone());
            let unchanged = before.as_ref() == Some(&worker.inputs);
            let outcome = if unchanged { Outcome::Unchanged } else { Outcome::Applied };
            let how = |digest: &Digest| {
                assert!(self.locals(id).contains(digest), "an effect has no value");
                // It stores nothing if it has nothing to do.
                if unchanged { Restored::Gone } else { Restored::Written }
            };
            let restored = lost.iter().map(|digest| (*digest, how(digest))).collect();
            Finish::Done { value: Value::new(), outcome, restored }
        } else if let (Mode::LookUp, Some(value)) = (&worker.mode, self.records.get(&key)) {
            Finish::Done { value: value.clone(), outcome: Outcome::Hit, restored: Vec::new() }
        } else {
            self.runs += 1;
            let nonce = if nature.restless { self.runs } else { 0 };
            let key_part = if nature.constant { 0 } else { key };
            let mut written: Value =
                (0..nature.own).map(|at| mix(&[5, id.into(), at, nonce, key_part])).collect();
            if nature.common {
                written.insert(mix(&[6, u64::from(id) % 3]));
            }
            let mut value = written.clone();
            if nature.passes {
                let some = |digest: &Digest| !mix(&[7, id.into(), *digest]).is_multiple_of(3);
                value.extend(worker.inputs.values().flatten().copied().filter(some));
                value.extend(self.locals(id).into_iter().filter(some));
            }
            written.extend(self.locals(id));
            self.cas.extend(written.iter().copied());
            self.records.insert(key, value.clone());
            let how = |digest: Digest| {
                if written.contains(&digest) {
                    Restored::Written
                } else if value.contains(&digest) {
                    let holders = worker.inputs.iter().filter(|(_, value)| value.contains(&digest));
                    Restored::PassedThrough { holders: holders.map(|(owner, _)| TaskId(*owner)).collect() }
                } else {
                    Restored::Gone
                }
            };
            let restored = lost.iter().map(|digest| (*digest, how(*digest))).collect();
            Finish::Done { value, outcome: Outcome::Ran, restored }
        };
        worker.finish = Some(finish);
    }

    fn begin(&mut self, plan: &Plan, start: Start<Digest>) -> Worker {
        let id = start.id.0;
        self.trace.push(format!("start {id} {:?}", start.mode));
        self.starts += 1;
        for before in self.before(id) {
            let outcome = plan.outcome(TaskId(before));
            assert!(
                outcome.is_some_and(|outcome| outcome != Outcome::Failed && outcome != Outcome::Skipped),
                "{id} starts and {before}, before it, is {outcome:?}"
            );
            assert!(!self.trouble.unreached.contains(&before), "{id} starts after an unreached effect");
        }
        if let Mode::Remake { lost } = &start.mode {
            assert!(!lost.is_empty() && lost.is_sorted());
            let known = self.reported.entry(id).or_default();
            assert!(lost.iter().all(|digest| known.contains(digest)), "{id} is to make what nobody missed");
        }
        let value = |read| (read, plan.value(TaskId(read)).unwrap().clone());
        let inputs = self.reads(id).into_iter().map(value).collect();
        let pace = [Pace::AllAtStart, Pace::ReadsAtStart, Pace::AllAtEnd][self.choose(3)];
        let mut worker = Worker { id, mode: start.mode, inputs, pace, missing: None, finish: None };
        if matches!(pace, Pace::AllAtStart | Pace::ReadsAtStart) {
            self.read(&mut worker);
        }
        if matches!(pace, Pace::AllAtStart) {
            self.write(&mut worker);
        }
        worker
    }

    fn end(&mut self, plan: &mut Plan, mut worker: Worker) {
        if worker.missing.is_none() && worker.finish.is_none() {
            self.read(&mut worker);
        }
        if worker.finish.is_none() {
            self.write(&mut worker);
        }
        let (id, finish) = (worker.id, worker.finish.unwrap());
        self.trace.push(format!("finish {id} {:?} {finish:?}", worker.pace));
        match &finish {
            Finish::Lost(losses) => {
                for loss in losses {
                    assert!(self.lost.contains_key(&loss.digest), "the world lost nothing");
                    self.reported.entry(loss.owner.0).or_default().insert(loss.digest);
                }
            }
            Finish::Done { restored, .. } => {
                for (digest, how) in restored {
                    if *how == Restored::Written {
                        self.rewritten.insert((id, *digest));
                    }
                    if let Restored::PassedThrough { holders } = how {
                        for holder in holders {
                            self.reported.entry(holder.0).or_default().insert(*digest);
                        }
                    }
                }
            }
            _ => {}
        }
        let done = matches!(finish, Finish::Done { .. });
        let fine = matches!(finish, Finish::Done { .. } | Finish::Unreached | Finish::Failed);
        let verdict = plan.finished(TaskId(id), finish);
        self.trace.push(format!("{verdict:?}"));
        let stale = worker.inputs.iter().any(|(read, value)| plan.value(TaskId(*read)) != Some(value));
        assert!(
            !(fine && stale) || verdict == Verdict::Dropped,
            "{id} was made from values that are no more"
        );
        if done && verdict == Verdict::Kept {
            self.made_from.insert(id, worker.inputs);
        }
    }

    /// Runs everything to its end.
    fn run(&mut self) -> Plan {
        let mut plan = self.schedule();
        check(&plan);
        let mut workers: Vec<Worker> = Vec::new();
        let total = self.story.natures.len();
        let mut ended = BTreeSet::new();
        let mut halted = false;
        // One wave over all tasks for each time that something may vanish, for several reasons.
        let most = total * (8 + 4 * self.cas.len().max(20 * total));
        self.starts = 0;
        for step in 0.. {
            assert!(step < most, "no end after {step} steps");
            for _ in 0..self.story.losses.iter().filter(|at| usize::from(**at) == step).count() {
                if !self.cas.is_empty() {
                    let at = self.choose(self.cas.len());
                    let digest = *self.cas.iter().nth(at).unwrap();
                    self.lose(digest);
                }
            }
            self.lose_cursed();
            if self.trouble.stop_at == Some(step) {
                plan.stop();
                halted = true;
            }
            while let Some(start) = plan.next() {
                assert!(!halted, "a halted run starts nothing");
                let id = start.id.0;
                assert!(workers.iter().all(|worker| worker.id != id), "{id} runs twice at once");
                let worker = self.begin(&plan, start);
                workers.push(worker);
                self.within_limits(&workers);
                check(&plan);
            }
            for id in plan.take_ended() {
                assert!(ended.insert(id), "{id:?} ends twice");
            }
            if workers.is_empty() {
                break;
            }
            let at = self.choose(workers.len());
            let worker = workers.swap_remove(at);
            self.end(&mut plan, worker);
            check(&plan);
            let failed = plan.counts().contains_key(&Outcome::Failed);
            halted |= self.trouble.fail_fast && failed;
        }
        assert!(plan.is_over() && plan.next().is_none(), "nothing runs, and it is not over: {plan:#?}");
        assert_eq!(plan.counts().values().sum::<usize>(), total);
        for id in (0..total as u32).map(TaskId) {
            let by_plan = plan.outcome(id) == Some(Outcome::Skipped) || plan.unhealed(id).is_some();
            assert_eq!(by_plan, ended.contains(&id), "{id:?} ended, and nobody was told");
        }
        let lost: usize = self.lost.values().sum();
        // A loss opens each task once, more or less: nothing runs in vain while something above is open.
        let bound = total * (1 + 2 * lost);
        assert!(self.starts <= bound, "{} starts of {total} tasks for {lost} losses", self.starts);
        self.judge(&plan);
        plan
    }

    fn within_limits(&self, workers: &[Worker]) {
        let count = |which: &dyn Fn(&Nature) -> bool| {
            workers.iter().filter(|worker| which(self.nature(worker.id))).count()
        };
        assert!(count(&|nature| !nature.effect) <= self.story.jobs);
        assert!(count(&|nature| nature.effect) <= self.story.effects);
        assert!(count(&|nature| nature.pool == Some(0)) <= 1);
        assert!(count(&|nature| nature.pool == Some(1)) <= 2);
    }

    fn is_done(&self, plan: &Plan, id: u32) -> bool {
        !self.trouble.unreached.contains(&id)
            && !matches!(plan.outcome(TaskId(id)), None | Some(Outcome::Failed | Outcome::Skipped))
    }

    /// What must hold at the end of every story.
    fn judge(&self, plan: &Plan) {
        for id in 0..self.story.natures.len() as u32 {
            if self.is_done(plan, id) {
                for (read, value) in &self.made_from[&id] {
                    if self.is_done(plan, *read) {
                        assert_eq!(plan.value(TaskId(*read)), Some(value), "{id} is not made from {read}");
                    }
                }
            }
            match plan.unhealed(TaskId(id)) {
                Some(Unhealed::Again(digest)) => {
                    assert!(self.lost[digest] > 1, "{digest:x} was not lost twice");
                    let wrote = self.rewritten.contains(&(id, *digest)) || self.locals(id).contains(digest);
                    assert!(wrote, "{id} did not write {digest:x}");
                }
                Some(Unhealed::Changing(_)) => assert!(self.trouble.cursed > 0, "no reason to give up"),
                Some(Unhealed::Nowhere(digest)) => panic!("{digest:x} is somewhere"),
                None => {}
            }
            if let Some(Why::Task(root)) = plan.why_skipped(TaskId(id)) {
                assert!(!self.is_done(plan, root.0), "{id} was skipped for {root:?}, which is done");
                assert_ne!(plan.outcome(root), Some(Outcome::Skipped), "{root:?} is no root");
            }
        }
    }

    /// A world after a run in which nothing was lost, and after what happened since.
    fn prepared(story: &Story, trouble: &Trouble) -> Self {
        let mut world = Self::new(story, trouble);
        if story.warm {
            let calm = Story { losses: Vec::new(), ..story.clone() };
            let mut before = Self::new(&calm, &Trouble::default());
            before.run();
            world.cas = before.cas;
            world.records = before.records;
            world.stored = before.stored;
            world.at_destination = before.at_destination;
            world.runs = before.runs;
            for edited in &story.edited {
                world.edits.insert(u32::from(*edited) % story.natures.len() as u32, 1);
            }
            if !story.edited.is_empty() {
                // A destination that was reset.
                world.at_destination.pop_first();
            }
            for digest in world.cas.clone() {
                if mix(&[8, story.seed, digest]) % 8 < story.missing {
                    world.lose(digest);
                }
            }
        }
        world
    }

    /// The tasks that depend on one of `roots`.
    fn dependents(&self, roots: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        for id in 0..self.story.natures.len() as u32 {
            if self.before(id).iter().any(|before| roots.contains(before) || found.contains(before)) {
                found.insert(id);
            }
        }
        found
    }
}

/// What must hold between any two calls, counted anew from the edges.
pub(super) fn check<V: PartialEq, L: Ord + Clone + std::fmt::Debug>(plan: &Schedule<V, L>) {
    assert!(plan.review.is_empty());
    let mut followed: BTreeMap<TaskId, Vec<TaskId>> = BTreeMap::new();
    for node in plan.nodes.iter() {
        for follower in &node.followers {
            followed.entry(*follower).or_default().push(node.rank.1);
        }
    }
    let mut open = 0;
    let mut ready = 0;
    let mut running = 0;
    for node in plan.nodes.iter() {
        let id = node.rank.1;
        let after = followed.remove(&id).unwrap_or_default();
        let is_open = |id: &&TaskId| plan.nodes[**id].state.is_open();
        let is_dead = |id: &TaskId| plan.nodes[*id].state.is_dead();
        assert_eq!(node.reads_open, node.reads.iter().filter(is_open).count());
        assert_eq!(node.after_open, after.iter().filter(is_open).count());
        assert_eq!(node.blocked.is_some(), node.reads.iter().chain(&after).any(is_dead));
        let all_settled = node.reads_open + node.after_open == 0;
        let queued = plan.lanes[node.lane].ready.contains(&node.rank);
        assert_eq!(queued, node.state == State::Ready);
        assert!(node.moved.is_empty() || node.state == State::Held);
        match &node.state {
            State::Waiting => {
                assert!(!all_settled && node.blocked.is_none() && plan.halted.is_none());
            }
            State::Ready => {
                ready += 1;
                assert!(all_settled && node.blocked.is_none() && plan.halted.is_none());
            }
            State::Running { .. } => running += 1,
            State::Held => assert!(node.reads_open > 0 && !node.stale && node.lost.is_empty()),
            State::Done => {
                assert!(node.reads_open == 0 && !node.stale && node.lost.is_empty());
                assert!(node.result.is_some());
            }
            _ => {}
        }
        open += usize::from(node.state.is_open());
    }
    assert_eq!(plan.open, open);
    assert_eq!(plan.lanes.iter().map(|lane| lane.ready.len()).sum::<usize>(), ready);
    assert_eq!(plan.running_actions + plan.running_effects, running);
    assert!(open == 0 || ready + running > 0, "everything waits");
}

proptest! {
    #[test]
    fn lost_content_heals(story in story(30)) {
        let mut world = World::prepared(&story, &Trouble::default());
        let plan = world.run();
        let lost_twice = world.lost.values().any(|times| *times > 1);
        for id in 0..story.natures.len() as u32 {
            prop_assert!(
                lost_twice || world.is_done(&plan, id),
                "{id} is {:?}, {:?}", plan.outcome(TaskId(id)), plan.unhealed(TaskId(id))
            );
            let effect = world.nature(id).effect && world.is_done(&plan, id);
            if effect && world.reads(id).iter().all(|read| world.is_done(&plan, *read)) {
                for (read, value) in &world.at_destination[&id] {
                    prop_assert_eq!(plan.value(TaskId(*read)), Some(value));
                }
            }
        }
    }

    #[test]
    fn nothing_lost_means_one_run_each(mut story in story(30)) {
        story.losses.clear();
        story.missing = 0;
        let mut world = World::prepared(&story, &Trouble::default());
        world.run();
        prop_assert_eq!(world.starts, story.natures.len());
    }

    #[test]
    fn a_failure_skips_just_what_depends_on_it(
        mut story in story(30), failing: [u8; 2], unreached: u8, fail_fast: bool
    ) {
        story.losses.clear();
        story.missing = 0;
        let total = story.natures.len() as u32;
        let failing: BTreeSet<u32> = failing.iter().map(|id| u32::from(*id) % total).collect();
        let unreached = u32::from(unreached) % total;
        let unreached = BTreeSet::from_iter(
            (story.natures[unreached as usize].effect && !failing.contains(&unreached)).then_some(unreached)
        );
        // A hit does not fail.
        story.warm = false;
        let trouble = Trouble { failing, unreached, fail_fast, ..Trouble::default() };
        let mut world = World::prepared(&story, &trouble);
        let plan = world.run();
        let skipped = world.dependents(&(&trouble.failing | &trouble.unreached));
        for id in 0..total {
            let outcome = plan.outcome(TaskId(id)).unwrap();
            if skipped.contains(&id) {
                prop_assert_eq!(outcome, Outcome::Skipped);
            } else if fail_fast && outcome == Outcome::Skipped {
                prop_assert!(plan.why_skipped(TaskId(id)).is_some());
            } else if trouble.failing.contains(&id) {
                prop_assert_eq!(outcome, Outcome::Failed);
            } else if trouble.unreached.contains(&id) {
                prop_assert_eq!(outcome, Outcome::Deferred);
            } else {
                prop_assert!(matches!(outcome, Outcome::Ran | Outcome::Applied), "{id} is {outcome:?}");
            }
        }
    }

    #[test]
    fn every_run_ends(
        story in story(25), failing: [u8; 2], unreached: u8, cursed in 0..9u64,
        stop_at in prop::option::weighted(0.2, 0..60usize), fail_fast in prop::bool::weighted(0.2)
    ) {
        let total = story.natures.len() as u32;
        let failing = failing.iter().map(|id| u32::from(*id)).filter(|id| *id < total).collect();
        let unreached = Some(u32::from(unreached) % total).filter(|id| story.natures[*id as usize].effect);
        let unreached = unreached.into_iter().collect();
        let trouble = Trouble { failing, unreached, cursed, stop_at, fail_fast };
        World::prepared(&story, &trouble).run();
    }

    #[test]
    fn the_same_story_goes_the_same_way(story in story(20)) {
        let mut one = World::prepared(&story, &Trouble::default());
        let mut two = World::prepared(&story, &Trouble::default());
        one.run();
        two.run();
        prop_assert_eq!(one.trace, two.trace);
    }
}
