//! What the answer of an authorization service comes to.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use towpath_gateway_core::Response;

/// What becomes of the request.
#[derive(Debug)]
pub enum ExternalVerdict {
    /// It goes on, with these changes.
    Allow(ExternalChanges),
    /// It ends with this answer.
    Deny(Response),
}

/// Changes to a request and to its answer that an authorization service asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalChanges {
    /// What the client sent under names of the service.
    pub(super) withheld: Vec<HeaderName>,
    pub(super) request: Vec<Line>,
    pub(super) remove: Vec<HeaderName>,
    pub(super) target: Option<Uri>,
    pub(super) response: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
    pub(super) action: Action,
}

/// In the order in which Envoy carries them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Add,
    Set,
    AddIfAbsent,
    SetIfPresent,
    /// Goes into the line that is there, if there is one.
    Extend,
}

impl ExternalChanges {
    /// Makes the changes to the request that goes on to the backend. What is removed is removed last, as in Envoy.
    pub fn to_request(&self, head: &mut Parts) {
        let headers = &mut head.headers;
        for name in &self.withheld {
            headers.remove(name);
        }
        self.request.iter().for_each(|line| line.write(headers));
        for name in &self.remove {
            headers.remove(name);
        }
        if let Some(target) = &self.target {
            head.uri = target.clone();
        }
    }

    /// Makes the changes to the backend's answer.
    pub fn to_response(&self, headers: &mut HeaderMap) {
        self.response.iter().for_each(|line| line.write(headers));
    }
}

impl Line {
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let present = headers.contains_key(&self.name);
        match (self.action, present) {
            (Action::Add, _) | (Action::AddIfAbsent, false) => {
                headers.append(self.name.clone(), self.value.clone());
            }
            (Action::Set, _) | (Action::SetIfPresent, true) => {
                headers.insert(self.name.clone(), self.value.clone());
            }
            (Action::Extend, _) => {
                if let Some(there) = headers.get_mut(&self.name) {
                    let both = [there.as_bytes(), b",", self.value.as_bytes()].concat();
                    if let Ok(both) = HeaderValue::from_maybe_shared(bytes::Bytes::from(both)) {
                        *there = both;
                    }
                }
            }
            (Action::AddIfAbsent, true) | (Action::SetIfPresent, false) => {}
        }
    }
}
