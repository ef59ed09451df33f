//! A file by http or https: redirects, proxies of the environment and the system's certificates; what
//! breaks off goes on where it was. Checks nothing of the content: whoever calls it knows its digest.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::stop::Stop;
use crate::error::{Error, Failure, Result, io_words};

/// A server that says nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// The first pause before another try; each one after it is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// Tries without a single byte between them.
const TRIES: u32 = 5;
/// How often is looked whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(50);
/// The largest file, in bytes.
const LARGEST: u64 = 1 << 40;

/// What comes from the thread that reads.
enum Came {
    /// The answer begins: from which byte of the file, and how long the whole is.
    Head(u64, Option<u64>),
    Bytes(Vec<u8>),
    /// All of it was there.
    End,
    /// It is worth another try, perhaps after a while.
    Again(String, Option<Duration>),
    /// It is not.
    Never(String),
}

/// Writes what an address gives. `progress` hears of bytes so far, of so many.
///
/// Fails if the server refuses, if it does not answer five times, and if the user wants to stop.
pub fn get(
    url: &str,
    into: &mut dyn Write,
    stop: &Stop,
    progress: &dyn Fn(u64, Option<u64>),
) -> Result<()> {
    let agent = agent();
    let (mut done, mut tries, mut pause) = (0_u64, 0, PAUSE);
    loop {
        let (before, (why, after)) = (
            done,
            match attempt(&agent, url, into, stop, progress, &mut done)? {
                None => return Ok(()),
                Some(trouble) => trouble,
            },
        );
        (tries, pause) = if done > before { (1, PAUSE) } else { (tries + 1, pause) };
        if tries >= TRIES {
            return Err(Failure::new(why).hint("run again: it may be a passing trouble").into());
        }
        wait(after.unwrap_or(pause), stop)?;
        pause *= 2;
    }
}

fn wait(time: Duration, stop: &Stop) -> Result<()> {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        stop.check()?;
        std::thread::sleep(left.min(LOOK));
    }
    Ok(())
}

fn agent() -> Agent {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(IDLE))
        .max_redirects(10)
        .user_agent(concat!("vcbuild/", env!("CARGO_PKG_VERSION")));
    Agent::new_with_config(config.build())
}

/// One try: nothing if all has come, or why it has to be tried again and when.
fn attempt(
    agent: &Agent,
    url: &str,
    into: &mut dyn Write,
    stop: &Stop,
    progress: &dyn Fn(u64, Option<u64>),
    done: &mut u64,
) -> Result<Option<(String, Option<Duration>)>> {
    let (send, receive) = sync_channel(8);
    let (agent, address, from) = (agent.clone(), url.to_string(), *done);
    // A thread of its own: nothing else can end a read that never ends. Left alone it ends at its next
    // byte, or with the process.
    std::thread::spawn(move || {
        let last = match read(&agent, &address, from, &send) {
            Ok(last) | Err(last) => last,
        };
        let _ = send.send(last);
    });
    let (mut skip, mut total) = (0, None);
    loop {
        match next(&receive, stop)? {
            None => return Ok(Some((format!("the server said nothing for {} s", IDLE.as_secs()), None))),
            Some(Came::Head(start, whole)) => {
                // A server that does not know ranges begins again.
                skip = done.saturating_sub(start);
                if start > *done {
                    return Err(Error::failed("the server left something out"));
                }
                total = whole;
            }
            Some(Came::Bytes(bytes)) => {
                let known = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                skip -= known as u64;
                let new = &bytes[known..];
                *done += new.len() as u64;
                if *done > LARGEST {
                    return Err(Error::failed("the server sends without an end"));
                }
                into.write_all(new)
                    .map_err(|error| Error::failed(format!("write: {}", io_words(&error))))?;
                progress(*done, total);
            }
            Some(Came::End) => return Ok(None),
            Some(Came::Again(why, after)) => return Ok(Some((why, after))),
            Some(Came::Never(why)) => return Err(Error::failed(why)),
        }
    }
}

