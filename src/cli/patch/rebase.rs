//! rebase
use super::{Desk, Halt};
/// Arguments of `patch rebase`
#[derive(clap::Args)]
pub struct Rebase {}
impl Rebase {
    /// Runs the verb.
    pub fn run(&self, _desk: &Desk<'_>) -> Result<u8, Halt> {
        Ok(0)
    }
}
