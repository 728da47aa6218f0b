//! First match against best match. A `VirtualService` takes the first alternative in its list that fits; a route table
//! takes the most specific. Where the two differ for requests that two alternatives share, the list is rewritten until
//! they agree, or the pair is named.

use std::cmp::Reverse;

use super::condition::Condition;
use super::strings::{Meet, Strings};
use crate::matches::check_path;

/// One match of one rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alternative {
    pub(super) condition: Condition,
    /// The rule that it leads to, by its place in the list of rules.
    pub(super) rule: usize,
    /// Whether the path is written as an expression although it could be a literal: expressions come last.
    pub(super) demoted: bool,
    /// How the path is replaced.
    pub(super) rewrite: Option<PathRewrite>,
    /// Conditions that must not hold.
    pub(super) without: Vec<(String, Strings)>,
}

/// A path that takes the place of the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathRewrite {
    Full(String),
    /// Of the prefix that the path matched.
    Prefix(String),
}

/// The form in which a path is written, the first of them asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Exact,
    Prefix(Reverse<usize>),
    Expression,
}

/// Two alternatives whose order cannot be kept, by their rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reversed {
    pub(super) first: usize,
    pub(super) second: usize,
}

impl Alternative {
    /// An alternative without any condition.
    pub(super) fn any(rule: usize) -> Self {
        let (demoted, rewrite, without) = Default::default();
        Self { condition: Condition::any(), rule, demoted, rewrite, without }
    }

    /// How the path is written.
    pub(super) fn form(&self) -> Form {
        match &self.condition.path {
            _ if self.demoted => Form::Expression,
            Strings::Any => Form::Prefix(Reverse(1)),
            Strings::Element(text) if check_path(text).is_ok() => Form::Prefix(Reverse(text.len())),
            Strings::Exact { text, fold: false } if check_path(text).is_ok() => Form::Exact,
            _ => Form::Expression,
        }
    }

    /// Precedence before the place in the list decides (Gateway API, `HTTPRouteRule.matches`).
    pub(super) fn precedence(&self) -> (Form, Reverse<bool>, Reverse<usize>, Reverse<usize>) {
        let Condition { method, headers, query, .. } = &self.condition;
        (self.form(), Reverse(method.is_some()), Reverse(headers.len()), Reverse(query.len()))
    }

    /// Whether the path has to stay as it is: its prefix is what is replaced.
    fn is_anchored(&self) -> bool {
        matches!(self.rewrite, Some(PathRewrite::Prefix(_)))
    }

    /// This alternative for those of its requests alone that `condition` takes too.
    pub(super) fn narrowed(&self, condition: &Condition) -> Meet<Self> {
        match self.condition.meet(condition) {
            Meet::Nothing => Meet::Nothing,
            Meet::Set(both) if !self.is_anchored() || both.path == self.condition.path => {
                Meet::Set(Self { condition: both, ..self.clone() })
            }
            Meet::Set(_) | Meet::Unknown => Meet::Unknown,
        }
    }
}

/// Rewrites the list so that the best match is the first match, and says which pairs it could not do that for.
/// Alternatives have nothing in `without`.
pub(super) fn arrange(mut list: Vec<Alternative>) -> (Vec<Alternative>, Vec<Reversed>) {
    // Each rewrite may need further ones: a list that grows beyond this is given up.
    let limit = 2 * list.len() + 64;
    let (mut reversed, mut second) = (Vec::new(), 0);
    // What was put in once is not put in again, even if it was dropped since: the rewriting ends.
    let mut inserted = Vec::new();
    while second < list.len() {
        match repair(&list, second, &reversed, &inserted, list.len() < limit) {
            Repair::None => second += 1,
            Repair::Drop => drop(list.remove(second)),
            Repair::Demote => list.iter_mut().skip(second).take(1).for_each(|one| one.demoted = true),
            Repair::Insert(at, narrow) => {
                inserted.push(narrow.clone());
                list.insert(at, narrow);
                second = at;
            }
            Repair::Name(pair) => reversed.push(pair),
        }
    }
    (list, reversed)
}

