//! Words of commands, some there and some not.

use proptest::prelude::*;
use proptest::sample::select;

/// There with this chance, which may be none.
pub(super) fn optional<T>(chance: f64, value: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Option<T>>
where
    T: std::fmt::Debug + Clone + 'static,
{
    if chance > 0.0 { prop::option::weighted(chance, value).boxed() } else { Just(None).boxed() }
}

/// Words of a command, each there or not.
pub(super) fn words(parts: Vec<BoxedStrategy<Option<String>>>) -> impl Strategy<Value = String> {
    parts.prop_map(|parts| parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

pub(super) fn maybe<T>(chance: f64, values: &[T], word: impl Fn(T) -> String + 'static) -> BoxedStrategy<Option<String>>
where
    T: Clone + std::fmt::Debug + 'static,
{
    optional(chance, select(values.to_vec()).prop_map(word))
}

pub(super) fn always<T>(values: &[T], word: impl Fn(T) -> String + 'static) -> BoxedStrategy<Option<String>>
where
    T: Clone + std::fmt::Debug + 'static,
{
    select(values.to_vec()).prop_map(move |value| Some(word(value))).boxed()
}
