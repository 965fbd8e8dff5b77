//! Talking to the service manager (sd_notify(3)): readiness, status, watchdog. Without one all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!("the service manager cannot be told: {error}");
    }
}

/// Everything is attached.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line on how things are, for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The configuration is being read again; [`ready`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_no_clock) => tell(&[NotifyState::Reloading]),
    }
}

/// The end is near.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Sign of life.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often a sign of life is to be given: twice as often as the service manager wants one.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let mut microseconds = 0;
    sd_notify::watchdog_enabled(false, &mut microseconds)
        .then(|| Duration::from_micros(microseconds / 2))
        .filter(|interval| !interval.is_zero())
}
