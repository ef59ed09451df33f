//! The command line: one short file per verb. The only reader of the environment, and the only place
//! that knows all parts. Decides the exit code.

mod bundle;
mod cache;
mod check;
mod doctor;
mod engine;
mod forecast;
mod get;
mod graph;
mod hosts;
mod hosts_images;
mod init;
mod list;
mod log;
mod part;
mod patch;
mod place;
mod remember;
mod run;
mod show;
mod show_image;
mod update;
mod vars;
mod why;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Failure, Mistake};
use crate::report::mistakes;
use crate::report::output::{Output, Settings, Surroundings, Verbosity, When};
use crate::report::text::{Style, clean};
use crate::work::Env;

/// From upstream source to running pods: only what changed is built, shipped and rolled out
#[derive(Parser)]
#[command(name = "vcbuild", version, max_term_width = 100, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What stands before the verb
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Head {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    rest: Rest,
}

#[derive(Subcommand)]
enum Rest {
    #[command(external_subcommand)]
    Verb(Vec<OsString>),
}

impl Arguments {
    /// Adds the variables before the verb to those behind it, of which clap forgets the former.
    fn whole(mut self) -> Result<Self, clap::Error> {
        if self.global.set.is_empty() && self.global.vars.is_empty() {
            return Ok(self);
        }
        let Head { global: head, rest: Rest::Verb(rest) } = Head::try_parse()?;
        let program = std::env::args_os().take(1);
        let tail = Self::try_parse_from(program.chain(rest))?.global;
        self.global.set = [head.set, tail.set].concat();
        self.global.vars = [head.vars, tail.vars].concat();
        Ok(self)
    }
}

/// What holds for every verb
#[derive(clap::Args)]
pub struct Global {
    /// The folder of the project [default: the nearest one upward with a vcbuild.toml]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The cache folder [default: `cache` beside vcbuild.toml]
    #[arg(long, global = true, value_name = "DIR", env = "VCBUILD_CACHE", hide_env = true)]
    cache: Option<PathBuf>,
    /// Sets a variable; may come several times
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A file with variables, YAML or TOML; may come several times
    #[arg(long, global = true, value_name = "FILE")]
    vars: Vec<PathBuf>,
    /// The profile whose variables count
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// Tell more: tasks that had nothing to do, and what tasks print
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Tell only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs tasks and all that they need
    Run(run::Run),
    /// Shows what `run` would change at destinations; actions run, destinations are only asked
    Plan(run::PlanVerb),
    /// Lists tasks with their last outcome
    List(list::List),
    /// Shows how tasks hang together, and what a run would do; runs nothing
    Graph(graph::GraphVerb),
    /// Says why a task runs, or last ran: the file, variable or tool that changed
    Why(why::WhyVerb),
    /// Shows what a task is: its action, an image's config and layers, rendered manifests
    Show(show::Show),
    /// Shows what a task printed when it last ran
    Log(log::Log),
    /// Writes a task's outputs to a file or folder
    Get(get::Get),
    /// Checks the configuration, patches and templates; runs nothing
    Check,
    /// Shows the variables and where their values come from
    Vars,
    /// Moves pins in vcbuild.lock to what their names mean now
    Update(update::Update),
    /// Writes what an import brings as one file, for machines that nobody reaches
    Bundle(bundle::Bundle),
    /// Shows the hosts and what they have
    Hosts(hosts::HostsVerb),
    /// Looks at the hosts and says what is wrong with them
    Doctor,
    /// Edits patches: new ones, changes, refreshed places, a new tree below
    Patch(patch::PatchVerb),
    /// Looks after the cache
    Cache(cache::CacheVerb),
    Init(init::Init),
    /// Prints the JSON schema of vcbuild.toml
    Schema,
    /// Prints a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why a verb ended early, and with which exit code.
pub enum Halt {
    /// The user's file or command line is wrong: 2.
    Mistakes(Vec<Mistake>),
    /// Something could not be done: 1.
    Failed(Failure),
    /// All has been said; this is the code.
    Code(u8),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        match error {
            Error::Failed(failure) => Self::Failed(failure),
            Error::Interrupted => Self::Code(130),
            Error::Lost(digest) => {
                Self::Failed(Failure::new(format!("the cache lost `{}`", digest.short())))
            }
        }
    }
}

