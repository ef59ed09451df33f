//! Reading images out of containerd on a host: what a name is given to, and blobs as they are there. Changes
//! nothing, and knows no document.

use super::{Containerd, command};
use crate::digest::Digest;
use crate::error::{Failure, Result};
use crate::host::node::Trouble;
use crate::host::passing::Departure;
use crate::host::ssh::Talk;
use crate::recipe::Sink;

/// Argument: the command `ctr` quoted for `sh`, then its arguments.
const SCRIPT: &str = r#"
cmd=$1
shift
eval "$cmd --version" >/dev/null || exit 111
eval "exec $cmd \"\$@\""
"#;
/// What the script ends with where there is no `ctr`.
const NO_CTR: i32 = 111;

impl Containerd<'_> {
    /// What a name is given to.
    pub fn given(&self, name: &str) -> Result<Option<Digest>, Trouble> {
        let mut talk = self.start(&["images", "ls", &format!("name==\"{name}\"")])?;
        let mut found = None;
        while let Some(line) = talk.line()? {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [given, _, digest, ..] = fields.as_slice()
                && *given == name
            {
                found = digest.parse().ok();
            }
        }
        match talk.finish()? {
            ended if ended.status == 0 => Ok(found),
            ended => Err(self.explain(step(ended.status), &ended.said)),
        }
    }

    /// Streams a blob.
    pub fn blob(&self, digest: &Digest, sink: &mut dyn Sink) -> Result<(), Trouble> {
        let mut talk = self.start(&["content", "get", &digest.to_string()])?;
        talk.stream(&mut Departure { sink, watch: self.watch })?;
        match talk.finish()? {
            ended if ended.status == 0 => Ok(()),
            ended if ended.status != NO_CTR && ended.said.contains("not found") => {
                let host = self.link.name();
                let failure = Failure::new(format!("containerd on `{host}` does not have `{digest}`"));
                Err(failure
                    .hint("it may throw layers away: `discard_unpacked_layers` in its configuration")
                    .into())
            }
            ended => Err(self.explain(step(ended.status), &ended.said)),
        }
    }

    fn start(&self, arguments: &[&str]) -> Result<Talk<'_>, Trouble> {
        let command = command(self.address, "10s");
        let argv = [&["sh", "-c", SCRIPT, "vcbuild", &command][..], arguments].concat();
        Talk::start(self.link, &argv, self.who, self.watch)
    }
}

fn step(status: i32) -> &'static str {
    if status == NO_CTR { "ctr" } else { "read images" }
}
