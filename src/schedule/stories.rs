//! What the schedule does in one case after the other, told step by step. A value is a letter, lost
//! content a word; `next` gives `(id, what to make again)`.

use super::world::check;
use super::*;

type Plan = Schedule<char, &'static str>;

/// A task of the given class that reads and follows.
fn entry(class: Class, reads: &[u32], after: &[u32]) -> Entry {
    let ids = |ids: &[u32]| ids.iter().copied().map(TaskId).collect();
    Entry { reads: ids(reads), after: ids(after), class, pool: None }
}

/// An action that only reads.
fn action(reads: &[u32]) -> Entry {
    entry(Class::Action, reads, &[])
}

/// An effect that only reads.
fn effect(reads: &[u32]) -> Entry {
    entry(Class::Effect, reads, &[])
}

fn plan_with(entries: Vec<Entry>, limits: Limits, on_failure: OnFailure) -> Plan {
    let plan = Schedule::new((0..).map(TaskId).zip(entries), limits, on_failure);
    check(&plan);
    plan
}

fn plan(entries: Vec<Entry>) -> Plan {
    plan_with(entries, Limits { jobs: 9, effects: 9, pools: vec![] }, OnFailure::GoOn)
}

/// All that starts now.
fn starts(plan: &mut Plan) -> Vec<(u32, Vec<&'static str>)> {
    let mut all = Vec::new();
    while let Some(Start { id, mode }) = plan.next() {
        let lost = match mode {
            Mode::LookUp => Vec::new(),
            Mode::Remake { lost } => lost,
        };
        all.push((id.0, lost));
        check(plan);
    }
    all
}

/// Starts that may all look up.
fn look_ups(ids: &[u32]) -> Vec<(u32, Vec<&'static str>)> {
    ids.iter().map(|id| (*id, Vec::new())).collect()
}

fn finish(plan: &mut Plan, id: u32, finish: Finish<char, &'static str>) -> Verdict {
    let verdict = plan.finished(TaskId(id), finish);
    check(plan);
    verdict
}

fn done(plan: &mut Plan, id: u32, value: char, outcome: Outcome) -> Verdict {
    finish(plan, id, Finish::Done { value, outcome, restored: Vec::new() })
}

fn hit(plan: &mut Plan, id: u32, value: char) -> Verdict {
    done(plan, id, value, Outcome::Hit)
}

