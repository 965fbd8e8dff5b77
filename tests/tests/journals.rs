//! Undo journals that are cut short, damaged, or of another time or place: nothing of others is ever deleted by them.

use std::fs;
use std::path::PathBuf;

use vpnfix_tests::need_root;
use vpnfix_tests::scene::{PEER1, Scene};

const FIX: [&str; 6] = ["fix", "--strategy", "inside", "--no-probe", "--wait", "1ms"];

/// A scene after a fix, with a rule of others that is our own but for the protocol number.
struct Fixed {
    scene: Scene,
    before: (String, String),
    journal: PathBuf,
    text: String,
}

impl Fixed {
    fn new() -> Self {
        let scene = Scene::hijacked();
        scene.ip(&["rule add from 192.0.2.7 lookup main priority 99"]);
        let before = (scene.rules(), scene.routes());
        let fixed = scene.vpnfix(&FIX);
        assert!(matches!(fixed.status, Some(0 | 3)), "{fixed}");
        let files = fs::read_dir(scene.run_dir()).expect("the run folder");
        let mut files = files.map(|entry| entry.expect("an entry").path());
        let journal = files.find(|path| path.to_string_lossy().contains("/journal-")).expect("a journal");
        let text = fs::read_to_string(&journal).expect("the journal");
        Self { scene, before, journal, text }
    }

    /// Undo with this journal goes by the rules' protocol number, and says what is wrong with the journal.
    #[track_caller]
    fn undo_says(&self, words: &str) {
        let undone = self.scene.vpnfix(&["undo", "--format", "json"]).ends(0);
        let report = undone.json();
        assert!(report["notes"].to_string().contains(words), "{words}: {report:#}");
        assert_eq!((self.scene.rules(), self.scene.routes()), self.before);
        assert!(!self.journal.exists(), "the journal is left");
    }
}

/// A line with its checksum: CRC-32 as in IEEE 802.3, written down here once more.
fn line(json: &str) -> String {
    let crc = json.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    format!("{:08x} {json}\n", !crc)
}

/// The journal with its header's fields changed.
fn with_header(text: &str, changes: &[(&str, serde_json::Value)]) -> String {
    let (header, entries) = text.split_once('\n').expect("a header");
    let mut header: serde_json::Value = serde_json::from_str(&header[9..]).expect("JSON");
    assert_eq!(line(&header.to_string()).len(), text.split_once('\n').expect("a header").0.len() + 1);
    for (field, value) in changes {
        header[*field] = value.clone();
    }
    line(&header.to_string()) + entries
}

#[test]
fn garbage_is_told_and_the_rules_tell_what_is_ours() {
    need_root!();
    for garbage in [&b""[..], b"not a journal\n", &[0xff; 5000], b"00000000 {\"format\":1}\n"] {
        let fixed = Fixed::new();
        fs::write(&fixed.journal, garbage).expect("garbage");
        fixed.undo_says("cannot be understood");
    }
    let fixed = Fixed::new();
    fs::write(&fixed.journal, fixed.text.replacen("stage", "stale", 1)).expect("damage");
    fixed.undo_says("line 2: damaged");
}

