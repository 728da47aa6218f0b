//! Why a request goes where it goes: the rule that takes it, and for every other the one reason why not.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::bucket::Bucket;
use super::entry::{Entry, Miss, Precedence};
use super::paths::Paths;
use super::watch::Watch;
use super::{Matched, RequestFacts, Routes};
use crate::{HeaderMatch, PathMatch, QueryMatch, ValueMatch};

/// What a table says about a request.
#[derive(Debug)]
pub struct Explanation<'t> {
    /// What takes the request, if anything does.
    pub winner: Option<Candidate<'t>>,
    /// Everything else, each match of each rule once. Those that would have taken the request are first, in order of
    /// precedence; then those that came closest.
    pub lost: Vec<(Candidate<'t>, Lost<'t>)>,
}

/// One match of one rule at one listener.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'t>(&'t Entry);

/// Why a match does not get a request: the first of these that holds, in this order.
#[derive(Debug, Clone, Copy)]
pub enum Lost<'t> {
    /// The host name of its listener does not stand for the host.
    ListenerHostname,
    /// The host is a more specific listener's (listener isolation).
    ListenerIsolation,
    /// The host is none of its route's.
    Hostname,
    /// The path is another.
    Path(&'t PathMatch),
    /// A condition besides the path does not hold.
    Condition(Miss<'t>),
    /// It would take the request, and so does the winner, which comes before it.
    Precedence(Precedence),
}

impl Routes {
    /// Why [`decide`](Self::decide) answers what it answers. It looks at every rule of the table, so it is for people, not
    /// for requests.
    pub fn explain(&self, facts: &RequestFacts<'_>) -> Explanation<'_> {
        let mut seen = Seen::default();
        // It never breaks off.
        let _ = self.search(facts, &mut seen);
        let mut missed: Vec<_> = self.missed(facts, &seen).into_values().collect();
        missed.sort_by_key(|(entry, lost)| (Reverse(lost.progress()), entry.rank.position()));
        let mut taken = seen.taken.iter();
        let winner = taken.next();
        let beaten = taken.filter_map(|taken| Some((taken.entry, Lost::Precedence(winner?.beats(taken)))));
        let lost = beaten.chain(missed).map(|(entry, lost)| (Candidate(entry), lost)).collect();
        Explanation { winner: winner.map(|taken| Candidate(taken.entry)), lost }
    }

    /// Every entry that the search did not end at. A route of several host names is in several places: the reason that it
    /// got furthest by is its own.
    fn missed<'t>(&'t self, facts: &RequestFacts<'_>, seen: &Seen<'t>) -> HashMap<*const Entry, Missed<'t>> {
        let mut missed = HashMap::new();
        let mut miss = |entry: &'t Arc<Entry>, lost: Option<Lost<'t>>| {
            // Without a reason it takes the request, and the search has found it.
            let Some(lost) = lost.filter(|_| !seen.known.contains(&Arc::as_ptr(entry))) else { return };
            let known: &mut Missed<'t> = missed.entry(Arc::as_ptr(entry)).or_insert((entry, lost));
            if lost.progress() > known.1.progress() {
                known.1 = lost;
            }
        };
        let asked = self.listeners.most_specific(facts.host);
        let stand: Vec<_> = self.listeners.matching(facts.host).collect();
        for hosts in self.listeners.all() {
            let before = if asked.is_some_and(|asked| std::ptr::eq(asked, hosts)) {
                None
            } else if stand.iter().any(|there| std::ptr::eq(*there, hosts)) {
                Some(Lost::ListenerIsolation)
            } else {
                Some(Lost::ListenerHostname)
            };
            for paths in hosts.all() {
                let outside =
                    before.or((!seen.hosts.contains(&std::ptr::from_ref(paths))).then_some(Lost::Hostname));
                let conditions = |entry: &'t Arc<Entry>| entry.miss(facts).map(Lost::Condition);
                paths.buckets(&mut |bucket| {
                    let here = seen.buckets.contains(&std::ptr::from_ref(bucket));
                    for entry in bucket.entries() {
                        let elsewhere = (!here).then_some(Lost::Path(&entry.path));
                        miss(entry, outside.or(elsewhere).or_else(|| conditions(entry)));
                    }
                });
                for (regex, entry) in paths.expressions() {
                    let elsewhere = (!regex.is_match(facts.path)).then_some(Lost::Path(&entry.path));
                    miss(entry, outside.or(elsewhere).or_else(|| conditions(entry)));
                }
            }
        }
        missed
    }
}

type Missed<'t> = (&'t Entry, Lost<'t>);

/// Goes on to the end, and remembers where it was.
#[derive(Default)]
struct Seen<'t> {
    hosts: HashSet<*const Paths>,
    buckets: HashSet<*const Bucket>,
    known: HashSet<*const Entry>,
    taken: Vec<Taken<'t>>,
    /// How many host names and paths the search has been at.
    place: (usize, usize),
}