fn remade(plan: &mut Plan, id: u32, value: char, restored: &[(&'static str, Restored)]) -> Verdict {
    finish(plan, id, Finish::Done { value, outcome: Outcome::Ran, restored: restored.to_vec() })
}

fn lost(plan: &mut Plan, id: u32, losses: &[(&'static str, u32)]) -> Verdict {
    let loss = |(digest, owner): &(&'static str, u32)| Loss { digest: *digest, owner: TaskId(*owner) };
    finish(plan, id, Finish::Lost(losses.iter().map(loss).collect()))
}

fn through(holders: &[u32]) -> Restored {
    Restored::PassedThrough { holders: holders.iter().copied().map(TaskId).collect() }
}

/// Starts and finishes, as hits with value `a`, tasks in the order of their ids until `last` is done;
/// leaves what was started beyond.
fn hits(plan: &mut Plan, last: u32) {
    let mut running: BTreeSet<u32> = BTreeSet::new();
    while plan.outcome(TaskId(last)).is_none() {
        running.extend(starts(plan).into_iter().map(|(id, _)| id));
        let id = running.pop_first().unwrap();
        hit(plan, id, 'a');
    }
}

fn outcome(plan: &Plan, id: u32) -> Option<Outcome> {
    plan.outcome(TaskId(id))
}

use Outcome::{Applied, Deferred, Failed, Hit, Ran, Skipped};
use Restored::{Gone, Written};
use Verdict::{Dropped, Kept};

#[test]
fn the_longest_chain_goes_first_then_the_lowest_id() {
    let mut plan = plan(vec![action(&[]), action(&[]), action(&[1]), action(&[2]), action(&[])]);
    assert_eq!(starts(&mut plan), look_ups(&[1, 0, 4]));
    hit(&mut plan, 1, 'a');
    assert_eq!(starts(&mut plan), look_ups(&[2]));
}

#[test]
fn of_several_chains_the_longest_counts() {
    let entries = vec![action(&[]), action(&[0]), action(&[]), action(&[2]), action(&[2]), action(&[4])];
    assert_eq!(starts(&mut plan(entries)), look_ups(&[2, 0]));
}

#[test]
fn a_full_pool_hides_nothing() {
    let go = |entry: Entry| Entry { pool: Some(PoolId(0)), ..entry };
    let entries =
        vec![go(action(&[])), go(action(&[])), action(&[]), action(&[]), effect(&[]), go(effect(&[]))];
    let limits = Limits { jobs: 2, effects: 2, pools: vec![1] };
    let mut plan = plan_with(entries, limits, OnFailure::GoOn);
    assert_eq!(starts(&mut plan), look_ups(&[0, 2, 4]));
    hit(&mut plan, 2, 'a');
    assert_eq!(starts(&mut plan), look_ups(&[3]));
    hit(&mut plan, 0, 'a');
    assert_eq!(starts(&mut plan), look_ups(&[1]));
    hit(&mut plan, 1, 'a');
    assert_eq!(starts(&mut plan), look_ups(&[5]));
}

#[test]
fn ids_need_not_be_dense() {
    let entries = vec![(TaskId(7), action(&[])), (TaskId(3), action(&[7]))];
    let limits = Limits { jobs: 1, effects: 1, pools: vec![] };
    let mut plan: Plan = Schedule::new(entries, limits, OnFailure::GoOn);
    assert_eq!(starts(&mut plan), look_ups(&[7]));
    hit(&mut plan, 7, 'a');
    assert_eq!(starts(&mut plan), look_ups(&[3]));
}

#[test]
fn an_empty_run_is_over() {
    assert!(plan(Vec::new()).is_over());
}

#[test]
#[should_panic(expected = "BUG: the tasks form a cycle")]
fn a_cycle_is_a_bug() {
    plan(vec![action(&[1]), action(&[0])]);
}

#[test]
#[should_panic(expected = "BUG: task 1 does not read task 0")]
fn a_loss_of_a_task_that_is_not_read_is_a_bug() {
    let mut plan = plan(vec![action(&[]), entry(Class::Action, &[], &[0])]);
    hit_first(&mut plan);
    lost(&mut plan, 1, &[("x", 0)]);
}

/// Ends task 0 and starts what comes after it.
fn hit_first(plan: &mut Plan) {
    starts(plan);
    hit(plan, 0, 'a');
    starts(plan);
}

#[test]
fn a_lost_blob_is_made_again_and_its_reader_runs_then() {
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[1])]);
    hit_first(&mut plan);
    assert_eq!(lost(&mut plan, 1, &[("x", 0), ("y", 0)]), Dropped);
    assert_eq!((outcome(&plan, 0), outcome(&plan, 1)), (None, None));
    assert_eq!(starts(&mut plan), [(0, vec!["x", "y"])]);
    assert_eq!(remade(&mut plan, 0, 'a', &[("y", Written), ("x", Written)]), Kept);
    assert_eq!(outcome(&plan, 0), Some(Ran));
    assert_eq!(starts(&mut plan), look_ups(&[1]));
    hit(&mut plan, 1, 'a');
    starts(&mut plan);
    done(&mut plan, 2, '-', Applied);
    assert!(plan.is_over());
    assert_eq!(plan.counts(), BTreeMap::from([(Hit, 1), (Ran, 1), (Applied, 1)]));
    assert!(plan.take_ended().is_empty());
}

#[test]
fn an_owner_whose_own_input_is_lost_waits_for_it_in_turn() {
    let mut plan = plan(vec![action(&[]), action(&[0]), action(&[1])]);
    hit_first(&mut plan);
    hit(&mut plan, 1, 'a');
    starts(&mut plan);
    lost(&mut plan, 2, &[("x", 1)]);
    assert_eq!(starts(&mut plan), [(1, vec!["x"])]);
    lost(&mut plan, 1, &[("y", 0)]);
    assert_eq!(starts(&mut plan), [(0, vec!["y"])]);
    remade(&mut plan, 0, 'a', &[("y", Written)]);
    assert_eq!(starts(&mut plan), [(1, vec!["x"])]);
    remade(&mut plan, 1, 'a', &[("x", Written)]);
    assert_eq!(starts(&mut plan), look_ups(&[2]));
}

#[test]
fn content_that_passes_through_several_tasks_is_made_where_it_came_from() {
    // clone -> patch -> image -> import: only the names of the blob move.
    let mut plan = plan(vec![action(&[]), action(&[0]), action(&[1]), effect(&[2])]);
    hits(&mut plan, 2);
    starts(&mut plan);
    lost(&mut plan, 3, &[("x", 2)]);
    assert_eq!(starts(&mut plan), [(2, vec!["x"])]);
    remade(&mut plan, 2, 'a', &[("x", through(&[1]))]);
    assert_eq!(outcome(&plan, 2), None, "nobody may read it yet");
    assert_eq!(starts(&mut plan), [(1, vec!["x"])]);
    remade(&mut plan, 1, 'a', &[("x", through(&[0]))]);
    assert_eq!(starts(&mut plan), [(0, vec!["x"])]);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    // The tasks between do not run once more.
    assert_eq!(starts(&mut plan), look_ups(&[3]));
    assert_eq!((outcome(&plan, 1), outcome(&plan, 2)), (Some(Ran), Some(Ran)));
}

#[test]
fn any_of_several_holders_is_enough() {
    let mut plan = plan(vec![action(&[]), action(&[]), action(&[0, 1]), effect(&[2])]);
    hits(&mut plan, 2);
    starts(&mut plan);
    lost(&mut plan, 3, &[("x", 2)]);
    starts(&mut plan);
    remade(&mut plan, 2, 'a', &[("x", through(&[0, 1]))]);
    assert_eq!(starts(&mut plan), [(0, vec!["x"]), (1, vec!["x"])]);
    finish(&mut plan, 0, Finish::Failed);
    assert!(starts(&mut plan).is_empty());
    remade(&mut plan, 1, 'a', &[("x", Written)]);
    assert_eq!(outcome(&plan, 2), Some(Ran));
}

#[test]
fn without_a_living_holder_the_chain_is_skipped() {
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[1]), effect(&[1])]);
    hits(&mut plan, 1);
    starts(&mut plan);
    done(&mut plan, 3, '-', Applied);
    lost(&mut plan, 2, &[("x", 1)]);
    starts(&mut plan);
    remade(&mut plan, 1, 'a', &[("x", through(&[0]))]);
    starts(&mut plan);
    finish(&mut plan, 0, Finish::Failed);
    assert!(plan.is_over());
    assert_eq!((outcome(&plan, 1), outcome(&plan, 2)), (Some(Skipped), Some(Skipped)));
    assert_eq!(outcome(&plan, 3), Some(Applied), "it did not need the bytes");
    assert_eq!(plan.why_skipped(TaskId(2)), Some(Why::Task(TaskId(0))));
    assert_eq!(plan.take_ended(), [TaskId(1), TaskId(2)]);
}

