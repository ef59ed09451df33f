//! What `deploy` would change in a cluster, and doing it: only objects that differ, in order; what is gone
//! from the manifests is deleted, but only what the own inventory names. The inventory names an object
//! before it is made, so that no crash leaves one that nobody remembers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Blob, Digest};
use crate::error::{Failure, Result};
use crate::host::cluster::{self, Answer, Cluster, Identity, Presence, Question, Scope, Spec};
use crate::manifest::{order, yaml};
use crate::tasks::shipping::{self, Told};
use crate::work::{Change, Effect, Fault, Reach};

/// Fields that are named when an object changes, at most.
const FIELDS: usize = 4;

/// What is wanted, as plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wants {
    /// The cluster.
    pub cluster: Spec,
    /// The inventory that names what was made here.
    pub inventory: String,
    /// The objects in the order in which they are applied.
    pub objects: Vec<Object>,
}

/// An object that is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Which one.
    #[serde(flatten)]
    pub identity: Identity,
    /// Whether its namespace is certain.
    pub scope: Scope,
    /// Its canonical text.
    #[serde(flatten)]
    pub blob: Blob,
}

/// The effect.
pub struct Deploying {
    /// What is wanted.
    pub wants: Wants,
    /// The objects' texts; without them it can only be asked what is missing.
    pub texts: Option<Vec<String>>,
}

/// The effect that wants this. Without its inputs it can only probe.
pub fn from_wants(wants: &Value) -> Option<Box<dyn Effect>> {
    let wants = Wants::deserialize(wants).ok()?;
    Some(Box::new(Deploying { wants, texts: None }))
}

impl Effect for Deploying {
    fn wants(&self) -> Value {
        shipping::plain(&self.wants)
    }

    /// The objects as they are applied, in order: one YAML document each.
    fn shown(&self) -> Option<String> {
        Some(self.texts.as_ref()?.join("---\n"))
    }

    fn destinations(&self) -> Vec<String> {
        vec![self.wants.cluster.name.clone()]
    }

    fn probe(&self, _destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        let watch = self.watch(reach);
        let cluster = cluster::open(&self.wants.cluster, reach.root, &watch)?;
        Ok(Box::new(Differing { effect: self, plan: self.ask(&*cluster)? }))
    }
}

impl Deploying {
    fn watch<'a>(&'a self, reach: &Reach<'a>) -> Told<'a> {
        Told::source(&self.wants.cluster.name, reach.stop, reach.tell, None)
    }

    /// Asks the cluster once, and compares.
    fn ask(&self, cluster: &dyn Cluster) -> Result<Plan, Fault> {
        let objects = self.wants.objects.iter().map(|object| (object.identity.clone(), object.scope));
        let question = Question { objects: objects.collect(), inventory: self.wants.inventory.clone() };
        Ok(self.plan(cluster.ask(&question)?)?)
    }

    fn plan(&self, answer: Answer) -> Result<Plan, Failure> {
        self.owned(&answer)?;
        let mut plan = Plan::default();
        let recorded: BTreeSet<&Identity> = answer.inventory.iter().map(|(identity, _)| identity).collect();
        for (at, (identity, there)) in answer.objects.iter().enumerate() {
            let wanted = &self.wants.objects[at];
            plan.wanted.push(identity.clone());
            let step = match there {
                None => Step::Create,
                Some(text) if Digest::of(text.as_bytes()) != wanted.blob.digest => {
                    let new = self.texts.as_ref().map(|texts| texts[at].as_str());
                    Step::Change(new.map_or_else(Vec::new, |new| differing(text, new)))
                }
                Some(_) if !recorded.contains(identity) => Step::Adopt,
                Some(_) => continue,
            };
            plan.steps.push((at, step));
        }
        let wanted: BTreeSet<&Identity> = plan.wanted.iter().collect();
        let mut gone: Vec<_> =
            answer.inventory.iter().filter(|(identity, _)| !wanted.contains(identity)).cloned().collect();
        // What others need goes last.
        gone.sort_by_key(|(identity, _)| std::cmp::Reverse(order::rank(&identity.group, &identity.kind)));
        plan.gone = gone;
        plan.recorded = answer.inventory.into_iter().map(|(identity, _)| identity).collect();
        Ok(plan)
    }

    /// Objects of others are not touched; two manifests that mean one object are a mistake.
    fn owned(&self, answer: &Answer) -> Result<(), Failure> {
        let taken: Vec<String> = answer
            .objects
            .iter()
            .filter_map(|(identity, _)| Some((identity, answer.owners.get(identity)?)))
            .map(|(identity, owner)| format!("`{identity}` belongs to `{owner}`"))
            .collect();
        if let Some((first, more)) = taken.split_first() {
            return Err(Failure::new(format!("{first}, which has deployed it to `{}`", self.wants.cluster.name))
                .detail(more.iter().cloned())
                .hint("an object can be in one deploy task only: rename it, or take it out of the other and run that first"));
        }
        let mut known = BTreeMap::new();
        for (at, (identity, _)) in answer.objects.iter().enumerate() {
            if known.insert(identity, at).is_some() {
                return Err(Failure::new(format!("`{identity}` is there twice")));
            }
        }
        Ok(())
    }

