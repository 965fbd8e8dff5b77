//! The play itself, step by step.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::reading::{DESTINATIONS, Readers, Reading};
use super::{Stop, command, interrupt, say, table};
use crate::commands::lab::layout::{BGP_PORT, PHYSICAL_DEVICE, TUNNELS};
use crate::commands::lab::netns;
use crate::commands::lab::topology::Lab;

/// How long the live trace of the hijacked traffic runs.
const TRACE_FOR: &str = "3s";
/// Packets that the trace's traffic sends at the very least: two pings and two connections at a few a second.
const TRAFFIC_AT_LEAST: u64 = 8;
/// How long the readers are asked again while they do not say what the story tells.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);
/// Pause between two connection attempts to TCP 179, and how long one may take.
const CONNECT_EVERY: Duration = Duration::from_millis(300);

/// A step's outcome check: what is wrong with a reading, if anything.
type Judge = fn(&Reading, &super::reading::Destination) -> Option<String>;

/// The play, in a lab that stands.
pub struct Scene<'a> {
    lab: &'a Lab,
    readers: Readers,
    vpnfix: PathBuf,
    commands_folder: PathBuf,
    step: &'static str,
    number: u32,
    phases: Vec<table::Phase>,
    /// What `ip -d rule` said before the repair.
    rules: String,
}

impl<'a> Scene<'a> {
    /// Sets the scene. The commands that are played keep their state in `commands_folder`, so that it goes with the lab.
    pub fn new(lab: &'a Lab, commands_folder: PathBuf) -> anyhow::Result<Self> {
        let readers = Readers::new(lab.ip(), lab.names());
        // The file that runs now, even if another was put in its place meanwhile.
        let vpnfix = PathBuf::from("/proc/self/exe");
        vpnfix.metadata().context("look at /proc/self/exe")?;
        Ok(Self {
            lab,
            readers,
            vpnfix,
            commands_folder,
            step: "",
            number: 0,
            phases: Vec::new(),
            rules: String::new(),
        })
    }

    /// Plays all steps, up to the first that goes otherwise than told.
    pub fn play(&mut self) -> Result<(), Stop> {
        for step in [Self::healthy, Self::hijack, Self::diagnose, Self::trace, Self::fix, Self::undo] {
            step(self).map_err(|stop| match stop {
                Stop::Cannot(error) => self.fault(format!("{error:#}")),
                told => told,
            })?;
        }
        say("\nWhat changed, by `ip route get`, `ping` and a TCP connection:\n");
        for line in table::lines(&self.phases) {
            say(&line);
        }
        Ok(())
    }

    fn healthy(&mut self) -> Result<(), Stop> {
        self.begin("healthy", "All is well")?;
        say(
            "A customer gateway with two VPN tunnels to AWS. Each tunnel has a BGP neighbour at its far end, and BGP has \
             taught\nthe prefix 10.20.0.0/16 behind them. Everything meant for the VPN enters a tunnel.",
        );
        say(&self.lab.tunnels().told());
        self.read("before", Reading::not_right)?;
        self.vpnfix(&["diagnose"], 0)
    }

    fn hijack(&mut self) -> Result<(), Stop> {
        self.begin("hijack", "strongSwan starts")?;
        say(
            "Its daemon charon installs a default route in table 220, and a rule that asks table 220 before table main. \
             The\ntunnels, their addresses and the routes in main stay as they were.",
        );
        self.lab.hijack()?;
        self.show_ip(&["rule"])?;
        self.show_ip(&["route", "show", "table", "220"])?;
        self.show_ip(&["route", "get", &TUNNELS[0].peer.to_string()])?;
        self.read("hijacked", Reading::not_hijacked)?;
        say(
            "\nThe neighbours' packets now leave by ens5, unencrypted, and die in the VPC. The tunnels are not at fault:",
        );
        for tunnel in &TUNNELS {
            let arguments = self.readers.ping_arguments(tunnel.peer, Some(tunnel.device));
            command::show_line("ip", &arguments);
            if !self.readers.ping(tunnel.peer, Some(tunnel.device))? {
                return Err(self.fault(format!("{} has no answer through {} itself", tunnel.peer, tunnel.device)));
            }
            say("      answered");
        }
        Ok(())
    }