#[test]
fn content_that_nobody_makes_is_a_failure() {
    let mut plan = plan(vec![action(&[]), action(&[0])]);
    hit_first(&mut plan);
    lost(&mut plan, 1, &[("x", 0)]);
    starts(&mut plan);
    remade(&mut plan, 0, 'a', &[("x", through(&[]))]);
    assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Nowhere("x")));
    assert_eq!(plan.take_ended(), [TaskId(0), TaskId(1)]);
}

#[test]
fn what_was_written_again_may_not_be_lost_again() {
    let mut plan = plan(vec![action(&[]), action(&[0])]);
    hit_first(&mut plan);
    lost(&mut plan, 1, &[("x", 0)]);
    starts(&mut plan);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    starts(&mut plan);
    lost(&mut plan, 1, &[("x", 0)]);
    assert!(plan.is_over());
    assert_eq!(outcome(&plan, 0), Some(Failed));
    assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Again("x")));
    assert_eq!(plan.why_skipped(TaskId(1)), Some(Why::Task(TaskId(0))));
}

#[test]
fn the_writer_fails_and_not_who_passes_it_on() {
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[1])]);
    hits(&mut plan, 1);
    for _ in 0..2 {
        starts(&mut plan);
        lost(&mut plan, 2, &[("x", 1)]);
        assert_eq!(starts(&mut plan), [(1, vec!["x"])]);
        remade(&mut plan, 1, 'a', &[("x", through(&[0]))]);
        if outcome(&plan, 0).is_none() {
            assert_eq!(starts(&mut plan), [(0, vec!["x"])]);
            remade(&mut plan, 0, 'a', &[("x", Written)]);
        }
    }
    assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Again("x")));
    assert_eq!((outcome(&plan, 1), outcome(&plan, 2)), (Some(Skipped), Some(Skipped)));
}

