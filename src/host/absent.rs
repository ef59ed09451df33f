//! Whether a folder that is a host, and cannot be opened, is only not there yet. Makes none.

use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Failure, Result, io_words};
use crate::host::fs::{self, Kind, Links};
use crate::host::node::Trouble;

/// Whether a folder that cannot be opened is just not there yet; if not, what is the matter.
pub fn absent(name: &str, path: &Path, shown: &Path, error: &std::io::Error) -> Result<(), Trouble> {
    let text = shown.display();
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => {}
        Some(Errno::NOTDIR) => {
            return Err(Failure::new(format!("`{text}` is not a folder"))
                .hint(format!("`{name}` is an embedded node: its folder is made when something is sent"))
                .into());
        }
        Some(
            Errno::IO
            | Errno::STALE
            | Errno::NOTCONN
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::TIMEDOUT
            | Errno::NODEV
            | Errno::NXIO,
        ) => return Err(Trouble::Unreachable(format!("`{text}`: {}", io_words(error)))),
        _ => return Err(Error::failed(format!("open `{text}`: {}", io_words(error))).into()),
    }
    let exists = |path: &Path, links| matches!(fs::status(path, links), Ok(Some(_)));
    // Another task may be making these folders right now: only what is a link is said to be one.
    let is_link =
        |path: &Path| matches!(fs::status(path, Links::Keep), Ok(Some(found)) if found.kind == Kind::Link);
    let mut missing = path.ancestors().take_while(|path| !exists(path, Links::Follow));
    if let Some(link) = missing.find(|path| is_link(path)) {
        return Err(Trouble::Unreachable(format!("`{}` is a link that leads nowhere", link.display())));
    }
    match path.parent() {
        Some(above) if shown.is_absolute() && !exists(above, Links::Follow) => {
            Err(Trouble::Unreachable(format!("the folder `{}` is not there", above.display())))
        }
        _ => Ok(()),
    }
}
