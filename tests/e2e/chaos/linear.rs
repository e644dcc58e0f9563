//! Is a history of calls linearizable? Per key, after Wing and Gong with Lowe's cache: looks for an
//! order of the calls in which each takes effect at once, between its begin and its end, and every
//! answer is true.
//!
//! A key is a register that may be absent. Values are unique, so one that nobody could have read gives
//! a wrong order away at once. A call whose outcome is unknown may take effect at any later time, or
//! never.

use std::collections::BTreeSet;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Make the object with a value; it must not be there.
    Create(u64),
    /// Read its value.
    Read,
    /// Replace a value that was read, by its version.
    Swap { from: u64, to: u64 },
    /// Remove the object.
    Remove,
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done.
    Done,
    /// It was not done, because of what the object is.
    Refused,
    /// The value, or that there is no object.
    Value(Option<u64>),
    /// Nothing: it may have been done, or will be.
    Unknown,
}

/// One call on one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) call: Call,
    pub(crate) answer: Answer,
    pub(crate) begun: u64,
    /// Without a meaning where the answer is unknown.
    pub(crate) ended: u64,
}

type State = Option<u64>;

impl Op {
    /// The state after the call if it takes effect now; `None` if its answer would be a lie.
    fn effect(&self, state: State) -> Option<State> {
        match (self.call, self.answer) {
            (Call::Read, Answer::Value(value)) => (value == state).then_some(state),
            (Call::Create(value), Answer::Done) => state.is_none().then_some(Some(value)),
            (Call::Create(_), Answer::Refused) => state.is_some().then_some(state),
            (Call::Swap { from, to }, Answer::Done) => (state == Some(from)).then_some(Some(to)),
            (Call::Swap { from, .. }, Answer::Refused) => (state != Some(from)).then_some(state),
            // Of two that remove it at the same time both are told that it is gone.
            (Call::Remove, Answer::Done) => Some(None),
            (Call::Remove, Answer::Refused) => state.is_none().then_some(state),
            (call, Answer::Unknown) => match call {
                Call::Read => None,
                Call::Create(value) => state.is_none().then_some(Some(value)),
                Call::Swap { from, to } => (state == Some(from)).then_some(Some(to)),
                Call::Remove => Some(None),
            },
            (_, Answer::Done | Answer::Refused | Answer::Value(_)) => None,
        }
    }

    fn is_open(&self) -> bool {
        self.answer == Answer::Unknown
    }
}

/// Which calls took effect, as bits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Taken(Vec<u64>);

impl Taken {
    fn has(&self, op: usize) -> bool {
        self.0[op / 64] & (1 << (op % 64)) != 0
    }

    fn flip(&mut self, op: usize) {
        self.0[op / 64] ^= 1 << (op % 64);
    }
}

/// Looks for an order of a key's calls; where there is none, says how far one can get.
pub(crate) fn check(history: &[Op]) -> Result<(), String> {
    let mut ops: Vec<Op> =
        history.iter().filter(|op| !(op.is_open() && op.call == Call::Read)).copied().collect();
    ops.sort_by_key(|op| op.begun);
    let closed = ops.iter().filter(|op| !op.is_open()).count();
    let mut taken = Taken(vec![0; ops.len() / 64 + 1]);
    let mut seen = BTreeSet::new();
    let mut path: Vec<(usize, State)> = Vec::new();
    let (mut state, mut next, mut done) = (None, 0, 0);
    let mut furthest: Vec<usize> = Vec::new();
    while done < closed {
        // Who began after another call's end cannot take effect before it.
        let limit = ops.iter().enumerate().filter(|(at, op)| !op.is_open() && !taken.has(*at));
        let limit = limit.map(|(_, op)| op.ended).min().unwrap_or(u64::MAX);
        let found = (next..ops.len()).take_while(|at| ops[*at].begun <= limit).find_map(|at| {
            if taken.has(at) {
                return None;
            }
            let after = ops[at].effect(state)?;
            taken.flip(at);
            let is_new = seen.insert((taken.clone(), after));
            taken.flip(at);
            is_new.then_some((at, after))
        });
        if let Some((at, after)) = found {
            path.push((at, state));
            taken.flip(at);
            done += usize::from(!ops[at].is_open());
            (state, next) = (after, 0);
            if path.len() > furthest.len() {
                furthest = path.iter().map(|(at, _)| *at).collect();
            }
        } else {
            let Some((at, before)) = path.pop() else { return Err(tell(&ops, &furthest)) };
            taken.flip(at);
            done -= usize::from(!ops[at].is_open());
            (state, next) = (before, at + 1);
        }
    }
    Ok(())
}