#[test]
fn a_slow_reader_that_missed_it_before_it_was_written_again_is_no_second_loss() {
    let mut plan = plan(vec![action(&[]), action(&[0]), action(&[0])]);
    hit_first(&mut plan);
    lost(&mut plan, 1, &[("x", 0)]);
    starts(&mut plan);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    assert_eq!(starts(&mut plan), look_ups(&[1]));
    lost(&mut plan, 2, &[("x", 0)]);
    assert_eq!(starts(&mut plan), look_ups(&[2]), "it just tries again");
    lost(&mut plan, 2, &[("x", 0)]);
    assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Again("x")), "now it is one");
}

#[test]
fn two_ways_to_one_holder_are_one_loss() {
    // 1 and 2 both pass on what 0 writes; each has a reader that misses it.
    let mut plan = plan(vec![action(&[]), action(&[0]), action(&[0]), effect(&[1]), effect(&[2])]);
    hits(&mut plan, 2);
    starts(&mut plan);
    lost(&mut plan, 3, &[("x", 1)]);
    starts(&mut plan);
    lost(&mut plan, 4, &[("x", 2)]);
    assert_eq!(starts(&mut plan), [(2, vec!["x"])]);
    remade(&mut plan, 1, 'a', &[("x", through(&[0]))]);
    assert_eq!(starts(&mut plan), [(0, vec!["x"])]);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    assert_eq!(starts(&mut plan), look_ups(&[3]));
    remade(&mut plan, 2, 'a', &[("x", through(&[0]))]);
    assert_eq!(outcome(&plan, 0), Some(Ran), "0 has written it since 4 missed it");
    assert_eq!(starts(&mut plan), look_ups(&[4]));
}

#[test]
fn two_consumers_of_one_lost_blob_wait_for_one_run() {
    let mut plan = plan(vec![action(&[]), action(&[0]), action(&[0])]);
    hit_first(&mut plan);
    lost(&mut plan, 1, &[("x", 0)]);
    lost(&mut plan, 2, &[("y", 0)]);
    assert_eq!(starts(&mut plan), [(0, vec!["x", "y"])]);
    remade(&mut plan, 0, 'a', &[("x", Written), ("y", Written)]);
    assert_eq!(starts(&mut plan), look_ups(&[1, 2]));
}

#[test]
fn a_loss_found_while_the_owner_is_made_again_costs_no_second_run() {
    let mut plan = plan(vec![action(&[]), action(&[0]), action(&[0])]);
    hit_first(&mut plan);
    lost(&mut plan, 1, &[("x", 0)]);
    assert_eq!(starts(&mut plan), [(0, vec!["x"])]);
    lost(&mut plan, 2, &[("y", 0)]);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    // Its run has most likely written `y` too.
    assert_eq!(starts(&mut plan), look_ups(&[1, 2]));
    // If not, it does so now; that is no second loss.
    lost(&mut plan, 2, &[("y", 0)]);
    assert_eq!(starts(&mut plan), [(0, vec!["y"])]);
}

#[test]
fn a_loss_found_while_the_owner_looks_up_holds_after_a_hit() {
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[0]), effect(&[1])]);
    hits(&mut plan, 1);
    assert_eq!(starts(&mut plan), look_ups(&[3]));
    lost(&mut plan, 2, &[("x", 0)]);
    starts(&mut plan);
    remade(&mut plan, 0, 'b', &[("x", Gone)]);
    assert_eq!(starts(&mut plan), look_ups(&[1, 2]));
    lost(&mut plan, 3, &[("y", 1)]);
    hit(&mut plan, 1, 'a');
    assert_eq!(starts(&mut plan), [(1, vec!["y"])]);
}

