//! `deploy` on embedded clusters.

use std::cell::Cell;

use serde_json::json;

use super::*;
use crate::cache::draft::Draft;
use crate::error::Error;
use crate::host::cluster::{self, Answer, Cluster, Identity, Lock, Question};
use crate::host::node::Trouble;
use crate::tasks::deploy_plan::from_wants;
use crate::tasks::names::To;
use crate::tasks::samples::World;
use crate::tasks::shipping::Told;
use crate::work::{Effect, Fault};

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {{ namespace }}\n";
const GREET: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: greet
  namespace: {{ namespace }}
spec:
  replicas: {{ replicas | default(1) }}
  template:
    spec:
      containers:
      - name: greet
        image: example/greet
      - name: own
        image: {{ image('greet').ref }}
";

fn config(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: hello}}\ndata: {{a: b}}\n"
    )
}

/// A project with an image that has a tag, and manifests.
fn world() -> World {
    let mut world = World::new(&[]);
    let value = {
        let mut draft = Draft::empty(&world.cache.cas);
        let mut blob = |bytes: &[u8]| {
            let digest = Digest::sha256_of(bytes);
            draft.put_file(format!("blobs/sha256/{}", digest.hex()).as_bytes(), 0o644, bytes).unwrap();
            json!({ "digest": digest.to_string(), "size": bytes.len() })
        };
        let mut config = blob(b"{}");
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
        let mut top = blob(manifest.to_string().as_bytes());
        top["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
        top["annotations"] =
            json!({ "org.opencontainers.image.ref.name": "docker.io/example/greet:latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [top] }).to_string();
        draft.put_file(b"index.json", 0o644, index.as_bytes()).unwrap();
        draft.store().unwrap()
    };
    world.value("image.greet", value);
    world.write("templates/20-greet.yaml.j2", GREET.as_bytes(), 0o644);
    world.write("templates/30-namespace.yaml.j2", NAMESPACE.as_bytes(), 0o644);
    world.write("templates/10-a.yaml", config("a").as_bytes(), 0o644);
    world
}

fn deploy_as(name: &str, manifests: &str) -> Deploy {
    let table = format!("cluster = 'here'\nmanifests = ['{manifests}']\nimages = ['image.greet']\n");
    let mut deploy: Deploy = toml::from_str(&table).unwrap();
    deploy.spec = Some(Spec { name: "here".into(), dir: "out/cluster".into() });
    deploy.project = "project".into();
    deploy.inventory = format!("project.{name}");
    deploy.variables = json!({ "namespace": "hello" });
    deploy.images[0].to = To::Tasks(vec![TaskName("image.greet".into())]);
    deploy
}

fn deploy() -> Deploy {
    deploy_as("greet", "templates/*.{yaml,j2}")
}

fn lines(world: &World, effect: &dyn Effect) -> Vec<String> {
    effect.probe(0, &world.reach()).map(|change| change.lines()).unwrap_or_else(|fault| panic!("{fault:?}"))
}

fn run(world: &World, deploy: &Deploy) -> Vec<String> {
    world.later();
    let effect = world.effect(deploy).unwrap();
    let lines = lines(world, &*effect);
    world.ship(&*effect).unwrap_or_else(|fault| panic!("{fault:?}"));
    lines
}

fn text(world: &World, path: &str) -> Option<String> {
    world.read(&format!("out/cluster/{path}")).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn only_what_differs_is_applied() {
    let world = world();
    let first = run(&world, &deploy());
    assert_eq!(
        first,
        ["create Namespace hello", "create ConfigMap hello/a", "create Deployment hello/greet"]
    );
    let greet = text(&world, "objects/hello/Deployment.apps/greet.yaml").unwrap();
    let (before, tag) = greet.split_once("image: docker.io/example/greet:vc-").unwrap();
    assert_eq!(before.lines().last(), Some("      - "), "{greet}");
    let tag = &tag[..16];
    assert!(tag.bytes().all(|c| c.is_ascii_hexdigit()));
    let containers = format!(
        "      - image: docker.io/example/greet:vc-{tag}\n        imagePullPolicy: Never\n        name: greet\n\
         \x20     - image: docker.io/example/greet:vc-{tag}\n        imagePullPolicy: Never\n        name: own\n"
    );
    assert!(greet.ends_with(&containers), "{greet}");
    assert_eq!(run(&world, &deploy()), [""; 0]);

    let mut changed = deploy();
    changed.variables = json!({ "namespace": "hello", "replicas": 3 });
    assert_eq!(run(&world, &changed), ["change Deployment hello/greet (spec.replicas)"]);
    world.write("out/cluster/objects/hello/ConfigMap/a.yaml", b"x", 0o644);
    assert_eq!(run(&world, &changed), ["change ConfigMap hello/a (all of it)"]);
    fs::remove_tree(&world.path("out/cluster/objects/hello")).unwrap();
    assert_eq!(run(&world, &changed), ["create ConfigMap hello/a", "create Deployment hello/greet"]);
}

#[test]
fn what_is_gone_from_the_manifests_is_deleted() {
    let world = world();
    run(&world, &deploy());
    world.write("out/cluster/objects/hello/ConfigMap/foreign.yaml", b"x", 0o644);
    let only = deploy_as("greet", "templates/10-a.yaml");
    assert_eq!(run(&world, &only), ["delete Deployment hello/greet", "delete Namespace hello"]);
    assert_eq!(text(&world, "objects/hello/Deployment.apps/greet.yaml"), None);
    assert!(text(&world, "objects/hello/ConfigMap/foreign.yaml").is_some());
    assert_eq!(run(&world, &only), [""; 0]);
    // What somebody has deleted is only forgotten; what somebody has made is adopted.
    run(&world, &deploy());
    fs::remove_tree(&world.path("out/cluster/objects/_cluster")).unwrap();
    assert_eq!(run(&world, &only), ["delete Deployment hello/greet", "forget Namespace hello"]);
    fs::remove_tree(&world.path("out/cluster/inventory")).unwrap();
    assert_eq!(run(&world, &only), ["adopt ConfigMap hello/a"]);
    assert_eq!(run(&world, &only), [""; 0]);
}

fn message(result: Result<Box<dyn Effect>>) -> Vec<String> {
    match result {
        Err(Error::Failed(failure)) => [vec![failure.message], failure.detail, failure.hints].concat(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

#[test]
fn objects_of_others_are_not_touched() {
    let world = world();
    run(&world, &deploy());
    let other = deploy_as("other", "templates/10-a.yaml");
    let effect = world.effect(&other).unwrap();
    let Err(Fault::Error(Error::Failed(failure))) = effect.probe(0, &world.reach()).map(drop) else {
        panic!("it worked");
    };
    assert_eq!(
        failure.message,
        "`ConfigMap hello/a` belongs to `project.greet`, which has deployed it to `here`"
    );
}

#[test]
fn an_edit_in_the_cluster_is_seen_without_the_inputs() {
    let world = world();
    let effect = world.effect(&deploy()).unwrap();
    world.ship(&*effect).unwrap();
    let later = from_wants(&effect.wants()).unwrap();
    assert_eq!(later.destinations(), ["here"]);
    assert_eq!(lines(&world, &*later), [""; 0]);
    world.write("out/cluster/objects/hello/ConfigMap/a.yaml", b"apiVersion: v1\n", 0o644);
    assert_eq!(lines(&world, &*later), ["change ConfigMap hello/a"]);
    assert!(from_wants(&json!({ "cluster": 1 })).is_none());
}

#[test]
fn bad_manifests_are_explained() {
    let world = world();
    assert_eq!(
        message(world.effect(&deploy_as("x", "nothing/*.yaml"))),
        [
            "`nothing/*.yaml` matches no file",
            "`manifests` are globs of files, from the folder of `vcbuild.toml`"
        ]
    );
    world.write("bad/template.yaml.j2", b"kind: X\nname: {{ namespac }}\n", 0o644);
    world.write("bad/yaml.yaml", b"a: 1\na: 2\n", 0o644);
    world.write("bad/bytes.yaml", b"a: \xff\n", 0o644);
    let world_of = |name: &str| message(world.effect(&deploy_as("x", name)));
    assert_eq!(
        world_of("bad/template.yaml.j2"),
        [
            "render `bad/template.yaml.j2`: `namespac` is undefined",
            " --> bad/template.yaml.j2:2:10",
            "  |",
            "2 | name: {{ namespac }}",
            "  |          ^^^^^^^^",
            "did you mean `namespace`?",
        ]
    );
    assert_eq!(
        world_of("bad/yaml.yaml"),
        [
            "read `bad/yaml.yaml`: duplicate mapping key: a",
            " --> bad/yaml.yaml:2:1",
            "  |",
            "2 | a: 2",
            "  | ^"
        ]
    );
    assert_eq!(world_of("bad/bytes.yaml"), ["`bad/bytes.yaml` is not UTF-8 text: byte 3 is wrong"]);
}

#[test]
fn what_is_shown_is_what_is_applied() {
    let world = world();
    let shown = world.effect(&deploy()).unwrap().shown().unwrap();
    run(&world, &deploy());
    let files = ["_cluster/Namespace/hello", "hello/ConfigMap/a", "hello/Deployment.apps/greet"];
    let stored = files.map(|file| text(&world, &format!("objects/{file}.yaml")).unwrap());
    assert_eq!(shown, stored.join("---\n"));
}

#[test]
fn manifests_are_checked_without_their_images() {
    let mut world = world();
    world.values.clear();
    let check = |deploy: Deploy| world.with_inputs(|inputs| deploy.check(inputs)).0;
    assert_eq!(check(deploy()).ok(), Some(Checked::All));
    let mut wrong = deploy();
    wrong.variables = json!({});
    let Err(Error::Failed(failure)) = check(wrong) else { panic!("it is fine") };
    assert_eq!(
        failure.message,
        "render `templates/20-greet.yaml.j2`: this is a function: call it, or is a variable of that name missing?"
    );
}

/// A cluster that fails at a change, once.
struct Failing<'a> {
    inner: Box<dyn Cluster + 'a>,
    left: Cell<usize>,
}

impl Failing<'_> {
    fn change(&self, change: impl FnOnce() -> Result<(), Trouble>) -> Result<(), Trouble> {
        match self.left.get() {
            0 => Err(Trouble::Error(Error::failed("it was cut off"))),
            left => {
                self.left.set(left - 1);
                change()
            }
        }
    }
}

impl Cluster for Failing<'_> {
    fn ask(&self, question: &Question) -> Result<Answer, Trouble> {
        self.inner.ask(question)
    }
    fn lock(&self) -> Result<Box<dyn Lock + '_>, Trouble> {
        self.inner.lock()
    }
    fn apply(&self, object: &Identity, text: &str) -> Result<(), Trouble> {
        self.change(|| self.inner.apply(object, text))
    }
    fn delete(&self, object: &Identity) -> Result<(), Trouble> {
        self.change(|| self.inner.delete(object))
    }
    fn remember(&self, inventory: &str, objects: &[Identity]) -> Result<(), Trouble> {
        self.change(|| self.inner.remember(inventory, objects))
    }
}

fn deploying(world: &World, deploy: &Deploy) -> Deploying {
    let read = world.with_inputs(|inputs| {
        let (mut objects, mut texts) = (Vec::new(), Vec::new());
        for Identified { identity, scope, object } in deploy.objects(inputs, Images::Built).unwrap() {
            let text = emit::canonical(&object.value);
            objects.push(Object { identity, scope, blob: Blob::of(text.as_bytes()) });
            texts.push(text);
        }
        let cluster = deploy.spec.clone().unwrap();
        let wants = Wants { cluster, inventory: deploy.inventory.clone(), objects };
        Deploying { wants, texts: Some(texts) }
    });
    read.0
}

#[test]
fn no_crash_leaves_an_object_that_nobody_remembers() {
    for cut in 0..8 {
        let world = world();
        run(&world, &deploy_as("greet", "templates/{10-a.yaml,30-namespace.yaml.j2}"));
        world.write("templates/10-a.yaml", config("b").as_bytes(), 0o644);
        let effect = deploying(&world, &deploy());
        let watch = Told::source("here", &world.stop, &world.heard, None);
        let open = || cluster::open(&effect.wants.cluster, world.reach().root, &watch).unwrap();
        let failing = Failing { inner: open(), left: Cell::new(cut) };
        let whole = effect.bring(&failing).is_ok();
        assert_eq!(whole, cut >= 5, "{cut}");
        let inventory: serde_json::Value =
            serde_json::from_str(&text(&world, "inventory/project.greet.json").unwrap()).unwrap();
        let known = inventory["objects"].as_array().unwrap();
        for (kind, name) in [("ConfigMap", "a"), ("ConfigMap", "b"), ("Deployment.apps", "greet")] {
            if text(&world, &format!("objects/hello/{kind}/{name}.yaml")).is_some() {
                assert!(known.iter().any(|object| object["name"] == name), "{cut}: {name}");
            }
        }
        effect.bring(&*open()).unwrap_or_else(|fault| panic!("{cut}: {fault:?}"));
        assert_eq!(lines(&world, &effect), [""; 0]);
        assert_eq!(text(&world, "objects/hello/ConfigMap/a.yaml"), None);
        assert!(text(&world, "objects/hello/ConfigMap/b.yaml").is_some());
    }
}
