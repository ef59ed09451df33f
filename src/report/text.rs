//! Numbers, names and foreign text as people read them; colours. Knows no event and no terminal:
//! what it gives is decided by its arguments alone.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Not one escape sequence for colour.
    Off,
    /// ANSI sequences of the sixteen basic colours.
    On,
}

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Something was done.
    Good,
    /// Something failed.
    Bad,
    /// Something deserves a look.
    Care,
    /// Advice and remarks.
    Hint,
    /// Of little weight.
    Faint,
}

impl Colours {
    /// `text` in the colour of `style`.
    pub fn paint<'a>(self, style: Style, text: &'a str) -> Cow<'a, str> {
        let code = match style {
            Style::Good => "1;32",
            Style::Bad => "1;31",
            Style::Care => "1;33",
            Style::Hint => "1;36",
            Style::Faint => "2",
        };
        match self {
            Self::Off => text.into(),
            Self::On => format!("\x1b[{code}m{text}\x1b[0m").into(),
        }
    }
}

/// Bytes in decimal units: `512 B`, `842.1 kB`, `1.2 GB`.
pub fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count} B");
    }
    let mut size = 1000;
    for unit in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        let tenths = (u128::from(count) * 10 + size / 2) / size;
        if tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        size *= 1000;
    }
    panic!("BUG: {count} bytes are more than a u64 holds")
}

/// A duration that is over: `0.004 s`, `0.31 s`, `2.3 s`, `12 s`, `1 min 04 s`, `2 h 05 min`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.01 {
        format!("{:.3} s", seconds.max(0.0))
    } else if seconds < 0.995 {
        format!("{seconds:.2} s")
    } else if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else {
        elapsed(std::time::Duration::from_secs(seconds.round() as u64))
    }
}

/// A duration that goes on, in whole seconds, minutes or hours: `12 s`, `1 min 04 s`, `2 h 05 min`.
pub fn elapsed(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `1 task`, `2 tasks`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// One line of text from outside that cannot steer a terminal: escape sequences are dropped, a tab
/// is four spaces, a line break one, and other control and direction characters are written out.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find(steers) {
        out.push_str(&rest[..found]);
        rest = &rest[found..];
        if let Some(length) = escape_sequence(rest) {
            rest = &rest[length..];
            continue;
        }
        let mut chars = rest.chars();
        match chars.next() {
            Some('\t') => out.push_str("    "),
            Some('\n') => out.push(' '),
            Some('\r') if chars.as_str().starts_with('\n') => {}
            Some(other) => out.extend(other.escape_unicode()),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.into()
}

/// The lines of a command's output as a terminal would show them: of a line that was written over,
/// the last writing; each `clean`; bytes that are no UTF-8 replaced.
pub fn log_lines(log: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(log);
    text.lines()
        .map(|line| line.trim_end_matches('\r'))
        .map(|line| clean(line.rsplit('\r').next().unwrap_or_default()).trim_end().to_string())
        .collect()
}

/// The columns of a terminal that `text` fills. The text is `clean` and has no colour.
pub fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// `text` cut to `columns` of a terminal, the cut shown by `…`. The text is `clean` and has no colour.
pub fn fit(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return text.into();
    }
    let mut used = 1;
    let mut out: String = text
        .chars()
        .take_while(|c| {
            used += columns_of(*c);
            used <= columns
        })
        .collect();
    if columns > 0 {
        out.push('…');
    }
    out.into()
}

/// Whether a terminal does something else with `c` than to draw it in its place.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length in bytes of the whole escape sequence (ECMA-48: CSI, OSC and its like, or two
/// characters) that `text` begins with.
fn escape_sequence(text: &str) -> Option<usize> {
    let after = text.strip_prefix('\x1b')?;
    match after.chars().next()? {
        '[' => {
            let end = 1 + after[1..].find(|c: char| !(' '..='?').contains(&c))?;
            matches!(after.as_bytes()[end], b'@'..=b'~').then_some(1 + end + 1)
        }
        ']' | 'P' | '_' | '^' | 'X' => match (after.find('\x07'), after.find("\x1b\\")) {
            (Some(bell), Some(end)) if bell < end => Some(1 + bell + 1),
            (_, Some(end)) => Some(1 + end + 2),
            (Some(bell), None) => Some(1 + bell + 1),
            (None, None) => None,
        },
        c @ ('0'..='9' | 'A'..='Z' | '=' | '>' | '\\' | 'a'..='z') => Some(1 + c.len_utf8()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_in_decimal_units() {
        let shown =
            [0, 999, 1000, 842_100, 999_949, 999_950, 1_234_567, 12_000_000_000, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "999 B", "1.0 kB", "842.1 kB", "999.9 kB", "1.0 MB", "1.2 MB", "12.0 GB", "18.4 EB"]
        );
    }

    #[test]
    fn seconds_get_coarser() {
        let shown = [0.0, 0.0042, 0.0123, 0.31, 0.999, 2.34, 9.96, 12.4, 59.6, 64.0, 7500.0].map(seconds);
        assert_eq!(
            shown,
            [
                "0.000 s",
                "0.004 s",
                "0.01 s",
                "0.31 s",
                "1.0 s",
                "2.3 s",
                "10 s",
                "12 s",
                "1 min 00 s",
                "1 min 04 s",
                "2 h 05 min"
            ]
        );
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(clean("plain — Grüße"), "plain — Grüße");
        assert_eq!(clean("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b]8;;http://a\x1b\\y"), "red xy");
        assert_eq!(clean("a\tb\r\nc\u{8}\u{9b}2J"), "a    b c\\u{8}\\u{9b}2J");
        assert_eq!(clean("\u{202e}gpj.exe \x1b[31"), "\\u{202e}gpj.exe \\u{1b}[31");
    }

    #[test]
    fn a_log_shows_what_was_written_last() {
        let log = b"10%\r50%\r100%\r\n\x1b[32mok\x1b[0m\t\xff\n\nend";
        assert_eq!(log_lines(log), ["100%", "ok    \u{fffd}", "", "end"]);
    }

    #[test]
    fn fitting_counts_columns() {
        assert_eq!(fit("short", 5), "short");
        assert_eq!(fit("longer", 5), "long…");
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("ab", 0), "");
    }

    const TEXT: &str = "(\\PC|[\\x00-\\x1f\u{7f}-\u{9f}]|\x1b\\[[0-9;]*m){0,40}";

    proptest! {
        #[test]
        fn clean_text_has_nothing_that_steers(text in TEXT) {
            prop_assert!(!clean(&text).chars().any(steers));
        }

        #[test]
        fn fitted_text_fits(text in "\\PC{0,40}", columns in 0_usize..50) {
            prop_assert!(width(&fit(&text, columns)) <= columns);
        }
    }
}
