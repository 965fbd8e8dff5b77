//! Route queries (`RTM_GETROUTE`) from one thread of their own.
//!
//! A query runs the kernel's lookup in the context of the thread that sends it, and so fires the lookup tracepoints like
//! real traffic. This thread does nothing else: what is seen in its context is vpnfix's own asking and no traffic.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use netlink_packet_core::Emitable;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteFlags, RouteHeader},
};

use super::channel::{Channel, Decoded, Failure, Malformed, Request};
use super::error::{NetlinkError, Operation};
use super::{RTM_GETROUTE, RTM_NEWROUTE, route};
use crate::core::model::{Answer, Arrival, Family, Question, Reply, RouteKind};
use crate::system::privilege;

type Answers = Result<Vec<Answer>, NetlinkError>;

/// The thread that asks the kernel for routes, in the namespace of the thread that started it.
pub struct QueryThread {
    thread_id: u32,
    jobs: Option<mpsc::Sender<Job>>,
    handle: Option<JoinHandle<()>>,
}

struct Job {
    questions: Vec<Question>,
    reply: mpsc::Sender<Answers>,
}

impl QueryThread {
    /// Starts the thread and opens its socket.
    ///
    /// # Errors
    /// If either fails.
    pub fn start() -> Result<Self, NetlinkError> {
        let (jobs, queue) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let run = move || {
            let opened = open();
            let (outcome, opened) = match opened {
                Ok(opened) => (Ok(nix::unistd::gettid().as_raw().cast_unsigned()), Some(opened)),
                Err(error) => (Err(error), None),
            };
            if ready.send(outcome).is_ok()
                && let Some((runtime, mut channel)) = opened
            {
                // Asking for routes needs no privilege, so this thread keeps none.
                privilege::renounce();
                serve(&runtime, &mut channel, &queue);
            }
        };
        let handle = thread::Builder::new()
            .name("vpnfix-query".into())
            .spawn(run)
            .map_err(|source| NetlinkError::QueryThread { source: Some(source) })?;
        let thread_id = started.recv().map_err(|_gone| NetlinkError::QueryThread { source: None })??;
        Ok(Self { thread_id, jobs: Some(jobs), handle: Some(handle) })
    }

    /// The thread's id (`gettid`), in the pid namespace of this process; that is what BPF programs see if it is the
    /// initial one.
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// Asks all questions, and waits. The answers stand in the order of the questions.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or takes a question for malformed. That there is no route is an answer.
    pub fn ask(&self, questions: Vec<Question>) -> Answers {
        let gone = || NetlinkError::QueryThread { source: None };
        let (reply, answers) = mpsc::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { questions, reply }).map_err(|_closed| gone())?;
        answers.recv().map_err(|_closed| gone())?
    }
}

impl Drop for QueryThread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(handle) = self.handle.take() {
            // A panic over there was already reported as a failed question.
            let _ended = handle.join();
        }
    }
}

fn open() -> Result<(tokio::runtime::Runtime, Channel), NetlinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| NetlinkError::QueryThread { source: Some(source) })?;
    let channel = {
        let _entered = runtime.enter();
        Channel::open()?
    };
    Ok((runtime, channel))
}

fn serve(runtime: &tokio::runtime::Runtime, channel: &mut Channel, queue: &mpsc::Receiver<Job>) {
    for job in queue {
        // The current-thread runtime polls the exchange, and so sends, on this very thread.
        let answers = runtime.block_on(answer_all(channel, job.questions));
        if job.reply.send(answers).is_err() {
            tracing::debug!("nobody waits for the answers any more");
        }
    }
}

async fn answer_all(channel: &mut Channel, questions: Vec<Question>) -> Answers {
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        answers.push(answer(channel, question).await?);
    }
    Ok(answers)
}

