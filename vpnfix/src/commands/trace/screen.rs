//! The live view on a terminal: the trace's events in, a screen out, keys in between.

use std::fs::OpenOptions;
use std::io::{BufRead as _, Write as _};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use super::session::{Session, ticking};
use crate::commands::failure::Failure;
use crate::commands::signals::Signals;
use crate::core::observation::Totals;
use crate::core::report::Outcome;
use crate::core::report::flow::{Encryption, StoryReport};
use crate::core::report::trace::TraceLine;
use crate::render;
use crate::render::live::screen::Over;
use crate::render::live::{Board, Command, Glance, Key, Screen, SessionRow, TunnelRow, draw};
use crate::render::trace::{flow_words, tcp_state};
use crate::system::host;
use crate::system::terminal::{self, Taken};

/// How often the screen shows what is new. Reading all counts takes milliseconds; nobody reads faster than this.
const LOOK: Duration = Duration::from_secs(1);

/// A view that runs.
struct View {
    terminal: Taken,
    /// Keys are read; not while another program has the terminal.
    reads: Arc<AtomicBool>,
    board: Board,
    screen: Screen,
    whole: Option<StoryReport>,
    began: Instant,
}

impl Session<'_> {
    /// Shows what is seen until somebody ends it, and prints the summary then.
    ///
    /// # Errors
    /// The terminal cannot be used, or what [`Session::run`] can fail with.
    pub async fn show(mut self, signals: Signals) -> Result<Outcome, Failure> {
        let reads = Arc::new(AtomicBool::new(true));
        let keys = terminal::events(Arc::clone(&reads)).map_err(|error| failed(&error))?;
        let mut view = View {
            terminal: Taken::take().map_err(|error| failed(&error))?,
            reads,
            board: Board::default(),
            screen: Screen::default(),
            whole: None,
            began: Instant::now(),
        };
        let ended = self.view(&mut view, signals, keys).await;
        // Given back before anything is printed.
        let given_back = view.terminal.give_back();
        drop(view);
        ended?;
        let summary = self.intake.finish(None)?;
        let outcome = summary.outcome;
        // A terminal that takes no output any more would keep the summary, and this process, waiting.
        if given_back.is_ok() {
            self.print(&TraceLine::Summary(summary))?;
        }
        Ok(outcome)
    }

    async fn view(
        &mut self,
        view: &mut View,
        mut signals: Signals,
        mut keys: tokio::sync::mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::of("listen for signals", &error));
        let (mut hangup, mut stop) = (listen(SignalKind::hangup())?, listen(SignalKind::from_raw(libc::SIGTSTP))?);
        let mut continued = listen(SignalKind::from_raw(libc::SIGCONT))?;
        let period = self.intake.asked.args.period;
        let deadline = period.and_then(|period| view.began.checked_add(period)).map(tokio::time::Instant::from_std);
        let mut look = ticking(LOOK);
        let mut seen = Vec::new();
        loop {
            self.intake.flush()?;
            let expired = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = signals.came() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
                () = expired => return Ok(()),
                _ = stop.recv() => view.terminal.stop_until_continued().map_err(|error| failed(&error))?,
                // Stopped by SIGSTOP, it could give nothing back; the shell has set the terminal meanwhile.
                _ = continued.recv() => view.terminal.again().map_err(|error| failed(&error))?,
                event = keys.recv() => match event {
                    Some(event) if self.event(view, &event)? => return Ok(()),
                    Some(_) => {}
                    // The terminal is gone.
                    None => return Ok(()),
                },
                _ = look.tick() => {
                    self.intake.refresh().await?;
                    self.look(view)?;
                }
                events = self.intake.next(&mut seen) => {
                    events?;
                    for record in seen.drain(..) {
                        // The verdicts go on; their lines are the screen's.
                        drop(self.intake.see(&record)?);
                    }
                    // What came is shown at the next look.
                    continue;
                }
            }
            self.draw(view)?;
        }
    }

    /// Takes what there is to see now, unless the screen stands still.
    fn look(&mut self, view: &mut View) -> Result<(), Failure> {
        if view.screen.paused {
            return Ok(());
        }
        let totals = self.intake.totals()?;
        let glance = self.glance(&totals, view.began.elapsed().as_secs_f64());
        view.board = Board::next(Some(&view.board), glance);
        self.choose(view);
        Ok(())
    }

    /// The chosen flow with its walk.
    fn choose(&mut self, view: &mut View) {
        let rows = view.screen.rows(&view.board);
        let chosen = rows.get(view.screen.position(&rows)).map(|flow| flow.flow_id);
        view.whole =
            chosen.and_then(|flow_id| self.intake.telling.with_case(|flows, case| flows.report(flow_id, case)));
    }

    fn draw(&mut self, view: &mut View) -> Result<(), Failure> {
        let colored = self.intake.settings.output.palette().is_colored();
        let View { terminal, board, screen, whole, .. } = view;
        terminal.draw(|frame| draw::draw(frame, board, screen, whole.as_ref(), colored)).map_err(|error| failed(&error))
    }

    fn glance(&mut self, totals: &Totals, seconds: f64) -> Glance {
        let filter = self.intake.asked.filter();
        let mut flows = self.intake.telling.with_case(|flows, case| flows.outlines(case));
        flows.retain(|flow| filter.passes_story(flow));
        let sessions = flows.iter().filter_map(session).collect();
        let tunnels = self.tunnels();
        let lost = totals.losses;
        Glance {
            host: self.intake.telling.basis().snapshot.host.hostname.clone(),
            time: self.now(),
            seconds,
            lookups: totals.lookups.iter().map(|(_, tally)| tally.count).sum(),
            packets: totals.packets.iter().map(|(_, tally)| tally.count).sum(),
            lost: lost.events_lost
                + lost.lookups_uncounted
                + lost.packets_uncounted
                + lost.flows_uncounted
                + lost.undecodable_records,
            flows,
            tunnels,
            sessions,
        }
    }

    fn tunnels(&mut self) -> Vec<TunnelRow> {
        let indices: Vec<u32> = self.intake.tunnels.iter().map(|tunnel| tunnel.ifindex).collect();
        let associations: Vec<Option<Encryption>> =
            self.intake.telling.with_case(|_, case| indices.iter().map(|index| case.encryption(*index)).collect());
        let snapshot = &self.intake.telling.basis().snapshot;
        let row = |(index, encryption): (&u32, Option<Encryption>)| {
            let link = snapshot.link(*index)?;
            let counters = &link.counters;
            Some(TunnelRow {
                name: link.name.clone(),
                up: link.up,
                sent: counters.tx_packets,
                received: counters.rx_packets,
                errors: counters.tx_errors + counters.tx_dropped,
                association: match encryption {
                    Some(Encryption::By { spi, packets, .. }) => format!("{spi:#010x} took {packets}"),
                    Some(Encryption::None) => "none".into(),
                    None => "-".into(),
                },
            })
        };
        indices.iter().zip(associations).filter_map(row).collect()
    }

    /// Does what a key or a change of size means. True: the view is to end.
    fn event(&mut self, view: &mut View, event: &Event) -> Result<bool, Failure> {
        let Event::Key(key) = event else { return Ok(false) };
        if key.kind == KeyEventKind::Release {
            return Ok(false);
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Ok(true),
                KeyCode::Char('z') => {
                    view.terminal.stop_until_continued().map_err(|error| failed(&error))?;
                    Ok(false)
                }
                KeyCode::Char('l') => {
                    view.terminal.again().map_err(|error| failed(&error))?;
                    Ok(false)
                }
                _ => Ok(false),
            };
        }
        let Some(key) = meaning(key) else { return Ok(false) };
        match view.screen.press(key, &view.board) {
            Some(Command::Quit) => return Ok(true),
            Some(Command::Plan) => view.screen.over = self.plan(),
            Some(Command::Fix) => self.fix(view)?,
            Some(Command::Write) => view.screen.message = self.write(),
            None => {}
        }
        self.choose(view);
        Ok(false)
    }

    /// What `vpnfix fix` would do: asked of vpnfix itself, so that it is exactly that.
    fn plan(&self) -> Over {
        let ran = self.vpnfix(&["fix", "--dry-run"]).stdin(Stdio::null()).output();
        match ran {
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                let lines = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
                Over::Plan { lines, can_apply: output.status.code() == Some(i32::from(Outcome::FaultFound.status())) }
            }
            Err(error) => Over::Plan { lines: vec![format!("vpnfix could not be started: {error}")], can_apply: false },
        }
    }

    /// Repairs, on the terminal itself, so that all of it can be read.
    fn fix(&self, view: &mut View) -> Result<(), Failure> {
        view.reads.store(false, Ordering::Relaxed);
        view.terminal.give_back().map_err(|error| failed(&error))?;
        let told = match self.vpnfix(&["fix"]).status() {
            Ok(status) => format!("`vpnfix fix` ended with {status}"),
            Err(error) => format!("vpnfix could not be started: {error}"),
        };
        println!("\n{told}. Enter goes back to the view.");
        let mut line = String::new();
        // Whatever was typed, or the end of the input: back to the view.
        let _ = std::io::stdin().lock().read_line(&mut line);
        view.screen.message = told;
        view.reads.store(true, Ordering::Relaxed);
        view.terminal.again().map_err(|error| failed(&error))
    }

    fn vpnfix(&self, words: &[&str]) -> Process {
        let mut command = Process::new("/proc/self/exe");
        if let Some(netns) = self.intake.settings.netns.name() {
            command.args(["--netns", &netns]);
        }
        for tunnel in &self.intake.settings.tunnels {
            command.args(["--tunnel", tunnel]);
        }
        command.args(words);
        command
    }

    /// Writes what is seen into a new file of the present folder, as the lines that `trace --format json` would have
    /// written: what is attached, and the summary.
    fn write(&mut self) -> String {
        let path = format!("vpnfix-trace-{}.json", host::unix_time());
        let written = self.intake.summary().map_err(|failure| failure.message).and_then(|summary| {
            let lines = [TraceLine::Start(self.intake.telling.start()), TraceLine::Summary(summary)];
            let text = lines.iter().map(render::line).collect::<Result<String, _>>().map_err(|e| e.to_string())?;
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| error.to_string())
        });
        match written {
            Ok(()) => format!("written to {path}"),
            Err(error) => format!("{path} cannot be written: {error}"),
        }
    }

    fn now(&self) -> String {
        self.intake.telling.setup().clock.tell(host::monotonic_ns())
    }
}

/// A flow as BGP's session, if it is one.
fn session(flow: &StoryReport) -> Option<SessionRow> {
    let state = flow.tcp.last()?;
    let flow_words = flow_words(&flow.flow);
    let ends = flow_words.trim_start_matches("tcp ");
    Some(SessionRow { flow: ends.into(), state: tcp_state(state.new).into(), retransmissions: flow.retransmissions })
}

fn meaning(key: &KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Char(character) => Key::Character(character),
        _ => return None,
    })
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::of("use the terminal", error).hint("`vpnfix trace --plain` needs none")
}
