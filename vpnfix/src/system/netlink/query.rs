//! Route queries (`RTM_GETROUTE`) from one thread.
//!
//! A query runs the kernel's lookup in the context of the thread that sends it, and so fires the lookup tracepoints like
//! real traffic. All questions come from one thread, which the kernel side knows: what it sees of `RTM_GETROUTE` in that
//! thread's context is vpnfix's own asking and no traffic.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::asker::Asker;
use super::error::NetlinkError;
use crate::core::model::{Answer, Question};
use crate::system::privilege;

type Answers = Result<Vec<Answer>, NetlinkError>;

/// The way to the kernel's answers, in the namespace of the thread that opened it.
pub struct Queries {
    thread_id: u32,
    way: Way,
}

enum Way {
    /// The thread that opened it asks by itself: nobody has to be woken, which on a busy machine takes longer than all the
    /// questions.
    Here(Mutex<Asker>),
    /// A thread of its own asks, for threads that share the way.
    Thread { jobs: Option<mpsc::Sender<Job>>, handle: Option<JoinHandle<()>> },
}

struct Job {
    questions: Vec<Question>,
    reply: mpsc::Sender<Answers>,
}

impl Queries {
    /// Opens the way for the calling thread alone.
    ///
    /// # Errors
    /// If there is no socket.
    pub fn here() -> Result<Self, NetlinkError> {
        Ok(Self { thread_id: this_thread(), way: Way::Here(Mutex::new(Asker::open()?)) })
    }

    /// Starts a thread that asks for all who share the way, and opens its socket.
    ///
    /// # Errors
    /// If either fails.
    pub fn on_a_thread() -> Result<Self, NetlinkError> {
        let (jobs, queue) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let run = move || {
            let (outcome, asker) = match Asker::open() {
                Ok(asker) => (Ok(this_thread()), Some(asker)),
                Err(error) => (Err(error), None),
            };
            if ready.send(outcome).is_ok()
                && let Some(mut asker) = asker
            {
                // Asking for routes needs no privilege, so this thread keeps none.
                privilege::renounce();
                serve(&mut asker, &queue);
            }
        };
        let handle = thread::Builder::new()
            .name("vpnfix-query".into())
            .spawn(run)
            .map_err(|source| NetlinkError::QueryThread { source: Some(source) })?;
        let thread_id = started.recv().map_err(|_gone| NetlinkError::QueryThread { source: None })??;
        Ok(Self { thread_id, way: Way::Thread { jobs: Some(jobs), handle: Some(handle) } })
    }

    /// Id of the thread that asks (`gettid`), in the pid namespace of this process; that is what BPF programs see if it is
    /// the initial one.
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// Asks all questions, and waits. The answers stand in the order of the questions.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or takes a question for malformed; that there is no route is an answer. If another
    /// thread asks than the one that the way is for.
    pub fn ask(&self, questions: Vec<Question>) -> Answers {
        let gone = || NetlinkError::QueryThread { source: None };
        match &self.way {
            // The kernel side would take these questions for traffic.
            Way::Here(_) if this_thread() != self.thread_id => Err(NetlinkError::OtherThread),
            Way::Here(asker) => answer_all(&mut asker.lock().unwrap_or_else(PoisonError::into_inner), questions),
            Way::Thread { jobs, .. } => {
                let (reply, answers) = mpsc::channel();
                let jobs = jobs.as_ref().ok_or_else(gone)?;
                jobs.send(Job { questions, reply }).map_err(|_closed| gone())?;
                answers.recv().map_err(|_closed| gone())?
            }
        }
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        if let Way::Thread { jobs, handle } = &mut self.way {
            drop(jobs.take());
            if let Some(handle) = handle.take() {
                // A panic over there was already reported as a failed question.
                let _ended = handle.join();
            }
        }
    }
}

fn this_thread() -> u32 {
    nix::unistd::gettid().as_raw().cast_unsigned()
}

fn serve(asker: &mut Asker, queue: &mpsc::Receiver<Job>) {
    for job in queue {
        if job.reply.send(answer_all(asker, job.questions)).is_err() {
            tracing::debug!("nobody waits for the answers any more");
        }
    }
}

fn answer_all(asker: &mut Asker, questions: Vec<Question>) -> Answers {
    questions.into_iter().map(|question| asker.answer(question)).collect()
}
