//! vcbuild under strace: which system calls it makes, and one of them tampered with.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use regex::Regex;

use crate::support::Project;

/// A small chain in which everything is published that an action can publish.
pub fn chain() -> Project {
    let project = Project::new()
        .config(
            "[compile.x]\ninputs = ['src/**']\nrun = [['cp', 'src/a', 'b'], ['cp', '-r', 'src', 'd']]\n\
             outputs = ['b', 'd']\n[image.i]\nbase = 'scratch'\nfiles = [{ from = 'compile.x', to = '/x/' }]\n",
        )
        .file("src/a", "text\n")
        .file("src/b", &"0123456789abcdef".repeat(1 << 14));
    project.settle();
    project
}

/// Runs vcbuild below strace.
fn below(project: &Project, options: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(options).arg(env!("CARGO_BIN_EXE_vcbuild")).args(arguments);
    project.clean(&mut command);
    command.current_dir(project.root()).stdin(Stdio::null()).output().unwrap()
}

/// How often each of these system calls is made by the thread that makes it most often.
fn counts(project: &Project, calls: &str, arguments: &[&str]) -> BTreeMap<String, usize> {
    let trace = project.beside("trace");
    let all = below(project, &["-o", trace.to_str().unwrap(), "-e", &format!("trace={calls}")], arguments);
    assert!(all.status.success(), "{}", String::from_utf8_lossy(&all.stderr));
    let line = Regex::new(r"(?m)^(\d+) +(\w+)\(").unwrap();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for found in line.captures_iter(&std::fs::read_to_string(trace).unwrap()) {
        *counts.entry((found[2].into(), found[1].into())).or_default() += 1;
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((call, _), count) in counts {
        let known = most.entry(call).or_default();
        *known = (*known).max(count);
    }
    most
}

/// Every one of these calls that a run makes: its name and its number, in an order that spreads over all of
/// them, so that the first ones are a fair sample.
pub fn places(project: &Project, calls: &str, arguments: &[&str]) -> Vec<(String, usize)> {
    let counts = counts(project, calls, arguments);
    let mut places: Vec<(String, usize)> =
        counts.iter().flat_map(|(call, count)| (1..=*count).map(|n| (call.clone(), n))).collect();
    let mut seed = 1_u64;
    for at in (1..places.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        places.swap(at, (seed >> 33) as usize % (at + 1));
    }
    places
}

/// Runs vcbuild with the `number`th call of that name, in whichever thread, tampered with.
pub fn tampered(project: &Project, call: &str, number: usize, with: &str, arguments: &[&str]) -> Output {
    let inject = format!("inject={call}:{with}:when={number}");
    below(project, &["-o", "/dev/null", "-e", &inject], arguments)
}
