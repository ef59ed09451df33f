//! Any part of the cache is deleted or damaged, many parts at once: what needs them makes them again, and
//! nothing wrong is served.

use std::time::{Duration, Instant};

use crate::support::Project;
use crate::support::folder::{self, Damage, damage};

const BUDGET: Duration = Duration::from_secs(30);

#[test]
fn of_many_parts_at_once() {
    let project = Project::hello();
    project.run("import upload").success();
    let nodes = folder::contents(&project.path("nodes"));
    let random = std::cell::Cell::new(1_u64);
    let below = |limit: u64| {
        random.set(random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        (random.get() >> 33) % limit
    };
    let start = Instant::now();
    for round in 0_u32.. {
        if start.elapsed() > BUDGET {
            break;
        }
        let part = ["cas", "cas", "."][below(3) as usize];
        let share = [2, 4, 40][below(3) as usize];
        let fixed = below(2) == 0;
        let kind = || [Damage::Deleted, Damage::Flipped, Damage::Torn][below(3) as usize];
        let first = kind();
        let mut kinds = (0..).map(|_| if fixed { first } else { kind() });
        let files = folder::files(&project.cache(part));
        let mut picked = Vec::new();
        for file in &files {
            let is_lock = file.iter().any(|name| name == "lock" || name == "locks");
            if !is_lock && below(share) == 0 {
                let damaged = kinds.next().unwrap();
                damage(&project.cache(part).join(file), damaged);
                picked.push((file.clone(), damaged));
            }
        }
        project.remove("nodes");
        let done = project.run("import upload");
        let said = format!("round {round}: {picked:?}\n{}", done.stderr);
        assert_eq!(done.outcomes().values().filter(|outcome| *outcome == "failed").count(), 0, "{said}");
        done.success();
        assert!(folder::contents(&project.path("nodes")) == nodes, "{said}");
    }
}

#[test]
fn of_a_mirror() {
    let project = Project::hello();
    project.run("clone").success();
    project.call("get clone.source -o got").success();
    let clean = folder::contents(&project.path("got"));
    let mirror =
        std::fs::read_dir(project.cache("git")).unwrap().flatten().find(|entry| entry.path().is_dir());
    let mirror = mirror.unwrap().path();
    for (name, how) in [
        ("packs", Damage::Flipped),
        ("packs", Damage::Torn),
        ("HEAD", Damage::Torn),
        ("config", Damage::Deleted),
    ] {
        project.remove("cache/v1/cas");
        project.remove("cache/v1/actions");
        project.remove("cache/v1/memo");
        // A git that was killed leaves its locks.
        for lock in ["shallow.lock", "packed-refs.lock", "HEAD.lock", "config.lock"] {
            std::fs::write(mirror.join(lock), "").unwrap();
        }
        match name {
            "packs" => {
                for file in folder::files(&mirror.join("objects")) {
                    damage(&mirror.join("objects").join(file), how);
                }
            }
            name => damage(&mirror.join(name), how),
        }
        project.run("clone").did(&["clone.source"]).success();
        project.remove("got");
        project.call("get clone.source -o got").success();
        assert!(folder::contents(&project.path("got")) == clean, "{name} {how:?}");
    }
}
