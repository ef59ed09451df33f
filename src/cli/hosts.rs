//! `hosts`: what the hosts are and have, in a table; `hosts --images`; and `hosts trust`: a key in place of an old one.

use super::hosts_images::{self, Form};
use super::{Halt, Session, say};
use crate::config::Config;
use crate::error::{Failure, Mistake, did_you_mean};
use crate::host::node::At;
use crate::host::ssh::trust::Keys;
use crate::host::stop::Stop;

/// Arguments of `hosts`
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HostsVerb {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The names that hosts have of our images, and which of them are wanted no more
    #[arg(long)]
    images: bool,
    /// As a line of JSON for each host
    #[arg(long, requires = "images")]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Shows the fingerprint of a machine's key and takes it in place of the one that was known
    Trust {
        /// The host
        name: String,
    },
}

impl HostsVerb {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let config = session.place.config()?;
        match &self.verb {
            None if self.images => {
                hosts_images::run(session, &config, if self.json { Form::Json } else { Form::Table })
            }
            None => super::doctor::table(session, &config),
            Some(Verb::Trust { name }) => trust(session, &config, name),
        }
    }
}

fn trust(session: &Session, config: &Config, name: &str) -> Result<u8, Halt> {
    let Some(spec) = config.hosts.get(name) else {
        let hint = did_you_mean(name, config.hosts.keys().map(String::as_str));
        return Err(Mistake::new(format!("there is no host `{name}`")).hint_maybe(hint).into());
    };
    let At::Ssh(address) = &spec.at else {
        return Err(Mistake::new(format!("`{name}` is on this machine, and has no key")).into());
    };
    let stop = Stop::new(Stop::GRACE)?;
    stop.listen()?;
    let (root, env) = (session.place.root.as_path(), session.place.links.env());
    let keys = Keys { name, address, root, env, stop: &stop };
    let shown = keys.show()?;
    say(&format!("{name}: {}\n", shown.fingerprint));
    let file = keys.file()?;
    match keys.replace(&file, &shown.key)? {
        true => say(&format!(
            "remembered in {}: compare it with what the machine itself says\n",
            file.display()
        )),
        false => say(&format!("known already in {}\n", file.display())),
    }
    if matches!(address.key, crate::host::ssh::Key::Pinned(_)) {
        return Err(Halt::Failed(
            Failure::new(format!("`{name}` has a pinned key, and that is what counts"))
                .hint(format!("correct it: `host_key = \"{}\"`", shown.key)),
        ));
    }
    Ok(0)
}
