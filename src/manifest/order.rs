//! Which objects there are and in which order they are applied: what others need first. Knows the kinds
//! that Kubernetes brings along; others are known by the definitions among the objects.

use std::collections::BTreeMap;

use super::yaml::Object;
use crate::error::Failure;
use crate::host::cluster::{Identity, Scope};

/// The order of kinds, as in Helm, but with what opens or guards the door at the end. What is not here comes
/// before those: it may need all others.
const ORDER: [(&str, &str); 36] = [
    ("", "Namespace"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("", "ResourceQuota"),
    ("", "LimitRange"),
    ("policy", "PodDisruptionBudget"),
    ("", "ServiceAccount"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("", "Secret"),
    ("", "ConfigMap"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttributesClass"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "Service"),
    ("", "Endpoints"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("apps", "DaemonSet"),
    ("", "Pod"),
    ("", "ReplicationController"),
    ("apps", "ReplicaSet"),
    ("apps", "Deployment"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("apps", "StatefulSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("networking.k8s.io", "IngressClass"),
    ("networking.k8s.io", "Ingress"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("gateway.networking.k8s.io", "Gateway"),
];

/// Applied after everything else: they decide about what is applied.
const LAST: [(&str, &str); 7] = [
    ("apiregistration.k8s.io", "APIService"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
];

/// The place of a kind in the order: lower is applied earlier and deleted later.
pub fn rank(group: &str, kind: &str) -> usize {
    let at = |list: &[(&str, &str)]| list.iter().position(|known| *known == (group, kind));
    match (at(&ORDER), at(&LAST)) {
        (Some(at), _) => at,
        (None, Some(at)) => ORDER.len() + 1 + at,
        (None, None) => ORDER.len(),
    }
}

/// The groups that Kubernetes brings along, and their kinds that belong to no namespace.
const BUILT_IN: [(&str, &[&str]); 21] = [
    ("", &["ComponentStatus", "Namespace", "Node", "PersistentVolume"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("apps", &[]),
    ("authentication.k8s.io", &["SelfSubjectReview", "TokenReview"]),
    ("authorization.k8s.io", &["SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"]),
    ("autoscaling", &[]),
    ("batch", &[]),
    ("certificates.k8s.io", &["CertificateSigningRequest", "ClusterTrustBundle"]),
    ("coordination.k8s.io", &[]),
    ("discovery.k8s.io", &[]),
    ("events.k8s.io", &[]),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("internal.apiserver.k8s.io", &["StorageVersion"]),
    ("networking.k8s.io", &["IPAddress", "IngressClass", "ServiceCIDR"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("policy", &["PodSecurityPolicy"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    (
        "storage.k8s.io",
        &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"],
    ),
];

/// Whether a kind belongs to a namespace, as far as that is known without a cluster.
fn scope(group: &str, kind: &str, defined: &BTreeMap<(String, String), Scope>) -> Scope {
    if let Some((_, whole)) = BUILT_IN.iter().find(|(known, _)| *known == group) {
        return if whole.contains(&kind) { Scope::Cluster } else { Scope::Namespaced };
    }
    defined.get(&(group.to_string(), kind.to_string())).copied().unwrap_or(Scope::Unknown)
}

/// An object with what is known of where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Identified {
    /// Which object it is.
    pub identity: Identity,
    /// Whether its namespace is certain.
    pub scope: Scope,
    /// The object.
    pub object: Object,
}

/// Objects in the order in which they are applied; equal kinds stay in the order of the manifests. Fails if
/// an object is there twice, or cannot be named in a cluster.
pub fn ordered(objects: Vec<Object>) -> Result<Vec<Identified>, Failure> {
    let defined = definitions(&objects);
    let mut all: Vec<Identified> = Vec::with_capacity(objects.len());
    for object in objects {
        let (group, kind) = (object.group().to_string(), object.text("/kind").to_string());
        let scope = scope(&group, &kind, &defined);
        let said = match object.text("/metadata/namespace") {
            "" => None,
            namespace => Some(namespace.to_string()),
        };
        let namespace = match scope {
            Scope::Cluster => None,
            Scope::Namespaced => Some(said.unwrap_or_else(|| "default".into())),
            Scope::Unknown => said,
        };
        let identity = Identity { group, kind, namespace, name: object.text("/metadata/name").to_string() };
        check(&identity, &object)?;
        all.push(Identified { identity, scope, object });
    }
    let mut known: BTreeMap<&Identity, &Object> = BTreeMap::new();
    for Identified { identity, object, .. } in &all {
        if let Some(other) = known.insert(identity, object) {
            return Err(Failure::new(format!(
                "`{identity}` is there twice: in `{}` at line {}, and in `{}` at line {}",
                other.file, other.line, object.file, object.line
            )));
        }
    }
    all.sort_by_key(|one| rank(&one.identity.group, &one.identity.kind));
    Ok(all)
}

/// The scopes of the kinds that are defined among the objects.
fn definitions(objects: &[Object]) -> BTreeMap<(String, String), Scope> {
    objects
        .iter()
        .filter(|object| {
            object.group() == "apiextensions.k8s.io" && object.text("/kind") == "CustomResourceDefinition"
        })
        .map(|object| {
            let scope = match object.text("/spec/scope") {
                "Cluster" => Scope::Cluster,
                _ => Scope::Namespaced,
            };
            ((object.text("/spec/group").to_string(), object.text("/spec/names/kind").to_string()), scope)
        })
        .collect()
}

/// Names that no API server takes are refused here, before anything is changed.
fn check(identity: &Identity, object: &Object) -> Result<(), Failure> {
    let label = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    let kind = identity.kind.bytes().all(|c| c.is_ascii_alphanumeric());
    let group = identity.group.is_empty() || identity.group.split('.').all(label);
    let namespace = identity.namespace.as_deref().is_none_or(label);
    let name = identity.name.len() <= 253
        && !matches!(identity.name.as_str(), "." | "..")
        && !identity.name.contains(|c: char| matches!(c, '/' | '%') || c.is_control() || c.is_whitespace());
    let (what, text) = match (kind, group, namespace, name) {
        (false, ..) => ("kind", &identity.kind),
        (_, false, ..) => ("API group", &identity.group),
        (_, _, false, _) => ("namespace", identity.namespace.as_ref().unwrap_or(&identity.name)),
        (.., false) => ("name", &identity.name),
        _ => return Ok(()),
    };
    Err(Failure::new(format!(
        "`{}` at line {}: `{}` cannot be the {what} of an object",
        object.file,
        object.line,
        text.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    fn read(text: &str) -> Result<Vec<Identified>, Failure> {
        ordered(yaml::objects("m.yaml", text)?)
    }

    fn object(version: &str, kind: &str, metadata: &str) -> String {
        format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\n")
    }

    #[test]
    fn what_others_need_comes_first() {
        let text = [
            object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "name: w"),
            object("g.io/v1", "Custom", "name: c, namespace: z"),
            object("apps/v1", "Deployment", "name: d2"),
            object("apps/v1", "Deployment", "name: d1"),
            object("v1", "ConfigMap", "name: m, namespace: x"),
            object("v1", "ServiceAccount", "name: s"),
            object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "name: customs.g.io")
                + "spec: {group: g.io, scope: Cluster, names: {kind: Custom}}\n",
            object("v1", "Namespace", "name: x"),
            object("other.io/v1", "Unknown", "name: u"),
        ]
        .concat();
        let shown: Vec<_> =
            read(&text).unwrap().iter().map(|one| (one.identity.to_string(), one.scope)).collect();
        let wanted = [
            ("Namespace x", Scope::Cluster),
            ("CustomResourceDefinition customs.g.io", Scope::Cluster),
            ("ServiceAccount default/s", Scope::Namespaced),
            ("ConfigMap x/m", Scope::Namespaced),
            ("Deployment default/d2", Scope::Namespaced),
            ("Deployment default/d1", Scope::Namespaced),
            ("Custom c", Scope::Cluster),
            ("Unknown u", Scope::Unknown),
            ("ValidatingWebhookConfiguration w", Scope::Cluster),
        ];
        assert_eq!(shown, wanted.map(|(shown, scope)| (shown.to_string(), scope)));
    }

    #[test]
    fn an_object_is_there_once() {
        let text =
            object("v1", "Secret", "name: s") + &object("v1", "Secret", "name: s, namespace: default");
        assert_eq!(
            read(&text).unwrap_err().message,
            "`Secret default/s` is there twice: in `m.yaml` at line 2, and in `m.yaml` at line 6"
        );
        // The version of the API is not part of the name.
        let text = object("g/v1", "K", "name: s") + &object("g/v2", "K", "name: s");
        assert!(read(&text).is_err());
        assert!(read(&(object("g/v1", "K", "name: s") + &object("h/v1", "K", "name: s"))).is_ok());
    }

    #[test]
    fn impossible_names_are_refused() {
        for (version, kind, metadata, wanted) in [
            ("v1", "K", "name: a/b", "`a/b` cannot be the name of an object"),
            ("v1", "K", "name: '..'", "`..` cannot be the name of an object"),
            ("v1", "K", "name: a, namespace: ..", "`..` cannot be the namespace of an object"),
            ("v1", "K", "name: a, namespace: _cluster", "`_cluster` cannot be the namespace of an object"),
            ("v1", "../K", "name: a", "`../K` cannot be the kind of an object"),
            ("../v1", "K", "name: a", "`..` cannot be the API group of an object"),
        ] {
            let message = read(&object(version, kind, metadata)).unwrap_err().message;
            assert_eq!(message, format!("`m.yaml` at line 2: {wanted}"));
        }
        assert!(read(&object("rbac.authorization.k8s.io/v1", "ClusterRole", "name: 'system:a'")).is_ok());
    }
}