#[test]
fn a_lost_local_input_runs_its_reader_again() {
    let mut plan = plan(vec![action(&[])]);
    starts(&mut plan);
    lost(&mut plan, 0, &[("file", 0)]);
    assert_eq!(starts(&mut plan), [(0, vec!["file"])]);
    remade(&mut plan, 0, 'a', &[("file", Written)]);
    assert_eq!(outcome(&plan, 0), Some(Ran));
}

#[test]
fn a_local_input_that_is_lost_while_it_is_stored_is_a_failure() {
    let mut plan = plan(vec![action(&[]), action(&[0])]);
    starts(&mut plan);
    lost(&mut plan, 0, &[("file", 0)]);
    starts(&mut plan);
    lost(&mut plan, 0, &[("file", 0)]);
    assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Again("file")));
    assert_eq!(outcome(&plan, 1), Some(Skipped));
}

#[test]
fn a_different_value_runs_finished_readers_and_effects_again() {
    let follower = entry(Class::Effect, &[], &[2]);
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[1]), action(&[0]), follower]);
    starts(&mut plan);
    hit(&mut plan, 0, 'a');
    starts(&mut plan);
    hit(&mut plan, 1, 'a');
    starts(&mut plan);
    done(&mut plan, 2, '-', Applied);
    starts(&mut plan);
    done(&mut plan, 4, '-', Applied);
    lost(&mut plan, 3, &[("x", 0)]);
    assert_eq!((outcome(&plan, 1), outcome(&plan, 2)), (None, None), "in doubt");
    assert_eq!(outcome(&plan, 4), Some(Applied), "it only follows");
    starts(&mut plan);
    remade(&mut plan, 0, 'b', &[("x", Gone)]);
    assert_eq!(starts(&mut plan), look_ups(&[1, 3]));
    hit(&mut plan, 1, 'b');
    assert_eq!(starts(&mut plan), look_ups(&[2]));
    done(&mut plan, 2, '-', Outcome::Unchanged);
    hit(&mut plan, 3, 'a');
    assert!(plan.is_over());
    assert_eq!(outcome(&plan, 2), Some(Outcome::Unchanged), "the last one counts");
}

#[test]
fn an_equal_value_cuts_off_at_every_task() {
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[1]), action(&[0])]);
    starts(&mut plan);
    hit(&mut plan, 0, 'a');
    starts(&mut plan);
    hit(&mut plan, 1, 'a');
    starts(&mut plan);
    done(&mut plan, 2, '-', Applied);
    lost(&mut plan, 3, &[("x", 0)]);
    starts(&mut plan);
    remade(&mut plan, 0, 'b', &[("x", Gone)]);
    starts(&mut plan);
    hit(&mut plan, 1, 'a');
    assert_eq!(outcome(&plan, 2), Some(Applied));
    assert!(starts(&mut plan).is_empty());
}

#[test]
fn a_reader_that_runs_meanwhile_is_judged_when_its_input_is_there() {
    for (value, kept) in [('a', true), ('b', false)] {
        let mut plan = plan(vec![action(&[]), action(&[0]), action(&[0])]);
        hit_first(&mut plan);
        lost(&mut plan, 1, &[("x", 0)]);
        starts(&mut plan);
        // It ends before: in doubt until then.
        assert_eq!(hit(&mut plan, 2, 'a'), Kept);
        assert_eq!(outcome(&plan, 2), None);
        remade(&mut plan, 0, value, &[("x", if kept { Written } else { Gone })]);
        assert_eq!(outcome(&plan, 2), kept.then_some(Hit));
        assert_eq!(starts(&mut plan), look_ups(if kept { &[1] } else { &[1, 2] }));
    }
}

