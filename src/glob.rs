//! Globs over paths with forward slashes, in globset's language: lists of patterns where the last
//! match wins, `!` excludes, and a matched folder takes all that is below it. Knows no file system:
//! a walk asks it component by component, and so enters only folders that can hold a match.

use globset::{GlobBuilder, GlobMatcher};

/// A list of patterns.
#[derive(Clone, Debug)]
pub struct Globs {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Its place in the list as written; several patterns share one when braces hold slashes.
    rank: usize,
    keep: Keep,
    components: Vec<Component>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    In,
    Out,
}

#[derive(Clone, Debug)]
enum Component {
    Literal(Vec<u8>),
    Glob(GlobMatcher),
    Any,
}

/// How far a walk has come: which patterns have matched a folder above, and which may still match.
#[derive(Clone, Debug)]
pub struct Progress {
    matched: Option<(usize, Keep)>,
    open: Vec<(usize, usize)>,
}

impl Progress {
    /// Whether a file here is taken.
    pub fn takes(&self) -> bool {
        matches!(self.matched, Some((_, Keep::In)))
    }

    /// Whether everything below here is taken, whatever its name.
    pub fn takes_all(&self) -> bool {
        self.takes() && self.open.is_empty()
    }

    /// Whether nothing below here can be taken.
    pub fn takes_none(&self) -> bool {
        !self.takes() && self.open.is_empty()
    }
}

impl Globs {
    /// Reads patterns; the error says which one is wrong and why.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, String> {
        let mut all = Vec::new();
        for (rank, text) in patterns.iter().enumerate() {
            let text = text.as_ref();
            let (keep, body) = match text.strip_prefix('!') {
                Some(body) => (Keep::Out, body),
                None => (Keep::In, text),
            };
            if !crate::glob::is_contained(body) {
                return Err(format!("`{text}` leaves the folder"));
            }
            for alternative in
                expand_braces(body).ok_or_else(|| format!("`{text}` has an unclosed `{{`"))?
            {
                let mut components = Vec::new();
                for component in alternative.split('/').filter(|c| !c.is_empty() && *c != ".") {
                    components.push(Component::new(component).map_err(|why| format!("`{text}`: {why}"))?);
                }
                all.push(Pattern { rank, keep, components });
            }
        }
        Ok(Self { patterns: all })
    }

    /// Patterns that take everything.
    pub fn all() -> Self {
        Self { patterns: vec![Pattern { rank: 0, keep: Keep::In, components: vec![] }] }
    }

    /// Where a walk begins.
    pub fn start(&self) -> Progress {
        let mut progress = Progress { matched: None, open: Vec::new() };
        for index in 0..self.patterns.len() {
            self.open(&mut progress, index, 0);
        }
        progress
    }

    /// One step down: the progress inside, or at, the entry `name`.
    pub fn enter(&self, at: &Progress, name: &[u8]) -> Progress {
        let mut next = Progress { matched: at.matched, open: Vec::with_capacity(at.open.len()) };
        for &(index, position) in &at.open {
            match &self.patterns[index].components[position] {
                Component::Literal(literal) if literal == name => self.open(&mut next, index, position + 1),
                Component::Glob(glob) if glob.is_match(as_path(name)) => {
                    self.open(&mut next, index, position + 1)
                }
                Component::Any if position + 1 == self.patterns[index].components.len() => {
                    self.open(&mut next, index, position + 1);
                }
                Component::Any => self.open(&mut next, index, position),
                _ => {}
            }
        }
        if let Some((rank, _)) = next.matched {
            // An earlier pattern cannot overrule a later one that has matched already.
            next.open.retain(|&(index, _)| self.patterns[index].rank > rank);
        }
        next
    }

    /// The only names inside a folder that can lead on, sorted; `None` if that depends on what is there.
    pub fn names(&self, at: &Progress) -> Option<Vec<&[u8]>> {
        if at.takes() {
            return None;
        }
        let name = |&(index, position): &(usize, usize)| match &self.patterns[index].components[position] {
            Component::Literal(name) => Some(name.as_slice()),
            Component::Glob(_) | Component::Any => None,
        };
        let mut names: Vec<&[u8]> = at.open.iter().map(name).collect::<Option<_>>()?;
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// Whether a path is taken.
    pub fn takes(&self, path: &[u8]) -> bool {
        let mut progress = self.start();
        for name in path.split(|&byte| byte == b'/') {
            progress = self.enter(&progress, name);
        }
        progress.takes()
    }

    /// Marks `position` as reached in a pattern: it has matched, or waits for the next component.
    fn open(&self, progress: &mut Progress, index: usize, position: usize) {
        let pattern = &self.patterns[index];
        let rest = &pattern.components[position..];
        match rest {
            [] => {
                if progress.matched.is_none_or(|(rank, _)| rank <= pattern.rank) {
                    progress.matched = Some((pattern.rank, pattern.keep));
                }
            }
            // `**` at the end takes what is below, not the folder itself; elsewhere it may stand for nothing.
            [Component::Any, after @ ..] => {
                if !progress.open.contains(&(index, position)) {
                    progress.open.push((index, position));
                }
                if !after.is_empty() {
                    self.open(progress, index, position + 1);
                }
            }
            _ => {
                if !progress.open.contains(&(index, position)) {
                    progress.open.push((index, position));
                }
            }
        }
    }
}

