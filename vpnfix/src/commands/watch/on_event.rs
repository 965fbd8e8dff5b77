//! Running a program of the operator's at each event: no shell, the event's JSON on standard input, bounded in time and in
//! number.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// So long may it take.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many may run at once; further events wait their turn.
const AT_ONCE: u32 = 4;
/// So many events may run or wait; those beyond are told in the log alone.
const AT_MOST: usize = 256;
/// How long the end waits for those that run.
const FAREWELL: Duration = Duration::from_secs(2);

/// The program, and those of it that run.
#[derive(Clone, Debug)]
pub(super) struct OnEvent {
    command: Vec<String>,
    /// First come, first served (tokio's semaphore is fair).
    room: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl OnEvent {
    pub(super) fn new(command: &[String]) -> Self {
        Self {
            command: command.to_vec(),
            room: Arc::new(Semaphore::new(AT_ONCE as usize)),
            places: Arc::new(Semaphore::new(AT_MOST)),
        }
    }

    pub(super) fn configure(&mut self, command: &[String]) {
        self.command = command.to_vec();
    }

    /// Starts the program for this event, as soon as its turn comes. It does not keep us.
    pub(super) fn tell(&self, json: String) {
        let Some((program, arguments)) = self.command.split_first() else { return };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!("{program}: {AT_MOST} events wait for it already; this one goes by it");
            return;
        };
        let room = Arc::clone(&self.room);
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let program = program.clone();
        tokio::spawn(async move {
            let turn = room.acquire_owned().await;
            match tokio::time::timeout(PATIENCE, run(command, json)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("{program}: {error}"),
                Err(_late) => tracing::warn!("{program}: not done after {} s, ended", PATIENCE.as_secs()),
            }
            drop((turn, place));
        });
    }

    /// Lets those that run come to their end, within bounds.
    pub(super) async fn farewell(&self) {
        let _done = tokio::time::timeout(FAREWELL, self.room.acquire_many(AT_ONCE)).await;
    }
}

async fn run(mut command: Command, json: String) -> std::io::Result<()> {
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read what it is told is no fault.
        let _read = stdin.write_all(json.as_bytes()).await;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }
}
