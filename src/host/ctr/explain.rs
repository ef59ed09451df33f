//! What it means when `ctr` on a host does not do what it should, for people. Runs nothing.

use super::Containerd;
use crate::error::Failure;
use crate::host::node::Trouble;
use crate::host::ssh::said;

impl Containerd<'_> {
    /// What the end of a conversation means.
    pub fn explain(&self, step: &str, errors: &str) -> Trouble {
        let host = self.link.name();
        let socket = &self.address.containerd;
        let is = |words: &str| errors.to_lowercase().contains(words);
        let lines = || errors.lines().map(str::to_string).filter(|line| !line.trim().is_empty());
        if step == "ctr" {
            let ctr = self.address.ctr.join(" ");
            return Failure::new(format!("`{host}` has no `{ctr}`"))
                .detail(lines())
                .hint("install containerd there, or say where it is: `ctr = [\"/path/to/ctr\"]`")
                .into();
        }
        if is("permission denied") && is(socket) {
            return Failure::new(format!("containerd on `{host}` lets us not in"))
                .detail(lines())
                .hint("only root may speak to it: `sudo = true`")
                .into();
        }
        let absent = is("connection refused") || is("no such file or directory") || is("deadline exceeded");
        if absent && (is("dial") || is(socket)) {
            return Failure::new(format!("containerd on `{host}` does not answer at `{socket}`"))
                .detail(lines())
                .hint("look at it there: `systemctl status containerd`; if it listens elsewhere: `containerd = \"…\"`")
                .into();
        }
        if is("no space left on device") {
            return Failure::new(format!("`{host}` has no space left for images"))
                .hint("`vcbuild doctor` shows how much there is")
                .into();
        }
        if step == "lock" {
            return Failure::new(format!("somebody else is changing the images of `{host}` for an hour"))
                .into();
        }
        let why = said(errors).unwrap_or_else(|| "it ended without a word".into());
        Trouble::Cut(
            Failure::new(format!("containerd on `{host}` could not {step}: {why}")).detail(lines()),
        )
    }
}
