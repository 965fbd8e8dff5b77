//! The words of strongswan.conf(5), across the files that it includes (`settings_lexer.l`).

use super::{File, Files, Place, Problem, ProblemKind, SyntaxError};

/// Files that a configuration may consist of. Debian ships about 70.
const MAX_FILES: usize = 1000;
/// Longest include pattern in bytes (`PATH_MAX` with its end); the daemon ignores longer ones.
const MAX_PATTERN: usize = 4095;

/// A word between settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Name(String),
    Open,
    Close,
    Equals,
    Colon,
    Comma,
}

/// A file that is being read.
struct Frame {
    path: String,
    text: String,
    modified: Option<u64>,
    position: usize,
    line: u32,
    /// Where its last line feed is.
    last_newline: Option<usize>,
    /// Index of the file that includes it.
    parent: Option<usize>,
}

/// Reads words. An included file's words stand in the place of the include, as they do for the daemon: a file may even
/// close a section that another has opened.
pub(super) struct Lexer<'a, 'f> {
    frames: Vec<Frame>,
    files: &'a mut Files<'f>,
    /// The files opened so far, in order.
    pub(super) opened: Vec<String>,
    /// What was found wrong so far, errors of syntax excepted.
    pub(super) problems: Vec<Problem>,
}

/// An error of syntax and where it is.
pub(super) type Refusal = (Place, SyntaxError);

impl<'a, 'f> Lexer<'a, 'f> {
    pub(super) fn new(entry: File, files: &'a mut Files<'f>) -> Self {
        let mut lexer = Self { frames: Vec::new(), files, opened: Vec::new(), problems: Vec::new() };
        let frame = lexer.open(entry, None);
        lexer.frames.extend(frame);
        lexer
    }

    /// The next word, or none at the end of all files. Includes are followed.
    pub(super) fn word(&mut self) -> Result<Option<Word>, Refusal> {
        self.next_word(true)
    }

    /// The next word behind a colon, where `include` is a name as any other.
    pub(super) fn word_of_references(&mut self) -> Result<Option<Word>, Refusal> {
        self.next_word(false)
    }

    fn next_word(&mut self, includes: bool) -> Result<Option<Word>, Refusal> {
        while let Some(byte) = self.next_byte() {
            let sign = match byte {
                b'\t' | b'\r' | b' ' | b'\n' => {
                    self.skip();
                    continue;
                }
                b'#' => {
                    self.skip_comment();
                    continue;
                }
                b'{' => Word::Open,
                b'}' => Word::Close,
                b'=' => Word::Equals,
                b',' => Word::Comma,
                b':' if !self.starts_with("::") => Word::Colon,
                b'"' => return Err(self.refuse(SyntaxError::UnexpectedText)),
                _ if includes && self.at_include() => {
                    self.include()?;
                    continue;
                }
                _ => return Ok(Some(Word::Name(self.name()))),
            };
            self.skip();
            return Ok(Some(sign));
        }
        Ok(None)
    }

