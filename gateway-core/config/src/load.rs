//! From texts to objects. A document that is broken is reported and its last good version stays.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::document::{Defect, Document, Place, split};
use crate::kinds::{self, Found, Part};
use crate::loose::{self, Lost, Shown};
use crate::objects::{Identity, Object, Objects, Refused, label};
use crate::resources::Text;
use crate::resources::meta::{Header, Named};
use crate::resources::route::ParentRef;
use crate::resources::towpath::TargetsOnly;
use crate::{ObjectName, Position, Problem, Severity, Source};

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
    problems.extend(source.dangling().map(dangling));
    (objects, files)
}

fn dangling(link: &Arc<str>) -> Problem {
    let problem = Problem::warning("is a link to nothing: what it was for is not read");
    problem.at(Position { file: Arc::clone(link), line: 1, column: 1 }).suggest("mend or remove it")
}

fn read_file(name: &Arc<str>, text: &Arc<str>, before: Option<&FileObjects>) -> FileObjects {
    let mut file = FileObjects {
        text: Arc::clone(text),
        objects: Vec::new(),
        refused: Vec::new(),
        problems: Vec::new(),
    };
    let mut illegible = Vec::new();
    for document in split(text) {
        match read_document(&document, &document.place(name)) {
            Outcome::Read(object) => file.objects.push(object),
            Outcome::Ignored(problem) => file.problems.extend(problem),
            Outcome::Broken(problems, refused) => {
                match before.and_then(|before| before.find(refused.kind, &refused.name)) {
                    Some(object) => file.keep(object.clone(), problems),
                    None => file.refuse(problems, *refused),
                }
            }
            Outcome::Illegible(problems, refused) => illegible.push((problems, refused)),
        }
    }
    if !illegible.is_empty() {
        file.keep_missing(before, illegible);
    }
    file
}

fn keeps(mut problem: Problem) -> Problem {
    problem.message += "; the last good version of the object stays in force";
    problem
}

/// Tells what holds in place of an object.
fn shuts(problem: Problem, refused: &Refused) -> Problem {
    let wide = refused.name.namespace.is_empty();
    let place = if wide { "the mesh, for its namespace cannot be told," } else { "its namespace" };
    let holds = match refused.kind {
        "AuthorizationPolicy" | "RequestAuthentication" => format!("everything in {place} is refused"),
        "PeerAuthentication" => format!("STRICT holds in {place}"),
        _ => return problem,
    };
    Problem { message: format!("{}; {holds} until it is mended", problem.message), ..problem }
}

impl FileObjects {
    fn find(&self, kind: &str, name: &crate::ObjectName) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind() == kind && object.name() == name)
    }

    fn keep(&mut self, object: Object, problems: Vec<Problem>) {
        self.problems.extend(problems.into_iter().map(keeps));
        self.objects.push(object);
    }

    fn refuse(&mut self, problems: Vec<Problem>, refused: Refused) {
        self.problems.extend(problems.into_iter().map(|problem| shuts(problem, &refused)));
        self.refused.push(Arc::new(refused));
    }

    /// A document that does not even tell its name may be any of those that are gone. What may be none of them, and keeps
    /// something shut, is refused.
    fn keep_missing(&mut self, before: Option<&Self>, illegible: Vec<(Vec<Problem>, Vec<Refused>)>) {
        let is_refused = |object: &Object| {
            self.refused.iter().any(|r| r.kind == object.kind() && r.name == *object.name())
        };
        let objects = before.into_iter().flat_map(|before| &before.objects);
        let missing: Vec<_> = objects
            .filter(|object| self.find(object.kind(), object.name()).is_none() && !is_refused(object))
            .cloned()
            .collect();
        let mut kept: Vec<_> = missing.iter().map(Object::kind).collect();
        for (problems, refused) in illegible {
            let was_guard = !refused.is_empty();
            let mut lost = refused.into_iter().filter(|refused| {
                let stands_in = kept.iter().position(|kind| *kind == refused.kind);
                stands_in.map(|at| kept.swap_remove(at)).is_none()
            });
            match lost.next() {
                Some(first) => self.refuse(problems, first),
                None if was_guard => self.problems.extend(problems.into_iter().map(keeps)),
                None => self.problems.extend(problems),
            }
            self.refused.extend(lost.map(Arc::new));
        }
        self.objects.extend(missing);
    }
}

enum Outcome {
    Read(Object),
    Ignored(Option<Problem>),
    /// What cannot be read of an object whose name is known.
    Broken(Vec<Problem>, Box<Refused>),
    /// It may be any object, or several; with what of it keeps something shut, as far as that can be told.
    Illegible(Vec<Problem>, Vec<Refused>),
}

fn read_document(document: &Document<'_>, place: &Place) -> Outcome {
    let header: Header = match document.read() {
        Ok(header) => header,
        Err(defect) => return illegible(document, defect.problem(place)),
    };
    let identity = match identify(&header, document, place) {
        Ok(identity) => identity,
        Err(outcome) => return outcome,
    };
    match Object::read(&identity, document, place) {
        Ok(object) => Outcome::Read(object),
        Err(defects) => broken(&identity, document, place, &defects),
    }
}

