//! Lists of alternatives before and after they are put in order, asked by two rules: first match and best match.

use proptest::prelude::*;

use super::condition::Condition;
use super::order::{Alternative, arrange, without_negations};
use super::strings::Strings;

const NOWHERE: usize = usize::MAX;

#[derive(Debug, Clone)]
struct Asked {
    path: String,
    method: String,
    headers: Vec<(String, String)>,
}

fn takes(condition: &Condition, asked: &Asked) -> bool {
    let has = |(name, wanted): (&String, &Strings)| {
        asked.headers.iter().any(|(there, value)| there == name && wanted.takes(value))
    };
    condition.path.takes(&asked.path)
        && condition.method.as_ref().is_none_or(|method| *method == asked.method)
        && condition.headers.iter().all(has)
}

/// Istio: the first in the list that fits.
fn first(list: &[Alternative], asked: &Asked) -> usize {
    let holds = |name: &str, value: &Strings| {
        asked.headers.iter().any(|(there, text)| there == name && value.takes(text))
    };
    let fits = |one: &&Alternative| {
        takes(&one.condition, asked) && !one.without.iter().any(|(name, value)| holds(name, value))
    };
    list.iter().find(fits).map_or(NOWHERE, |one| one.rule)
}

/// Gateway API: the most specific that fits, of equals the first.
fn best(list: &[Alternative], asked: &Asked) -> usize {
    let fitting = list.iter().filter(|one| takes(&one.condition, asked));
    fitting.min_by_key(|one| one.precedence()).map_or(NOWHERE, |one| one.rule)
}

fn path() -> impl Strategy<Value = Strings> {
    let text = || prop::sample::select(vec!["/", "/a", "/a/", "/ab", "/a/b"]).prop_map(str::to_owned);
    prop_oneof![
        2 => Just(Strings::Any),
        2 => text().prop_map(|text| Strings::Exact { text, fold: false }),
        2 => (text(), any::<bool>()).prop_map(|(text, fold)| Strings::Prefix { text, fold }),
        1 => prop::sample::select(vec!["/a", "/a/b"]).prop_map(|text| Strings::Element(text.into())),
        1 => prop::sample::select(vec!["/a.*", "/[ab]", "/ab*"]).prop_map(|text| Strings::pattern(text).unwrap()),
    ]
}

fn value() -> impl Strategy<Value = Strings> {
    prop_oneof![
        Just(Strings::Any),
        prop::sample::select(vec!["1", "2"])
            .prop_map(|text| Strings::Exact { text: text.into(), fold: false }),
    ]
}

fn header() -> impl Strategy<Value = (String, Strings)> {
    (prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned), value())
}

fn list() -> impl Strategy<Value = Vec<Alternative>> {
    let method = prop::option::of(prop::sample::select(vec!["GET", "POST"]).prop_map(str::to_owned));
    let headers = prop::collection::btree_map("[xy]", value(), 0..3);
    let one = (path(), method, headers, prop::collection::vec(header(), 0..2));
    prop::collection::vec(one, 1..6).prop_map(|all| {
        let alternative = |(rule, (path, method, headers, without))| Alternative {
            condition: Condition { path, method, headers, ..Condition::any() },
            without,
            ..Alternative::any(rule)
        };
        all.into_iter().enumerate().map(alternative).collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let path = prop::collection::vec(prop::sample::select(vec!["/", "a", "b", "A"]), 0..4);
    let headers = prop::collection::btree_map("[xy]", "[12]", 0..3);
    (path, prop::sample::select(vec!["GET", "POST"]), headers).prop_map(|(path, method, headers)| Asked {
        path: format!("/{}", path.concat()),
        method: method.into(),
        headers: headers.into_iter().collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_put_in_order_decides_as_the_list_did(list in list(), asked in prop::collection::vec(asked(), 32)) {
        let (positive, lost) = without_negations(list.clone(), NOWHERE);
        let (arranged, reversed) = arrange(positive);
        prop_assume!(lost.is_empty() && reversed.is_empty());
        for asked in asked {
            prop_assert_eq!(best(&arranged, &asked), first(&list, &asked), "{:?}\n{:#?}", asked, arranged);
        }
    }
}

#[test]
fn a_negated_header_goes_to_what_comes_after() {
    let plain = Alternative { without: vec![("x".into(), Strings::Any)], ..Alternative::any(0) };
    let (list, lost) = without_negations(vec![plain, Alternative::any(1)], NOWHERE);
    assert!(lost.is_empty());
    assert_eq!(list.iter().map(|one| one.rule).collect::<Vec<_>>(), [1, 0, 1]);
}

#[test]
fn an_order_that_cannot_be_kept_is_named() {
    let pattern = |text: &str| Condition { path: Strings::pattern(text).unwrap(), ..Condition::any() };
    let one = Alternative { condition: pattern("/a+.*"), ..Alternative::any(0) };
    let mut other = Alternative { condition: pattern("/.*b"), ..Alternative::any(1) };
    assert_eq!(arrange(vec![one.clone(), other.clone()]).1, []);
    other.condition.headers.insert("x".into(), Strings::Any);
    let pairs = arrange(vec![one, other]).1;
    assert_eq!(pairs.iter().map(|pair| (pair.first, pair.second)).collect::<Vec<_>>(), [(0, 1)]);
}
