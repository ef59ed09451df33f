//! The embedded cluster: places, scopes, containment, inventories.

use super::*;
use crate::error::Error;

struct Silent;

impl Watch for Silent {
    fn moved(&self, _bytes: u64) {}
    fn check(&self) -> Result<()> {
        Ok(())
    }
    fn waits(&self) {}
}

fn open(root: &Path) -> Embedded<'static> {
    let spec = Spec { name: "here".into(), dir: "out".into() };
    Embedded::open(&spec, root, &Silent).unwrap()
}

fn object(group: &str, kind: &str, namespace: Option<&str>, name: &str) -> Identity {
    Identity {
        group: group.into(),
        kind: kind.into(),
        namespace: namespace.map(str::to_string),
        name: name.into(),
    }
}

fn message<T>(result: Result<T, Trouble>) -> String {
    match result {
        Err(Trouble::Error(Error::Failed(failure))) => failure.message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

#[test]
fn objects_lie_where_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = open(folder.path());
    let deployment = object("apps", "Deployment", Some("hello"), "greet");
    let role = object("rbac.authorization.k8s.io", "ClusterRole", None, "system:x");
    let secret = object("", "Secret", Some("hello"), "s");
    let lock = cluster.lock().unwrap();
    for (object, text) in [(&deployment, "a\n"), (&role, "b\n"), (&secret, "c\n")] {
        cluster.apply(object, text).unwrap();
    }
    cluster.remember("p.t", &[deployment.clone(), role.clone()]).unwrap();
    drop(lock);
    assert_eq!(fs::list(&folder.path().join("out")).unwrap(), ["inventory", "lock", "objects"]);
    let read = |path: &str| std::fs::read_to_string(folder.path().join("out").join(path)).ok();
    assert_eq!(read("objects/hello/Deployment.apps/greet.yaml").as_deref(), Some("a\n"));
    assert_eq!(
        read("objects/_cluster/ClusterRole.rbac.authorization.k8s.io/system:x.yaml").as_deref(),
        Some("b\n")
    );
    let mode = fs::status(folder.path().join("out/objects/hello/Secret/s.yaml"), fs::Links::Keep);
    assert_eq!(mode.unwrap().unwrap().mode, 0o600);
    assert!(read("inventory/p.t.json").unwrap().starts_with("{\n  \"version\": 1,\n"));

    let gone = object("", "Service", None, "gone");
    let objects = vec![(deployment.clone(), Scope::Namespaced), (gone, Scope::Namespaced)];
    let answer = open(folder.path()).ask(&Question { objects, inventory: "p.t".into() }).unwrap();
    assert_eq!(answer.objects[0], (deployment.clone(), Some("a\n".into())));
    assert_eq!(answer.objects[1], (object("", "Service", Some("default"), "gone"), None));
    assert_eq!(answer.inventory, [(deployment.clone(), Presence::There), (role.clone(), Presence::There)]);
    let answer = cluster.ask(&Question { objects: vec![], inventory: "other".into() }).unwrap();
    assert_eq!(answer.owners.get(&role).map(String::as_str), Some("p.t"));

    cluster.delete(&deployment).unwrap();
    cluster.delete(&deployment).unwrap();
    cluster.delete(&secret).unwrap();
    let left = fs::list(&folder.path().join("out/objects")).unwrap();
    assert_eq!(left, ["_cluster"]);
}

#[test]
fn the_scope_of_a_kind_that_is_defined_there_counts() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = open(folder.path());
    let ask = |namespace| {
        let objects = vec![(object("g", "K", namespace, "n"), Scope::Unknown)];
        let answer = cluster.ask(&Question { objects, inventory: "i".into() }).unwrap();
        answer.objects[0].0.namespace.clone()
    };
    assert_eq!((ask(None), ask(Some("x"))), (None, Some("x".into())));
    let definition = object("apiextensions.k8s.io", "CustomResourceDefinition", None, "ks.g");
    for (scope, wanted) in [("Cluster", (None, None)), ("Namespaced", (Some("default"), Some("x")))] {
        let text = format!("spec:\n  group: g\n  names: {{kind: K, plural: ks}}\n  scope: {scope}\n");
        cluster.apply(&definition, &text).unwrap();
        let wanted = (wanted.0.map(str::to_string), wanted.1.map(str::to_string));
        assert_eq!((ask(None), ask(Some("x"))), wanted);
    }
}

#[test]
fn nothing_gets_out_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = open(folder.path());
    for bad in [
        object("", "K", Some(".."), "n"),
        object("", "K", Some("a/b"), "n"),
        object("", "..", Some("a"), "n"),
        object("/etc", "K", Some("a"), "n"),
        object("", "K", Some("_cluster"), "n"),
        object("", "K", None, "../n"),
        object("", "K", None, ""),
        object("", "K", None, &"n".repeat(252)),
    ] {
        assert!(message(cluster.apply(&bad, "x")).ends_with("cannot be the name of a file"), "{bad}");
        assert!(message(cluster.delete(&bad)).ends_with("cannot be the name of a file"), "{bad}");
    }
    assert!(cluster.remember("../x", &[]).is_err());
    // A planted link leads nowhere either.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::make_folder(&folder.path().join("out/objects")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("out/objects/ns")).unwrap();
    assert!(open(folder.path()).apply(&object("", "K", Some("ns"), "n"), "x").is_err());
    assert_eq!(fs::list(elsewhere.path()).unwrap().len(), 0);
}

#[test]
fn an_inventory_that_cannot_be_understood_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out/inventory/p.t.json");
    let ask = || open(folder.path()).ask(&Question { objects: vec![], inventory: "p.t".into() });
    for (text, wanted) in [
        (
            r#"{"version":2,"objects":[]}"#,
            "`out/inventory/p.t.json` has version 2, and this vcbuild knows only 1",
        ),
        ("{}", "`out/inventory/p.t.json` is not an inventory: it has no version"),
        (
            "{",
            "`out/inventory/p.t.json` is not an inventory: EOF while parsing an object at line 1 column 1",
        ),
        (
            r#"{"version":1,"objects":[{"group":"","kind":"K","namespace":"../..","name":"n"}]}"#,
            "`K ../../n` cannot be the name of a file",
        ),
    ] {
        fs::write(&path, text.as_bytes(), 0o644, fs::Durability::Cache).unwrap();
        assert_eq!(message(ask()), wanted);
    }
}
