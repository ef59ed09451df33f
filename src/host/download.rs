//! A file by http or https: redirects are followed, and what breaks off goes on where it was. Checks
//! nothing of the content: whoever calls it knows its digest.

use std::io::Write;
use std::time::Duration;

use super::http::{Broken, Env, Http, begins_at, broken, is_passing, retry_after};
use super::node::Watch;
use crate::error::{Error, Failure, Result, io_words};

/// The first pause before another try; each one after it is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Tries without a single byte between them.
const TRIES: u32 = 5;
/// From one address to the next, at most.
const MOST_REDIRECTS: usize = 10;
/// The largest file, in bytes.
const LARGEST: u64 = 1 << 40;

/// How a try ended.
enum Tried {
    /// All of it is there.
    Whole,
    /// It is worth another try, perhaps after a while.
    Again(String, Option<Duration>),
}

/// Writes what an address gives.
///
/// Fails if the server refuses, if it does not answer five times, and if the user wants to stop.
pub fn get(url: &str, into: &mut dyn Write, env: &Env, watch: &dyn Watch) -> Result<()> {
    let http = Http::new(env, None)?;
    let (mut done, mut tries, mut pause) = (0_u64, 0, PAUSE);
    loop {
        let before = done;
        let (why, after) = match attempt(&http, url, into, watch, &mut done)? {
            Tried::Whole => return Ok(()),
            Tried::Again(why, after) => (why, after),
        };
        (tries, pause) = if done > before { (1, PAUSE) } else { (tries + 1, pause) };
        if tries >= TRIES {
            return Err(Failure::new(why).hint("run again: it may be a passing trouble").into());
        }
        http.pause(watch, after.unwrap_or(pause))?;
        pause *= 2;
    }
}

fn attempt(
    http: &Http,
    url: &str,
    into: &mut dyn Write,
    watch: &dyn Watch,
    done: &mut u64,
) -> Result<Tried> {
    let mut address = reqwest::Url::parse(url).map_err(|error| Error::failed(error.to_string()))?;
    let mut redirects = 0;
    let answer = loop {
        let mut request = http.client().get(address.clone()).header("Accept-Encoding", "identity");
        if *done > 0 {
            request = request.header("Range", format!("bytes={done}-"));
        }
        let answer = match http.send(watch, request)? {
            Ok(answer) => answer,
            Err(error) => return trouble(error),
        };
        let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_string);
        if !answer.status().is_redirection() {
            break answer;
        }
        redirects += 1;
        let next = header("location").and_then(|to| address.join(&to).ok());
        match next.filter(|next| matches!(next.scheme(), "http" | "https")) {
            Some(next) if redirects <= MOST_REDIRECTS => address = next,
            Some(_) => {
                return Err(Error::failed("the server leads from one address to the next without end"));
            }
            None => return Err(Error::failed("the server leads to nowhere")),
        }
    };
    match answer.status().as_u16() {
        200 | 206 => {}
        // The file ends here: what is missing is nothing.
        416 if *done > 0 => return Ok(Tried::Whole),
        status if is_passing(answer.status()) => {
            let after = retry_after(&answer).map(|after| after.min(LONGEST_PAUSE));
            return Ok(Tried::Again(format!("the server answers {status}"), after));
        }
        status => return Err(Error::failed(format!("the server answers {status}"))),
    }
    let left_out = || Error::failed("the server left something out");
    let skip = *done - begins_at(&answer, *done).ok_or_else(left_out)?;
    let ended = http.pour(watch, answer, skip, &mut |bytes| {
        *done += bytes.len() as u64;
        if *done > LARGEST {
            return Err(Error::failed("the server sends without an end"));
        }
        into.write_all(bytes).map_err(|error| Error::failed(format!("write: {}", io_words(&error))))
    })?;
    ended.map_or_else(trouble, |()| Ok(Tried::Whole))
}

fn trouble(error: reqwest::Error) -> Result<Tried> {
    match broken(error) {
        Broken::Absent(why) | Broken::Cut(why) => Ok(Tried::Again(why, None)),
        Broken::Wrong(failure) if !failure.message.contains("certificate") => Err(failure.into()),
        Broken::Wrong(failure) => {
            let hint = "`SSL_CERT_FILE` names a file of the authorities to trust instead of the system's";
            Err(failure.hint(hint).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use super::*;
    use crate::host::stop::Stop;

    struct Stopping(Stop);

    impl Watch for Stopping {
        fn moved(&self, _bytes: u64) {}

        fn check(&self) -> Result<()> {
            self.0.check()
        }

        fn waits(&self) {}
    }

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
        let (mut bytes, stop) = (Vec::new(), Stopping(Stop::new(Duration::ZERO)?));
        get(url, &mut bytes, &Env::new(), &stop).map(|()| bytes)
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
        let stop = Stopping(Stop::new(Duration::ZERO).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                stop.0.ask();
            });
            let began = Instant::now();
            let result = get(&url, &mut Vec::new(), &Env::new(), &stop);
            assert!(matches!(result, Err(Error::Interrupted)) && began.elapsed() < Duration::from_secs(5));
        });
    }
}
