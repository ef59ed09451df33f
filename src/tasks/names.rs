//! How a table of `vcbuild.toml` refers to what stands elsewhere in it: placed values, references,
//! hosts and clusters, and the trait by which the configuration resolves them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::{Deref, Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::patch_set::Set;
use crate::error::Result;
use crate::host::{cluster, node, registry};
use crate::pins::Pin;
use crate::work::{Inputs, Session, Task, TaskName, Tell};

/// A value with the place in the file where it was written, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it was written: first byte and the one after the last.
    pub span: (usize, usize),
}

impl<T> Placed<T> {
    /// Where it was written.
    pub fn range(&self) -> Range<usize> {
        self.span.0..self.span.1
    }
}

impl<T> Deref for Placed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_spanned::Spanned::<T>::deserialize(deserializer)?;
        let span = (spanned.span().start, spanned.span().end);
        Ok(Self { value: spanned.into_inner(), span })
    }
}

impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A task, or else a path of the project, as written; resolved by the configuration.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// As written.
    pub text: Placed<String>,
    /// What it refers to.
    pub to: To,
    /// What each of the tasks gives, in their order.
    pub outputs: Vec<Outputs>,
}

/// What of a task's value goes under a folder when the task is placed there.
#[derive(Clone, Debug, PartialEq)]
pub enum Outputs {
    /// These paths, each by its last name.
    Named(Vec<String>),
    /// Everything, with its paths.
    Contents,
    /// Nothing: it is an image.
    Image,
    /// Nothing: it is secret, and only its place is known, which is a file on a host.
    Secret {
        /// The host.
        host: Placed<String>,
        /// The path there.
        path: String,
    },
}

/// What a reference refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum To {
    /// It was not resolved, because it is wrong.
    #[default]
    Nothing,
    /// A path or glob of the project.
    Path(String),
    /// Tasks, in the order of their instances.
    Tasks(Vec<TaskName>),
}

impl Reference {
    /// The tasks it refers to.
    pub fn tasks(&self) -> &[TaskName] {
        match &self.to {
            To::Tasks(tasks) => tasks,
            _ => &[],
        }
    }

    /// The tasks that some of them refer to, each once, sorted.
    pub fn all_tasks<'a>(all: impl IntoIterator<Item = &'a Self>) -> Vec<TaskName> {
        let tasks: BTreeSet<_> = all.into_iter().flat_map(Self::tasks).collect();
        tasks.into_iter().cloned().collect()
    }

    /// The one task it refers to, if it refers to a task.
    pub fn task(&self) -> Option<&TaskName> {
        self.tasks().first()
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { text: Placed::deserialize(deserializer)?, to: To::Nothing, outputs: Vec::new() })
    }
}

impl JsonSchema for Reference {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Reference".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, Default)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de> + From<Placed<String>>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        enum Written<T> {
            One(String),
            Many(Vec<T>),
        }
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Written<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Written<T>, E> {
                Ok(Written::One(text.to_string()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Written<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Written::Many(all))
            }
        }
        impl<'de, T: Deserialize<'de>> Deserialize<'de> for Written<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Visitor(std::marker::PhantomData))
            }
        }
        let Placed { value, span } = Placed::<Written<T>>::deserialize(deserializer)?;
        Ok(Self(match value {
            Written::One(value) => vec![Placed { value, span }.into()],
            Written::Many(all) => all,
        }))
    }
}

impl From<Placed<String>> for Reference {
    fn from(text: Placed<String>) -> Self {
        Self { text, to: To::Nothing, outputs: Vec::new() }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// How many instances a reference may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// One task: a matrix task without brackets is a mistake.
    One,
    /// A list: a matrix task without brackets is all its instances.
    Many,
    /// As `Many`, also of what is secret: its content is not wanted, or is looked after.
    Any,
}

/// How a task fills a folder on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// What others put there is deleted.
    Alone,
    /// What others put there stays.
    Shared,
}

/// What the configuration offers to a table that has been read, to resolve its names. Mistakes are
/// noted, not returned: the table goes on as far as it can.
pub trait Names {
    /// The name of the project.
    fn project(&self) -> &str;

    /// The instance that is being resolved.
    fn task(&self) -> &TaskName;

    /// Where its table begins.
    fn place(&self) -> Range<usize>;

    /// The variables and the instance's own axes: what templates see.
    fn variables(&self) -> serde_json::Value;

    /// Resolves a reference to tasks of these kinds, or to a path of the project.
    fn reference(&mut self, reference: &mut Reference, kinds: &[&str], want: Want);

    /// Resolves a reference to tasks of these kinds; a path is a mistake.
    fn tasks(&mut self, reference: &mut Reference, kinds: &[&str], want: Want);

    /// The hosts behind names of hosts and groups, each once; none is a mistake.
    fn hosts(&mut self, names: &[Placed<String>]) -> Vec<node::Spec>;

    /// What is said of registries.
    fn registries(&self) -> registry::Settings;

    /// The cluster behind a name.
    fn cluster(&mut self, name: &Placed<String>) -> Option<cluster::Spec>;

    /// Notes a mistake if a path leaves the project (or the tree, or the folder it is relative to).
    fn contained(&mut self, path: &Placed<String>);

    /// Notes a mistake if another task has claimed the same thing (a tag, a path on a host) before.
    fn claim(&mut self, thing: String, place: Range<usize>);

    /// Notes a mistake if one task fills a folder on a host alone, and another one puts something there.
    fn fill(&mut self, host: &str, path: &str, filled: Filled, place: Range<usize>);

    /// Notes a mistake without showing the place: what stands there is secret.
    fn hidden_mistake(&mut self, message: String, hint: String);

    /// Notes a mistake.
    fn mistake(&mut self, place: Range<usize>, message: String, hint: Option<String>);
}

/// A task as it stands in `vcbuild.toml`.
pub trait Declare: Task {
    /// Resolves names and checks what can be checked without reading files.
    fn resolve(&mut self, names: &mut dyn Names);

    /// What its value gives to those who place it; effects have no value.
    fn outputs(&self) -> Outputs;

    /// Tasks that come before it besides those whose values it reads.
    fn follows(&self) -> Vec<TaskName> {
        Vec::new()
    }

    /// Where its content is, if that is secret and in no cache.
    fn secret(&self) -> Option<&super::secret::Source> {
        None
    }

    /// What moves and has to be pinned before it can be read.
    fn pins(&self) -> Vec<Pin> {
        Vec::new()
    }

    /// What one of its images is now, for `vcbuild update`.
    fn image_now(&self, pin: &Pin, _session: &Session<'_>, _tell: &dyn Tell) -> Result<String> {
        panic!("BUG: {pin} is pinned by nobody")
    }

    /// The patch files that it lists, as written.
    fn patches(&self) -> &[Placed<String>] {
        &[]
    }

    /// Its patches with the tree that they go to, without those that are not there; nothing if it is no
    /// patch task.
    fn patch_set(&self, _inputs: &Inputs<'_>) -> Option<Result<Set>> {
        None
    }

    /// The same task, taking its files from another revision; nothing if it is no clone.
    fn at(&self, _rev: &str) -> Option<Box<dyn Declare>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_one_and_many() {
        #[derive(Deserialize)]
        struct Table {
            a: OneOrMany<Placed<String>>,
            b: OneOrMany<Reference>,
        }
        let text = "a = 'one'\nb = ['two', 'three']\n";
        let table: Table = toml::from_str(text).unwrap();
        assert_eq!(&text[table.a.0[0].range()], "'one'");
        assert_eq!(&text[table.b.0[1].text.range()], "'three'");
    }
}
