//! `show`: what a task is: its action as JSON, an image's config and layers, rendered manifests.

use super::engine::Engine;
use super::forecast::{self, State};
use super::get::{Read, reading, run_reading};
use super::place::Project;
use super::run::{Faces, How, one_task};
use super::show_image::{self, Origins, Wanted};
use super::{Halt, Session, say};
use crate::build::Logs;
use crate::cache::Cache;
use crate::digest::Digest;
use crate::error::{Failure, Mistake, Result};
use crate::host::stop::Stop;
use crate::oci::descriptor::Platform;
use crate::oci::have::Have;
use crate::oci::reference::Reference;
use crate::report::Verdict;
use crate::schedule::TaskId;
use crate::tasks::layout;

/// Arguments of `show`
#[derive(clap::Args)]
pub struct Show {
    /// The task
    task: String,
    /// Shows the files of an image, layer by layer
    #[arg(long)]
    files: bool,
    /// Shows what of an image would have to move to somebody who has another one: an image task, a
    /// declared tag, an archive, or the folder of a layout
    #[arg(long, value_name = "TAG|FILE")]
    against: Option<String>,
    /// Shows only what an image is for this platform
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<Platform>,
    /// Shows an image as JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let project = session.place.load()?;
        let id = one_task(&project.graph, &self.task)?;
        let kind = project.graph.node(id).name.kind().to_string();
        let stop = Stop::new(Stop::GRACE)?;
        stop.listen()?;
        let how = How::usual();
        let mut faces = Faces::new(session, None)?;
        if kind == "image" {
            return self.image(session, &cache, project, id, &stop, &mut faces);
        }
        if self.files || self.against.is_some() || self.platform.is_some() || self.json {
            let message = format!(
                "`{}` is no image: `--files`, `--against`, `--platform` and `--json` are for images",
                self.task
            );
            return Err(Mistake::new(message).into());
        }
        let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
        // What it reads has to be there before it can be shown.
        let selected = project.graph.closure(&project.graph.node(id).reads.iter().copied().collect());
        if !selected.is_empty() {
            let summary = engine.run(&selected, Logs::Keep, &mut faces.tee())?;
            if summary.verdict != Verdict::Ok {
                return Ok(super::run::exit(summary.verdict));
            }
        }
        let all = project.graph.closure(&[id].into());
        let states = forecast::forecast(&engine, &all);
        let Some((_, state)) = states.into_iter().find(|(task, _)| *task == id) else {
            panic!("BUG: a selected task without a forecast")
        };
        match state {
            State::Hit(key, record) => say(&action(&key, &record.preimage)),
            State::Runs(key, preimage) => say(&action(&key, &preimage)),
            State::Asks(_, Some(text)) => say(&text),
            State::Asks(wants, None) => say(&pretty(&wants)),
            State::Unknown(_) | State::Blocked(_) => {
                let why = state.line().unwrap_or_default();
                return Err(Halt::Failed(Failure::new(format!("`{}`: {why}", self.task))));
            }
        }
        Ok(0)
    }
}

impl Show {
    fn image(
        &self,
        session: &Session,
        cache: &Cache,
        mut project: Project,
        id: TaskId,
        stop: &Stop,
        faces: &mut Faces,
    ) -> Result<u8, Halt> {
        let how = How::usual();
        let against = match &self.against {
            Some(name) => Some(self.other(session, cache, &project, name, stop)?),
            None => None,
        };
        let mut seen = Seen { session, cache, how: &how, stop, faces };
        let have = match against {
            None => None,
            Some(Other::Have(name, have)) => Some((name, have)),
            Some(Other::Task(other)) => {
                let name = project.graph.node(other).name.to_string();
                let read = |cache: &Cache, value: &Digest| {
                    let mut have = Have::default();
                    layout::read_all(&cache.cas, value)?.images().for_each(|image| have.add(image));
                    Ok(have.digests.iter().map(Digest::to_string).collect())
                };
                let lines = match seen.read(&mut project, other, Box::new(read))? {
                    Ok(lines) => lines,
                    Err(code) => return Ok(code),
                };
                let digests = lines.iter().filter_map(|line| line.parse().ok()).collect();
                Some((name, Have { digests }))
            }
        };
        let wanted = Wanted { files: self.files, platform: self.platform.clone(), against: have };
        let first = |_: &Cache, _: &Digest| Ok(Vec::new());
        if let Err(code) = seen.read(&mut project, id, Box::new(first))? {
            return Ok(code);
        }
        // Where its layers come from is said by the task and by what is in its key, now known.
        let engine = Engine::new(&session.place, cache, &project, &how, stop);
        let states = forecast::forecast(&engine, &project.graph.closure(&[id].into()));
        let preimage = states.iter().find(|(task, _)| *task == id).and_then(|(_, state)| preimage(state));
        let origins = Origins::new(project.graph.node(id).task.origins(), preimage);
        let json = self.json;
        let read = move |cache: &Cache, value: &Digest| {
            let data = show_image::data(cache, value, &wanted, &origins)?;
            Ok(vec![if json { pretty(&data) } else { show_image::page(&data) }])
        };
        match seen.read(&mut project, id, Box::new(read))? {
            Ok(lines) => say(&lines.concat()),
            Err(code) => return Ok(code),
        }
        Ok(0)
    }

