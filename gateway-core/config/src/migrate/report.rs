//! What was not carried over, field by field.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::Position;

/// One field that is not carried over as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub loss: Loss,
    /// `Kind namespace/name` of the object that was read.
    pub object: Arc<str>,
    /// Path of the field, such as `spec.http[2].match[0].sourceLabels`; empty for the whole object.
    pub field: String,
    /// Where the field stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What becomes of it, and why.
    pub why: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Worth knowing; what was written is in force, or had no effect in Istio either.
    Note,
    /// It is carried over, and means something else for the requests that the reason names.
    Changed,
    /// It is not in what was written.
    Lost,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Changed => "changed",
            Self::Lost => "lost",
        })
    }
}

impl fmt::Display for Finding {
    /// `lost: file:line:column: VirtualService namespace/name: spec.http[0].delegate: why`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.loss)?;
        if let Some(Position { file, line, column }) = &self.position {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.why)
    }
}

/// Where findings gather while objects are read.
#[derive(Debug, Default)]
pub(super) struct Report(RefCell<Vec<Finding>>);

impl Report {
    /// Adds a finding; the same one again adds nothing.
    pub(super) fn add(&self, finding: Finding) {
        let mut findings = self.0.borrow_mut();
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }

    /// All findings, by place.
    pub(super) fn into_findings(self) -> Vec<Finding> {
        let mut findings = self.0.into_inner();
        findings.sort_by_cached_key(|finding| {
            finding.position.as_ref().map(|at| (Arc::clone(&at.file), at.line, at.column))
        });
        findings
    }
}
