//! Which kinds are read, in which versions, and what is said of others.

use crate::objects::KINDS;
use crate::suggest::{distance, nearest};
use crate::{Problem, loose};

/// Group, kind, and whether objects have a namespace.
pub(crate) type Kind = (&'static str, &'static str, bool);

/// What an object is by its header.
pub(crate) enum Found {
    Read(Kind),
    /// One of this kind, in a version that is not known.
    OtherVersion(Kind, Problem),
    /// Almost certainly one of this kind, with a slip in this part.
    Misspelt(Kind, Part, Problem),
    /// A list; of one kind, if it says so.
    List(Option<Kind>),
    /// It has no effect; with what there is to say about that.
    Unread(Option<Problem>),
}

/// Parts of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Version,
    Kind,
}

/// Kinds that are known and not compiled.
const NOT_SERVED: &[(&str, &str)] = &[("networking.istio.io", "ServiceEntry")];

/// Kinds that `migrate` reads.
const MIGRATED: &[(&str, &str)] =
    &[("networking.istio.io", "VirtualService"), ("networking.istio.io", "DestinationRule")];

/// Versions that are read, by group.
const VERSIONS: &[(&str, &[&str])] = &[
    ("gateway.networking.k8s.io", &["v1", "v1beta1", "v1alpha2", "v1alpha3"]),
    ("gateway.networking.x-k8s.io", &["v1alpha1"]),
    ("", &["v1"]),
    ("discovery.k8s.io", &["v1"]),
    ("security.istio.io", &["v1", "v1beta1"]),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"]),
    ("towpath.dev", &["v1alpha1"]),
];

/// Groups of which every kind is read.
const WHOLE: [&str; 2] = ["security.istio.io", "towpath.dev"];

/// Finds what `group/version` and `kind` say.
pub(crate) fn find(group: &str, version: &str, kind: &str) -> Found {
    let exact = KINDS.iter().find(|(g, k, _)| (*g, *k) == (group, kind)).copied();
    match exact {
        Some(found) => match unknown_version(group, version) {
            None => Found::Read(found),
            Some(problem) => Found::OtherVersion(found, problem),
        },
        None if group.is_empty() && (kind.eq_ignore_ascii_case("List") || kind == "Lists") => {
            Found::List(None)
        }
        None => match items(group, kind) {
            Some(items) => Found::List(Some(items)),
            None => misspelt(group, kind).unwrap_or_else(|| Found::Unread(unread(group, kind))),
        },
    }
}

fn items(group: &str, kind: &str) -> Option<Kind> {
    let (item, list) = kind.split_at_checked(kind.len().checked_sub(4)?)?;
    let is_meant = |(g, k, _): &&Kind| *g == group && k.eq_ignore_ascii_case(item);
    KINDS.iter().find(is_meant).filter(|_| list.eq_ignore_ascii_case("List")).copied()
}

fn unknown_version(group: &str, version: &str) -> Option<Problem> {
    let known = VERSIONS.iter().find(|(g, _)| *g == group).map_or(&[][..], |(_, versions)| versions);
    if known.contains(&version) {
        return None;
    }
    let problem = if version.is_empty() {
        Problem::error(format!("`{group}` has no version"))
    } else {
        Problem::error(format!("version `{version}` of this kind is not read"))
    };
    Some(problem.suggest(format!("read are {}", known.join(", "))))
}

/// What was meant may be a policy: it must not go by as a warning.
fn misspelt(group: &str, kind: &str) -> Option<Found> {
    let of_group = KINDS.iter().filter(|(g, ..)| *g == group);
    let meant = nearest(kind, of_group.clone().map(|(_, known, _)| *known));
    if let Some(meant) = meant.filter(|meant| loose::is_slip(kind, meant)) {
        let found = of_group.clone().find(|(_, known, _)| *known == meant)?;
        let problem = Problem::error(format!("unknown kind `{kind}`"));
        let problem = problem.suggest(format!("did you mean `{meant}`?"));
        return Some(Found::Misspelt(*found, Part::Kind, problem));
    }
    // The core group has no such kinds: another group was meant.
    if let Some(found) =
        KINDS.iter().find(|(known, k, _)| group.is_empty() && *k == kind && WHOLE.contains(known))
    {
        let problem = Problem::error(format!("{kind} is no kind of the core group"));
        let problem = problem.suggest(format!("did you mean the group `{}`?", found.0));
        return Some(Found::Misspelt(*found, Part::Version, problem));
    }
    if VERSIONS.iter().any(|(known, _)| *known == group) {
        return None;
    }
    let near = |known: &str| !known.is_empty() && distance(known, group) <= 3;
    let found = KINDS.iter().find(|(known, k, _)| *k == kind && near(known))?;
    let problem = Problem::error(format!("unknown group `{group}`"));
    let problem = problem.suggest(format!("did you mean `{}`?", found.0));
    Some(Found::Misspelt(*found, Part::Version, problem))
}

fn unread(group: &str, kind: &str) -> Option<Problem> {
    let of_group = || KINDS.iter().filter(|(g, ..)| *g == group).map(|(_, known, _)| *known);
    if MIGRATED.contains(&(group, kind)) {
        let problem = Problem::warning(format!("{kind} has no effect here"));
        return Some(problem.suggest("`gateway migrate` writes routes in its place"));
    }
    if NOT_SERVED.contains(&(group, kind)) {
        return Some(Problem::warning(format!("{kind} is not served yet: it has no effect")));
    }
    let known = || format!("known: {}", of_group().collect::<Vec<_>>().join(", "));
    if WHOLE.contains(&group) {
        let problem = Problem::error(format!("unknown kind `{kind}`: the object has no effect"));
        return Some(problem.suggest(known()));
    }
    let problem = || Problem::warning(format!("{kind} of `{group}` is not read: it has no effect"));
    match group {
        "gateway.networking.k8s.io" | "gateway.networking.x-k8s.io" => Some(problem().suggest(known())),
        _ => group.ends_with(".istio.io").then(|| problem().suggest("remove it if nobody else reads it")),
    }
}

/// What `kubectl get -o yaml` writes.
pub(crate) fn list() -> Problem {
    let problem = Problem::error("lists of objects are not read");
    problem.suggest("write each object as a document of its own, with `---` between them")
}