/// What came last in the longest order, and what cannot follow.
fn tell(ops: &[Op], furthest: &[usize]) -> String {
    let last: Vec<_> = furthest.iter().rev().take(5).rev().map(|at| ops[*at]).collect();
    let mut rest: Vec<_> = (0..ops.len()).filter(|at| !furthest.contains(at)).collect();
    rest.truncate(6);
    let rest: Vec<_> = rest.into_iter().map(|at| ops[at]).collect();
    format!("{} of {} calls fit\n  last {last:?}\n  then {rest:?}", furthest.len(), ops.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(begun: u64, ended: u64, call: Call, answer: Answer) -> Op {
        Op { call, answer, begun, ended }
    }

    const DONE: Answer = Answer::Done;
    const SWAP: fn(u64, u64) -> Call = |from, to| Call::Swap { from, to };
    const SEES: fn(u64) -> Answer = |value| Answer::Value(Some(value));

    #[test]
    fn what_could_have_happened_is_accepted() {
        let one_after_another = [
            op(0, 1, Call::Create(1), DONE),
            op(2, 3, Call::Read, SEES(1)),
            op(4, 5, SWAP(1, 2), DONE),
            op(6, 7, Call::Create(3), Answer::Refused),
            op(8, 9, SWAP(1, 4), Answer::Refused),
            op(10, 11, Call::Remove, DONE),
            op(12, 13, Call::Read, Answer::Value(None)),
            op(14, 15, Call::Remove, Answer::Refused),
        ];
        assert_eq!(check(&one_after_another), Ok(()));
        let readers_beside_a_write = [
            op(0, 1, Call::Create(1), DONE),
            op(2, 9, SWAP(1, 2), DONE),
            op(3, 4, Call::Read, SEES(1)),
            op(5, 6, Call::Read, SEES(2)),
        ];
        assert_eq!(check(&readers_beside_a_write), Ok(()));
    }

    #[test]
    fn an_unknown_call_happens_late_or_never() {
        let open = op(2, 3, SWAP(1, 2), Answer::Unknown);
        let begin = op(0, 1, Call::Create(1), DONE);
        let read = |at, value| op(at, at + 1, Call::Read, SEES(value));
        assert_eq!(check(&[begin, open, read(10, 1), read(20, 2)]), Ok(()), "late");
        assert_eq!(check(&[begin, open, read(10, 1), read(20, 1)]), Ok(()), "never");
        assert!(check(&[begin, open, read(10, 2), read(20, 1)]).is_err(), "and back");
    }

    #[test]
    fn what_cannot_have_happened_is_rejected() {
        let begin = [op(0, 1, Call::Create(1), DONE), op(2, 3, SWAP(1, 2), DONE)];
        let and = |more: &[Op]| check(&[&begin[..], more].concat());
        assert!(and(&[op(4, 5, Call::Read, SEES(1))]).is_err(), "an old value");
        assert!(and(&[op(4, 5, Call::Read, SEES(9))]).is_err(), "a value that nobody wrote");
        assert!(and(&[op(4, 5, Call::Read, Answer::Value(None))]).is_err(), "a lost write");
        assert!(and(&[op(4, 5, Call::Create(3), DONE)]).is_err(), "made twice");
        assert!(and(&[op(2, 9, SWAP(1, 3), DONE)]).is_err(), "two swaps of one version");
        assert!(and(&[op(4, 5, SWAP(2, 3), Answer::Refused)]).is_err(), "refused for nothing");
        let readers = [op(2, 5, Call::Read, SEES(2)), op(6, 7, Call::Read, SEES(1))];
        let open = op(2, 20, SWAP(1, 2), DONE);
        assert!(check(&[begin[0], open, readers[0], readers[1]]).is_err(), "first new, then old");
        assert!(
            check(&[begin[0], op(4, 5, Call::Remove, Answer::Refused)]).is_err(),
            "it was there"
        );
    }

    #[test]
    fn long_histories_with_many_open_calls_are_checked_in_time() {
        let mut ops = vec![op(0, 1, Call::Create(0), DONE)];
        for value in 0..400 {
            let at = value * 10 + 2;
            ops.push(op(at, at + 8, SWAP(value, value + 1), DONE));
            ops.push(op(at, at, SWAP(value, 10_000 + value), Answer::Unknown));
            ops.push(op(at + 7, at + 12, Call::Read, SEES(value + 1)));
        }
        assert_eq!(check(&ops), Ok(()));
        ops.push(op(9_000, 9_001, Call::Read, SEES(10_007)));
        assert!(check(&ops).is_err());
    }
}