#[test]
fn a_reader_that_ends_after_its_input_changed_is_stale_however_it_ended() {
    let ends = [
        Finish::Done { value: 'a', outcome: Ran, restored: Vec::new() },
        Finish::Failed,
        Finish::Unreached,
        Finish::Lost(vec![Loss { digest: "z", owner: TaskId(0) }]),
    ];
    for end in ends {
        let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[0])]);
        hit_first(&mut plan);
        lost(&mut plan, 1, &[("x", 0)]);
        starts(&mut plan);
        remade(&mut plan, 0, 'b', &[("x", Gone)]);
        assert_eq!(starts(&mut plan), look_ups(&[1]));
        assert_eq!(finish(&mut plan, 2, end), Dropped);
        assert_eq!(starts(&mut plan), look_ups(&[2]));
        assert_eq!(outcome(&plan, 0), Some(Ran), "a loss from an earlier value is none");
    }
}

#[test]
fn an_effect_never_applies_a_value_in_doubt() {
    // 1 is done and 2, which reads it, could start; but 0, far above, is being made again.
    let mut plan = plan_with(
        vec![action(&[]), action(&[0]), effect(&[1]), effect(&[0])],
        Limits { jobs: 1, effects: 1, pools: vec![] },
        OnFailure::GoOn,
    );
    starts(&mut plan);
    hit(&mut plan, 0, 'a');
    assert_eq!(starts(&mut plan), look_ups(&[1, 3]));
    hit(&mut plan, 1, 'a');
    lost(&mut plan, 3, &[("x", 0)]);
    assert_eq!(starts(&mut plan), [(0, vec!["x"])]);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    assert_eq!(starts(&mut plan), look_ups(&[2]));
}

#[test]
fn an_owner_that_cannot_be_made_again_skips_who_waits_and_leaves_who_is_done() {
    let mut plan = plan(vec![action(&[]), effect(&[0]), effect(&[0]), effect(&[0]), effect(&[0])]);
    hit_first(&mut plan);
    done(&mut plan, 1, '-', Applied);
    lost(&mut plan, 2, &[("x", 0)]);
    starts(&mut plan);
    finish(&mut plan, 0, Finish::Failed);
    assert_eq!((outcome(&plan, 1), outcome(&plan, 2)), (Some(Applied), Some(Skipped)));
    done(&mut plan, 3, '-', Applied);
    assert_eq!(outcome(&plan, 3), Some(Applied));
    lost(&mut plan, 4, &[("x", 0)]);
    assert_eq!(outcome(&plan, 4), Some(Skipped));
    assert!(plan.is_over());
}

#[test]
fn a_failure_skips_what_depends_on_it_and_nothing_else() {
    let follows = entry(Class::Effect, &[], &[2]);
    let mut plan = plan(vec![action(&[]), action(&[]), action(&[0]), follows, effect(&[1])]);
    starts(&mut plan);
    assert_eq!(finish(&mut plan, 0, Finish::Failed), Kept);
    assert_eq!(plan.take_ended(), [TaskId(2), TaskId(3)]);
    assert_eq!(plan.why_skipped(TaskId(3)), Some(Why::Task(TaskId(0))));
    hit(&mut plan, 1, 'a');
    assert_eq!(starts(&mut plan), look_ups(&[4]));
}

#[test]
fn a_destination_that_was_reached_is_enough_for_those_after() {
    let after = |id| entry(Class::Effect, &[], &[id]);
    let mut plan = plan(vec![effect(&[]), effect(&[]), after(0), after(1)]);
    starts(&mut plan);
    done(&mut plan, 0, '-', Deferred);
    finish(&mut plan, 1, Finish::Unreached);
    assert_eq!(starts(&mut plan), look_ups(&[2]));
    assert_eq!((outcome(&plan, 0), outcome(&plan, 1)), (Some(Deferred), Some(Deferred)));
    assert_eq!(plan.why_skipped(TaskId(3)), Some(Why::Task(TaskId(1))));
}

