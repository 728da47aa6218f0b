//! What must hold for any bytes. The fuzzer runs it, and so does a plain test over the corpus.

use towpath_routing::PathNormalization::{self, Base, DecodeAndMergeSlashes, Edge, MergeSlashes};

/// A normal form is a fixed point without dot segments; what is merged stays merged, whatever is decoded next.
pub(crate) fn path(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    assert_eq!(PathNormalization::None.apply(path).as_deref(), Ok(path));
    for form in [Base, MergeSlashes, DecodeAndMergeSlashes, Edge] {
        let Ok(normal) = form.apply(path) else { continue };
        assert_eq!(form.apply(&normal).as_deref(), Ok(&*normal), "{form:?}");
        if matches!(path, "" | "*") {
            continue;
        }
        assert!(normal.starts_with('/'), "{form:?} {normal}");
        assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")), "{form:?} {normal}");
        assert!(!normal.contains(['#', '\\', '\0', '\r', '\n']), "{form:?} {normal}");
        let slashes_alone = form != Edge && normal == "//";
        assert!(form == Base || slashes_alone || !normal.contains("//"), "{form:?} {normal}");
        let lower = normal.to_ascii_lowercase();
        assert!(!lower.contains("%2e") && !lower.contains("%00"), "{form:?} {normal}");
        if form == DecodeAndMergeSlashes {
            assert!(!lower.contains("%2f") && !lower.contains("%5c"), "{normal}");
        }
    }
}
