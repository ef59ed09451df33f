//! A small web server whose answers the test makes: on its own, or in front of a real one that it passes
//! requests on to and whose answers it spoils.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was sent; less, if the line is cut in it.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The number.
    pub status: u16,
    /// Names in lower case, without the length.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Vec<u8>,
    /// The length that is said, if it is another.
    pub length: Option<usize>,
    /// After so many bytes of the body the line is cut.
    pub cut: Option<usize>,
    /// A pause after each so many bytes.
    pub slow: Option<usize>,
}

impl Request {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A request without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), ..Self::default() }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Answer {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A server.
pub struct Web {
    /// Where.
    pub port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;
/// How many bytes of a request's body are read before the line is cut, and who gets those.
type Cutter = dyn Fn(&Request) -> Option<(u16, usize)> + Send + Sync;

impl Web {
    /// A server that answers as `handler` says.
    pub fn new(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::cutting(handler, |_| None)
    }

    /// A server that also cuts the line within bodies: `cutter` sees requests before their bodies, and names
    /// the port to which so many bytes are passed on.
    pub fn cutting(
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
        cutter: impl Fn(&Request) -> Option<(u16, usize)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (shared, handler, cutter): (_, Arc<Handler>, Arc<Cutter>) =
            (log.clone(), Arc::new(handler), Arc::new(cutter));
        std::thread::spawn(move || {
            for call in listener.incoming() {
                let (log, handler, cutter) = (shared.clone(), handler.clone(), cutter.clone());
                std::thread::spawn(move || serve(&call.unwrap(), &log, &*handler, &*cutter));
            }
        });
        Self { port, log }
    }

    /// The requests so far whose `METHOD /path` begins with `start`.
    pub fn asked(&self, start: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter()
            .filter(|request| format!("{} {}", request.method, request.path).starts_with(start))
            .count()
    }

    /// All requests so far, without their bodies.
    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
    }
}

fn head(reader: &mut impl BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_string();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let first = lines.first()?.clone();
    let header = |line: &String| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.trim().to_lowercase(), value.trim().to_string())
    };
    Some((first, lines[1..].iter().map(header).collect()))
}

fn serve(call: &TcpStream, log: &Mutex<Vec<Request>>, handler: &Handler, cutter: &Cutter) {
    let mut reader = BufReader::new(call);
    let Some((first, headers)) = head(&mut reader) else { return };
    let mut words = first.split(' ');
    let mut request = Request::new(words.next().unwrap(), words.next().unwrap_or_default());
    request.headers = headers;
    log.lock().unwrap().push(request.clone());
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    if let Some((port, most)) = cutter(&request) {
        let mut body = vec![0; most.min(length)];
        let _ = reader.read_exact(&mut body);
        if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) {
            let _ = server.write_all(&written(&request, length, &body));
            // It gets all of it before it sees that there is no more.
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        let _ = call.shutdown(std::net::Shutdown::Both);
        return;
    }
    request.body = vec![0; length];
    if reader.read_exact(&mut request.body).is_err() {
        return;
    }
    let answer = handler(&request);
    let mut text = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = answer.length.unwrap_or(answer.body.len());
    if answer.status != 204 {
        text.push_str(&format!("content-length: {length}\r\n"));
    }
    text.push_str("\r\n");
    let mut call = call;
    if call.write_all(text.as_bytes()).is_err() || request.method == "HEAD" {
        return;
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len()).min(answer.body.len())];
    for piece in body.chunks(answer.slow.unwrap_or(usize::MAX)) {
        if call.write_all(piece).is_err() {
            return;
        }
        if answer.slow.is_some() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    let _ = call.flush();
}

fn written(request: &Request, length: usize, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method, request.path);
    for (name, value) in &request.headers {
        if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if length > 0 || request.method != "GET" {
        text.push_str(&format!("content-length: {length}\r\n"));
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

/// The answer of the server at `port` to a request.
pub fn ask(port: u16, request: &Request) -> Answer {
    let mut request = request.clone();
    if request.header("host").is_none() {
        request = request.with("host", &format!("127.0.0.1:{port}"));
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    server.write_all(&written(&request, request.body.len(), &request.body)).unwrap();
    let mut reader = BufReader::new(server);
    let (first, headers) = head(&mut reader).unwrap();
    let mut answer = Answer::new(first.split(' ').nth(1).unwrap().parse().unwrap(), []);
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: Option<usize> = length.map(|(_, value)| value.parse().unwrap());
    let drop = ["content-length", "connection", "date"];
    answer.headers = headers.into_iter().filter(|(name, _)| !drop.contains(&name.as_str())).collect();
    answer.length = length.filter(|_| request.method == "HEAD");
    if request.method != "HEAD" && answer.status != 204 {
        match length {
            Some(length) => {
                answer.body = vec![0; length];
                reader.read_exact(&mut answer.body).unwrap();
            }
            None => {
                reader.read_to_end(&mut answer.body).unwrap();
            }
        }
    }
    answer
}
