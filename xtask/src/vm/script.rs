//! The shell script that a machine runs, and the files by which it tells what came of each job.
//!
//! The serial console is no place for results: the kernel writes into it too, and virtme-ng's own exit status does not
//! tell of the command's.

use std::fmt::Write as _;

use super::{jobs::Job, series::Series};

/// Written as the script starts: the kernel has booted.
pub const STARTED: &str = "started";

/// The status of timeout(1) when it ended the command.
const TIMED_OUT: i32 = 124;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this status, after so many seconds.
    Ended {
        /// The exit status.
        status: i32,
        /// From start to end.
        seconds: u64,
    },
    /// It had to be ended after so many seconds.
    TimedOut {
        /// From start to end.
        seconds: u64,
    },
    /// The machine stopped before, or while it ran.
    Lost,
}

impl Outcome {
    /// Reads a status file's contents, once they are whole: the line is written in one piece, with its end.
    pub fn read(contents: &str) -> Option<Self> {
        let (status, seconds) = contents.strip_suffix('\n')?.split_once(' ')?;
        let seconds = seconds.parse().ok()?;
        match status.parse().ok()? {
            TIMED_OUT => Some(Self::TimedOut { seconds }),
            status => Some(Self::Ended { status, seconds }),
        }
    }
}

/// The name of the file with a job's output.
pub fn output_file(job: &Job) -> String {
    format!("{}.out", job.name)
}

/// The name of the file with a job's exit status and duration.
pub fn status_file(job: &Job) -> String {
    format!("{}.status", job.name)
}

/// A bash script that runs the jobs one after another in `folder`.
pub fn script(folder: &str, jobs: &[Job], series: Series) -> String {
    let mut script = format!("#!/bin/bash\ncd {} || exit 1\n: > {STARTED}\n", quoted(folder));
    script.push_str(
        "job() {\n\
         \tlocal name=$1 limit=$2 began=$SECONDS\n\
         \tshift 2\n\
         \ttimeout --kill-after=5 \"$limit\" env \"$@\" > \"$name.out\" 2>&1 < /dev/null\n\
         \techo \"$? $((SECONDS - began))\" > \"$name.status\"\n\
         }\n",
    );
    for job in jobs {
        // Writing to a string cannot fail.
        let _ = write!(script, "job {} {}", quoted(&job.name), job.limit * series.patience());
        for (name, value) in &job.env {
            let _ = write!(script, " {}", quoted(&format!("{name}={value}")));
        }
        for word in &job.argv {
            let _ = write!(script, " {}", quoted(word));
        }
        script.push('\n');
    }
    script
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_counts_only_once_it_is_whole() {
        assert_eq!(Outcome::read("0 12\n"), Some(Outcome::Ended { status: 0, seconds: 12 }));
        assert_eq!(Outcome::read("124 60\n"), Some(Outcome::TimedOut { seconds: 60 }));
        assert_eq!(Outcome::read("0 1"), None);
        assert_eq!(Outcome::read(""), None);
    }

    #[test]
    fn words_reach_the_job_as_they_are() {
        let job = Job {
            name: "say".to_owned(),
            argv: vec!["printf".to_owned(), "it's $HOME".to_owned()],
            env: vec![("A".to_owned(), "b c".to_owned())],
            limit: 5,
        };
        let script = script("/results", &[job], Series::V5_10);
        assert!(script.ends_with("job 'say' 15 'A=b c' 'printf' 'it'\\''s $HOME'\n"), "{script}");
    }
}
