//! The one line that runs everything on a host: it ends what it runs when the connection is gone, says how
//! it ended, and leaves nothing behind. Also the one function that quotes. Knows no connection.

/// Said on standard output before anything else: what comes before is the chatter of a login shell.
pub const BEGIN: &[u8] = b"\x02vcbuild\n";
/// Said on standard error every second: the host lives.
pub const BEAT: u8 = 1;
/// Said on standard error at the end, before the exit status and a line feed.
pub const END: u8 = 2;

/// A watchdog says every second that it lives. When it cannot, the connection is gone: what runs has seen
/// the end of its input and gets five seconds to end by itself, then all of the session is killed, which
/// sshd (or sudo) has made for nobody else. A time limit is the net below that.
const WRAPPER: &str = r#"LC_ALL=C; export LC_ALL; umask 022; PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH; l=$1; shift; cd / || exit 1; ( trap "" PIPE HUP; s=; trap "kill \$s; exit" TERM; n=0; while [ $n -lt $l ]; do sleep 1 3>&- & s=$!; wait $s; n=$((n+1)); printf "\001" >&3 || break; done 2>/dev/null; n=0; while [ $n -lt 5 ] && kill -0 $$; do sleep 1; n=$((n+1)); done; kill -KILL 0 ) </dev/null 3>&2 >/dev/null 2>&1 & w=$!; printf "\002vcbuild\n"; "$@"; s=$?; kill -TERM $w 2>/dev/null; wait $w 2>/dev/null; printf "\002%d\n" $s >&2"#;

/// Who does what is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// The user who logs in.
    User,
    /// Root, through sudo.
    Root,
}

/// The command line that runs `argv` for at most so many seconds.
pub fn line(argv: &[&str], who: As, seconds: u64) -> String {
    let sudo: &[&str] = if who == As::Root { &["sudo", "-n", "--"] } else { &[] };
    let seconds = seconds.to_string();
    let wrapper = ["sh", "-c", WRAPPER, "vcbuild", &seconds];
    sudo.iter().chain(&wrapper).chain(argv).map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// A word for the user's login shell, whichever that is: sh, bash, zsh, fish or csh. Backslashes stand
/// outside of quotes, as fish reads them inside.
pub fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./:@,+-=%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) && !word.starts_with('=') {
        return word.to_string();
    }
    let mut out = String::new();
    let mut quoted = false;
    for c in word.chars() {
        let outside = c == '\'' || c == '\\';
        if quoted == outside {
            out.push('\'');
            quoted = !quoted;
        }
        if outside {
            out.push('\\');
        }
        out.push(c);
    }
    if quoted {
        out.push('\'');
    }
    if out.is_empty() { "''".into() } else { out }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_back_what_was_quoted(words in prop::collection::vec("[^\0]{0,12}", 1..5)) {
            let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
            for shell in ["sh", "bash"] {
                let script = format!("for w in {}; do printf '%s\\0' \"$w\"; done", quoted.join(" "));
                let output = Command::new(shell).args(["-c", &script]).output().unwrap();
                let expected: Vec<u8> =
                    words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
                prop_assert_eq!(&output.stdout, &expected);
            }
        }
    }

    #[test]
    fn hard_words() {
        for (word, quoted) in
            [("", "''"), ("a-b", "a-b"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), (r"a\", r"'a'\\")]
        {
            assert_eq!(quote(word), quoted);
        }
    }
}
