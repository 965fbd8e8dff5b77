//! Words in a text, and which of them are names that a bundle should not tell.

/// Splits a text into words and what stands between them.
pub(super) fn split(text: &str, take: &mut dyn FnMut(&str, bool)) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = is_of_word(first);
        let end = rest.find(|letter| is_of_word(letter) != in_word).unwrap_or(rest.len());
        let (piece, later) = rest.split_at(end);
        if in_word {
            // A full stop or a colon at the end belongs to the sentence, but for an address such as `fd00::`.
            let word = if piece.ends_with("::") { piece } else { piece.trim_end_matches(['.', ':', '-']) };
            let (word, tail) = piece.split_at(word.len());
            parts(word, take);
            if !tail.is_empty() {
                take(tail, false);
            }
        } else {
            take(piece, false);
        }
        rest = later;
    }
}

/// A word, or its parts where an address stands in it among others: `192.0.2.1:179`, `hijacked-by-rule:vti1:192.0.2.0/24`,
/// `peer-192.0.2.1`. What is a name as a whole stays whole.
fn parts(word: &str, take: &mut dyn FnMut(&str, bool)) {
    if word.is_empty() {
        return;
    }
    if is_address(word) || kind(word, std::iter::empty()).is_some() {
        take(word, true);
        return;
    }
    // IPv6 has colons itself: the longest end, then the longest beginning, that is an address.
    let colons = || word.match_indices(':').map(|(at, _)| at);
    let at_end = colons().find(|at| word.get(at + 1..).is_some_and(is_address));
    let at_begin = || colons().rev().find(|at| word.get(..*at).is_some_and(is_address));
    let cut = at_end.or_else(at_begin).or_else(|| colons().next()).or_else(|| word.find('/'));
    let cut = cut.or_else(|| word.find(['-', '_', '+', '@']).filter(|_| holds_v4(word)));
    match cut.and_then(|at| Some((word.get(..at)?, word.get(at..=at)?, word.get(at + 1..)?))) {
        Some((before, sign, after)) => {
            parts(before, take);
            take(sign, false);
            parts(after, take);
        }
        None => take(word, true),
    }
}

fn is_address(word: &str) -> bool {
    word.parse::<std::net::IpAddr>().is_ok() || word.parse::<ipnet::IpNet>().is_ok()
}

fn holds_v4(word: &str) -> bool {
    let mut runs = word.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    runs.any(|run| run.parse::<std::net::Ipv4Addr>().is_ok())
}

/// The words alone.
pub(super) fn for_each(text: &str, take: &mut dyn FnMut(&str)) {
    split(text, &mut |piece, is_word| {
        if is_word {
            take(piece);
        }
    });
}

fn is_of_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | ':' | '/' | '-' | '_' | '@' | '+')
}

/// What kind of name a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A host's name in the domain name system.
    Domain,
    /// `user@host`.
    Mail,
    /// A resource of a cloud (`vpn-0123456789abcdef0`).
    Resource,
    /// The number of a cloud's account (12 digits).
    Account,
    /// A hardware address.
    Hardware,
}

impl Kind {
    /// What its stand-ins begin with.
    pub(super) fn stem(self) -> &'static str {
        match self {
            Self::Domain => "host-",
            Self::Mail => "user-",
            Self::Resource => "resource-",
            Self::Account => "account-",
            Self::Hardware => "00:00:5e:00:53:",
        }
    }

    /// The stand-in of this number. Hardware addresses are RFC 7042's for documentation.
    pub(super) fn stand_in(self, number: usize) -> String {
        match self {
            Self::Domain => format!("host-{number}.example"),
            Self::Mail => format!("user-{number}@example.org"),
            Self::Resource => format!("resource-{number}"),
            Self::Account => format!("account-{number}"),
            Self::Hardware => format!("00:00:5e:00:53:{:02x}", number % 256),
        }
    }
}

/// Endings that make a word with dots a host's name: the general domains, and those that people use at home and at work.
/// Of the countries' two letters those are left out that end names of files (`.sh`, `.rs`, `.md`, `.py`, `.so`).
const DOMAINS: [&str; 26] = [
    "com", "net", "org", "io", "cloud", "dev", "app", "info", "biz", "edu", "gov", "mil", "int", "eu", "local", "lan",
    "internal", "intranet", "corp", "home", "arpa", "aws", "tech", "online", "site", "xyz",
];
const FILE_ENDINGS: [&str; 10] = ["sh", "rs", "md", "py", "so", "d", "ko", "js", "gz", "in"];

/// The kind of a word; none for one that may be told.
pub(super) fn kind<'a>(word: &str, mut known: impl Iterator<Item = &'a str>) -> Option<Kind> {
    if word.contains('@') {
        return word.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty()).map(|_| Kind::Mail);
    }
    if is_hardware(word) {
        return Some(Kind::Hardware);
    }
    if word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Kind::Account);
    }
    if is_resource(word) {
        return Some(Kind::Resource);
    }
    if is_domain(word) || known.any(|name| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))) {
        return Some(Kind::Domain);
    }
    // What clouds name their machines by: the address in the name.
    (word.starts_with("ip-") && word.split('-').count() == 5 && !word.contains('/')).then_some(Kind::Domain)
}

fn is_hardware(word: &str) -> bool {
    let parts: Vec<&str> = word.split(':').collect();
    let octet = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    // All zero is no address, and the documentation's are stand-ins already.
    parts.len() == 6 && parts.iter().all(octet) && word != "00:00:00:00:00:00" && !word.starts_with("00:00:5e:00:53:")
}

fn is_resource(word: &str) -> bool {
    let Some((kind, id)) = word.split_once('-') else { return false };
    let kinds = ["i", "vpn", "vgw", "cgw", "tgw", "eni", "subnet", "vpc", "sg", "rtb", "igw", "acl", "ami"];
    kinds.contains(&kind) && (8..=17).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_domain(word: &str) -> bool {
    let labels: Vec<&str> = word.split('.').collect();
    let label =
        |label: &&str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let Some(last) = labels.last().map(|last| last.to_ascii_lowercase()) else { return false };
    let country = last.len() == 2
        && last.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !FILE_ENDINGS.contains(&last.as_str());
    labels.len() > 1 && labels.iter().all(label) && (country || DOMAINS.contains(&last.as_str()))
}