fn broken(identity: &Identity, document: &Document<'_>, place: &Place, defects: &[Defect]) -> Outcome {
    let reason = defects.first().map(|defect| defect.message.clone()).unwrap_or_default();
    let problems = defects.iter().map(|defect| defect.problem(place));
    let named = document.read::<Named>().ok().filter(|named| identity.has_place(&named.metadata));
    let Some(named) = named else {
        let problems = problems.map(|problem| problem.about(identity.kind)).collect();
        return match loose::by_metadata(identity, document) {
            Some(lost) => lose(lost, document, problems, reason),
            None => Outcome::Illegible(problems, Vec::new()),
        };
    };
    let name = identity.name(&named.metadata);
    let about = label(identity.kind, &name);
    let problems = problems.map(|problem| problem.about(about.clone())).collect();
    let api_version = Arc::clone(&identity.api_version);
    let (kind, generation) = (identity.kind, named.metadata.generation);
    let refused = Refused { generation, ..refused(api_version, (kind, name), document, reason) };
    Outcome::Broken(problems, Box::new(refused))
}

/// Of a document that does not tell what it is.
fn illegible(document: &Document<'_>, mut problem: Problem) -> Outcome {
    match loose::by_text(document) {
        Shown::Guard(lost) => {
            let reason = problem.message.clone();
            lose(lost, document, vec![problem], reason)
        }
        Shown::Other => Outcome::Illegible(vec![problem], Vec::new()),
        Shown::Nothing => {
            problem.message += "; nothing of it is in force, be it a policy, for its kind cannot be told";
            Outcome::Illegible(vec![problem], Vec::new())
        }
    }
}

fn lose(lost: Lost, document: &Document<'_>, problems: Vec<Problem>, reason: String) -> Outcome {
    let Lost { kind, name, is_named } = lost;
    let about = if is_named { label(kind, &name) } else { kind.to_owned() };
    let problems = problems.into_iter().map(|problem| problem.about(about.clone())).collect();
    let refused = refused("".into(), (kind, name), document, reason);
    if is_named {
        Outcome::Broken(problems, Box::new(refused))
    } else {
        Outcome::Illegible(problems, vec![refused])
    }
}

fn refused(
    api_version: Arc<str>,
    (kind, name): (&'static str, ObjectName),
    document: &Document<'_>,
    reason: String,
) -> Refused {
    Refused {
        api_version,
        kind,
        name,
        generation: None,
        targets: document.read::<TargetsOnly>().ok().map(|targets| targets.spec.target_refs),
        parents: document.read::<ParentsOnly>().map(|parents| parents.spec.parent_refs).unwrap_or_default(),
        reason,
    }
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

fn identify(header: &Header, document: &Document<'_>, place: &Place) -> Result<Identity, Outcome> {
    let missing = |field: &str, present: &Text| {
        let problem = Problem::error(format!("missing field `{field}`"));
        illegible(document, problem.at(place.at(Some(present.referenced))))
    };
    let (version, kind) = match (&header.api_version, &header.kind) {
        (Some(version), Some(kind)) => (version, kind),
        (None, None) => {
            let problem = Problem::warning("is not a Kubernetes object: it has no `kind`");
            return Err(Outcome::Ignored(Some(problem.at(place.at(None)))));
        }
        (None, Some(kind)) => return Err(missing("apiVersion", kind)),
        (Some(version), None) => return Err(missing("kind", version)),
    };
    let (group, number) = loose::group_and_version(&version.value);
    let at = |part| match part {
        Part::Version => place.at(Some(version.referenced)),
        Part::Kind => place.at(Some(kind.referenced)),
    };
    let (found, problem, instead) = match kinds::find(group, number, &kind.value) {
        Found::Read(found) => return Ok(Identity::of(found, &version.value)),
        Found::OtherVersion(found, problem) => {
            let problem = problem.at(at(Part::Version));
            (found, problem.clone(), Outcome::Illegible(vec![problem], Vec::new()))
        }
        Found::Misspelt(found, part, problem) => {
            let problem = problem.at(at(part));
            let message = format!("{}: the object has no effect", problem.message);
            (found, problem.clone(), Outcome::Ignored(Some(Problem { message, ..problem })))
        }
        Found::List(items) => {
            let problem = kinds::list().at(at(Part::Kind));
            let lost = loose::in_list(items, document).into_iter();
            let refused: Vec<_> = lost
                .map(|lost| refused("".into(), (lost.kind, lost.name), document, problem.message.clone()))
                .collect();
            return Err(if refused.is_empty() {
                Outcome::Ignored(Some(problem))
            } else {
                Outcome::Illegible(vec![problem], refused)
            });
        }
        Found::Unread(problem) => {
            let problem = problem.map(|problem| problem.at(at(Part::Kind)));
            // A kind that nobody has may be one that is being written.
            return Err(match problem {
                Some(problem) if problem.severity == Severity::Error => {
                    Outcome::Illegible(vec![problem], Vec::new())
                }
                problem => Outcome::Ignored(problem),
            });
        }
    };
    let lost = loose::by_metadata(&Identity::of(found, &version.value), document);
    let reason = problem.message.clone();
    Err(lost.map_or(instead, |lost| lose(lost, document, vec![problem], reason)))
}