    fn diagnose(&mut self) -> Result<(), Stop> {
        self.begin("diagnose", "What is wrong, and why")?;
        say(
            "vpnfix asks the kernel about everything that belongs to a tunnel, and names the rule at fault. It changes nothing.",
        );
        self.vpnfix(&["diagnose"], 1)
    }

    fn trace(&mut self) -> Result<(), Stop> {
        self.begin("trace", "Seen live")?;
        say("A suspicion is no proof. While pings and BGP's connection attempts run, vpnfix watches the kernel's own \
             decisions,\nand the packets handed to each device.");
        let before = (self.readers.sent(PHYSICAL_DEVICE)?, self.tunnels_sent()?);
        let traffic = Traffic::new(&self.readers);
        let traced = traffic.during(|| self.vpnfix(&["trace", "--for", TRACE_FOR], 1))?;
        traced?;
        let wrong = self.readers.sent(PHYSICAL_DEVICE)?.saturating_sub(before.0);
        let right = self.tunnels_sent()?.saturating_sub(before.1);
        say(&format!(
            "\nThe devices' own counters agree: {wrong} packets more left by {PHYSICAL_DEVICE}, {right} by the tunnels."
        ));
        if wrong < TRAFFIC_AT_LEAST || right > 0 {
            return Err(self.fault(format!(
                "at least {TRAFFIC_AT_LEAST} packets should have left by {PHYSICAL_DEVICE} and none by the tunnels"
            )));
        }
        Ok(())
    }

    fn fix(&mut self) -> Result<(), Stop> {
        self.begin("fix", "Repaired, and proven on live packets")?;
        say("vpnfix adds policy rules before the hijacker's and watches live packets take the tunnels. Table 220 is \
             strongSwan's\nand is not touched.");
        self.rules = self.readers.rules()?;
        let before = self.tunnels_sent()?;
        self.vpnfix(&["fix"], 0)?;
        self.show_ip(&["rule"])?;
        self.read("repaired", Reading::not_right)?;
        let more = self.tunnels_sent()?.saturating_sub(before);
        say(&format!(
            "\nThe tunnels' own counters agree: {more} packets more. The prefix behind the VPN is reachable too."
        ));
        if more == 0 {
            return Err(self.fault("no packet left by a tunnel".to_owned()));
        }
        self.vpnfix(&["diagnose"], 0)
    }

    fn undo(&mut self) -> Result<(), Stop> {
        self.begin("undo", "And back again")?;
        say(
            "Everything that vpnfix added can be taken back. The rules are as strongSwan left them, and the hijack is back.",
        );
        self.vpnfix(&["undo"], 0)?;
        self.show_ip(&["rule"])?;
        if self.readers.rules()? != self.rules {
            return Err(self.fault("`ip -d rule` is not what it was before the repair".to_owned()));
        }
        self.read("after undo", Reading::not_hijacked)
    }

    fn begin(&mut self, step: &'static str, title: &str) -> Result<(), Stop> {
        self.step = step;
        self.number += 1;
        if interrupt::came() {
            return Err(self.fault("interrupted".to_owned()));
        }
        say(&format!("\n{}. {title}\n", self.number));
        Ok(())
    }

    fn fault(&self, why: String) -> Stop {
        Stop::Step { step: self.step, why }
    }

    /// Asks the independent readers, shows what they say, and judges it.
    fn read(&mut self, phase: &'static str, judge: Judge) -> Result<(), Stop> {
        let readings = self.settled(judge)?;
        say("");
        for (destination, reading) in DESTINATIONS.iter().zip(&readings) {
            let answer = |yes: bool| if yes { "answers" } else { "no answer" };
            say(&format!(
                "      {:15} leaves by {} (table {}); ping: {}; TCP 179: {}",
                destination.address.to_string(),
                reading.device,
                reading.table,
                answer(reading.ping),
                answer(reading.tcp)
            ));
        }
        for (destination, reading) in DESTINATIONS.iter().zip(&readings) {
            if let Some(wrong) = judge(reading, destination) {
                return Err(self.fault(wrong));
            }
        }
        self.phases.push((phase, readings));
        Ok(())
    }

