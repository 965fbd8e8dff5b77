//! Recordings that were damaged, or made to do harm: no panic, and no more memory than a sane one needs.
//!
//! `VPNFIX_FUZZ_CASES=1000000` makes a long run of it; `VPNFIX_FUZZ_SEED` begins with another number.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vpnfix::core::recording::replay;

use crate::memory;
use crate::pieces::{PREAMBLE, Piece, put_together, take_apart};
use crate::{cases, recording};

/// Cases of an ordinary run, and how long that may take.
const CASES: u64 = 20_000;
const ORDINARY: Duration = Duration::from_secs(20);
/// Memory beyond the file that a replay of a small recording may take.
const MEMORY_MAX: usize = 64 << 20;

/// One after the other: the memory is counted for all threads together.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // What another test failed by is its own affair.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that look random and are the same in each run (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.roll() % (most.max(1) as u64)).unwrap()
    }

    fn one_of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        let index = self.below(choice.len());
        &choice[index]
    }
}

/// Numbers that programs stumble over.
const NUMBERS: [&[u8]; 9] = [
    b"0",
    b"-1",
    b"255",
    b"65536",
    b"4294967295",
    b"18446744073709551615",
    b"9223372036854775807",
    b"281474976710655",
    b"1e400",
];
/// Words that may stand where another one should.
const WORDS: [&[u8]; 8] =
    [b"null", b"[]", b"{}", b"\"\"", b"\"0.0.0.0/0\"", b"\"::/0\"", b"\"255.255.255.255\"", b"\"Goto\""];

/// Damages a payload: JSON mostly stays JSON, so that what reads it is reached.
fn damage(payload: &mut Vec<u8>, dice: &mut Dice) {
    if payload.is_empty() {
        payload.push(0);
        return;
    }
    let at = dice.below(payload.len());
    match dice.below(8) {
        0 => payload[at] ^= 1 << dice.below(8),
        1 => payload[at] = u8::try_from(dice.below(256)).unwrap(),
        2 => payload.truncate(at),
        3 => {
            let end = (at + dice.below(64)).min(payload.len());
            payload.drain(at..end);
        }
        4 => {
            let end = (at + dice.below(256)).min(payload.len());
            let again = payload[at..end].to_vec();
            payload.splice(at..at, again);
        }
        5 => replace(payload, at, dice.one_of::<&[u8]>(&NUMBERS), |byte| byte.is_ascii_digit()),
        6 => replace(payload, at, dice.one_of::<&[u8]>(&WORDS), |byte| !b",:[]{}".contains(&byte)),
        _ => {
            // Numbers of the kernel's records.
            let word = dice.one_of(&[0_u32, 1, 2, 255, 0x8000_0000, u32::MAX]).to_le_bytes();
            let at = at / 4 * 4;
            if let Some(place) = payload.get_mut(at..at + 4) {
                place.copy_from_slice(&word);
            }
        }
    }
}

/// Puts something in the place of the next run of such bytes.
fn replace(payload: &mut Vec<u8>, from: usize, with: &[u8], of: impl Fn(u8) -> bool) {
    let Some(start) = payload[from..].iter().position(|byte| of(*byte)).map(|at| from + at) else { return };
    let end = payload[start..].iter().position(|byte| !of(*byte)).map_or(payload.len(), |at| start + at);
    payload.splice(start..end, with.iter().copied());
}

