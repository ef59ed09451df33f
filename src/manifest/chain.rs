//! Lets `a.b.c | default(…)` and `a.b.c is defined` see an undefined link anywhere in the chain, as
//! Ansible does, while every other use of something undefined stays an error: such chains are written
//! as one call before a template is compiled. Knows tokens, not the grammar.

use std::ops::Range;

/// The function that walks a chain: its first argument, then one key for each link.
pub const FUNCTION: &str = "__chain";

/// A template with its chains rewritten.
pub struct Rewritten {
    /// The text to compile; it has as many lines as the original.
    pub text: String,
    edits: Vec<Edit>,
}

struct Edit {
    from: Range<usize>,
    to: String,
}

impl Rewritten {
    /// The bytes of the original behind some bytes of the rewritten text.
    pub fn original(&self, range: Range<usize>) -> Range<usize> {
        self.place(range.start, |edit| edit.from.start)..self.place(range.end, |edit| edit.from.end)
    }

    fn place(&self, at: usize, inside: impl Fn(&Edit) -> usize) -> usize {
        let mut grown = 0;
        for edit in &self.edits {
            let start = edit.from.start + grown;
            if at < start || (at == start && edit.from.is_empty()) {
                break;
            }
            if at < start + edit.to.len() {
                return inside(edit);
            }
            grown = grown + edit.to.len() - edit.from.len();
        }
        at - grown
    }
}

/// Rewrites the chains of a template.
pub fn rewrite(source: &str) -> Rewritten {
    let mut edits = Vec::new();
    for tag in tags(source) {
        let tokens = tokens(source, tag);
        for at in 0..tokens.len() {
            if asks(source, &tokens, at) {
                chain(source, &tokens, at, &mut edits);
            }
        }
    }
    edits.sort_by_key(|edit| (edit.from.start, edit.from.end));
    let (mut text, mut done) = (String::with_capacity(source.len()), 0);
    for edit in &edits {
        text.push_str(&source[done..edit.from.start]);
        text.push_str(&edit.to);
        done = edit.from.end;
    }
    text.push_str(&source[done..]);
    Rewritten { text, edits }
}

/// The end of the expression that begins at `start`, behind a `{{`: where its `}}` is.
pub fn expression_end(source: &str, start: usize) -> Option<usize> {
    let found = tokens(source, start..source.len());
    let mut depth = 0usize;
    for (at, token) in found.iter().enumerate() {
        match (token.kind, &source[token.place.clone()]) {
            (Kind::Mark, "(" | "[" | "{") => depth += 1,
            (Kind::Mark, "}")
                if depth == 0
                    && found.get(at + 1).is_some_and(|next| {
                        next.place.start == token.place.end && &source[next.place.clone()] == "}"
                    }) =>
            {
                return Some(token.place.start);
            }
            (Kind::Mark, ")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    Text,
    Mark,
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    place: Range<usize>,
}

/// The insides of all `{{ }}` and `{% %}`, without comments and raw blocks.
fn tags(source: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|offset| at + offset) {
        let inside = open + 2;
        match source.as_bytes().get(open + 1) {
            Some(b'#') => match source[inside..].find("#}") {
                Some(end) => at = inside + end + 2,
                None => return found,
            },
            Some(b'{') => match expression_end(source, inside) {
                Some(end) => {
                    found.push(inside..end);
                    at = end + 2;
                }
                None => return found,
            },
            Some(b'%') => match block_end(source, inside) {
                Some(end) => {
                    let word = source[inside..end].trim_matches(['-', '+']).trim();
                    at = end + 2;
                    if word == "raw" {
                        match raw_end(source, at) {
                            Some(after) => at = after,
                            None => return found,
                        }
                    } else {
                        found.push(inside..end);
                    }
                }
                None => return found,
            },
            _ => at = open + 1,
        }
    }
    found
}

fn block_end(source: &str, start: usize) -> Option<usize> {
    let found = tokens(source, start..source.len());
    found
        .windows(2)
        .find(|pair| {
            &source[pair[0].place.clone()] == "%"
                && &source[pair[1].place.clone()] == "}"
                && pair[0].place.end == pair[1].place.start
        })
        .map(|pair| pair[0].place.start)
}

/// The end of the `{% endraw %}` that comes next.
fn raw_end(source: &str, mut at: usize) -> Option<usize> {
    loop {
        at += source[at..].find("{%")? + 2;
        let end = at + source[at..].find("%}")?;
        if source[at..end].trim_matches(['-', '+']).trim() == "endraw" {
            return Some(end + 2);
        }
    }
}

/// The tokens in a range, up to the first `}}` or `%}` that is not in brackets.
fn tokens(source: &str, range: Range<usize>) -> Vec<Token> {
    let bytes = source.as_bytes();
    let mut found: Vec<Token> = Vec::new();
    let (mut at, mut depth) = (range.start, 0usize);
    // The end of a `}` or `%` in no brackets: with a `}` right behind it the tag ends.
    let mut closing = None;
    while at < range.end {
        let start = at;
        let kind = match bytes[at] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < range.end && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(range.end);
                Kind::Text
            }
            byte if byte.is_ascii_digit() => {
                // `a.0.b` has two links, `1.5` is one number.
                let link = found.last().is_some_and(|last| &source[last.place.clone()] == ".");
                while at < range.end
                    && (bytes[at].is_ascii_alphanumeric()
                        || (bytes[at] == b'.'
                            && !link
                            && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)))
                {
                    at += 1;
                }
                Kind::Number
            }
            byte if byte == b'_' || byte.is_ascii_alphabetic() || !byte.is_ascii() => {
                while at < range.end
                    && (bytes[at] == b'_' || bytes[at].is_ascii_alphanumeric() || !bytes[at].is_ascii())
                {
                    at += 1;
                }
                Kind::Word
            }
            byte => {
                at += 1;
                match byte {
                    b'(' | b'[' | b'{' => depth += 1,
                    b'}' if depth == 0 && closing == Some(start) => {
                        found.push(Token { kind: Kind::Mark, place: start..at });
                        return found;
                    }
                    b'}' | b'%' if depth == 0 => closing = Some(at),
                    b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                Kind::Mark
            }
        };
        // An escape at the end may have jumped into a character.
        while !source.is_char_boundary(at) {
            at += 1;
        }
        found.push(Token { kind, place: start..at });
    }
    found
}

