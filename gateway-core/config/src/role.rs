//! For whom configuration is compiled: the role of a process, and the words of its command line that matter to it.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

/// How a mesh is deployed: the one word of the `Mesh` resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scenario {
    /// API gateway, then ingress, then the sidecars of services.
    Ingress,
    /// API gateway inside the cluster, then the sidecars of services.
    InCluster,
    /// API gateway with a sidecar of its own, then the sidecars of services.
    Attached,
    /// One Gateway API gateway that is itself a workload of the mesh.
    #[default]
    GatewayApi,
}

impl Scenario {
    /// The four, in the order in which documents list them.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::InCluster, Self::Attached, Self::GatewayApi];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::InCluster => "in-cluster",
            Self::Attached => "attached",
            Self::GatewayApi => "gateway-api",
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == word).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|s| s.as_str()).collect();
            format!("unknown scenario `{word}`: it is one of {}", words.join(", "))
        })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `namespace/name` of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.into(), name: name.into() })
            }
            _ => Err(format!("`{text}` is not of the form NAMESPACE/NAME")),
        }
    }
}

/// What a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The API gateway.
    Gateway,
    /// The ingress of a cluster (scenario `ingress` only).
    Ingress,
    /// The sidecar of a workload.
    Sidecar {
        /// Ports taken in for the workload's application.
        inbound: Vec<InboundPort>,
    },
}

/// `PORT=LISTEN>APP`: requests for the workload's `port` arrive at `listen` and go to the application at `app`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundPort {
    /// The port as policies and services name it.
    pub port: u16,
    /// Where the sidecar listens.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub app: SocketAddr,
}

impl FromStr for InboundPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not of the form PORT=LISTEN>APP, for instance 9080=10.0.0.5:15006>127.0.0.1:9080"
            )
        };
        let (port, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (listen, app) = rest.split_once('>').ok_or_else(wrong)?;
        Ok(Self {
            port: port.parse().map_err(|_| wrong())?,
            listen: listen.parse().map_err(|_| wrong())?,
            app: app.parse().map_err(|_| wrong())?,
        })
    }
}

/// Where listeners of resources really listen: `NAMESPACE/NAME:PORT=ADDR:PORT,…`. The name is that of a Gateway, or
/// of a Service for the outbound side of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortMap(HashMap<(ObjectName, u16), SocketAddr>);

impl PortMap {
    /// Where `object`'s `port` really listens.
    pub fn get(&self, object: &ObjectName, port: u16) -> Option<SocketAddr> {
        self.0.get(&(object.clone(), port)).copied()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, u16, SocketAddr)> {
        self.0.iter().map(|((object, port), address)| (object, *port, *address))
    }
}

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entry = |entry: &str| {
            let wrong = || format!("`{entry}` is not of the form NAMESPACE/NAME:PORT=ADDRESS:PORT");
            let (object, address) = entry.split_once('=').ok_or_else(wrong)?;
            let (object, port) = object.rsplit_once(':').ok_or_else(wrong)?;
            let key = (object.parse().map_err(|_| wrong())?, port.parse().map_err(|_| wrong())?);
            Ok((key, address.parse().map_err(|_| wrong())?))
        };
        let entries: Result<_, String> =
            text.split(',').filter(|e| !e.trim().is_empty()).map(|e| entry(e.trim())).collect();
        entries.map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_lists_the_four() {
        let error = "sidecarless".parse::<Scenario>().unwrap_err();
        for scenario in Scenario::ALL {
            assert!(error.contains(scenario.as_str()), "{error}");
            assert_eq!(scenario.as_str().parse(), Ok(scenario));
        }
    }

    #[test]
    fn reads_a_port_map() {
        let map: PortMap = "a/gw:80=127.0.0.1:8080,b/svc:9080=127.0.0.1:15001".parse().unwrap();
        let gateway = "a/gw".parse().unwrap();
        assert_eq!(map.get(&gateway, 80), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(map.get(&gateway, 443), None);
        assert_eq!("".parse(), Ok(PortMap::default()));
        assert!("a/gw=1".parse::<PortMap>().unwrap_err().contains("NAMESPACE/NAME:PORT"));
    }

    #[test]
    fn reads_an_inbound_port() {
        let port: InboundPort = "9080=10.0.0.1:15006>127.0.0.1:9080".parse().unwrap();
        assert_eq!((port.port, port.app.port()), (9080, 9080));
        assert!("9080".parse::<InboundPort>().unwrap_err().contains("PORT=LISTEN>APP"));
    }
}
