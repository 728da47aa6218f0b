//! From texts to objects. A document that is broken is reported and its last good version stays.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::document::{Defect, Document, Place, split};
use crate::objects::{Identity, KINDS, Object, Objects, Refused, label};
use crate::resources::meta::{Header, Named};
use crate::resources::route::ParentRef;
use crate::resources::towpath::TargetsOnly;
use crate::suggest::{distance, nearest};
use crate::{Position, Problem, Source};

/// What each file held when it was compiled last.
#[derive(Clone, Default)]
pub(crate) struct Files(HashMap<Arc<str>, Arc<FileObjects>>);

impl fmt::Debug for Files {
    /// Names alone: the texts hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

struct FileObjects {
    text: Arc<str>,
    objects: Vec<Object>,
    refused: Vec<Arc<Refused>>,
    problems: Vec<Problem>,
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

/// Reads every file, taking those that did not change from `previous`.
pub(crate) fn load(
    source: &Source,
    previous: Option<&Files>,
    problems: &mut Vec<Problem>,
) -> (Objects, Files) {
    let (mut objects, mut files) = (Objects::default(), Files::default());
    for (name, text) in source.files() {
        let before = previous.and_then(|files| files.0.get(name));
        let file = match before {
            Some(file) if file.text == *text => Arc::clone(file),
            _ => Arc::new(read_file(name, text, before.map(|file| &**file))),
        };
        problems.extend(file.problems.iter().cloned());
        file.objects.iter().for_each(|object| objects.insert(object, problems));
        objects.refused.extend(file.refused.iter().cloned());
        files.0.insert(Arc::clone(name), file);
    }
    (objects, files)
}

fn read_file(name: &Arc<str>, text: &Arc<str>, before: Option<&FileObjects>) -> FileObjects {
    let mut file = FileObjects {
        text: Arc::clone(text),
        objects: Vec::new(),
        refused: Vec::new(),
        problems: Vec::new(),
    };
    let mut anonymous = false;
    for document in split(text) {
        match read_document(&document, &document.place(name)) {
            Outcome::Read(object) => file.objects.push(object),
            Outcome::Ignored(problem) => file.problems.extend(problem),
            Outcome::Broken(problems, None) => {
                file.problems.extend(problems);
                anonymous = true;
            }
            Outcome::Broken(problems, Some(refused)) => {
                let kept = before.and_then(|before| before.find(refused.kind, &refused.name));
                file.problems.extend(problems.into_iter().map(|p| if kept.is_some() { keeps(p) } else { p }));
                match kept {
                    Some(object) => file.objects.push(object.clone()),
                    None => file.refused.push(Arc::from(refused)),
                }
            }
        }
    }
    if anonymous && let Some(before) = before {
        file.keep_missing(before);
    }
    file
}

fn keeps(mut problem: Problem) -> Problem {
    problem.message += "; the last good version of the object stays in force";
    problem
}

impl FileObjects {
    fn find(&self, kind: &str, name: &crate::ObjectName) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind() == kind && object.name() == name)
    }

    /// A document that does not even tell its name may be any of those that are gone.
    fn keep_missing(&mut self, before: &Self) {
        let refused = |object: &Object| {
            self.refused.iter().any(|r| r.kind == object.kind() && r.name == *object.name())
        };
        let missing: Vec<_> = before
            .objects
            .iter()
            .filter(|object| self.find(object.kind(), object.name()).is_none() && !refused(object))
            .cloned()
            .collect();
        self.objects.extend(missing);
    }
}

enum Outcome {
    Read(Object),
    Ignored(Option<Problem>),
    Broken(Vec<Problem>, Option<Box<Refused>>),
}

fn read_document(document: &Document<'_>, place: &Place) -> Outcome {
    let header: Header = match document.read() {
        Ok(header) => header,
        Err(defect) => return Outcome::Broken(vec![defect.problem(place)], None),
    };
    let identity = match identify(&header, place) {
        Ok(identity) => identity,
        Err(outcome) => return outcome,
    };
    match Object::read(&identity, document, place) {
        Ok(object) => Outcome::Read(object),
        Err(defects) => broken(&identity, document, place, &defects),
    }
}

