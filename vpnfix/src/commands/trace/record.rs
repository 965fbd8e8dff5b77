//! What a trace leaves behind beside its lines: the recording, and the headers of packets.

use std::path::PathBuf;

use crate::commands::cli::TraceArgs;
use crate::commands::failure::Failure;
use crate::core::observation::HeadersSeen;
use crate::core::packets::Packets;
use crate::core::recording::{Encoder, Head, LeftOut, Unrecorded};
use crate::core::telling::{End, Step, Telling};
use crate::render::pcapng;
use crate::system::bpf::Tracer;
use crate::system::new_file::NewFile;

/// The files, made but not written to.
pub struct Files {
    record: Option<NewFile>,
    packets: Option<NewFile>,
}

impl Files {
    /// As the options say.
    ///
    /// # Errors
    /// One cannot be made, or is there already.
    pub fn create(args: &TraceArgs) -> Result<Self, Failure> {
        let create = |path: &Option<PathBuf>| {
            let create = path.as_deref().map(|path| NewFile::create(path).map_err(|error| (path, error)));
            create.transpose().map_err(|(path, error)| {
                let failure = Failure::of(&format!("make {}", path.display()), &error);
                let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
                if is_there { failure.hint("evidence is never overwritten: name a new file") } else { failure }
            })
        };
        Ok(Self { record: create(&args.record)?, packets: create(&args.packets)? })
    }

    /// Are headers of packets to be kept?
    #[must_use]
    pub fn want_packets(&self) -> bool {
        self.packets.is_some()
    }

    /// Begins both.
    #[must_use]
    pub fn begin(self, head: &Head, limit: u64, telling: &Telling) -> Keeping {
        let host = telling.basis().snapshot.host.clone();
        Keeping {
            record: self.record.map(|file| Record { encoder: Encoder::new(head, limit), file }),
            packets: self.packets.map(|file| (Packets::new(host), file)),
            waiting: Vec::new(),
        }
    }
}

/// What is kept while a trace runs.
pub struct Keeping {
    record: Option<Record>,
    packets: Option<(Packets, NewFile)>,
    /// Headers of packets whose lookups may not have been told yet.
    waiting: Vec<HeadersSeen>,
}

struct Record {
    encoder: Encoder,
    file: NewFile,
}

impl Keeping {
    /// Keeps a record of the kernel side.
    pub fn record(&mut self, record: &[u8]) {
        if let Some(Record { encoder, .. }) = &mut self.record {
            encoder.record(record);
        }
    }

    /// Keeps a step; what was seen is kept as its record.
    ///
    /// # Errors
    /// The limit does not hold what the trace is judged by.
    pub fn step(&mut self, step: &Step) -> Result<(), Failure> {
        let Some(Record { encoder, file }) = &mut self.record else { return Ok(()) };
        encoder.step(step).map_err(|error| unrecorded(file, &error))
    }

    /// Fetches the headers of packets that came meanwhile. The events that come before them are to be taken next.
    pub fn fetch_packets(&mut self, tracer: &mut Tracer) {
        if self.packets.is_some() {
            tracer.drain_headers(&mut self.waiting);
        }
    }

    /// Takes the headers that were fetched.
    pub fn take_packets(&mut self, telling: &mut Telling) {
        let Some((packets, _)) = &mut self.packets else { return };
        self.waiting.drain(..).for_each(|headers| packets.take(&headers, telling));
    }

    /// Writes what was kept of the recording so far: a trace that is killed now has it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let Some(Record { encoder, file }) = &mut self.record else { return Ok(()) };
        file.write(&encoder.take()).map_err(|error| unwritten(file, &error))
    }

    /// Writes the end of the recording, and the packets.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn end(&mut self, end: &End, headers_lost: u64, telling: &Telling) -> Result<LeftOut, Failure> {
        if let Some((packets, file)) = &mut self.packets {
            packets.finish(&end.totals, headers_lost, telling);
            file.write(&pcapng::write(packets)).and_then(|()| file.sync()).map_err(|error| unwritten(file, &error))?;
        }
        let Some(Record { encoder, file }) = &mut self.record else { return Ok(LeftOut::default()) };
        encoder.end(end).map_err(|error| unrecorded(file, &error))?;
        let written = file.write(&encoder.take()).and_then(|()| file.sync());
        written.map_err(|error| unwritten(file, &error))?;
        Ok(encoder.left_out())
    }
}

fn unrecorded(file: &NewFile, error: &Unrecorded) -> Failure {
    let failure = Failure::of(&format!("record to {}", file.name()), error);
    match error {
        Unrecorded::LimitTooSmall { .. } => failure.hint("raise --record-limit"),
        Unrecorded::TooLarge(_) => failure,
    }
}

fn unwritten(file: &NewFile, error: &std::io::Error) -> Failure {
    Failure::of(&format!("write to {}", file.name()), error)
}