/// The next thing that comes; nothing if it takes too long.
fn next(receive: &Receiver<Came>, stop: &Stop) -> Result<Option<Came>> {
    let until = Instant::now() + IDLE + LOOK;
    while Instant::now() < until {
        stop.check()?;
        match receive.recv_timeout(LOOK) {
            Ok(came) => return Ok(Some(came)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("BUG: a download ended without a word"),
        }
    }
    Ok(None)
}

/// Reads an answer from a byte of the file on; the last word about it.
fn read(agent: &Agent, url: &str, from: u64, send: &SyncSender<Came>) -> Result<Came, Came> {
    let mut request = agent.get(url).header("Accept-Encoding", "identity");
    if from > 0 {
        request = request.header("Range", format!("bytes={from}-"));
    }
    let mut answer = request.call().map_err(|error| trouble(&error))?;
    let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_string);
    let length: Option<u64> = header("content-length").and_then(|text| text.parse().ok());
    let (start, total) = match answer.status().as_u16() {
        200 => (0, length),
        206 => {
            // `bytes 5-9/10`
            let range = header("content-range").unwrap_or_default();
            let start =
                range.strip_prefix("bytes ").and_then(|range| range.split('-').next()?.parse().ok());
            let total = range.rsplit('/').next().and_then(|total| total.parse().ok());
            (start.ok_or_else(|| Came::Never("the server answers with no range".into()))?, total)
        }
        // The file ends here: what is missing is nothing.
        416 if from > 0 => return Ok(Came::End),
        status @ (408 | 425 | 429 | 500 | 502..=504) => {
            let after = header("retry-after").and_then(|text| text.parse().ok());
            let after = after.map(|seconds: u64| Duration::from_secs(seconds.min(60)));
            return Err(Came::Again(format!("the server answers {status}"), after));
        }
        status => return Err(Came::Never(format!("the server answers {status}"))),
    };
    let gone = |_| Came::End;
    send.send(Came::Head(start, total)).map_err(gone)?;
    let mut left = length;
    let mut body = answer.body_mut().as_reader();
    loop {
        let mut bytes = vec![0; 64 * 1024];
        let count = match body.read(&mut bytes) {
            Ok(0) if left.is_some_and(|left| left > 0) => {
                return Err(Came::Again("the server broke off".into(), None));
            }
            Ok(0) => return Ok(Came::End),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Came::Again(io_words(&error), None)),
        };
        bytes.truncate(count);
        left = left.map(|left| left.saturating_sub(count as u64));
        send.send(Came::Bytes(bytes)).map_err(gone)?;
    }
}

fn trouble(error: &ureq::Error) -> Came {
    let words = || {
        let text = error.to_string();
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_ascii_lowercase());
        first.into_iter().chain(chars).collect::<String>()
    };
    match error {
        ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Came::Never(io_words(error))
        }
        ureq::Error::Io(error) => Came::Again(io_words(error), None),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            Came::Again(words(), None)
        }
        _ => Came::Never(words()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    use super::*;

    /// Serves the answers one after the other, one for each connection; what was asked comes back.
    fn serve(answers: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (list, own) = (asked.clone(), url.clone());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut head = String::new();
                for line in lines.by_ref().map(|line| line.unwrap()).take_while(|line| !line.is_empty()) {
                    head.push_str(&line.to_lowercase());
                    head.push('\n');
                }
                list.lock().unwrap().push(head);
                let text = answer.as_slice();
                let text = match text.strip_prefix(b"REDIRECT ") {
                    Some(path) => format!(
                        "HTTP/1.1 302 Found\r\nLocation: {own}{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                        String::from_utf8_lossy(path)
                    )
                    .into_bytes(),
                    None => text.to_vec(),
                };
                stream.write_all(&text).unwrap();
            }
        });
        (url, asked)
    }

    fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").as_bytes(), body].concat()
    }

    fn got(url: &str) -> Result<Vec<u8>> {
        let (mut bytes, stop) = (Vec::new(), Stop::new(Duration::ZERO)?);
        get(url, &mut bytes, &stop, &|_, _| {}).map(|()| bytes)
    }

    #[test]
    fn redirects_are_followed_and_what_breaks_off_goes_on() {
        let (url, asked) = serve(vec![
            b"REDIRECT /there".to_vec(),
            answer("503 Busy", "Retry-After: 0\r\n", b""),
            answer("200 OK", "Content-Length: 10\r\n", b"0123"),
            answer("206 Partial", "Content-Range: bytes 4-9/10\r\nContent-Length: 6\r\n", b"45"),
            answer("200 OK", "Content-Length: 10\r\n", b"0123456789"),
        ]);
        // After a trouble the first address is asked again; here it leads nowhere else any more.
        assert_eq!(got(&format!("{url}/here")).unwrap(), b"0123456789");
        let asked = asked.lock().unwrap();
        assert!(asked[1].starts_with("get /there"), "{asked:?}");
        assert!(!asked[2].contains("range:") && asked[3].contains("range: bytes=4-"), "{asked:?}");
        assert!(asked[4].contains("range: bytes=6-"), "{asked:?}");
    }

    #[test]
    fn what_is_refused_is_not_tried_again() {
        let (url, asked) = serve(vec![answer("404 Not Found", "Content-Length: 0\r\n", b"")]);
        assert_eq!(got(&url).unwrap_err().to_string(), "the server answers 404");
        assert_eq!(asked.lock().unwrap().len(), 1);
        let busy = answer("500 No", "Retry-After: 0\r\nContent-Length: 0\r\n", b"");
        let (url, asked) = serve(vec![busy; 5]);
        assert_eq!(got(&url).unwrap_err().to_string(), "the server answers 500");
        assert_eq!(asked.lock().unwrap().len(), 5);
    }

    #[test]
    fn a_file_without_a_length_ends_with_the_connection() {
        let (url, _) = serve(vec![answer("200 OK", "", b"all of it")]);
        assert_eq!(got(&url).unwrap(), b"all of it");
        let chunked =
            answer("200 OK", "Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        let (url, _) = serve(vec![chunked]);
        assert_eq!(got(&url).unwrap(), b"abcde");
    }

    #[test]
    fn a_stop_ends_a_server_that_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = Stop::new(Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                stop.ask();
            });
            let began = Instant::now();
            let result = get(&url, &mut Vec::new(), &stop, &|_, _| {});
            assert!(matches!(result, Err(Error::Interrupted)) && began.elapsed() < Duration::from_secs(5));
        });
    }
}
