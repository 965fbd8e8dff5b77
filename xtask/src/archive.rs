//! Debian packages of other releases, from the mirror that this machine's apt is set up with.
//!
//! A sources list and package lists of their own keep other releases out of the machine's apt; the archive's signatures
//! are checked all the same, against the keys that Debian installs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The suites that something is looked for in.
#[derive(Default)]
pub struct Suites {
    /// Of Debian's main archive.
    pub main: BTreeSet<&'static str>,
    /// Of its security archive.
    pub security: BTreeSet<&'static str>,
}

/// Package lists of some suites.
pub struct Archive {
    root: PathBuf,
}

impl Archive {
    /// Fetches the lists of these suites.
    pub fn open(suites: &Suites) -> Result<Self> {
        let root = workspace::target().join("apt");
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder)).with_context(|| format!("create {}", root.join(folder).display()))?;
        }
        let archive = Self { root };
        let sources = Mirror::find()?.sources(suites);
        fs::write(archive.sources(), sources).with_context(|| format!("write {}", archive.sources().display()))?;
        eprintln!("archive: reading the mirror's package lists");
        process::output(archive.apt("apt-get").args(["-q", "-q", "update"]))?;
        Ok(archive)
    }

    /// The names of all packages that start with `prefix`.
    pub fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let names = process::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads packages into `folder`; apt checks them against the signed lists.
    pub fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        process::output(self.apt("apt-get").args(["-q", "-q", "download"]).args(packages).current_dir(folder))?;
        Ok(())
    }

    fn sources(&self) -> PathBuf {
        self.root.join("debian.sources")
    }

    /// apt with these lists, and with the machine's own state of what is installed.
    pub fn apt(&self, program: &str) -> Command {
        let mut command = process::command(program);
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        command.args(["-o", &option("Dir::Etc::SourceList", &self.sources())]);
        command.args(["-o", "Dir::Etc::SourceParts=/dev/null"]);
        command.args(["-o", &option("Dir::State::Lists", &self.root.join("lists"))]);
        command.args(["-o", &option("Dir::Cache", &self.root.join("cache"))]);
        command.args([
            "-o",
            "Acquire::Languages=none",
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]);
        // apt's own user cannot write into a build folder under a home.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }
}

/// Where this machine takes its own Debian packages from.
///
/// # Errors
/// Its apt knows no Debian mirror.
pub fn main_mirror() -> Result<String> {
    Ok(Mirror::find()?.main)
}

/// The archives that this machine takes its own Debian packages from.
struct Mirror {
    main: String,
    security: String,
}

impl Mirror {
    fn find() -> Result<Self> {
        let format = "$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)\t$(REPO_URI)";
        let targets = process::output(process::command("apt-get").args(["indextargets", "--format", format]))?;
        let mut main = BTreeSet::new();
        let mut security = BTreeSet::new();
        for target in targets.lines() {
            let [release, component, origin, uri] = target.split('\t').collect::<Vec<_>>()[..] else { continue };
            // The origin is known once the lists were fetched; others publish under Debian's code names too.
            if component != "main" || !(origin.is_empty() || origin == "Debian") {
                continue;
            }
            if release.ends_with("-security") {
                security.insert(uri.to_owned());
            } else if !release.contains('-') {
                main.insert(uri.to_owned());
            }
        }
        match (main.pop_first(), security.pop_first()) {
            (Some(main), Some(security)) => Ok(Self { main, security }),
            _ => bail!("apt's sources name no Debian mirror with a release and its security updates"),
        }
    }

    /// A sources list in deb822 style (sources.list(5)).
    fn sources(&self, suites: &Suites) -> String {
        stanza(&self.main, &suites.main) + &stanza(&self.security, &suites.security)
    }
}

fn stanza(uri: &str, suites: &BTreeSet<&str>) -> String {
    if suites.is_empty() {
        return String::new();
    }
    let suites = suites.iter().copied().collect::<Vec<_>>().join(" ");
    format!(
        "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_name_each_suite_once_and_no_empty_archive() {
        let mirror =
            Mirror { main: "http://mirror/debian/".to_owned(), security: "http://mirror/security/".to_owned() };

        let both = Suites { main: ["bookworm-backports", "bookworm"].into(), security: ["bookworm-security"].into() };
        let both = mirror.sources(&both);
        assert!(both.contains("URIs: http://mirror/debian/\nSuites: bookworm bookworm-backports\n"), "{both}");
        assert!(both.contains("URIs: http://mirror/security/\nSuites: bookworm-security\n"), "{both}");

        let newest = mirror.sources(&Suites { main: ["trixie-backports"].into(), ..Suites::default() });
        assert!(newest.contains("Suites: trixie-backports\n"), "{newest}");
        assert!(!newest.contains("security"), "{newest}");
    }
}
