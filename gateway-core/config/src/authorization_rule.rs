//! One rule of an `AuthorizationPolicy`: what is understood of it, and what is not.

use http::header::HOST;
use serde_saphyr::Location;
use towpath_auth::{
    AuthorizationRule, Condition, NamespacePattern, Operation, PathPattern, Pattern, RequestPrincipal,
    ServiceAccount, Source, Values,
};
use towpath_gateway_core::TrustDomain;

use crate::MeshSettings;
use crate::resources::Text;
use crate::resources::istio::{self, ConditionSpec, OperationSpec, RuleSpec, SourceSpec};

/// The domain that stands for the mesh's own in policies, whatever that is (Istio, trust domain migration).
const LOCAL_DOMAIN: &str = "cluster.local";

/// Reads a rule. A field that is not understood is left empty, which means every value of it.
pub(crate) struct Reader<'a> {
    namespace: &'a str,
    mesh: &'a MeshSettings,
    at: Location,
    /// What was not understood, and where it stands.
    pub(crate) unread: Vec<(Location, String)>,
    /// Values that no request has, where they stand, and what may be meant.
    pub(crate) vain: Vec<(Location, String, String)>,
}

impl<'a> Reader<'a> {
    /// For the rule that stands `at` a place of a policy in `namespace`.
    pub(crate) fn new(namespace: &'a str, mesh: &'a MeshSettings, at: Location) -> Self {
        Self { namespace, mesh, at, unread: Vec::new(), vain: Vec::new() }
    }

    pub(crate) fn rule(&mut self, rule: &RuleSpec) -> AuthorizationRule {
        let (from, to) = (rule.from.as_deref(), rule.to.as_deref());
        let empty = from.is_some_and(<[_]>::is_empty) || to.is_some_and(<[_]>::is_empty);
        if empty || rule.when.as_deref().is_some_and(<[_]>::is_empty) {
            self.refuse("an empty `from`, `to` or `when` has no meaning");
        }
        AuthorizationRule {
            from: from.into_iter().flatten().map(|from| self.source(&from.source)).collect(),
            to: to.into_iter().flatten().map(|to| self.operation(&to.operation)).collect(),
            when: rule.when.iter().flatten().filter_map(|condition| self.condition(condition)).collect(),
        }
    }

    fn refuse(&mut self, what: impl Into<String>) {
        self.unread.push((self.at, what.into()));
    }

    fn source(&mut self, spec: &SourceSpec) -> Source {
        if spec.is_empty() {
            self.refuse("a `source` without a value has no meaning");
        }
        let accounts = spec.service_accounts.is_some() || spec.not_service_accounts.is_some();
        let others = [&spec.principals, &spec.not_principals, &spec.namespaces, &spec.not_namespaces];
        if accounts && others.iter().any(|values| values.is_some()) {
            self.refuse("`serviceAccounts` do not go together with principals or namespaces");
        }
        Source {
            principals: self.principals("principals", &spec.principals, &spec.not_principals),
            namespaces: self.values("namespaces", (&spec.namespaces, &spec.not_namespaces), namespace),
            service_accounts: self.accounts(&spec.service_accounts, &spec.not_service_accounts),
            request_principals: self.values(
                "requestPrincipals",
                (&spec.request_principals, &spec.not_request_principals),
                request_principal,
            ),
            ip_blocks: self.values("ipBlocks", (&spec.ip_blocks, &spec.not_ip_blocks), net),
            remote_ip_blocks: self.values(
                "remoteIpBlocks",
                (&spec.remote_ip_blocks, &spec.not_remote_ip_blocks),
                net,
            ),
        }
    }

    fn operation(&mut self, spec: &OperationSpec) -> Operation {
        if spec.is_empty() {
            self.refuse("an `operation` without a value has no meaning");
        }
        self.tell((&spec.paths, &spec.not_paths), relative);
        Operation {
            hosts: self.values("hosts", (&spec.hosts, &spec.not_hosts), pattern),
            methods: self.values("methods", (&spec.methods, &spec.not_methods), pattern),
            paths: self.values("paths", (&spec.paths, &spec.not_paths), path),
            ports: self.values("ports", (&spec.ports, &spec.not_ports), port),
        }
    }

