//! What is wrong in the user's files, all of it at once, each with its place underlined as rustc does,
//! and a count at the end. Knows what a `Mistake` is, not who finds them.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::output::Settings;
use super::text::{self, Colours, Style, clean};
use crate::error::Mistake;

/// The mistakes as text: those without a place first, then by file and place; equal ones once.
pub fn render(mistakes: &[Mistake], settings: &Settings) -> String {
    let renderer = match settings.colours {
        Colours::Off => Renderer::plain(),
        Colours::On => Renderer::styled(),
    };
    let sorted = sorted(mistakes);
    let mut out = String::new();
    for mistake in &sorted {
        // A title of several lines would be aligned by the renderer; ours is one.
        let message = clean(&mistake.message);
        match &mistake.place {
            None => {
                out.push_str(&settings.colours.paint(Style::Bad, "error:"));
                out.push_str(&format!(" {message}\n"));
            }
            Some((source, span)) => {
                let span = inside(&source.text, span.clone());
                let snippet = Snippet::source(&source.text)
                    .path(clean(&source.name).into_owned())
                    .annotation(AnnotationKind::Primary.span(span));
                let group = Level::ERROR.primary_title(message).element(snippet);
                out.push_str(&renderer.render(&[group]));
                out.push('\n');
            }
        }
        for hint in &mistake.hints {
            let label = settings.colours.paint(Style::Hint, "hint:");
            out.push_str(&format!("{label} {}\n", clean(hint)));
        }
        out.push('\n');
    }
    out.push_str(&settings.colours.paint(Style::Bad, "error:"));
    out.push_str(&format!(" {}{}\n", text::count(sorted.len(), "mistake"), place(&sorted)));
    out
}

fn sorted(mistakes: &[Mistake]) -> Vec<&Mistake> {
    let mut sorted: Vec<&Mistake> = Vec::new();
    for mistake in mistakes {
        if !sorted.contains(&mistake) {
            sorted.push(mistake);
        }
    }
    sorted.sort_by_key(|mistake| {
        mistake.place.as_ref().map(|(source, span)| (source.name.as_str(), span.start, span.end))
    });
    sorted
}

/// ` in `vcbuild.toml``, if there is one file only; ` in 2 files`.
fn place(mistakes: &[&Mistake]) -> String {
    let mut names: Vec<&str> =
        mistakes.iter().filter_map(|mistake| Some(mistake.place.as_ref()?.0.name.as_str())).collect();
    names.dedup();
    match names[..] {
        [] => String::new(),
        [name] => format!(" in `{}`", clean(name)),
        [..] => format!(" in {} files", names.len()),
    }
}

/// The span cut to the text and widened to whole characters, so that it can be drawn.
fn inside(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;
    use crate::error::Source;
    use crate::report::scenes::NORMAL;

    fn source(name: &str, text: &str) -> Arc<Source> {
        Arc::new(Source { name: name.to_string(), text: text.to_string() })
    }

    fn at(source: &Arc<Source>, what: &str, message: &str) -> Mistake {
        let start = source.text.find(what).unwrap();
        Mistake::new(message).at(source, start..start + what.len())
    }

    #[test]
    fn all_at_once_in_the_order_of_the_file() {
        let file = source(
            "vcbuild.toml",
            "[project]\nname = \"grüße-日本\"  # comment\n\n[image.web]\n\tfiles = [\"compile.ap\"]\n\tbase = \"日本/語\" # é\n\n[patch.p]\ntree = \"clone.x\"",
        );
        let mistakes = [
            Mistake::new("unexpected end of file").at(&file, file.text.len()..file.text.len()),
            at(&file, "\"日本/語\"", "`日本/語` is not a reference of an image"),
            at(&file, "\"compile.ap\"", "`image.web` names `compile.ap`, which is not declared")
                .hint("did you mean `compile.app`?"),
            at(&file, "\"grüße-日本\"", "the name may hold `[a-z0-9-]` only"),
            at(&file, "\"grüße-日本\"", "the name may hold `[a-z0-9-]` only"),
            Mistake::new("`--set` has no `=`").hint("write `--set name=value`"),
        ];
        assert_data_eq!(
            render(&mistakes, &NORMAL),
            str![[r#"
error: `--set` has no `=`
hint: write `--set name=value`

error: the name may hold `[a-z0-9-]` only
 --> vcbuild.toml:2:8
  |
2 | name = "grüße-日本"  # comment
  |        ^^^^^^^^^^^^

error: `image.web` names `compile.ap`, which is not declared
 --> vcbuild.toml:5:11
  |
5 |     files = ["compile.ap"]
  |              ^^^^^^^^^^^^
hint: did you mean `compile.app`?

error: `日本/語` is not a reference of an image
 --> vcbuild.toml:6:9
  |
6 |     base = "日本/語" # é
  |            ^^^^^^^^^

error: unexpected end of file
 --> vcbuild.toml:9:17
  |
9 | tree = "clone.x"
  |                 ^

error: 5 mistakes in `vcbuild.toml`

"#]]
            .raw()
        );
    }

    #[test]
    fn a_span_of_several_lines_and_control_characters() {
        let file = source("a\u{1b}[2Jb.toml", "x = \"\"\"\n\u{1b}[31mred\r\nline\n\"\"\"\ny = 1\n");
        let mistakes =
            [at(&file, &file.text[4..22], "not \u{1b}[2J here"), at(&file, "y", "unknown key `y`")];
        assert_data_eq!(
            render(&mistakes, &NORMAL),
            str![[r#"
error: not  here
 --> ab.toml:1:5
  |
1 |   x = """
  |  _____^
2 | | ␛[31mred
3 | | line
  | |____^

error: unknown key `y`
 --> ab.toml:5:1
  |
5 | y = 1
  | ^

error: 2 mistakes in `ab.toml`

"#]]
            .raw()
        );
    }

    #[test]
    fn several_files_and_a_single_mistake() {
        let (one, two) = (source("vcbuild.toml", "a = 1\n"), source("vars.yaml", "b: 2\n"));
        let both = render(&[at(&one, "a", "unknown key `a`"), at(&two, "b", "unknown key `b`")], &NORMAL);
        assert!(both.ends_with("\nerror: 2 mistakes in 2 files\n"), "{both}");
        let single = render(&[at(&one, "a", "unknown key `a`")], &NORMAL);
        assert!(single.ends_with("\nerror: 1 mistake in `vcbuild.toml`\n"), "{single}");
    }

    const TEXT: &str = "(\\PC|[\t\r\n\x1b]){0,30}";

    proptest! {
        #[test]
        fn any_span_of_any_text_is_drawn(text in TEXT, start in 0_usize..100, length in 0_usize..100) {
            let file = source("f", &text);
            let out = render(&[Mistake::new("m").at(&file, start..start + length)], &NORMAL);
            prop_assert!(out.starts_with("error: m\n"));
            prop_assert!(!out.contains('\x1b'));
        }
    }
}
