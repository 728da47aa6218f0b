//! What a workload accepts.

/// Istio's `PeerAuthentication` modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MtlsMode {
    /// Mesh mTLS only.
    Strict,
    /// Mesh mTLS and plaintext, told apart by the first bytes.
    #[default]
    Permissive,
    /// Plaintext only.
    Disable,
}

impl MtlsMode {
    /// The name as resources write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        }
    }
}
