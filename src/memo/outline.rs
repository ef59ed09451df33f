//! Where in the text of the configuration the table of each task stands, and which tables it refers to:
//! when only inputs have changed, a run reads just the tables that are concerned. Knows nothing of what
//! is in a table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml_parser::ErrorSink;
use toml_parser::decoder::Encoding;
use toml_parser::parser::{EventReceiver, parse_document};

use super::entry::{put_bytes, put_number, take, take_number, take_text};
use crate::digest::Digest;
use crate::graph::Graph;

/// The outline of a configuration.
#[derive(Debug, PartialEq)]
pub struct Outline<'a> {
    /// Tells whether a text, and all that was set from outside, is what the outline was made of.
    pub sum: Digest,
    tables: Vec<Table<'a>>,
}

#[derive(Debug, PartialEq)]
struct Table<'a> {
    /// `kind.name`, without brackets.
    name: &'a str,
    /// Where it stands: headers that are written with quotes, or without the name, are not told apart
    /// and belong to nobody.
    pieces: Vec<Range<usize>>,
    /// The tables whose tasks come before its own.
    before: Vec<usize>,
}

/// The tables that a run is about.
pub type Tables<'a> = BTreeSet<&'a str>;

/// The name of a task's table.
pub fn table(task: &str) -> &str {
    task.split('[').next().unwrap_or(task)
}

impl<'a> Outline<'a> {
    /// The outline of a configuration that was read from `text` without a mistake.
    pub fn new(text: &str, sum: Digest, graph: &'a Graph) -> Self {
        let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for node in &graph.nodes {
            let names = node.reads.iter().chain(&node.after).map(|id| table(&graph.node(*id).name.0));
            before.entry(table(&node.name.0)).or_default().extend(names);
        }
        let at: BTreeMap<&str, usize> = before.keys().enumerate().map(|(at, name)| (*name, at)).collect();
        let mut tables: Vec<Table<'a>> = before
            .iter()
            .map(|(name, before)| {
                let before = before.iter().map(|name| at[name]).collect();
                Table { name, pieces: Vec::new(), before }
            })
            .collect();
        for (name, piece) in pieces(text) {
            if let Some(at) = name.and_then(|name| at.get(name.as_str())) {
                tables[*at].pieces.push(piece);
            }
        }
        Self { sum, tables }
    }

    /// The tables of these tasks, of all that read them, and of all that those need. Nothing if that is
    /// most of the file anyway.
    pub fn concerned(&self, tasks: impl Iterator<Item = &'a str>) -> Option<Tables<'a>> {
        let mut after: Vec<Vec<usize>> = vec![Vec::new(); self.tables.len()];
        for (at, table) in self.tables.iter().enumerate() {
            for before in &table.before {
                after[*before].push(at);
            }
        }
        let find = |name: &str| self.tables.binary_search_by(|known| known.name.cmp(table(name))).ok();
        let from = tasks.map(find).collect::<Option<BTreeSet<usize>>>()?;
        let behind = closure(from, |at| &after[at]);
        let all = closure(behind, |at| &self.tables[at].before);
        (all.len() * 2 < self.tables.len()).then(|| all.iter().map(|at| self.tables[*at].name).collect())
    }

    /// The text with blanks in place of the tables that are not concerned: everything else stays where it
    /// is.
    pub fn part(&self, text: &str, concerned: &Tables<'_>) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        for table in self.tables.iter().filter(|table| !concerned.contains(table.name)) {
            for piece in &table.pieces {
                bytes.get_mut(piece.clone())?.fill(b' ');
            }
        }
        String::from_utf8(bytes).ok()
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.sum.bytes().to_vec();
        for table in &self.tables {
            put_bytes(&mut out, table.name.as_bytes());
            put_number(&mut out, table.pieces.len());
            for piece in &table.pieces {
                put_number(&mut out, piece.start);
                put_number(&mut out, piece.end);
            }
            put_number(&mut out, table.before.len());
            for before in &table.before {
                put_number(&mut out, *before);
            }
        }
        out
    }

