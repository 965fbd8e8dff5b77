//! Debian's kernels: the newest package of a series, unpacked and kept under `target/vm/kernels`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use super::series::Series;
use crate::{
    archive::{Archive, Suites},
    process, workspace,
};

/// The flavour with all modules; the cloud flavour of 6.1 lacks the file system that the machines boot from.
const FLAVOUR: &str = "amd64";

/// A kernel that is ready to boot.
pub struct Kernel {
    /// Its series.
    pub series: Series,
    /// What `uname -r` says in it.
    pub release: String,
    /// The boot image. The modules lie in `../lib/modules/RELEASE` seen from its folder, where virtme-ng looks.
    pub image: PathBuf,
}

/// The kernels of these series, downloaded where none is kept yet. Remove `target/vm/kernels` to get newer ones.
pub fn provide(wanted: &[Series]) -> Vec<(Series, Result<Kernel>)> {
    let missing: Vec<_> = wanted.iter().copied().filter(|series| kept(*series).is_none()).collect();
    let archive = if missing.is_empty() { None } else { Some(Archive::open(&suites(&missing))) };
    let mut kernels = Vec::new();
    for &series in wanted {
        let kernel = match (kept(series), &archive) {
            (Some(kernel), _) => Ok(kernel),
            (None, Some(Ok(archive))) => fetch(series, archive),
            (None, Some(Err(error))) => Err(anyhow!("{error:#}")),
            (None, None) => Err(anyhow!("kernel {} vanished from {}", series.name(), folder().display())),
        };
        kernels.push((series, kernel.with_context(|| format!("get kernel {}", series.name()))));
    }
    kernels
}

fn suites(wanted: &[Series]) -> Suites {
    Suites {
        main: wanted.iter().flat_map(|series| series.suites()).copied().collect(),
        security: wanted.iter().flat_map(|series| series.security_suites()).copied().collect(),
    }
}

fn folder() -> PathBuf {
    workspace::vm().join("kernels")
}

/// The newest kernel of the series that was unpacked before.
fn kept(series: Series) -> Option<Kernel> {
    let releases = fs::read_dir(folder()).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let release = newest(series, releases)?;
    let image = image(&folder().join(&release), &release);
    image.is_file().then_some(Kernel { series, release, image })
}

fn image(root: &Path, release: &str) -> PathBuf {
    root.join("boot").join(format!("vmlinuz-{release}"))
}

fn fetch(series: Series, archive: &Archive) -> Result<Kernel> {
    const IMAGE: &str = "linux-image-";
    let images = archive.packages(&format!("{IMAGE}{}.", series.name()))?;
    let releases = images.iter().filter_map(|package| package.strip_prefix(IMAGE)).map(str::to_owned);
    let release = newest(series, releases).context("the mirror's suites hold no such kernel")?;
    eprintln!("vm: fetching kernel {release}");

    // From 6.19 on linux-image is an empty package that needs these two.
    let split = archive.packages(&format!("linux-modules-{release}"))?.contains(&format!("linux-modules-{release}"));
    let parts: &[&str] = if split { &["linux-binary-", "linux-modules-"] } else { &[IMAGE] };
    let packages: Vec<_> = parts.iter().map(|part| format!("{part}{release}")).collect();

    let unfinished = folder().join(format!(".{release}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
    }
    fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    archive.download(&packages, &unfinished)?;
    unpack(&unfinished, &release)?;
    let finished = folder().join(&release);
    fs::rename(&unfinished, &finished).with_context(|| format!("move a kernel to {}", finished.display()))?;
    Ok(Kernel { series, image: image(&finished, &release), release })
}

/// Turns a folder of packages into `boot/vmlinuz-RELEASE` and `lib/modules/RELEASE`.
fn unpack(root: &Path, release: &str) -> Result<()> {
    let unpacked = root.join("unpacked");
    for package in entries(root)? {
        process::output(process::command("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        fs::remove_file(&package).with_context(|| format!("remove {}", package.display()))?;
    }
    let modules = first_of(&unpacked, &[&format!("lib/modules/{release}"), &format!("usr/lib/modules/{release}")])?;
    let binary =
        first_of(&unpacked, &[&format!("boot/vmlinuz-{release}"), &format!("usr/lib/modules/{release}/vmlinuz")])?;

    let boot = root.join("boot");
    let library = root.join("lib/modules");
    for folder in [&boot, &library] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let image = image(root, release);
    fs::rename(&binary, &image).with_context(|| format!("move {}", binary.display()))?;
    fs::rename(&modules, library.join(release)).with_context(|| format!("move {}", modules.display()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))?;

    let depmod = process::find("depmod").context("find depmod")?;
    process::output(process::command(depmod).arg("-b").arg(root).arg(release))?;
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    listed.map(|entry| Ok(entry?.path())).collect::<Result<_>>().with_context(|| format!("list {}", folder.display()))
}

fn first_of(root: &Path, places: &[&str]) -> Result<PathBuf> {
    match places.iter().map(|place| root.join(place)).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => bail!("the packages hold none of {}", places.join(", ")),
    }
}

/// The highest release of the series in the full flavour. Debian's releases carry the patch version
/// (`6.12.117+deb12-amd64`) or an ABI number (`6.1.0-56-amd64`); a backport to an older Debian
/// (`6.1.0-0.deb11.52-amd64`) has a zero there, and so is the lowest.
fn newest(series: Series, releases: impl Iterator<Item = String>) -> Option<String> {
    let prefix = format!("{}.", series.name());
    releases
        .filter(|release| release.starts_with(&prefix))
        .filter(|release| {
            release.rsplit_once('-').is_some_and(|(version, flavour)| {
                flavour == FLAVOUR && !version.ends_with("-cloud") && !version.ends_with("-rt")
            })
        })
        .max_by_key(|release| numbers(release))
}

fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(series: Series, releases: &[&str]) -> Option<String> {
        newest(series, releases.iter().map(|&release| release.to_owned()))
    }

    #[test]
    fn the_newest_is_chosen_by_number_not_by_letter() {
        let releases = ["6.12.99+deb12-amd64", "6.12.117+deb12-amd64", "6.12.111+deb12-amd64"];
        assert_eq!(pick(Series::V6_12, &releases).as_deref(), Some("6.12.117+deb12-amd64"));
        assert_eq!(pick(Series::V6_1, &["6.1.0-9-amd64", "6.1.0-56-amd64"]).as_deref(), Some("6.1.0-56-amd64"));
    }

    #[test]
    fn other_series_flavours_and_backports_are_passed_over() {
        let releases = ["6.12.117+deb12-amd64", "6.1.0-60-cloud-amd64", "6.1.0-61-rt-amd64", "6.1.0-62-amd64-unsigned"];
        assert_eq!(pick(Series::V6_1, &releases), None);
        let backport = ["6.1.0-0.deb11.52-amd64", "6.1.0-47-amd64"];
        assert_eq!(pick(Series::V6_1, &backport).as_deref(), Some("6.1.0-47-amd64"));
    }
}