impl From<Vec<Mistake>> for Halt {
    fn from(mistakes: Vec<Mistake>) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl From<Mistake> for Halt {
    fn from(mistake: Mistake) -> Self {
        Self::Mistakes(vec![mistake])
    }
}

/// What a verb is given.
pub struct Session {
    /// The place of the project and the cache.
    pub place: place::Place,
    /// How to talk to people.
    pub settings: Settings,
    /// What is known of the terminal.
    pub surroundings: Surroundings,
}

/// Runs the command line and returns the exit code.
pub fn run() -> u8 {
    let verb = std::env::args_os().nth(1).unwrap_or_default();
    if let Some(code) = crate::host::launch::main(&verb) {
        return code;
    }
    if verb == crate::host::fs::SYNC_LATER {
        let cache = PathBuf::from(std::env::args_os().nth(2).unwrap_or_default());
        crate::cache::tidy(&cache);
        return crate::host::fs::sync_now(&cache);
    }
    let arguments = match Arguments::try_parse().and_then(Arguments::whole) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader that went away is not our business.
            let _ = error.print();
            return u8::from(error.use_stderr()) * 2;
        }
    };
    let env = environment();
    let surroundings = surroundings(&env);
    let settings = settings(&arguments.global, &surroundings);
    match dispatch(arguments, env, settings, surroundings) {
        Ok(code) | Err(Halt::Code(code)) => code,
        Err(Halt::Mistakes(mistakes)) => {
            complain(&mistakes::render(&mistakes, &settings));
            2
        }
        Err(Halt::Failed(failure)) => {
            complain(&words(&failure, &settings));
            1
        }
    }
}

fn dispatch(
    arguments: Arguments,
    env: Env,
    settings: Settings,
    surroundings: Surroundings,
) -> Result<u8, Halt> {
    match arguments.verb {
        Verb::Schema => {
            let text = serde_json::to_string_pretty(&crate::config::schema::schema()).unwrap_or_default();
            say(&format!("{text}\n"));
            return Ok(0);
        }
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "vcbuild", &mut script);
            say(&String::from_utf8_lossy(&script));
            return Ok(0);
        }
        Verb::Init(verb) => return verb.run(&arguments.global),
        _ => {}
    }
    let place = place::Place::find(&arguments.global, env)?;
    let session = Session { place, settings, surroundings };
    match arguments.verb {
        Verb::Run(verb) => verb.run(&session),
        Verb::Plan(verb) => verb.run(&session),
        Verb::List(verb) => verb.run(&session),
        Verb::Graph(verb) => verb.run(&session),
        Verb::Why(verb) => verb.run(&session),
        Verb::Show(verb) => verb.run(&session),
        Verb::Log(verb) => verb.run(&session),
        Verb::Get(verb) => verb.run(&session),
        Verb::Check => check::run(&session),
        Verb::Vars => vars::run(&session),
        Verb::Update(verb) => verb.run(&session),
        Verb::Bundle(verb) => verb.run(&session),
        Verb::Hosts(verb) => verb.run(&session),
        Verb::Doctor => doctor::run(&session),
        Verb::Patch(verb) => verb.run(&session),
        Verb::Cache(verb) => verb.run(&session),
        Verb::Init(_) | Verb::Schema | Verb::Completions { .. } => panic!("BUG: already done"),
    }
}

/// Writes a verb's product to standard output.
pub fn say(text: &str) {
    Output::new(std::io::stdout()).put(text);
}

/// Writes bytes to standard output as they are.
pub fn say_bytes(bytes: &[u8]) {
    // A reader that went away is not our business.
    let _ = std::io::stdout().write_all(bytes);
}

/// Writes lines about what was done to standard error.
pub fn remark(lines: &[String]) {
    Output::new(std::io::stderr()).put(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
}

/// Writes what is wrong to standard error.
fn complain(text: &str) {
    Output::new(std::io::stderr()).put(text);
}

/// A failure outside of any task.
fn words(failure: &Failure, settings: &Settings) -> String {
    let mut text =
        format!("{} {}\n", settings.colours.paint(Style::Bad, "error:"), clean(&failure.message));
    for line in &failure.detail {
        text.push_str(&format!("  {}\n", clean(line)));
    }
    for hint in &failure.hints {
        text.push_str(&format!("{} {}\n", settings.colours.paint(Style::Hint, "hint:"), clean(hint)));
    }
    text
}

fn environment() -> Env {
    Env(std::env::vars_os().collect::<BTreeMap<OsString, OsString>>())
}

fn surroundings(env: &Env) -> Surroundings {
    let text = |name: &str| env.value(name).map(|value| value.to_string_lossy().into_owned());
    let set = |name: &str, off: &str| text(name).is_some_and(|value| !value.is_empty() && value != off);
    Surroundings {
        terminal: std::io::stderr().is_terminal(),
        dumb: text("TERM").is_none_or(|term| term == "dumb"),
        ci: set("CI", "false"),
        no_color: set("NO_COLOR", ""),
        force_color: set("CLICOLOR_FORCE", "0"),
    }
}

fn settings(global: &Global, surroundings: &Surroundings) -> Settings {
    let when = match global.color {
        Color::Auto => When::Auto,
        Color::Always => When::Always,
        Color::Never => When::Never,
    };
    let verbosity = match (global.verbose, global.quiet) {
        (true, _) => Verbosity::Verbose,
        (_, true) => Verbosity::Quiet,
        _ => Verbosity::Normal,
    };
    Settings { verbosity, colours: surroundings.colours(when) }
}