async fn answer(channel: &mut Channel, question: Question) -> Result<Answer, NetlinkError> {
    let failed = |failure: Failure| failure.of(Operation::Ask(Box::new(question.clone())));
    let resolved = Request { kind: RTM_GETROUTE, flags: 0, body: body(&question, false) };
    let decode = |kind, payload: &[u8]| if kind == RTM_NEWROUTE { arrival(payload, &question) } else { Ok(None) };
    let reply = match channel.exchange(&resolved, decode).await {
        Ok(found) => match found.into_iter().next() {
            Some(arrival) => Reply::Arrives(arrival),
            None => return Err(failed(Failure::Malformed("no route in the reply".into()))),
        },
        Err(Failure::Refused { errno, text }) if is_answer(errno, text.as_deref()) => Reply::Refused(errno),
        Err(failure) => return Err(failed(failure)),
    };
    let matching = Request { kind: RTM_GETROUTE, flags: 0, body: body(&question, true) };
    let decode = |kind, payload: &[u8]| if kind == RTM_NEWROUTE { route::route(payload) } else { Ok(None) };
    let entry = match channel.exchange(&matching, decode).await {
        Ok(found) => found.into_iter().next(),
        Err(Failure::Refused { .. }) => None,
        Err(failure) => return Err(failed(failure)),
    };
    Ok(Answer { question, reply, entry })
}

/// Is this errno what routing says, rather than a complaint about the request? The kernel explains complaints in words;
/// a blackhole and failed source validation are a plain `EINVAL`.
fn is_answer(errno: i32, text: Option<&str>) -> bool {
    match errno {
        libc::EPERM | libc::ENOMEM | libc::ENOBUFS => false,
        libc::EINVAL | libc::EOPNOTSUPP => text.is_none(),
        _ => true,
    }
}

/// The body of the request. Strict checking allows exactly these fields (`inet_rtm_valid_getroute_req`,
/// `inet6_rtm_valid_getroute_req`); `RTM_F_LOOKUP_TABLE` only for IPv4, IPv6 always tells the table.
fn body(question: &Question, fib_match: bool) -> Vec<u8> {
    let family = Family::of(question.destination);
    let mut flags = RouteFlags::empty();
    flags.set(RouteFlags::LookupTable, family == Family::V4);
    flags.set(RouteFlags::FibMatch, fib_match);
    let header = RouteHeader {
        address_family: match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        },
        destination_prefix_length: family.bits(),
        source_prefix_length: question.source.map_or(0, |source| Family::of(source).bits()),
        tos: question.tos,
        flags,
        ..RouteHeader::default()
    };
    let mut attributes = vec![RouteAttribute::Destination(question.destination.into())];
    attributes.extend(question.source.map(|source| RouteAttribute::Source(source.into())));
    attributes.extend(question.input_interface.map(RouteAttribute::Iif));
    attributes.extend(question.output_interface.map(RouteAttribute::Oif));
    attributes.extend(Some(question.mark).filter(|mark| *mark != 0).map(RouteAttribute::Mark));
    attributes.extend(question.uid.map(RouteAttribute::Uid));
    attributes.extend(question.ip_protocol.map(RouteAttribute::IpProto));
    attributes.extend(question.source_port.map(RouteAttribute::Sport));
    attributes.extend(question.destination_port.map(RouteAttribute::Dport));
    // Older kernels take the attribute for an error.
    attributes.extend(Some(question.flow_label).filter(|label| *label != 0).map(RouteAttribute::Flowlabel));
    let mut body = vec![0; header.buffer_len()];
    header.emit(&mut body);
    for attribute in &attributes {
        let start = body.len();
        body.resize(start + attribute.buffer_len(), 0);
        if let Some(space) = body.get_mut(start..) {
            attribute.emit(space);
        }
    }
    body
}

/// The resolved answer.
fn arrival(payload: &[u8], question: &Question) -> Decoded<Arrival> {
    let header = RouteHeader::parse(payload)?;
    let fields = route::fields(payload)?;
    let Some(ifindex) = fields.ifindex else { return Err(Malformed("a route without a device".into())) };
    Ok(Some(Arrival {
        table: fields.table.unwrap_or_else(|| header.table.into()),
        ifindex,
        gateway: fields.gateway,
        // IPv6 tells what it would have chosen even where a source was given.
        source: question.source.or(fields.preferred_source),
        local: route::kind(header.kind.into()) == RouteKind::Local,
    }))
}