enum Repair {
    /// Nothing before it is overtaken.
    None,
    /// It takes nothing that is left.
    Drop,
    /// Its path is written as an expression.
    Demote,
    /// What the two share is asked for before both.
    Insert(usize, Alternative),
    /// The order cannot be kept.
    Name(Reversed),
}

/// What has to be done so that the alternative at `second` overtakes none before it.
fn repair(
    list: &[Alternative],
    second: usize,
    named: &[Reversed],
    inserted: &[Alternative],
    may_grow: bool,
) -> Repair {
    let Some(later) = list.get(second) else { return Repair::None };
    let before = list.get(..second).unwrap_or_default();
    // A narrower form of the same rule is there on purpose: it is asked before what would overtake the rule.
    if before.iter().any(|earlier| earlier.rule != later.rule && earlier.condition.covers(&later.condition)) {
        return Repair::Drop;
    }
    for (first, earlier) in before.iter().enumerate() {
        let same = earlier.rule == later.rule && earlier.rewrite == later.rewrite;
        if same || earlier.precedence() <= later.precedence() {
            continue;
        }
        let shared = earlier.condition.meet(&later.condition);
        if matches!(shared, Meet::Nothing) || is_shielded(before, earlier, later, &shared) {
            continue;
        }
        if later.form() < earlier.form() && !later.is_anchored() {
            return Repair::Demote;
        }
        let pair = Reversed { first: earlier.rule, second: later.rule };
        match earlier.narrowed(&later.condition) {
            Meet::Set(mut narrow) if may_grow => {
                narrow.demoted = earlier.form() == Form::Expression && later.form() == Form::Expression;
                let fits = narrow.precedence() <= later.precedence() && !inserted.contains(&narrow);
                if fits {
                    return Repair::Insert(first + 1, narrow);
                }
            }
            _ => {}
        }
        if !named.contains(&pair) {
            return Repair::Name(pair);
        }
    }
    Repair::None
}

/// Whether something before `later` takes all that the two share, and is asked before `later`.
fn is_shielded(
    before: &[Alternative],
    earlier: &Alternative,
    later: &Alternative,
    shared: &Meet<Condition>,
) -> bool {
    let takes_all = |one: &Alternative| match shared {
        Meet::Set(shared) => one.condition.covers(shared),
        _ => one.condition.covers(&earlier.condition) || one.condition.covers(&later.condition),
    };
    before.iter().any(|one| one.precedence() <= later.precedence() && takes_all(one))
}

/// Turns "and not this header" into alternatives that ask for the header before: what they take goes where it would
/// have gone without the alternative. `nowhere` stands for no rule at all. An error names the place in the list of an
/// alternative that cannot be written so.
pub(super) fn without_negations(
    list: Vec<Alternative>,
    nowhere: usize,
) -> (Vec<Alternative>, Vec<Alternative>) {
    let limit = 4 * list.len() + 64;
    let (mut done, mut lost): (Vec<Alternative>, _) = (Vec::new(), Vec::new());
    for alternative in list.into_iter().rev() {
        match carve(&alternative, &done, nowhere) {
            Some(carved) if done.len() + carved.len() < limit => {
                let positive = Alternative { without: Vec::new(), ..alternative };
                done = carved.into_iter().chain([positive]).chain(done).collect();
            }
            _ => lost.push(alternative),
        }
    }
    (done, lost)
}

/// Alternatives for what `of` takes but for its negations.
fn carve(of: &Alternative, later: &[Alternative], nowhere: usize) -> Option<Vec<Alternative>> {
    let mut carved = Vec::new();
    for (name, value) in &of.without {
        let header = Condition { headers: [(name.clone(), value.clone())].into(), ..Condition::any() };
        let region = match of.condition.meet(&header) {
            Meet::Nothing => continue,
            Meet::Set(region) => region,
            Meet::Unknown => return None,
        };
        let mut whole = false;
        for one in later {
            match one.narrowed(&region) {
                Meet::Nothing => {}
                Meet::Set(narrow) => carved.push(narrow),
                Meet::Unknown => return None,
            }
            whole = one.condition.covers(&region);
            if whole {
                break;
            }
        }
        if !whole {
            carved.push(Alternative { condition: region, ..Alternative::any(nowhere) });
        }
    }
    Some(carved)
}