fn broken(identity: &Identity, document: &Document<'_>, place: &Place, defects: &[Defect]) -> Outcome {
    let named = document.read::<Named>().ok();
    let name = named.as_ref().map(|named| identity.name(&named.metadata));
    let about = name.as_ref().map_or_else(|| identity.kind.to_owned(), |name| label(identity.kind, name));
    let problems = defects.iter().map(|defect| defect.problem(place).about(about.clone())).collect();
    let refused = name.map(|name| Refused {
        api_version: Arc::clone(&identity.api_version),
        kind: identity.kind,
        name,
        generation: named.and_then(|named| named.metadata.generation),
        targets: document.read::<TargetsOnly>().ok().map(|targets| targets.spec.target_refs),
        parents: document.read::<ParentsOnly>().map(|parents| parents.spec.parent_refs).unwrap_or_default(),
        reason: defects.first().map(|defect| defect.message.clone()).unwrap_or_default(),
    });
    Outcome::Broken(problems, refused.map(Box::new))
}

#[derive(serde::Deserialize)]
struct ParentsOnly {
    spec: ParentsSpec,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParentsSpec {
    parent_refs: Vec<ParentRef>,
}

fn identify(header: &Header, place: &Place) -> Result<Identity, Outcome> {
    let ignored = |problem: Option<Problem>| Err(Outcome::Ignored(problem));
    let at = |location| place.at(location);
    let (version, kind) = match (&header.api_version, &header.kind) {
        (Some(version), Some(kind)) => (version, kind),
        (None, None) => {
            return ignored(Some(
                Problem::warning("is not a Kubernetes object: it has no `kind`").at(at(None)),
            ));
        }
        (None, Some(kind)) => return Err(missing("apiVersion", at(Some(kind.referenced)))),
        (Some(version), None) => return Err(missing("kind", at(Some(version.referenced)))),
    };
    let (group, number) = version.value.split_once('/').unwrap_or(("", &version.value));
    if let Some((group, kind, namespaced)) =
        KINDS.iter().find(|(g, k, _)| *g == group && *k == kind.value).copied()
    {
        check_version(group, number, at(Some(version.referenced)))?;
        return Ok(Identity { api_version: version.value.as_str().into(), group, kind, namespaced });
    }
    ignored(unknown_kind(group, &kind.value, at(Some(kind.referenced))))
}

fn missing(field: &str, position: Position) -> Outcome {
    Outcome::Broken(vec![Problem::error(format!("missing field `{field}`")).at(position)], None)
}

fn check_version(group: &str, number: &str, position: Position) -> Result<(), Outcome> {
    let known = VERSIONS.iter().find(|(g, _)| *g == group).map_or(&[][..], |(_, versions)| versions);
    if known.contains(&number) {
        return Ok(());
    }
    let problem = Problem::error(format!("version `{number}` of this kind is not read")).at(position);
    Err(Outcome::Broken(vec![problem.suggest(format!("read are {}", known.join(", ")))], None))
}

/// What `kubectl get -o yaml` writes.
pub(crate) fn list(position: Position) -> Problem {
    let problem = Problem::error("lists of objects are not read").at(position);
    problem.suggest("write each object as a document of its own, with `---` between them")
}

fn unknown_kind(group: &str, kind: &str, position: Position) -> Option<Problem> {
    if (group, kind) == ("", "List") {
        return Some(list(position));
    }
    if MIGRATED.contains(&(group, kind)) {
        let problem = Problem::warning(format!("{kind} has no effect here")).at(position);
        return Some(problem.suggest("`gateway migrate` writes routes in its place"));
    }
    if NOT_SERVED.contains(&(group, kind)) {
        return Some(Problem::warning(format!("{kind} is not served yet: it has no effect")).at(position));
    }
    let known = KINDS.iter().filter(|(g, ..)| *g == group).map(|(_, known, _)| *known);
    let meant = nearest(kind, known).filter(|meant| distance(kind, meant) <= 1)?;
    // Almost certainly a slip, and what was meant may be a policy: it must not go by as a warning.
    let problem = Problem::error(format!("unknown kind `{kind}`: the object has no effect")).at(position);
    Some(problem.suggest(format!("did you mean `{meant}`?")))
}