    fn condition(&mut self, spec: &ConditionSpec) -> Option<Condition> {
        let key = spec.key.value.as_str();
        if [&spec.values, &spec.not_values].iter().all(|list| list.as_deref().is_none_or(<[_]>::is_empty)) {
            self.unread.push((spec.key.referenced, format!("the condition `{key}` has no values")));
            return None;
        }
        let both = (&spec.values, &spec.not_values);
        Some(match key {
            "source.ip" => Condition::SourceIp(self.values(key, both, net)),
            "remote.ip" => Condition::RemoteIp(self.values(key, both, net)),
            "source.namespace" => Condition::SourceNamespace(self.values(key, both, namespace)),
            "source.principal" => Condition::SourcePrincipal(self.principals(key, both.0, both.1)),
            "source.serviceAccount" => Condition::SourceServiceAccount(self.accounts(both.0, both.1)),
            "request.auth.principal" => {
                Condition::RequestPrincipal(self.values(key, both, request_principal))
            }
            "request.auth.audiences" => Condition::RequestAudiences(self.values(key, both, pattern)),
            "request.auth.presenter" => Condition::RequestPresenter(self.values(key, both, pattern)),
            "destination.ip" => Condition::DestinationIp(self.values(key, both, net)),
            "destination.port" => Condition::DestinationPort(self.values(key, both, port)),
            "connection.sni" => Condition::ServerName(self.values(key, both, pattern)),
            _ => return self.named(spec),
        })
    }

    /// A condition about a header or a claim, whose name stands in brackets.
    fn named(&mut self, spec: &ConditionSpec) -> Option<Condition> {
        let (key, both) = (spec.key.value.as_str(), (&spec.values, &spec.not_values));
        let found = if let Some(rest) = key.strip_prefix("request.headers") {
            match brackets(rest).as_deref() {
                Some([":method"]) => Ok(Condition::Method(self.values(key, both, pattern))),
                Some([":authority"]) => Ok(Condition::Authority(self.values(key, both, pattern))),
                Some([":path"]) => Ok(Condition::Target(self.values(key, both, pattern))),
                Some([name]) => match name.parse() {
                    // Envoy takes the one for the other.
                    Ok(HOST) => Ok(Condition::Authority(self.values(key, both, pattern))),
                    Ok(name) => Ok(Condition::Header(name, self.values(key, both, pattern))),
                    Err(_) => Err(format!("`{name}` is not the name of a header")),
                },
                _ => Err("write `request.headers[NAME]`".to_owned()),
            }
        } else if let Some(rest) = key.strip_prefix("request.auth.claims") {
            match brackets(rest) {
                Some(path) => {
                    let path = path.into_iter().map(Into::into).collect();
                    Ok(Condition::RequestClaim(path, self.values(key, both, pattern)))
                }
                None => Err("write `request.auth.claims[NAME]`, or `[NAME][NAME]` for one inside".to_owned()),
            }
        } else {
            Err(format!("`{key}` is not an attribute that conditions are about"))
        };
        found.map_err(|message| self.unread.push((spec.key.referenced, message))).ok()
    }

    /// The values of a field and of its `not` form. If one cannot be read, none of the field is.
    fn values<T>(
        &mut self,
        field: &str,
        (is, not): (&istio::Values, &istio::Values),
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Values<T> {
        let mut list = |values: &istio::Values| -> Option<Vec<T>> {
            let read = |text: &Text| {
                let value = text.value.as_str();
                let result =
                    if value.is_empty() { Err(format!("`{field}` has an empty value")) } else { read(value) };
                result.map_err(|message| (text.referenced, message))
            };
            let found: Result<_, _> = values.iter().flatten().map(read).collect();
            found.map_err(|unread| self.unread.push(unread)).ok()
        };
        match (list(is), list(not)) {
            (Some(is), Some(not)) => Values { is, not },
            _ => Values::default(),
        }
    }

    /// Tells of the values of a field that no request has, by what is wrong and what may be meant.
    fn tell(
        &mut self,
        (is, not): (&istio::Values, &istio::Values),
        vain: fn(&str) -> Option<(String, String)>,
    ) {
        let values = is.iter().chain(not).flatten();
        self.vain.extend(values.filter_map(|text| {
            let (why, meant) = vain(&text.value)?;
            Some((text.referenced, format!("no request has `{}`: {why}", text.value), meant))
        }));
    }

    /// Principals, each with every domain that its own stands for.
    fn principals(&mut self, field: &str, is: &istio::Values, not: &istio::Values) -> Values<Pattern> {
        let mesh = self.mesh;
        self.tell((is, not), schemed);
        let Values { is, not } = self.values(field, (is, not), |value| Ok(principals(mesh, value)));
        Values { is: is.concat(), not: not.concat() }
    }

    fn accounts(&mut self, is: &istio::Values, not: &istio::Values) -> Values<ServiceAccount> {
        let namespace = self.namespace;
        self.values("serviceAccounts", (is, not), |value| {
            if value.contains('*') || value.matches('/').count() > 1 {
                return Err(format!(
                    "`{value}` is not a service account: write NAME or NAMESPACE/NAME, without `*`"
                ));
            }
            Ok(ServiceAccount::new(value, namespace))
        })
    }
}

/// A principal whose domain is the mesh's, an alias of it, or `cluster.local`, is one of each of those domains (Istio, trust
/// domain migration). Only the whole form has a domain: `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn principals(mesh: &MeshSettings, value: &str) -> Vec<Pattern> {
    let as_is = || vec![Pattern::new(value)];
    let Some((domain, rest)) = value.split_once('/') else { return as_is() };
    if rest.matches('/').count() != 3 || domain == "*" {
        return as_is();
    }
    let wanted = Pattern::new(domain);
    let domains: Vec<&str> = mesh.trust_domains().map(TrustDomain::as_str).collect();
    if domain != LOCAL_DOMAIN && !domains.iter().any(|domain| wanted.matches(domain)) {
        return as_is();
    }
    // `*-td` takes some of the domains as it is.
    let mut made: Vec<Pattern> = Vec::new();
    for own in domains {
        let meant = domain.starts_with('*') && wanted.matches(own);
        let pattern = if meant { Pattern::new(value) } else { Pattern::new(&format!("{own}/{rest}")) };
        if !made.contains(&pattern) {
            made.push(pattern);
        }
    }
    made
}