/// Whether at this token the operand before it is asked for its existence.
fn asks(source: &str, tokens: &[Token], at: usize) -> bool {
    let text = |offset: usize| tokens.get(at + offset).map_or("", |token| &source[token.place.clone()]);
    match text(0) {
        "|" => matches!(text(1), "default" | "d" | "mandatory"),
        "is" if text(1) == "not" => matches!(text(2), "defined" | "undefined"),
        "is" => matches!(text(1), "defined" | "undefined"),
        _ => false,
    }
}

const KEYWORDS: [&str; 22] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "elif",
    "for",
    "set",
    "call",
    "filter",
    "print",
    "do",
    "with",
    "include",
    "import",
    "from",
    "extends",
    "macro",
    "block",
    "recursive",
];

fn ends_operand(source: &str, token: &Token) -> bool {
    let text = &source[token.place.clone()];
    match token.kind {
        Kind::Word => !KEYWORDS.contains(&text),
        Kind::Number | Kind::Text => true,
        Kind::Mark => matches!(text, ")" | "]" | "}"),
    }
}

/// Rewrites the chain that ends before the token `end`, if there is one.
fn chain(source: &str, tokens: &[Token], end: usize, edits: &mut Vec<Edit>) -> Option<()> {
    let text = |at: usize| &source[tokens[at].place.clone()];
    let mut links: Vec<Edit> = Vec::new();
    let mut called = false;
    let mut head_end = None;
    let mut at = end.checked_sub(1)?;
    let start = loop {
        let token = &tokens[at];
        let dotted = at >= 2 && text(at - 1) == ".";
        match (token.kind, text(at)) {
            (Kind::Word | Kind::Number, word) if dotted => {
                if !called {
                    let key = match token.kind {
                        Kind::Number => format!(", {word}"),
                        _ => format!(", \"{word}\""),
                    };
                    links.push(Edit { from: tokens[at - 1].place.start..token.place.end, to: key });
                    head_end = Some(tokens[at - 1].place.start);
                }
                at -= 2;
            }
            (Kind::Mark, close @ (")" | "]" | "}")) => {
                let open = matching(source, tokens, at)?;
                let operand = open >= 1
                    && (ends_operand(source, &tokens[open - 1])
                    // After a dot a keyword is a name.
                    || (open >= 2 && tokens[open - 1].kind == Kind::Word && text(open - 2) == "."));
                if !operand {
                    // `(a.b) | default(1)`: what is in the brackets is asked.
                    if links.is_empty() && close == ")" && !called {
                        return chain(source, tokens, at, edits);
                    }
                    break open;
                }
                if close == "}" {
                    return None;
                }
                let slice = (open + 1..at).any(|inner| text(inner) == ":");
                if close == "]" && !slice && !called {
                    links.push(Edit { from: token.place.clone(), to: ")".into() });
                    links.push(Edit { from: tokens[open].place.clone(), to: ", (".into() });
                    head_end = Some(tokens[open].place.start);
                } else {
                    called = true;
                }
                at = open - 1;
            }
            (Kind::Word, word) if KEYWORDS.contains(&word) => return None,
            (Kind::Word | Kind::Number | Kind::Text, _) => break at,
            _ => return None,
        }
    };
    head_end?;
    // The name of a filter or of a test is no operand.
    if start >= 1 && (matches!(text(start - 1), "|" | "is") || (start >= 2 && text(start - 2) == "is")) {
        return None;
    }
    let first = tokens[start].place.start;
    edits.push(Edit { from: first..first, to: format!("{FUNCTION}(") });
    edits.append(&mut links);
    let last = tokens[end - 1].place.end;
    edits.push(Edit { from: last..last, to: ")".into() });
    Some(())
}