#[test]
fn a_journal_cut_anywhere_still_undoes() {
    need_root!();
    let fixed = Fixed::new();
    let ends: Vec<usize> = fixed.text.match_indices('\n').map(|(at, _)| at).collect();
    let rules: Vec<String> = fixed.scene.rules().lines().filter(|line| line.contains("118")).map(command).collect();
    for cut in [0, ends[0] / 2, ends[0] + 1, ends[0] + 30, ends[1], fixed.text.len() - 1] {
        fs::write(&fixed.journal, &fixed.text[..cut]).expect("a cut journal");
        fixed.scene.vpnfix(&["undo"]).ends(0);
        assert_eq!((fixed.scene.rules(), fixed.scene.routes()), fixed.before, "cut at {cut}");
        fixed.scene.ip(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    }
    fixed.scene.vpnfix(&["undo"]).ends(0);
}

/// The `ip` command that adds a rule that `ip -d rule` shows.
fn command(line: &str) -> String {
    let (priority, words) = line.split_once(':').expect("a rule");
    let words: Vec<&str> = words.split_whitespace().filter(|word| *word != "unicast").collect();
    format!("rule add priority {priority} {}", words.join(" ").replace("proto 118", "protocol 118"))
}

#[test]
fn a_journal_of_another_boot_or_namespace_is_told_and_left_aside() {
    need_root!();
    let fixed = Fixed::new();
    let other = with_header(&fixed.text, &[("boot_id", "00000000-0000-4000-8000-000000000000".into())]);
    fs::write(&fixed.journal, other).expect("another boot's");
    fixed.undo_says("from before the host was booted");

    let fixed = Fixed::new();
    fs::write(&fixed.journal, with_header(&fixed.text, &[("netns_inode", 1.into())])).expect("another namespace's");
    fixed.undo_says("another network namespace (inode 1)");
}

/// The kernel gives a namespace's number again: the journal then lies there, and no rule of it stands.
#[test]
fn a_journal_without_its_rules_deletes_nothing() {
    need_root!();
    let fixed = Fixed::new();
    let unfinished = fixed.text.lines().filter(|line| !line.contains("kept")).map(|line| format!("{line}\n"));
    let unfinished: String = unfinished.collect();
    fixed.scene.vpnfix(&["undo"]).ends(0);
    // Others have made the same rule since.
    fixed.scene.ip(&["rule add to 169.254.163.248/30 lookup main priority 100"]);
    let before = fixed.scene.rules();
    for text in [&fixed.text, &unfinished] {
        fs::write(&fixed.journal, text).expect("the journal");
        let report = fixed.scene.vpnfix(&["undo", "--format", "json"]).ends(0).json();
        assert_eq!(report["removed"].as_array().map(Vec::len), Some(0), "{report:#}");
        assert!(report["notes"].to_string().contains("they stay"), "{report:#}");
        assert_eq!(fixed.scene.rules(), before);
    }
    fs::write(&fixed.journal, unfinished).expect("the journal");
    fixed.scene.vpnfix(&["fix", "--no-probe", "--wait", "1ms"]);
    assert!(before.lines().all(|line| fixed.scene.rules().contains(line)), "a foreign rule is gone");
}

#[test]
fn a_newer_journal_is_a_clear_error_and_changes_nothing() {
    need_root!();
    let fixed = Fixed::new();
    let newer = with_header(&fixed.text, &[("format", 2.into()), ("vpnfix", "9.0.0".into())]);
    fs::write(&fixed.journal, &newer).expect("a newer one");
    let rules = fixed.scene.rules();
    for command in ["undo", "fix"] {
        let told = fixed.scene.vpnfix(&[command]).ends(4).tells_an_error();
        assert!(told.stderr.contains("vpnfix 9.0.0") && told.stderr.contains("journal-"), "{told}");
    }
    assert_eq!(fixed.scene.rules(), rules);
    assert_eq!(fs::read_to_string(&fixed.journal).expect("the journal"), newer);
    // What the advice says works.
    fs::remove_file(&fixed.journal).expect("the journal");
    fixed.scene.vpnfix(&["undo"]).ends(0);
    assert_eq!((fixed.scene.rules(), fixed.scene.routes()), fixed.before);
}

/// A link in the journal's place is neither read nor written through.
#[test]
fn a_link_in_its_place_is_replaced() {
    need_root!();
    let fixed = Fixed::new();
    let target = fixed.scene.run_dir().join("precious");
    fs::write(&target, "precious").expect("a file");
    fs::remove_file(&fixed.journal).expect("the journal");
    std::os::unix::fs::symlink(&target, &fixed.journal).expect("a link");
    fixed.undo_says("symbolic link");
    assert_eq!(fs::read_to_string(&target).expect("the file"), "precious");
}

/// A journal that cannot be written lets nothing be changed; an undo needs none.
#[test]
fn without_room_for_a_journal_nothing_is_changed() {
    need_root!();
    let fixed = Fixed::new();
    fixed.scene.vpnfix(&["undo"]).ends(0);
    // A folder that is not empty cannot be replaced by a file.
    fs::create_dir_all(fixed.journal.join("full")).expect("a folder");
    let told = fixed.scene.vpnfix(&FIX).ends(4).tells_an_error();
    assert!(told.stderr.contains("undo journal"), "{told}");
    assert_eq!((fixed.scene.rules(), fixed.scene.routes()), fixed.before);
    fixed.scene.ip(&["rule add to 169.254.163.248/30 lookup main priority 100 protocol 118"]);
    assert_eq!(fixed.scene.device_for(PEER1), "Tunnel1");
    fixed.scene.vpnfix(&["undo"]).ends(0);
    assert_eq!((fixed.scene.rules(), fixed.scene.routes()), fixed.before);
}