    /// Only the sum of what `encode` wrote.
    pub fn sum(mut bytes: &[u8]) -> Option<Digest> {
        take(&mut bytes).map(Digest::Blake3)
    }

    /// Reads what `encode` wrote.
    pub fn decode(mut rest: &'a [u8]) -> Option<Self> {
        let sum = Digest::Blake3(take(&mut rest)?);
        let mut tables = Vec::new();
        while !rest.is_empty() {
            let name = take_text(&mut rest)?;
            let mut pieces = Vec::new();
            for _ in 0..take_number(&mut rest)? {
                pieces.push(take_number(&mut rest)?..take_number(&mut rest)?);
            }
            let mut before = Vec::new();
            for _ in 0..take_number(&mut rest)? {
                before.push(take_number(&mut rest)?);
            }
            tables.push(Table { name, pieces, before });
        }
        let whole = tables.iter().all(|table| table.before.iter().all(|at| *at < tables.len()));
        whole.then_some(Self { sum, tables })
    }
}

fn closure<'n>(from: BTreeSet<usize>, next: impl Fn(usize) -> &'n Vec<usize>) -> BTreeSet<usize> {
    let (mut all, mut open) = (from.clone(), from.into_iter().collect::<Vec<_>>());
    while let Some(at) = open.pop() {
        open.extend(next(at).iter().copied().filter(|at| all.insert(*at)));
    }
    all
}

/// What follows each header up to the next one, with the first two names of the header.
fn pieces(text: &str) -> Vec<(Option<String>, Range<usize>)> {
    let tokens = toml_parser::Source::new(text).lex().into_vec();
    let mut headers = Headers { text, open: None, found: Vec::new() };
    parse_document(&tokens, &mut headers, &mut ());
    let ends =
        headers.found.iter().skip(1).map(|(start, _)| *start).chain([text.len()]).collect::<Vec<_>>();
    headers.found.into_iter().zip(ends).map(|((start, name), end)| (name, start..end)).collect()
}

/// Collects the headers of tables while a document is parsed.
struct Headers<'t> {
    text: &'t str,
    /// Where the header that is being read begins, and its names so far: nothing for one in quotes.
    open: Option<(usize, Vec<Option<&'t str>>)>,
    found: Vec<(usize, Option<String>)>,
}

impl Headers<'_> {
    fn begin(&mut self, span: toml_parser::Span) {
        self.open = Some((span.start(), Vec::new()));
    }

    fn end(&mut self) {
        if let Some((start, names)) = self.open.take() {
            let name = match names.as_slice() {
                [Some(kind), Some(name), ..] => Some(format!("{kind}.{name}")),
                _ => None,
            };
            self.found.push((start, name));
        }
    }
}

impl EventReceiver for Headers<'_> {
    fn std_table_open(&mut self, span: toml_parser::Span, _: &mut dyn ErrorSink) {
        self.begin(span);
    }

    fn array_table_open(&mut self, span: toml_parser::Span, _: &mut dyn ErrorSink) {
        self.begin(span);
    }

    fn simple_key(&mut self, span: toml_parser::Span, quotes: Option<Encoding>, _: &mut dyn ErrorSink) {
        if let Some((_, names)) = &mut self.open {
            names.push(self.text.get(span.start()..span.end()).filter(|_| quotes.is_none()));
        }
    }

    fn std_table_close(&mut self, _: toml_parser::Span, _: &mut dyn ErrorSink) {
        self.end();
    }

    fn array_table_close(&mut self, _: toml_parser::Span, _: &mut dyn ErrorSink) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{self, vars::Overrides};
    use crate::error::Source;

    fn graph(text: &str) -> Graph {
        let source = Source { name: "vcbuild.toml".into(), text: text.into() };
        let Ok(config) = config::load(source, &Overrides::default()) else { panic!("mistakes in\n{text}") };
        let Ok(graph) = Graph::new(config) else { panic!("cycles in\n{text}") };
        graph
    }

    fn sum() -> Digest {
        Digest::of(b"sum")
    }

    /// Everything that can hide where a table begins.
    const TRICKY: &str = r#"[project]
