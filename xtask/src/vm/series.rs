//! The kernel series that vpnfix is proven on, and where Debian keeps them.

use clap::ValueEnum;

/// A kernel series, from the oldest that vpnfix serves to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Series {
    /// Debian 11's.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12's.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which Debian 12 has beside its own.
    #[value(name = "6.12")]
    V6_12,
    /// The newest, from Debian 13's backports.
    #[value(name = "7.3")]
    V7_3,
}

impl Series {
    /// All of them, oldest first: it is the slowest, and so should start first.
    pub const ALL: &[Self] = &[Self::V5_10, Self::V6_1, Self::V6_12, Self::V7_3];

    /// The one that plays all scenes in a brief run.
    pub const THOROUGH: Self = Self::V6_1;

    /// The first numbers of its versions.
    pub fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_3 => "7.3",
        }
    }

    /// The suites of Debian's main archive that may hold it.
    pub fn suites(self) -> &'static [&'static str] {
        match self {
            Self::V5_10 => &["bullseye"],
            Self::V6_1 => &["bookworm"],
            Self::V6_12 => &["bookworm", "bookworm-backports"],
            Self::V7_3 => &["trixie-backports"],
        }
    }

    /// The suites of Debian's security archive that may hold it.
    pub fn security_suites(self) -> &'static [&'static str] {
        match self {
            Self::V5_10 => &["bullseye-security"],
            Self::V6_1 | Self::V6_12 => &["bookworm-security"],
            Self::V7_3 => &[],
        }
    }

    /// How many times longer than on the others a job may take: 5.10 was seen to be two to four times slower when
    /// emulated.
    pub fn patience(self) -> u64 {
        match self {
            Self::V5_10 => 3,
            Self::V6_1 | Self::V6_12 | Self::V7_3 => 1,
        }
    }
}
