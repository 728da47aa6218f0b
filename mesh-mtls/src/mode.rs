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

    /// Whether a client may speak plaintext.
    pub fn takes_plaintext(self) -> bool {
        self != Self::Strict
    }

    /// Whether a client may prove an identity.
    pub fn takes_mtls(self) -> bool {
        self != Self::Disable
    }
}