impl Component {
    fn new(text: &str) -> Result<Self, String> {
        if text == "**" {
            return Ok(Self::Any);
        }
        if !text.contains(['*', '?', '[', '\\', '{', '}']) {
            return Ok(Self::Literal(text.as_bytes().to_vec()));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        glob.map(|glob| Self::Glob(glob.compile_matcher())).map_err(|error| error.kind().to_string())
    }
}

fn as_path(name: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(name))
}

/// Whether a relative path stays in its folder: not absolute, no `..`, no NUL.
pub fn is_contained(path: &str) -> bool {
    !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|component| component != "..")
}

/// Whether a text is a pattern, not a plain path.
pub fn is_pattern(text: &str) -> bool {
    text.starts_with('!') || text.contains(['*', '?', '[', '{'])
}

/// All alternatives of a text with braces; `None` if one is not closed.
fn expand_braces(text: &str) -> Option<Vec<String>> {
    let bytes = text.as_bytes();
    let (mut depth, mut start, mut cuts) = (0, 0, Vec::new());
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'{' => {
                if depth == 0 {
                    (start, cuts) = (i, vec![i]);
                }
                depth += 1;
            }
            b',' if depth == 1 => cuts.push(i),
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    cuts.push(i);
                    let mut all = Vec::new();
                    let tails = expand_braces(&text[i + 1..])?;
                    for cut in cuts.windows(2) {
                        for middle in expand_braces(&text[cut[0] + 1..cut[1]])? {
                            for tail in &tails {
                                all.push(format!("{}{middle}{tail}", &text[..start]));
                            }
                        }
                    }
                    return Some(all);
                }
            }
            _ => {}
        }
        i += 1;
    }
    (depth == 0).then(|| vec![text.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(patterns: &[&str], path: &str) -> bool {
        Globs::new(patterns).unwrap().takes(path.as_bytes())
    }

    #[test]
    fn names_that_lead_on() {
        let names = |patterns: &[&str], folder: &str| {
            let globs = Globs::new(patterns).unwrap();
            let names = folder.split('/').filter(|name| !name.is_empty());
            let at = names.fold(globs.start(), |at, name| globs.enter(&at, name.as_bytes()));
            let list = globs.names(&at)?;
            Some(list.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>())
        };
        let list = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&["src/{b,a}/*.c", "Makefile", "src/x"], ""), list(&["Makefile", "src"]));
        assert_eq!(names(&["src/{b,a}/*.c", "Makefile", "src/x"], "src"), list(&["a", "b", "x"]));
        assert_eq!(names(&["src/{b,a}/*.c"], "src/a"), None);
        assert_eq!(names(&["src/a", "!**/x"], ""), None);
        assert_eq!(names(&["src"], "src"), None);
    }

    #[test]
    fn stars_stop_at_slashes_and_folders_take_all() {
        assert!(takes(&["*.c"], "a.c"));
        assert!(!takes(&["*.c"], "x/a.c"));
        assert!(takes(&["**/*.c"], "a.c"));
        assert!(takes(&["**/*.c"], "x/y/a.c"));
        assert!(takes(&["src"], "src/x/a.c"));
        assert!(takes(&["sr*"], "src/x/a.c"));
        assert!(takes(&["src/**"], "src/x/a.c"));
        assert!(!takes(&["src/**"], "srcs/a.c"));
        assert!(takes(&["*"], ".hidden/x"));
        assert!(takes(&["a/**/b"], "a/b"));
        assert!(!takes(&["A"], "a"));
        assert!(takes(&["./a/"], "a/x"));
    }

    #[test]
    fn the_last_match_wins() {
        assert!(!takes(&["src/**", "!src/x/**"], "src/x/a"));
        assert!(takes(&["src/**", "!src/x/**", "src/x/a"], "src/x/a"));
        assert!(!takes(&["src/**", "!**/*.o"], "src/y/a.o"));
        assert!(takes(&["!src", "src/a"], "src/a"));
        assert!(!takes(&["src/a", "!src"], "src/a"));
    }

    #[test]
    fn braces_may_hold_slashes() {
        let patterns = ["v/{go.mod,pkg/**,cmd/{a,b}/**}"];
        for path in ["v/go.mod", "v/pkg/x/y", "v/cmd/b/main.go"] {
            assert!(takes(&patterns, path), "{path}");
        }
        for path in ["v/go.sum", "v/cmd/c/main.go", "go.mod"] {
            assert!(!takes(&patterns, path), "{path}");
        }
        assert!(Globs::new(&["{a"]).is_err());
    }

    #[test]
    fn a_walk_enters_only_what_can_match() {
        let globs = Globs::new(&["patches/*.patch", "src/**"]).unwrap();
        let start = globs.start();
        assert!(globs.enter(&start, b"target").takes_none());
        assert!(!globs.enter(&start, b"patches").takes_none());
        let inside = globs.enter(&globs.enter(&start, b"src"), b"x");
        assert!(inside.takes());
        assert!(Globs::all().start().takes_all());
    }

    #[test]
    fn what_leaves_the_folder_is_refused() {
        for text in ["../x", "/x", "a/../b", "!../x"] {
            assert!(Globs::new(&[text]).is_err(), "{text}");
        }
    }
}