struct Taken<'t> {
    entry: &'t Entry,
    place: (usize, usize),
}

impl<'t> Watch<'t> for Seen<'t> {
    fn at_host(&mut self, paths: &'t Paths) {
        self.hosts.insert(paths);
        self.place.0 += 1;
    }

    fn at_path(&mut self, bucket: &'t Bucket) {
        self.buckets.insert(bucket);
        self.place.1 += 1;
    }

    fn at_expressions(&mut self) {
        self.place.1 += 1;
    }

    fn taken(&mut self, entry: &'t Arc<Entry>) -> ControlFlow<()> {
        // A route of several host names may be met again.
        if self.known.insert(Arc::as_ptr(entry)) {
            self.taken.push(Taken { entry, place: self.place });
        }
        ControlFlow::Continue(())
    }
}

impl Taken<'_> {
    fn beats(&self, other: &Self) -> Precedence {
        if self.place.0 != other.place.0 {
            Precedence::Hostname
        } else if self.place.1 != other.place.1 {
            Precedence::Path
        } else {
            self.entry.rank.decided(&other.entry.rank)
        }
    }
}

impl<'t> Candidate<'t> {
    /// Its rule, with the listener that it is at.
    pub fn matched(self) -> &'t Matched {
        &self.0.matched
    }

    /// Which of the rule's matches it is.
    pub fn place(self) -> usize {
        self.0.rank.position().place
    }
}

impl fmt::Display for Candidate<'_> {
    /// What a request has to be like, such as "path prefix `/a`, method `GET`, header `x` = `1`".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.path.fmt(f)?;
        if let Some(method) = &self.0.method {
            write!(f, ", method `{method}`")?;
        }
        self.0.headers.iter().try_for_each(|header| write!(f, ", {header}"))?;
        self.0.query.iter().try_for_each(|parameter| write!(f, ", {parameter}"))
    }
}

impl Lost<'_> {
    /// One word for it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ListenerHostname => "ListenerHostname",
            Self::ListenerIsolation => "ListenerIsolation",
            Self::Hostname => "Hostname",
            Self::Path(_) => "Path",
            Self::Condition(Miss::Method(_)) => "Method",
            Self::Condition(Miss::Header(_)) => "Header",
            Self::Condition(Miss::Query(_)) => "QueryParam",
            Self::Precedence(precedence) => match precedence {
                Precedence::Hostname => "MoreSpecificHostname",
                Precedence::Path => "MoreSpecificPath",
                Precedence::Method => "MoreSpecificMethod",
                Precedence::Headers => "MoreHeaders",
                Precedence::Query => "MoreQueryParams",
                Precedence::Age => "OlderRoute",
                Precedence::Name => "RouteName",
                Precedence::Rule => "EarlierRule",
                Precedence::Match => "EarlierMatch",
            },
        }
    }

    /// How far the request came.
    fn progress(self) -> u8 {
        match self {
            Self::ListenerHostname => 0,
            Self::ListenerIsolation => 1,
            Self::Hostname => 2,
            Self::Path(_) => 3,
            Self::Condition(_) => 4,
            Self::Precedence(_) => 5,
        }
    }
}

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::ListenerHostname => "the host name of its listener does not stand for the host",
            Self::ListenerIsolation => "the host is a more specific listener's",
            Self::Hostname => "the host is none of its route's",
            Self::Path(PathMatch::Exact(path)) => return write!(f, "the path is not `{path}`"),
            Self::Path(PathMatch::Prefix(prefix)) => return write!(f, "the path is not under `{prefix}`"),
            Self::Path(PathMatch::Regex(regex)) => return write!(f, "the path is not like `{regex}`"),
            Self::Condition(Miss::Method(method)) => return write!(f, "the method is not `{method}`"),
            Self::Condition(Miss::Header(header)) => return write!(f, "there is no {header}"),
            Self::Condition(Miss::Query(parameter)) => return write!(f, "there is no {parameter}"),
            Self::Precedence(precedence) => match precedence {
                Precedence::Hostname => "the host name of the winner's route is more specific",
                Precedence::Path => "the winner's path is more specific",
                Precedence::Method => "the winner names a method",
                Precedence::Headers => "the winner names more headers",
                Precedence::Query => "the winner names more query parameters",
                Precedence::Age => "the winner's route is older",
                Precedence::Name => "the winner's route comes first by namespace and name",
                Precedence::Rule => "the winner's rule comes first in the route",
                Precedence::Match => "another match of the rule comes first",
            },
        };
        f.write_str(text)
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "path `{path}`"),
            Self::Prefix(prefix) => write!(f, "path prefix `{prefix}`"),
            Self::Regex(regex) => write!(f, "path like `{regex}`"),
        }
    }
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header `{}`{}", self.name, self.value)
    }
}

impl fmt::Display for QueryMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query parameter `{}`{}", self.name, self.value)
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, " = `{text}`"),
            Self::Regex(regex) => write!(f, " like `{regex}`"),
        }
    }
}
