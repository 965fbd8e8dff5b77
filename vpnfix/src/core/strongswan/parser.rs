//! From words to sections (`settings_parser.y`), and from sections to what each daemon takes from them.

use super::lexer::{Lexer, Refusal, Word};
use super::section::{Assigned, Section, Tangled};
use super::{
    Configuration, Daemon, File, Files, Key, Place, Problem, ProblemKind, RuleMark, Setting, Settings, SyntaxError,
    value,
};

/// Sections inside of each other. The deepest setting that exists has six.
const MAX_DEPTH: usize = 64;

/// Reads a configuration from its entry file.
pub(super) fn read(entry: File, files: &mut Files<'_>) -> Configuration {
    let mut lexer = Lexer::new(entry, files);
    let tree = parse(&mut lexer);
    let Lexer { opened, problems, .. } = lexer;
    let mut configuration = Configuration { files: opened, settings: Vec::new(), problems };
    match tree {
        Ok((tree, dotted)) => take(&mut configuration, tree, dotted),
        Err((place, error)) => configuration.problems.push(at(&place, ProblemKind::Syntax(error))),
    }
    configuration
}

fn at(place: &Place, kind: ProblemKind) -> Problem {
    Problem { file: place.file.clone(), line: Some(place.line), kind }
}

/// The sections, and where a key that matters was given by a name with dots.
type Tree = (Section, Vec<Place>);

fn parse(lexer: &mut Lexer<'_, '_>) -> Result<Tree, Refusal> {
    let mut top = Section::default();
    let mut dotted = Vec::new();
    // The sections that are open, and where each was opened.
    let mut path: Vec<String> = Vec::new();
    let mut opened: Vec<Place> = Vec::new();
    while let Some(word) = lexer.word()? {
        match word {
            Word::Close => {
                opened.pop().ok_or_else(|| lexer.refuse(SyntaxError::UnexpectedSign))?;
                path.pop();
            }
            Word::Name(name) => {
                let place = lexer.place();
                let mut next = lexer.word()?;
                let references = if next == Some(Word::Colon) { references(lexer, &mut next)? } else { Vec::new() };
                match next {
                    Some(Word::Equals) => {
                        let text = lexer.value()?;
                        if matters_but_for_dots(&name) {
                            dotted.push(place);
                        } else if let Some(key) = Key::named(&name) {
                            top.enter(&path).assign(key, Assigned { text, place });
                        }
                    }
                    Some(Word::Open) if path.len() == MAX_DEPTH => return Err((place, SyntaxError::TooDeep)),
                    Some(Word::Open) => {
                        path.push(name);
                        opened.push(place);
                        top.enter(&path).refer_to(references);
                    }
                    Some(Word::Name(_)) => return Err((place, SyntaxError::UnexpectedName)),
                    _ => return Err((place, SyntaxError::UnexpectedSign)),
                }
            }
            Word::Open | Word::Equals | Word::Colon | Word::Comma => {
                return Err(lexer.refuse(SyntaxError::UnexpectedSign));
            }
        }
    }
    match opened.pop() {
        Some(place) => Err((place, SyntaxError::UnterminatedSection)),
        None => Ok((top, dotted)),
    }
}

/// The names after a colon. What follows them must open a section.
fn references(lexer: &mut Lexer<'_, '_>, next: &mut Option<Word>) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    loop {
        match lexer.word_of_references()? {
            Some(Word::Name(name)) => names.push(name),
            _ => return Err(lexer.refuse(SyntaxError::UnexpectedSign)),
        }
        *next = lexer.word_of_references()?;
        match next {
            Some(Word::Comma) => {}
            Some(Word::Open) => return Ok(names),
            Some(Word::Name(_)) => return Err(lexer.refuse(SyntaxError::UnexpectedName)),
            _ => return Err(lexer.refuse(SyntaxError::UnexpectedSign)),
        }
    }
}

/// `charon.install_routes`, as the documentation writes it and the files may not.
fn matters_but_for_dots(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(sections, key)| sections.starts_with("charon") && Key::named(key).is_some())
}

/// Takes what each daemon finds.
fn take(configuration: &mut Configuration, mut tree: Section, dotted: Vec<Place>) {
    configuration.problems.extend(dotted.iter().map(|place| at(place, ProblemKind::DottedName)));
    for daemon in Daemon::ALL {
        let fallbacks = daemon.fallbacks().iter().map(ToString::to_string).collect();
        tree.enter(&[daemon.name().to_string()]).refer_to(fallbacks);
    }
    let entry = configuration.files.first().cloned().unwrap_or_default();
    for daemon in Daemon::ALL {
        let mut taker = Taker { tree: &tree, daemon, entry: &entry, problems: &mut configuration.problems };
        let settings = taker.settings();
        configuration.settings.push(settings);
    }
}

struct Taker<'a> {
    tree: &'a Section,
    daemon: Daemon,
    entry: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Taker<'_> {
    fn settings(&mut self) -> Settings {
        let defaults = Settings::defaults(self.daemon);
        Settings {
            daemon: self.daemon,
            install_routes: self.setting(Key::InstallRoutes, defaults.install_routes, value::boolean),
            routing_table: self.setting(Key::RoutingTable, defaults.routing_table, value::number),
            routing_table_prio: self.setting(Key::RoutingTablePrio, defaults.routing_table_prio, value::number),
            fwmark: self.setting(Key::Fwmark, defaults.fwmark, |text| value::rule_mark(text).map(Some::<RuleMark>)),
            install_routes_xfrmi: self.setting(Key::InstallRoutesXfrmi, defaults.install_routes_xfrmi, value::boolean),
        }
    }

    /// A text that the daemon does not understand leaves the default, as does an empty one.
    fn setting<T>(&mut self, key: Key, default: Setting<T>, meaning: fn(&str) -> Option<T>) -> Setting<T> {
        let assigned = match self.tree.find(self.daemon.name(), key) {
            Ok(Some(assigned)) => assigned,
            Ok(None) => return default,
            Err(Tangled) => {
                let kind = ProblemKind::TangledReferences;
                self.problem(Problem { file: self.entry.into(), line: None, kind });
                return default;
            }
        };
        let Some(text) = &assigned.text else { return default };
        match meaning(text) {
            Some(value) => Setting { value, place: Some(assigned.place.clone()) },
            None => {
                self.problem(at(&assigned.place, ProblemKind::NotUnderstood(key)));
                default
            }
        }
    }

    /// Several daemons find the same.
    fn problem(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}