    /// What the readers say once it is as the story goes, or at last. A first packet through fresh tunnels may be lost or
    /// late on a slow machine; what stays wrong is wrong.
    fn settled(&self, judge: Judge) -> Result<Vec<Reading>, Stop> {
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let readings = self.readers.read_all()?;
            let as_told = DESTINATIONS.iter().zip(&readings).all(|(told, reading)| judge(reading, told).is_none());
            if as_told || Instant::now() >= deadline {
                return Ok(readings);
            }
        }
    }

    /// Runs vpnfix on the gateway's namespace, shows it, and checks its exit status.
    fn vpnfix(&self, what: &[&str], expected: i32) -> Result<(), Stop> {
        let options = self.lab.tunnels().kind().options().split_whitespace();
        let words = ["--netns", self.readers.cgw.as_str()].into_iter().chain(options).chain(what.iter().copied());
        let arguments: Vec<String> = words.map(str::to_owned).collect();
        command::show_line("vpnfix", &arguments);
        let environment = [("VPNFIX_RUN_DIR", self.commands_folder.as_path())];
        let finished = command::run(&self.vpnfix, &arguments, &environment)?;
        command::show_output(&finished);
        match finished.status {
            Some(status) if status == expected => Ok(()),
            status => {
                let status = status.map_or_else(|| "a signal".to_owned(), |status| format!("status {status}"));
                Err(self.fault(format!("vpnfix {} ended with {status}, not {expected}", what.join(" "))))
            }
        }
    }

    /// Runs `ip` in the gateway's namespace and shows it.
    fn show_ip(&self, what: &[&str]) -> Result<(), Stop> {
        let words = ["-n", self.readers.cgw.as_str()].into_iter().chain(what.iter().copied());
        let arguments: Vec<String> = words.map(str::to_owned).collect();
        command::show_line("ip", &arguments);
        let finished = command::run(&self.readers.ip_file, &arguments, &[])?;
        command::show_output(&finished);
        Ok(())
    }

    fn tunnels_sent(&self) -> anyhow::Result<u64> {
        TUNNELS.iter().map(|tunnel| self.readers.sent(tunnel.device)).sum()
    }
}

/// Pings and connection attempts to both neighbours.
struct Traffic<'a> {
    readers: &'a Readers,
}

impl<'a> Traffic<'a> {
    const fn new(readers: &'a Readers) -> Self {
        Self { readers }
    }

    /// Keeps the traffic up while `work` runs.
    fn during<T>(&self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        let over = AtomicBool::new(false);
        let _pings = TUNNELS.iter().map(|tunnel| self.ping(tunnel.peer)).collect::<anyhow::Result<Vec<_>>>()?;
        thread::scope(|scope| {
            // The end is told even if `work` panics: the scope would wait for its threads for ever.
            let _ender = Ender(&over);
            for tunnel in &TUNNELS {
                let target = SocketAddr::from((tunnel.peer, BGP_PORT));
                let over = &over;
                scope.spawn(move || {
                    netns::inside(&self.readers.cgw_path, || {
                        while !over.load(Ordering::Relaxed) {
                            // A failure is what the hijack makes of it; the SYN was sent all the same.
                            let _ = TcpStream::connect_timeout(&target, CONNECT_EVERY);
                            thread::sleep(CONNECT_EVERY);
                        }
                    })
                });
            }
            Ok(work())
        })
    }

    fn ping(&self, address: std::net::Ipv4Addr) -> anyhow::Result<Pinging> {
        let child = command::mortal(&self.readers.ip_file)
            .args(["netns", "exec", &self.readers.cgw, "ping", "-n", "-q", "-i", "0.3", "-w", "120"])
            .arg(address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("ping {address}"))?;
        Ok(Pinging(child))
    }
}

/// A ping that ends with its owner.
struct Pinging(Child);

impl Drop for Pinging {
    fn drop(&mut self) {
        command::end(&mut self.0);
    }
}

/// Tells the traffic to end.
struct Ender<'a>(&'a AtomicBool);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