    /// The value after an equals sign: words and quoted texts up to the end of the line, of the section or of the file,
    /// with one space between them. An empty one clears the setting.
    pub(super) fn value(&mut self) -> Result<Option<String>, Refusal> {
        let mut parts = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b'\r' | b'\t' | b' ' => self.skip(),
                b'#' | b'}' | b'\n' => break,
                b'"' => parts.push(self.quoted()?),
                _ => parts.push(self.take_while(|byte| !b"#}\"\r\n\t ".contains(&byte))),
            }
        }
        Ok((!parts.is_empty()).then(|| parts.join(" ")))
    }

    /// Where the next word stands, or where the last one stood at the end of a file.
    pub(super) fn place(&self) -> Place {
        let frame = self.frames.last();
        Place {
            file: frame.map_or_else(|| self.opened.first().cloned().unwrap_or_default(), |frame| frame.path.clone()),
            line: frame.map_or(0, |frame| frame.line),
            modified: frame.and_then(|frame| frame.modified),
        }
    }

    pub(super) fn refuse(&self, error: SyntaxError) -> Refusal {
        (self.place(), error)
    }

    /// The next byte of the current file.
    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// The next byte of any file: files that are through are closed.
    fn next_byte(&mut self) -> Option<u8> {
        while !self.frames.is_empty() {
            match self.peek() {
                Some(byte) => return Some(byte),
                None => _ = self.frames.pop(),
            }
        }
        None
    }

    fn rest(&self) -> &[u8] {
        self.frames.last().and_then(|frame| frame.text.as_bytes().get(frame.position..)).unwrap_or_default()
    }

    fn starts_with(&self, word: &str) -> bool {
        self.rest().starts_with(word.as_bytes())
    }

    fn skip(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.line += u32::from(frame.text.as_bytes().get(frame.position) == Some(&b'\n'));
            frame.position += 1;
        }
    }

    /// To the end of the line; only where none follows in the file does a carriage return end it, too.
    fn skip_comment(&mut self) {
        let line_follows = self.frames.last().is_some_and(|frame| Some(frame.position) < frame.last_newline);
        while self.peek().is_some_and(|byte| byte != b'\n' && (line_follows || byte != b'\r')) {
            self.skip();
        }
    }

    /// The bytes up to the first that does not fit. What stops it is always ASCII, so characters stay whole.
    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> String {
        let mut taken = Vec::new();
        while let Some(byte) = self.peek().filter(|byte| fits(*byte)) {
            taken.push(byte);
            self.skip();
        }
        String::from_utf8_lossy(&taken).into_owned()
    }

    /// A name of a section or a key. A double colon stands for a colon in it; whether a dot may stand in it depends on
    /// the version, and no setting that is read here has one.
    fn name(&mut self) -> String {
        let mut name = String::new();
        loop {
            name.push_str(&self.take_while(|byte| !b"#{}:,=\"\r\n\t ".contains(&byte)));
            if !self.starts_with("::") {
                return name;
            }
            self.skip();
            self.skip();
            name.push(':');
        }
    }

    /// `include` is a statement where space follows and then something else than an equals sign.
    fn at_include(&self) -> bool {
        let Some(after) = self.rest().strip_prefix(b"include") else { return false };
        let spaces = after.iter().take_while(|byte| matches!(byte, b'\t' | b' ')).count();
        match after.get(spaces) {
            // Of several spaces the last one counts as the something: flex takes the longest match.
            Some(b'=') | None => spaces > 1,
            Some(_) => spaces > 0,
        }
    }

    fn include(&mut self) -> Result<(), Refusal> {
        self.take_while(|byte| byte.is_ascii_alphabetic());
        while matches!(self.rest(), [b'\t' | b' ', next, ..] if *next != b'=') {
            self.skip();
        }
        let mut pattern = String::new();
        loop {
            match self.peek() {
                None | Some(b'#' | b'}' | b'\n' | b'\t' | b' ') => break,
                Some(b'\r') => self.skip(),
                Some(b'"') => {
                    pattern.push_str(&self.quoted()?);
                    break;
                }
                Some(b'\\') => {
                    self.skip();
                    let escaped = self.peek().filter(|byte| b"\"#} ".contains(byte));
                    pattern.push(escaped.map_or('\\', char::from));
                    if escaped.is_some() {
                        self.skip();
                    }
                }
                Some(_) => pattern.push_str(&self.take_while(|byte| !b"\"\\#}\r\n\t ".contains(&byte))),
            }
        }
        self.open_all(&pattern);
        Ok(())
    }

    /// A quoted text; the next byte is its first quote. It may go over several lines.
    fn quoted(&mut self) -> Result<String, Refusal> {
        let start = self.place();
        self.skip();
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err((start, SyntaxError::UnterminatedText)),
                Some(b'"') => {
                    self.skip();
                    return Ok(text);
                }
                Some(b'\r') => self.skip(),
                Some(b'\\') => {
                    self.skip();
                    match self.peek() {
                        None => return Err((start, SyntaxError::UnterminatedText)),
                        Some(b'\n') => self.skip(),
                        Some(b'\r') if self.starts_with("\r\n") => {
                            self.skip();
                            self.skip();
                        }
                        Some(b'n') => self.replace(&mut text, '\n'),
                        Some(b'r') => self.replace(&mut text, '\r'),
                        Some(b't') => self.replace(&mut text, '\t'),
                        Some(byte) if byte.is_ascii() => self.replace(&mut text, char::from(byte)),
                        // The first byte of a longer character: it is taken with the rest of it.
                        Some(_) => {}
                    }
                }
                Some(_) => text.push_str(&self.take_while(|byte| !b"\\\r\"".contains(&byte))),
            }
        }
    }

    fn replace(&mut self, text: &mut String, by: char) {
        text.push(by);
        self.skip();
    }

    /// Opens the files of an include pattern. A relative one counts from the directory of the file that it stands in.
    fn open_all(&mut self, pattern: &str) {
        let Some(parent) = self.frames.len().checked_sub(1) else { return };
        let directory = self.frames.last().and_then(|frame| frame.path.rsplit_once('/')).map_or(".", |(path, _)| path);
        let pattern = if pattern.starts_with('/') { pattern.into() } else { format!("{directory}/{pattern}") };
        if pattern.ends_with('/') || pattern.len() > MAX_PATTERN {
            return;
        }
        let found = (self.files)(&pattern);
        let frames: Vec<Frame> = found.into_iter().filter_map(|file| self.open(file, Some(parent))).collect();
        // The last one is read first.
        self.frames.extend(frames.into_iter().rev());
    }

    fn open(&mut self, file: File, parent: Option<usize>) -> Option<Frame> {
        let mut ancestor = parent;
        while let Some(frame) = ancestor.and_then(|index| self.frames.get(index)) {
            if frame.path == file.path {
                return self.leave_out(file.path, ProblemKind::IncludesItself);
            }
            ancestor = frame.parent;
        }
        if self.opened.len() >= MAX_FILES {
            return self.leave_out(file.path, ProblemKind::TooManyFiles);
        }
        let File { path, text, modified } = file;
        match text {
            Ok(text) => {
                self.opened.push(path.clone());
                let last_newline = text.rfind('\n');
                Some(Frame { path, text, modified, position: 0, line: 1, last_newline, parent })
            }
            Err(why) => self.leave_out(path, ProblemKind::Unreadable(why)),
        }
    }

    fn leave_out(&mut self, file: String, kind: ProblemKind) -> Option<Frame> {
        // One that is left out again and again is told once.
        let problem = Problem { file, line: None, kind };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        None
    }
}
