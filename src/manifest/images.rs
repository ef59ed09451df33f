//! Puts content tags where manifests name images, and sees that nobody tries to pull them. Knows the shape
//! of a container and nothing else of Kubernetes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::yaml::Object;
use crate::error::Failure;
use crate::oci::reference::Reference;

/// Which image names become which.
#[derive(Clone, Debug, Default)]
pub struct Rewrites {
    tags: BTreeMap<Reference, String>,
    content_tags: Vec<String>,
}

/// The keys under which containers are listed.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

impl Rewrites {
    /// A declared tag becomes a content tag. A tag that is no image name cannot be in a manifest either.
    pub fn add_tag(&mut self, tag: &str, content_tag: &str) {
        if let Ok(reference) = tag.parse() {
            self.tags.insert(reference, content_tag.to_string());
        }
    }

    /// A content tag, which a template may have written itself.
    pub fn add_content_tag(&mut self, content_tag: &str) {
        self.content_tags.push(content_tag.to_string());
    }

    /// Rewrites objects. All containers that want to pull what is in no registry are named at once.
    pub fn apply(&self, objects: &mut [Object]) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for object in objects {
            let (shown, file) = (object.shown(), object.file.clone());
            let mut mistake = |container: &str, policy: &str| {
                wrong.push(format!(
                    "container `{container}` of `{shown}` in `{file}` has `imagePullPolicy: {policy}`, but its \
                     image is built here and is in no registry"
                ));
            };
            if let Value::Object(fields) = &mut object.value {
                for (key, value) in
                    fields.iter_mut().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"))
                {
                    self.value(key, value, &mut mistake);
                }
            }
        }
        let mut wrong = wrong.into_iter();
        match wrong.next() {
            None => Ok(()),
            Some(first) => Err(Failure::new(first).detail(wrong).hint(
                "leave `imagePullPolicy` out, or say `Never`: the image is there before the container is",
            )),
        }
    }

    fn value(&self, key: &str, value: &mut Value, mistake: &mut dyn FnMut(&str, &str)) {
        match value {
            Value::String(text) => {
                if let Some(content_tag) = self.content_tag(key, text) {
                    *text = content_tag.to_string();
                }
            }
            Value::Array(all) => {
                for one in all.iter_mut() {
                    self.value(key, one, mistake);
                }
                if LISTS.contains(&key) {
                    for container in all {
                        self.never_pull(container, mistake);
                    }
                }
            }
            Value::Object(all) => {
                for (key, value) in all.iter_mut() {
                    self.value(key, value, mistake);
                }
            }
            _ => {}
        }
    }

    fn content_tag(&self, key: &str, text: &str) -> Option<&str> {
        // A word alone names an image only where images are named: elsewhere it is a label or a name.
        let meant = text.contains(['/', ':']) || key == "image" || key.ends_with("Image");
        if self.tags.is_empty() || !meant {
            return None;
        }
        self.tags.get(&text.parse().ok()?).map(String::as_str)
    }

    fn never_pull(&self, container: &mut Value, mistake: &mut dyn FnMut(&str, &str)) {
        let text = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default();
        let image = text("image");
        let ours = self.content_tags.iter().any(|tag| tag == image);
        let policy = container.get("imagePullPolicy").and_then(Value::as_str);
        match policy {
            _ if !ours => {}
            Some("Never") => {}
            Some(policy @ ("Always" | "IfNotPresent")) => mistake(text("name"), policy),
            _ => container["imagePullPolicy"] = "Never".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rewrites() -> Rewrites {
        let mut rewrites = Rewrites::default();
        rewrites.add_tag("docker.io/library/hello:latest", "docker.io/library/hello:vc-1");
        rewrites.add_tag("r.example/a/b:2", "r.example/a/b:vc-2");
        rewrites.add_content_tag("docker.io/library/hello:vc-1");
        rewrites.add_content_tag("r.example/a/b:vc-2");
        rewrites
    }

    fn rewrite(value: Value) -> Result<Value, Failure> {
        let mut objects = [Object { value, file: "m.yaml".into(), line: 1 }];
        rewrites().apply(&mut objects)?;
        Ok(objects[0].value.clone())
    }

    #[test]
    fn names_of_images_become_content_tags() {
        let before = json!({
            "apiVersion": "v1", "kind": "ClusterVersion", "metadata": { "name": "hello", "labels": { "app": "hello" } },
            "spec": {
                "apiServer": { "statefulset": { "spec": { "template": { "spec": {
                    "initContainers": [{ "name": "i", "image": "hello" }],
                    "containers": [
                        { "name": "a", "image": "hello:latest" },
                        { "name": "b", "image": "docker.io/hello", "imagePullPolicy": "Never" },
                        { "name": "c", "image": "r.example/a/b:vc-2", "args": ["--image=r.example/a/b:2", "r.example/a/b:2"] },
                        { "name": "d", "image": "other:1", "imagePullPolicy": "Always" },
                        { "name": "e", "image": "r.example/a/b:3" },
                    ],
                }}}}},
                "sidecarImage": "hello",
            },
        });
        let new = "docker.io/library/hello:vc-1";
        let after = json!({
            "apiVersion": "v1", "kind": "ClusterVersion", "metadata": { "name": "hello", "labels": { "app": "hello" } },
            "spec": {
                "apiServer": { "statefulset": { "spec": { "template": { "spec": {
                    "initContainers": [{ "name": "i", "image": new, "imagePullPolicy": "Never" }],
                    "containers": [
                        { "name": "a", "image": new, "imagePullPolicy": "Never" },
                        { "name": "b", "image": new, "imagePullPolicy": "Never" },
                        { "name": "c", "image": "r.example/a/b:vc-2", "imagePullPolicy": "Never",
                          "args": ["--image=r.example/a/b:2", "r.example/a/b:vc-2"] },
                        { "name": "d", "image": "other:1", "imagePullPolicy": "Always" },
                        { "name": "e", "image": "r.example/a/b:3" },
                    ],
                }}}}},
                "sidecarImage": new,
            },
        });
        assert_eq!(rewrite(before), Ok(after.clone()));
        assert_eq!(rewrite(after.clone()), Ok(after));
    }

    #[test]
    fn whoever_wants_to_pull_is_named() {
        let failure = rewrite(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "greet" },
            "spec": { "containers": [
                { "name": "a", "image": "hello", "imagePullPolicy": "Always" },
                { "name": "b", "image": "hello", "imagePullPolicy": "IfNotPresent" },
            ]},
        }))
        .unwrap_err();
        assert_eq!(
            failure.message,
            "container `a` of `Deployment/greet` in `m.yaml` has `imagePullPolicy: Always`, but its image is built \
             here and is in no registry"
        );
        assert_eq!(
            failure.detail,
            [
                "container `b` of `Deployment/greet` in `m.yaml` has `imagePullPolicy: IfNotPresent`, but its image is \
              built here and is in no registry"
            ]
        );
    }
}