    /// The other image: a task, a declared tag, or a file.
    fn other(
        &self,
        session: &Session,
        cache: &Cache,
        project: &Project,
        name: &str,
        stop: &Stop,
    ) -> Result<Other, Halt> {
        let graph = &project.graph;
        let path = std::path::Path::new(name);
        if path.exists() {
            return Ok(Other::Have(name.to_string(), show_image::have(path)?));
        }
        let is_image = |id: &TaskId| graph.node(*id).name.kind() == "image";
        if let Ok(id) = one_task(graph, name)
            && is_image(&id)
        {
            return Ok(Other::Task(id));
        }
        let how = How::usual();
        let engine = Engine::new(&session.place, cache, project, &how, stop);
        let wanted: Option<Reference> = name.parse().ok();
        let images = graph.ids().filter(is_image).collect();
        for (id, state) in forecast::forecast(&engine, &graph.closure(&images)) {
            let tags = preimage(&state).and_then(|preimage| preimage["what"]["tags"].as_array());
            let mut tags = tags.into_iter().flatten().filter_map(|tag| tag.as_str()?.parse().ok());
            if wanted.is_some() && is_image(&id) && tags.any(|tag: Reference| Some(tag) == wanted) {
                return Ok(Other::Task(id));
            }
        }
        Err(Mistake::new(format!("`{name}` is no image that is known here"))
            .hint("name an image task, a tag of one, an archive, or the folder of an OCI layout")
            .into())
    }
}

/// The other image of a comparison.
enum Other {
    /// It is made here.
    Task(TaskId),
    /// Somebody has it, under this name.
    Have(String, Have),
}

fn preimage(state: &State) -> Option<&serde_json::Value> {
    match state {
        State::Hit(_, record) => Some(&record.preimage),
        State::Runs(_, preimage) => Some(preimage),
        _ => None,
    }
}

/// What values are read with.
struct Seen<'a> {
    session: &'a Session,
    cache: &'a Cache,
    how: &'a How,
    stop: &'a Stop,
    faces: &'a mut Faces,
}

impl Seen<'_> {
    /// Reads a task's value; the exit code if what it needs went wrong, which is then told.
    fn read(
        &mut self,
        project: &mut Project,
        id: TaskId,
        read: Box<Read>,
    ) -> Result<Result<Vec<String>, u8>, Halt> {
        let reading = reading(&mut project.graph, id, read)?;
        let engine = Engine::new(&self.session.place, self.cache, project, self.how, self.stop);
        let mut told: Vec<crate::report::Event> = Vec::new();
        let (verdict, lines) = run_reading(&engine, reading, &mut told)?;
        if verdict == Verdict::Ok {
            return Ok(Ok(lines));
        }
        let mut tee = self.faces.tee();
        told.iter().for_each(|event| crate::report::Report::event(&mut tee, event));
        Ok(Err(super::run::exit(verdict)))
    }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

fn action(key: &Digest, preimage: &serde_json::Value) -> String {
    pretty(&serde_json::json!({ "key": key, "action": preimage }))
}