fn schemed(principal: &str) -> Option<(String, String)> {
    principal.strip_prefix("spiffe://")?;
    Some(("a principal has no scheme".into(), "leave out `spiffe://`".into()))
}

fn relative(path: &str) -> Option<(String, String)> {
    let begins = path.is_empty() || path.starts_with(['/', '*', '{']);
    (!begins).then(|| ("a path begins with `/`".into(), format!("did you mean `/{path}`?")))
}

/// The names of `[a][b]`.
fn brackets(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<&str> = inner.split("][").collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

#[expect(clippy::unnecessary_wraps, reason = "one of the readers of values, of which others fail")]
fn pattern(value: &str) -> Result<Pattern, String> {
    Ok(Pattern::new(value))
}

#[expect(clippy::unnecessary_wraps, reason = "one of the readers of values, of which others fail")]
fn namespace(value: &str) -> Result<NamespacePattern, String> {
    Ok(NamespacePattern::new(value))
}

#[expect(clippy::unnecessary_wraps, reason = "one of the readers of values, of which others fail")]
fn request_principal(value: &str) -> Result<RequestPrincipal, String> {
    Ok(RequestPrincipal::new(value))
}

fn path(value: &str) -> Result<PathPattern, String> {
    PathPattern::new(value).map_err(|why| format!("`{value}`: {why}"))
}

fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| format!("`{value}` is not a port"))
}

fn net(value: &str) -> Result<ipnet::IpNet, String> {
    let address = || value.parse().map(|address: std::net::IpAddr| address.to_canonical().into());
    let wrong = |_| format!("`{value}` is neither an IP address nor a range such as 10.0.0.0/8");
    value.parse().or_else(|_| address()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_stand_for_all_domains_of_the_mesh() {
        let domain = |name: &str| name.parse().unwrap();
        let mesh = MeshSettings {
            trust_domain: domain("td2"),
            trust_domain_aliases: vec![domain("td1"), domain("old-td1")],
            ..MeshSettings::default()
        };
        for (value, made) in [
            ("td1/ns/a/sa/b", &["td2/ns/a/sa/b", "td1/ns/a/sa/b", "old-td1/ns/a/sa/b"][..]),
            ("cluster.local/ns/a/sa/b", &["td2/ns/a/sa/b", "td1/ns/a/sa/b", "old-td1/ns/a/sa/b"]),
            ("*td1/ns/a/sa/b", &["td2/ns/a/sa/b", "*td1/ns/a/sa/b"]),
            ("td1/ns/a/sa/*", &["td2/ns/a/sa/*", "td1/ns/a/sa/*", "old-td1/ns/a/sa/*"]),
            ("other/ns/a/sa/b", &["other/ns/a/sa/b"]),
            ("*/ns/a/sa/b", &["*/ns/a/sa/b"]),
            ("td1/*", &["td1/*"]),
            ("*", &["*"]),
        ] {
            let made: Vec<_> = made.iter().map(|value| Pattern::new(value)).collect();
            assert_eq!(principals(&mesh, value), made, "{value}");
        }
    }

    #[test]
    fn names_stand_in_brackets() {
        for (text, names) in [
            ("[a]", Some(&["a"][..])),
            ("[a][b]", Some(&["a", "b"])),
            ("[https://a.example/b.c]", Some(&["https://a.example/b.c"])),
            ("", None),
            ("a", None),
            ("[]", None),
            ("[a][]", None),
            ("[[a]]", None),
        ] {
            assert_eq!(brackets(text).as_deref(), names, "{text}");
        }
    }
}