#[test]
fn fail_fast_and_stop_start_nothing_new() {
    for fail_fast in [true, false] {
        let limits = Limits { jobs: 3, effects: 1, pools: vec![] };
        let on_failure = if fail_fast { OnFailure::Stop } else { OnFailure::GoOn };
        let entries = vec![action(&[]), action(&[]), action(&[]), action(&[]), action(&[1])];
        let mut plan = plan_with(entries, limits, on_failure);
        assert_eq!(starts(&mut plan), look_ups(&[1, 0, 2]));
        if fail_fast {
            finish(&mut plan, 0, Finish::Failed);
        } else {
            hit(&mut plan, 0, 'a');
            plan.stop();
        }
        assert!(starts(&mut plan).is_empty() && !plan.is_over());
        hit(&mut plan, 1, 'a');
        lost(&mut plan, 2, &[("file", 2)]);
        assert!(starts(&mut plan).is_empty() && plan.is_over());
        assert_eq!(outcome(&plan, 1), Some(Hit));
        let why = if fail_fast { Why::Task(TaskId(0)) } else { Why::Stopped };
        for id in [2, 3, 4] {
            assert_eq!(plan.why_skipped(TaskId(id)), Some(why));
        }
    }
}

#[test]
fn stopping_leaves_what_is_done_even_if_it_is_in_doubt() {
    let mut plan = plan(vec![action(&[]), effect(&[0]), effect(&[0])]);
    hit_first(&mut plan);
    done(&mut plan, 1, '-', Applied);
    lost(&mut plan, 2, &[("x", 0)]);
    plan.stop();
    check(&plan);
    assert!(plan.is_over());
    assert_eq!((outcome(&plan, 0), outcome(&plan, 1)), (Some(Skipped), Some(Applied)));
}

#[test]
fn a_task_that_is_lost_each_time_and_different_each_time_is_given_up() {
    const NEW: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let same = |_| 'a';
    let other = |at| char::from_digit(at, 36).unwrap();
    let ways: [(&dyn Fn(u32) -> char, Restored); 3] = [(&other, Gone), (&same, Gone), (&other, Written)];
    for (value, restored) in ways {
        let mut plan = plan(vec![action(&[]), effect(&[0])]);
        starts(&mut plan);
        hit(&mut plan, 0, 'a');
        let mut runs = 0;
        while !plan.is_over() {
            starts(&mut plan);
            let new = NEW[runs as usize];
            lost(&mut plan, 1, &[(new, 0)]);
            for (id, lost) in starts(&mut plan) {
                assert_eq!((id, lost), (0, vec![new]));
                runs += 1;
                remade(&mut plan, 0, value(runs), &[(new, restored.clone())]);
            }
        }
        assert_eq!(runs, rules::MOST_UPSETS);
        assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Changing("8")));
    }
    // The same for what it stores itself.
    let mut plan = plan(vec![action(&[])]);
    for new in &NEW[..9] {
        starts(&mut plan);
        lost(&mut plan, 0, &[(new, 0)]);
    }
    assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Changing("8")));
}

#[test]
fn what_passes_through_is_not_asked_of_a_task_again_while_or_after_its_holder_writes_it() {
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[1]), effect(&[1]), effect(&[1])]);
    hits(&mut plan, 1);
    starts(&mut plan);
    lost(&mut plan, 2, &[("x", 1)]);
    starts(&mut plan);
    remade(&mut plan, 1, 'a', &[("x", through(&[0]))]);
    starts(&mut plan);
    lost(&mut plan, 3, &[("x", 1)]);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    assert_eq!(starts(&mut plan), look_ups(&[2, 3]));
    lost(&mut plan, 4, &[("x", 1)]);
    assert_eq!(starts(&mut plan), look_ups(&[4]));
}

#[test]
fn the_newest_sighting_of_a_loss_counts() {
    for order in [[2, 3], [3, 2]] {
        // 1 passes on what 0 writes; 4 reads 0 itself.
        let limits = Limits { jobs: 9, effects: 2, pools: vec![] };
        let entries = vec![action(&[]), action(&[0]), effect(&[1]), effect(&[1]), action(&[0])];
        let mut plan = plan_with(entries, limits, OnFailure::GoOn);
        starts(&mut plan);
        hit(&mut plan, 0, 'a');
        starts(&mut plan);
        hit(&mut plan, 1, 'a');
        assert_eq!(starts(&mut plan), look_ups(&[2, 3]));
        lost(&mut plan, 4, &[("x", 0)]);
        lost(&mut plan, 3, &[("y", 1)]);
        assert_eq!(starts(&mut plan), [(0, vec!["x"])]);
        remade(&mut plan, 0, 'a', &[("x", Written)]);
        assert_eq!(starts(&mut plan), [(1, vec!["y"]), (4, vec![])]);
        remade(&mut plan, 1, 'a', &[("y", Written)]);
        assert_eq!(starts(&mut plan), look_ups(&[3]));
        // 2 started before 0 wrote `x` again, 3 after that.
        for id in order {
            lost(&mut plan, id, &[("x", 1)]);
        }
        assert_eq!(starts(&mut plan), [(1, vec!["x"])]);
        remade(&mut plan, 1, 'a', &[("x", through(&[0]))]);
        assert_eq!(plan.unhealed(TaskId(0)), Some(&Unhealed::Again("x")));
    }
}