name = "p"

[vars]
x = ["one", "two"]

[compile.a] # [compile.b]
inputs = ["a"]
run = [["sh", "-c", """
[compile.b]
echo '[compile.c]' """]]
outputs = [
  "out",
]

[compile.b]
matrix = { x = "{{ x }}" }
tree = "compile.a"
run = [["[compile.a]"]]
outputs = ["{{ x }}"]

  [compile . c]
tree = "compile.d"
run = [['''
[compile.d]''']]
outputs = ["ä"]

[compile.a.env]
WORD = "ö"

["compile".d]
inputs = ["d"]
run = [["d"]]
outputs = ["d"]

[compile.c.env]
C = "1"
[image.i]
base = "scratch"
[[image.i.files]]
from = "compile.b[one]"
to = "/"
[save.s]
images = ["image.i"]
format = "oci-archive"
[compile.e]
inputs = ["e"]
run = [["e"]]
outputs = ["e"]
after = ["save.s"]
[compile.f]
inputs = ["f"]
run = [["f"]]
outputs = ["f"]
[compile.g]
inputs = ["f"]
run = [["f"]]
outputs = ["f"]
[compile.h]
inputs = ["f"]
run = [["f"]]
outputs = ["f"]
[compile.k]
inputs = ["f"]
run = [["f"]]
outputs = ["f"]
"#;

    #[test]
    fn a_part_has_what_is_behind_a_task_and_what_that_needs() {
        let graph = graph(TRICKY);
        let outline = Outline::new(TRICKY, sum(), &graph);
        let concerned = |tasks: &[&'static str]| {
            outline.concerned(tasks.iter().copied()).map(|found| found.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(concerned(&["compile.f"]), Some(vec!["compile.f"]));
        assert_eq!(concerned(&["compile.c"]), Some(vec!["compile.c", "compile.d"]));
        let chain = vec!["compile.a", "compile.b", "compile.e", "image.i", "save.s"];
        assert_eq!(concerned(&["compile.b[two]"]), Some(chain.clone()));
        assert_eq!(concerned(&["compile.e"]), Some(chain));
        assert_eq!(concerned(&["compile.a", "compile.f"]), None, "most of it");
        assert_eq!(concerned(&["compile.none"]), None, "a task that the outline does not know");
    }

    #[test]
    fn what_is_left_of_the_text_stays_where_it_was() {
        let graph = graph(TRICKY);
        let outline = Outline::new(TRICKY, sum(), &graph);
        let part = outline.part(TRICKY, &["compile.c", "compile.d"].into()).unwrap();
        assert_eq!(part.len(), TRICKY.len());
        for text in ["  [compile . c]\ntree", "[compile.d]''']]\noutputs", "[compile.c.env]\nC", "[vars]"] {
            assert_eq!(part.find(text), TRICKY.find(text), "{text}");
            assert!(part.contains(text), "{text}");
        }
        for text in ["[image", "echo", "[compile.a", "[compile.b", "ö", "[compile.f"] {
            assert!(!part.contains(text), "{text} is in\n{part}");
        }
        let left = super::tests::graph(&part);
        let names: Vec<&str> = left.nodes.iter().map(|node| node.name.0.as_str()).collect();
        assert_eq!(names, ["compile.c", "compile.d"]);
    }

    #[test]
    fn other_ends_of_lines_and_a_byte_order_mark_are_nothing_else() {
        let text = format!("\u{feff}{}", TRICKY.replace('\n', "\r\n"));
        let graph = graph(&text);
        let outline = Outline::new(&text, sum(), &graph);
        let part = outline.part(&text, &["compile.c", "compile.d"].into()).unwrap();
        let left = super::tests::graph(&part);
        let names: Vec<&str> = left.nodes.iter().map(|node| node.name.0.as_str()).collect();
        assert_eq!(names, ["compile.c", "compile.d"]);
        for piece in outline.tables.iter().flat_map(|table| &table.pieces) {
            assert!(text[piece.clone()].starts_with('['), "{}", &text[piece.clone()]);
        }
    }

    #[test]
    fn a_text_that_became_shorter_has_no_part() {
        let graph = graph(TRICKY);
        let outline = Outline::new(TRICKY, sum(), &graph);
        assert_eq!(outline.part(&TRICKY[..40], &Tables::new()), None);
    }

    #[test]
    fn it_survives_encoding_and_damage_is_no_panic() {
        let graph = graph(TRICKY);
        let outline = Outline::new(TRICKY, sum(), &graph);
        let bytes = outline.encode();
        assert_eq!(Outline::decode(&bytes), Some(outline));
        for at in 0..bytes.len() {
            Outline::decode(&bytes[..at]);
            let mut bad = bytes.clone();
            bad[at] ^= 0x81;
            if let Some(outline) = Outline::decode(&bad) {
                outline.part(TRICKY, &Tables::new());
                outline.concerned(["compile.a"].into_iter());
            }
        }
    }

    proptest! {
        /// Whatever reads whatever: a task of a part is the same task as in the whole, with the same edges.
        #[test]
        fn the_tasks_of_a_part_are_those_of_the_whole(
            reads in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12),
            after in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 12),
            changed in any::<prop::sample::Index>(),
        ) {
            let mut text = String::from("[project]\nname = 'p'\n");
            for (at, reads) in reads.iter().enumerate() {
                let earlier = |index: &prop::sample::Index| format!("compile.t{}", index.index(at));
                text += &format!("[compile.t{at}]\ninputs = ['t{at}']\nrun = [['x']]\noutputs = ['t{at}']\n");
                if at > 0 {
                    let files: Vec<String> =
                        reads.iter().enumerate().map(|(to, from)| {
                            format!("{{ from = '{}', to = '{to}/' }}", earlier(from))
                        }).collect();
                    text += &format!("files = [{}]\n", files.join(", "));
                    if let Some(after) = &after[at] {
                        text += &format!("after = ['{}']\n", earlier(after));
                    }
                }
            }
            let whole = graph(&text);
            let outline = Outline::new(&text, sum(), &whole);
            let changed = format!("compile.t{}", changed.index(reads.len()));
            if let Some(concerned) = outline.concerned([changed.as_str()].into_iter()) {
                let part = graph(&outline.part(&text, &concerned).unwrap());
                prop_assert_eq!(part.nodes.len(), concerned.len());
                for node in &part.nodes {
                    let same = whole.node(whole.find(&node.name.0).unwrap());
                    let names = |graph: &Graph, ids: &[crate::schedule::TaskId]| -> BTreeSet<String> {
                        ids.iter().map(|id| graph.node(*id).name.0.clone()).collect()
                    };
                    prop_assert_eq!(names(&part, &node.reads), names(&whole, &same.reads));
                    prop_assert_eq!(names(&part, &node.after), names(&whole, &same.after));
                }
                // Nobody outside of the part reads or follows one inside that may run again.
                for node in &whole.nodes {
                    let before = names_before(&whole, node);
                    if before.contains(&changed) {
                        prop_assert!(concerned.contains(node.name.0.as_str()));
                    }
                }
            }
        }
    }

    /// Everything before a task.
    fn names_before(graph: &Graph, node: &crate::graph::Node) -> BTreeSet<String> {
        let own = graph.find(&node.name.0).unwrap();
        graph.closure(&[own].into()).iter().map(|id| graph.node(*id).name.0.clone()).collect()
    }
}
