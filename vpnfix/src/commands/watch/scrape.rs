//! The metrics over HTTP/1.1: one small page, for a scraper on this host. Every connection is bounded in time and in what
//! is read of it, and there are few at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::commands::failure::Failure;
use crate::render::metrics::Form;

/// A question for the metrics.
pub(super) struct Scrape {
    /// How they are wanted.
    pub(super) form: Form,
    /// Where the answer goes.
    pub(super) answer: oneshot::Sender<String>,
}

/// So many connections at once.
const CONNECTIONS: usize = 8;
/// A request's head is no longer.
const HEAD_BYTES: usize = 8 * 1024;
/// From the connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptor left, say).
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

/// Serves at this address, if there is one, in the calling thread's namespace. Questions come by the channel.
///
/// # Errors
/// The address cannot be listened on.
pub(super) async fn serve(address: Option<SocketAddr>) -> Result<mpsc::Receiver<Scrape>, Failure> {
    let (sender, receiver) = mpsc::channel(CONNECTIONS);
    let Some(address) = address else { return Ok(receiver) };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::of(&format!("serve metrics at {address}"), &error))?;
    tokio::spawn(accept(listener, sender));
    Ok(receiver)
}

async fn accept(listener: TcpListener, questions: mpsc::Sender<Scrape>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let questions = questions.clone();
                tokio::spawn(async move {
                    // Whoever is too slow, or goes away, has no answer.
                    let _served = tokio::time::timeout(PATIENCE, answer(stream, questions)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("metrics: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, questions: mpsc::Sender<Scrape>) -> std::io::Result<()> {
    let Some(head) = head(&mut stream).await? else { return Ok(()) };
    let (status, kind, body) = match request(&head) {
        Request::Metrics => match metrics(&questions, form(&head)).await {
            Some(text) => ("200 OK", form(&head).content_type(), text),
            None => ("503 Service Unavailable", TEXT, "the watch is ending\n".into()),
        },
        Request::Root => ("200 OK", TEXT, "vpnfix watch: /metrics\n".into()),
        Request::Elsewhere => ("404 Not Found", TEXT, "there is only /metrics\n".into()),
        Request::OtherMethod => ("405 Method Not Allowed", TEXT, "only GET and HEAD\n".into()),
        Request::Malformed => ("400 Bad Request", TEXT, "no HTTP request\n".into()),
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let mut reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    if !head.starts_with(b"HEAD ") {
        reply += &body;
    }
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

async fn metrics(questions: &mpsc::Sender<Scrape>, form: Form) -> Option<String> {
    let (answer, answered) = oneshot::channel();
    questions.send(Scrape { form, answer }).await.ok()?;
    answered.await.ok()
}

/// OpenMetrics for whoever accepts it.
fn form(head: &[u8]) -> Form {
    let head = String::from_utf8_lossy(head).to_lowercase();
    let accepts = |line: &str| line.strip_prefix("accept:").is_some_and(|kinds| kinds.contains("openmetrics-text"));
    if head.lines().any(accepts) { Form::OpenMetrics } else { Form::Prometheus }
}

/// The head of a request, without a body; none where the peer goes away or sends too much.
async fn head(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece).await?;
        if count == 0 || head.len() + count > HEAD_BYTES {
            return Ok(None);
        }
        head.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    Ok(Some(head))
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Metrics,
    Root,
    Elsewhere,
    OtherMethod,
    Malformed,
}

fn request(head: &[u8]) -> Request {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return Request::Malformed };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Request::Malformed;
    };
    if !version.starts_with("HTTP/1.") {
        return Request::Malformed;
    }
    if !matches!(method, "GET" | "HEAD") {
        return Request::OtherMethod;
    }
    match target.split('?').next() {
        Some("/metrics") => Request::Metrics,
        Some("/") => Request::Root,
        _ => Request::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_answered() {
        for (line, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Request::Metrics),
            ("HEAD /metrics?a=b HTTP/1.0\r\n\r\n", Request::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Request::Root),
            ("GET /etc/passwd HTTP/1.1\r\n\r\n", Request::Elsewhere),
            ("POST /metrics HTTP/1.1\r\n\r\n", Request::OtherMethod),
            ("GET /metrics HTTP/2\r\n\r\n", Request::Malformed),
            ("GET /metrics\r\n\r\n", Request::Malformed),
            ("\r\n\r\n", Request::Malformed),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Request::Malformed),
        ] {
            assert_eq!(request(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(request(b"\xff\xfe / HTTP/1.1\r\n\r\n"), Request::Malformed);
    }
}