fn matching(source: &str, tokens: &[Token], close: usize) -> Option<usize> {
    let mut depth = 0usize;
    for at in (0..=close).rev() {
        if tokens[at].kind != Kind::Mark {
            continue;
        }
        match &source[tokens[at].place.clone()] {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_chains_that_are_asked_are_rewritten() {
        for (source, wanted) in [
            ("{{ a|default(1) }}", "{{ a|default(1) }}"),
            ("{{ a.b }}", "{{ a.b }}"),
            ("{{ a.b|default(1) }}", "{{ __chain(a, \"b\")|default(1) }}"),
            ("{{ a.b.c | d('x') }}", "{{ __chain(a, \"b\", \"c\") | d('x') }}"),
            ("{{ a['b'][i].c | d }}", "{{ __chain(a, ('b'), (i), \"c\") | d }}"),
            ("{{ a.0.b | d }}", "{{ __chain(a, 0, \"b\") | d }}"),
            ("{% if a.b is defined %}", "{% if __chain(a, \"b\") is defined %}"),
            ("{% if not a.b is not undefined -%}", "{% if not __chain(a, \"b\") is not undefined -%}"),
            ("{{ f(x).y|d }}", "{{ __chain(f(x), \"y\")|d }}"),
            ("{{ a.get('b').c|d }}", "{{ __chain(a.get('b'), \"c\")|d }}"),
            ("{{ a.get('b')|d }}", "{{ a.get('b')|d }}"),
            ("{{ (a|d({})).b|d }}", "{{ __chain((a|d({})), \"b\")|d }}"),
            ("{{ (a.b)|d }}", "{{ (__chain(a, \"b\"))|d }}"),
            ("{{ a.b|lower|d }}", "{{ a.b|lower|d }}"),
            ("{{ a[b.c|d(1)].e|d }}", "{{ __chain(a, (__chain(b, \"c\")|d(1)), \"e\")|d }}"),
            ("{{ a[1:2]|d }}", "{{ a[1:2]|d }}"),
            ("{{ x + a.b|d }}", "{{ x + __chain(a, \"b\")|d }}"),
            ("{{ [a.b|d, {'k': c.d|d}] }}", "{{ [__chain(a, \"b\")|d, {'k': __chain(c, \"d\")|d}] }}"),
            ("{# {{ a.b|d }} #}", "{# {{ a.b|d }} #}"),
            ("{% raw %}{{ a.b|d }}{% endraw %}", "{% raw %}{{ a.b|d }}{% endraw %}"),
            ("{{ 'a.b|d }}' }}", "{{ 'a.b|d }}' }}"),
            ("a.b|d {{ x }} it's", "a.b|d {{ x }} it's"),
        ] {
            assert_eq!(rewrite(source).text, wanted);
        }
    }

    #[test]
    fn places_lead_back() {
        let source = "{{ a.b.c|d }} {{ wrong }}";
        let rewritten = rewrite(source);
        let at = rewritten.text.find("wrong").unwrap();
        assert_eq!(&source[rewritten.original(at..at + 5)], "wrong");
        let at = rewritten.text.find("__chain").unwrap();
        let end = rewritten.text.find("|d").unwrap();
        assert_eq!(&source[rewritten.original(at..end)], "a.b.c");
    }

    #[test]
    fn the_end_of_an_expression() {
        for (source, end) in [
            ("{{ a }}", Some(5)),
            ("{{ {'a': {}} }}", Some(13)),
            ("{{ '}}' }}", Some(8)),
            ("{{ a", None),
            ("{{ '}}", None),
        ] {
            assert_eq!(expression_end(source, 2), end, "{source}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_rewritten_without_a_panic(
            text in "([{}%#'\"|.()\\[\\]a-cé\\\\ ]|\\{\\{|\\}\\}|is |defined|default)*"
        ) {
            let rewritten = rewrite(&text);
            prop_assert_eq!(rewritten.text.lines().count(), text.lines().count());
            for (at, _) in rewritten.text.char_indices() {
                let back = rewritten.original(at..rewritten.text.len());
                prop_assert!(back.start <= back.end && text.get(back).is_some());
            }
        }
    }
}
