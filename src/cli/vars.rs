//! `vars`: each variable with its value and where that comes from.

use super::{Halt, Session, say};

/// Runs the verb.
pub fn run(session: &Session) -> Result<u8, Halt> {
    let project = session.place.load()?;
    let width = project.variables.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for variable in &project.variables {
        out.push_str(&format!("{:width$} = {}  # {}\n", variable.name, variable.value, variable.origin));
    }
    say(&out);
    Ok(0)
}