#[test]
fn a_task_that_cannot_be_healed_asks_nothing_more() {
    let mut plan = plan(vec![action(&[]), action(&[0]), action(&[1])]);
    hit_first(&mut plan);
    lost(&mut plan, 1, &[("file", 1)]);
    starts(&mut plan);
    remade(&mut plan, 1, 'a', &[("file", Written)]);
    starts(&mut plan);
    lost(&mut plan, 2, &[("y", 1)]);
    assert_eq!(starts(&mut plan), [(1, vec!["y"])]);
    lost(&mut plan, 1, &[("x", 0), ("file", 1)]);
    assert_eq!(plan.unhealed(TaskId(1)), Some(&Unhealed::Again("file")));
    assert_eq!(outcome(&plan, 0), Some(Hit));
}

#[test]
fn more_is_lost_of_a_task_that_waits_for_its_holders() {
    let mut plan = plan(vec![action(&[]), action(&[0]), effect(&[1]), effect(&[1]), effect(&[1])]);
    hits(&mut plan, 1);
    starts(&mut plan);
    lost(&mut plan, 2, &[("x", 1)]);
    starts(&mut plan);
    remade(&mut plan, 1, 'a', &[("x", through(&[0]))]);
    assert_eq!(starts(&mut plan), [(0, vec!["x"])]);
    lost(&mut plan, 3, &[("x", 1)]);
    lost(&mut plan, 4, &[("y", 1)]);
    remade(&mut plan, 0, 'a', &[("x", Written)]);
    assert_eq!(starts(&mut plan), [(1, vec!["x", "y"])]);
    remade(&mut plan, 1, 'a', &[("x", through(&[0])), ("y", Written)]);
    assert_eq!(outcome(&plan, 0), Some(Ran), "it has `x` already");
    assert_eq!(starts(&mut plan), look_ups(&[2, 3, 4]));
}

#[test]
fn ten_thousand_tasks_with_wide_fans_are_cheap() {
    // 4,999 clones, one that reads them all, 5,000 that read it; then the last of them loses a blob.
    let all: Vec<u32> = (0..4_999).collect();
    let mut entries: Vec<Entry> = all.iter().map(|_| action(&[])).collect();
    entries.push(action(&all));
    entries.extend((0..5_000).map(|_| action(&[4_999])));
    let mut plan = plan_with(entries, Limits { jobs: 4, effects: 1, pools: vec![] }, OnFailure::GoOn);
    let mut steps = 0;
    let mut asked = None;
    while let Some(Start { id, mode }) = plan.next() {
        steps += 1;
        let end = match mode {
            Mode::Remake { lost } if id.0 == 4_999 => {
                let restored = vec![(lost[0], through(&all))];
                Finish::Done { value: 'a', outcome: Ran, restored }
            }
            Mode::Remake { lost } => {
                Finish::Done { value: 'a', outcome: Ran, restored: vec![(lost[0], Written)] }
            }
            Mode::LookUp if id.0 == 9_999 && asked.is_none() => {
                asked = Some(id);
                Finish::Lost(vec![Loss { digest: "x", owner: TaskId(4_999) }])
            }
            Mode::LookUp => Finish::Done { value: 'a', outcome: Hit, restored: Vec::new() },
        };
        plan.finished(id, end);
    }
    check(&plan);
    assert_eq!((steps, plan.is_over()), (10_000 + 1 + 1 + 4_999, true));
    assert!(plan.nudges < 20 * 25_000, "{} looks for 25,000 edges", plan.nudges);
}