/// A recording with something wrong.
fn mutated(preamble: &[u8], pieces: &[Piece], dice: &mut Dice) -> Vec<u8> {
    let mut pieces = pieces.to_vec();
    for _ in 0..=dice.below(4) {
        let (at, other) = (dice.below(pieces.len()), dice.below(pieces.len()));
        match dice.below(8) {
            0 => drop(pieces.remove(at)),
            1 => {
                let again = pieces[at].clone();
                pieces.insert(other, again);
            }
            2 => pieces.swap(at, other),
            3 => pieces[at].kind = u8::try_from(dice.below(11)).unwrap(),
            _ => damage(&mut pieces[at].payload, dice),
        }
        if pieces.is_empty() {
            break;
        }
    }
    let mut bytes = put_together(preamble, &pieces);
    // What checksums are for.
    match dice.below(8) {
        0 => bytes.truncate(dice.below(bytes.len())),
        1 => {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        _ => {}
    }
    bytes
}

/// Tells it, to nobody; how much memory that took.
fn tell(bytes: &[u8]) -> usize {
    let before = memory::begin();
    let mut lines = 0_u64;
    // Whether it can be told is not the question here.
    let _outcome = replay(bytes, &mut |_| {
        lines += 1;
        ControlFlow::Continue(())
    });
    memory::most() - before
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn mutated_recordings_are_told_or_refused() {
    let _alone = alone();
    let asked = number("VPNFIX_FUZZ_CASES");
    let mut seed = number("VPNFIX_FUZZ_SEED").unwrap_or(1);
    let began = Instant::now();
    let originals: Vec<(Vec<u8>, Vec<Piece>)> = cases()
        .iter()
        .map(|case| recording(case))
        .map(|bytes| (bytes[..PREAMBLE].to_vec(), take_apart(&bytes)))
        .collect();
    let mut done = 0;
    while done < asked.unwrap_or(CASES) && (asked.is_some() || began.elapsed() < ORDINARY) {
        // Each case from a seed of its own, so that one can be played alone.
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (preamble, pieces) = dice.one_of(&originals);
        let bytes = mutated(preamble, pieces, &mut dice);
        let outcome = std::panic::catch_unwind(|| tell(&bytes));
        let Ok(memory) = outcome else { panic!("VPNFIX_FUZZ_SEED={seed} VPNFIX_FUZZ_CASES=1 panics") };
        assert!(memory < MEMORY_MAX, "VPNFIX_FUZZ_SEED={seed} VPNFIX_FUZZ_CASES=1 takes {memory} bytes");
        seed += 1;
        done += 1;
    }
    println!("{done} cases in {:.1} s", began.elapsed().as_secs_f64());
}

/// Files that are small and would be large: what they may take is what one frame, or one list, may be.
#[test]
fn bombs_take_no_more_than_the_largest_frame_allows() {
    let _alone = alone();
    let bytes = recording(&cases()[0]);
    let pieces = take_apart(&bytes);
    let with = |further: &[Piece]| {
        let begun: Vec<Piece> = pieces.iter().take_while(|piece| piece.kind != 6).cloned().collect();
        put_together(&bytes[..PREAMBLE], &[begun.as_slice(), further].concat())
    };
    let list = |item: &str| format!("[{}]", vec![item; (3 << 20) / (item.len() + 1)].join(","));
    let piece = |kind, payload: String| Piece { kind, payload: payload.into_bytes() };
    let names = piece(5, list("[0,\"\"]"));
    let counted = piece(7, list("[]"));
    let part = |kind| piece(kind, format!("{{\"part\":\"other_names\",\"is\":{}}}", list("[0,\"\"]")));
    let deep = piece(5, "[".repeat(1 << 20));
    let seen = pieces.iter().find(|piece| piece.kind == 6).unwrap().clone();
    // Records of ever new flows, which the kernel's own map would have no room for.
    let flows: Vec<Piece> = (0..12_000_u32)
        .map(|number| {
            let flow = pieces.iter().filter(|piece| piece.kind == 6).max_by_key(|piece| piece.payload.len());
            let mut record = flow.unwrap().clone();
            // The source address of its flow.
            record.payload[16..20].copy_from_slice(&number.to_be_bytes());
            record
        })
        .collect();
    for (what, pieces, most) in [
        ("names", vec![names; 8], 128 << 20),
        ("counts", vec![counted], MEMORY_MAX),
        ("a list without end", [vec![part(2)], vec![part(3); 40]].concat(), 256 << 20),
        ("a part again and again", vec![part(2); 40], 128 << 20),
        ("depth", vec![deep], MEMORY_MAX),
        ("the same again", vec![seen; 10_000], MEMORY_MAX),
        ("flows", flows, MEMORY_MAX),
    ] {
        let bytes = with(&pieces);
        let memory = tell(&bytes);
        assert!(memory < most, "{what}: {} bytes of file take {memory}", bytes.len());
    }
}