    fn text(&self, at: usize) -> &str {
        match &self.texts {
            Some(texts) => &texts[at],
            None => panic!("BUG: a deploy that can only be asked was to be applied"),
        }
    }
}

/// What is to be done.
#[derive(Default)]
struct Plan {
    /// What is wanted, as the cluster names it.
    wanted: Vec<Identity>,
    /// What is to be done with which of the objects that are wanted.
    steps: Vec<(usize, Step)>,
    /// What is in the inventory and not wanted, in the order in which it is deleted.
    gone: Vec<(Identity, Presence)>,
    /// All that is in the inventory.
    recorded: Vec<Identity>,
}

enum Step {
    Create,
    /// The fields that differ.
    Change(Vec<String>),
    /// It is as it should be, but the inventory does not name it.
    Adopt,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.gone.is_empty()
    }
}

/// What differs in the cluster.
struct Differing<'a> {
    effect: &'a Deploying,
    plan: Plan,
}

impl Change for Differing<'_> {
    fn lines(&self) -> Vec<String> {
        let steps = self.plan.steps.iter().map(|(at, step)| {
            let identity = &self.plan.wanted[*at];
            match step {
                Step::Create => format!("create {identity}"),
                Step::Change(fields) if fields.is_empty() => format!("change {identity}"),
                Step::Change(fields) => format!("change {identity} ({})", short(fields)),
                Step::Adopt => format!("adopt {identity}"),
            }
        });
        let gone = self.plan.gone.iter().map(|(identity, presence)| match presence {
            Presence::There => format!("delete {identity}"),
            Presence::Gone => format!("forget {identity}"),
        });
        steps.chain(gone).collect()
    }

    fn bytes(&self) -> u64 {
        let applied = self.plan.steps.iter().filter(|(_, step)| !matches!(step, Step::Adopt));
        applied.map(|(at, _)| self.effect.wants.objects[*at].blob.size).sum()
    }

    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault> {
        let watch = self.effect.watch(reach);
        let cluster = cluster::open(&self.effect.wants.cluster, reach.root, &watch)?;
        self.effect.bring(&*cluster)
    }
}

impl Deploying {
    /// Brings the cluster to what is wanted; returns the bytes of the objects that were applied.
    pub fn bring(&self, cluster: &dyn Cluster) -> Result<u64, Fault> {
        let _lock = cluster.lock()?;
        // Somebody may have changed it before we had the lock.
        let plan = self.ask(cluster)?;
        let inventory = &self.wants.inventory;
        let known: BTreeSet<&Identity> = plan.recorded.iter().collect();
        let new = plan.wanted.iter().filter(|identity| !known.contains(identity));
        let union: Vec<Identity> = plan.recorded.iter().chain(new).cloned().collect();
        if union != plan.recorded {
            cluster.remember(inventory, &union)?;
        }
        let mut sent = 0;
        for (at, step) in &plan.steps {
            if !matches!(step, Step::Adopt) {
                let text = self.text(*at);
                cluster.apply(&plan.wanted[*at], text)?;
                sent += text.len() as u64;
            }
        }
        for (identity, _) in &plan.gone {
            cluster.delete(identity)?;
        }
        if union != plan.wanted {
            cluster.remember(inventory, &plan.wanted)?;
        }
        let after = self.ask(cluster)?;
        if !after.is_empty() {
            let lines = Differing { effect: self, plan: after }.lines();
            return Err(Failure::new("it was applied, but it is not as it was applied")
                .detail(lines.into_iter().map(|line| format!("still to do: {line}")))
                .hint("somebody else may be changing it: run again")
                .into());
        }
        Ok(sent)
    }
}

fn short(fields: &[String]) -> String {
    let mut text = fields.iter().take(FIELDS).cloned().collect::<Vec<_>>().join(", ");
    if fields.len() > FIELDS {
        text.push_str(&format!(", and {} more", fields.len() - FIELDS));
    }
    text
}

/// The fields in which two objects differ, down to the second level: `spec.replicas`.
fn differing(old: &str, new: &str) -> Vec<String> {
    let (Ok(old), Ok(new)) = (yaml::value(old), yaml::value(new)) else { return Vec::new() };
    let mut found = Vec::new();
    compare(&old, &new, "", 2, &mut found);
    if found.is_empty() {
        found.push("only its layout".into());
    }
    found
}

fn compare(old: &Value, new: &Value, path: &str, levels: usize, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if levels > 0 => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let (old, new) = (old.get(key), new.get(key));
                compare(old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null), &path, levels - 1, found);
            }
        }
        _ if old != new && path.is_empty() => found.push("all of it".into()),
        _ if old != new => found.push(path.to_string()),
        _ => {}
    }
}
