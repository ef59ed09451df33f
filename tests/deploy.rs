//! `deploy` onto a cluster that is a folder: rendering, rewritten images, what is written when one thing
//! changes, pruning, and what wrong templates get.

use std::fs;

use snapbox::str;

use crate::support::{Project, folder};

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: {{ namespace }}\nspec:\n  template:\n    spec:\n      initContainers:\n        - name: init\n          image: example.com/web:1\n      containers:\n        - name: web\n          image: example.com/web:1\n          args: ['--self={{ image(\"web\").ref }}']\n";

/// A web image and three objects.
fn project() -> Project {
    Project::new()
        .config(
            "[project]\nname = 'shop'\n[vars]\nnamespace = 'prod'\n[cluster.here]\ndir = 'out'\n\
             [image.web]\nbase = 'scratch'\nfiles = [{ from = 'page', to = '/' }]\ntags = ['example.com/web:1']\n\
             [deploy.all]\ncluster = 'here'\nmanifests = ['k8s/*']\nimages = ['image.web']\n",
        )
        .file("page", "hello\n")
        .file("k8s/30-web.yaml.j2", DEPLOYMENT)
        .file("k8s/20-config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: plain\n  namespace: prod\ndata:\n  text: '{{ not rendered }}'\n")
        .file("k8s/90-namespace.yaml.j2", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {{ namespace }}\n")
}

/// The objects in the cluster's folder.
fn objects(project: &Project) -> Vec<String> {
    folder::files(&project.path("out/objects")).iter().map(|name| name.display().to_string()).collect()
}

#[test]
fn objects_stand_in_the_cluster_with_content_tags() {
    let project = project();
    project.run("").success().stderr(str![[r#"
     ran image.web  [TIME]  it has not run before
 applied deploy.all  [TIME]  here 575 B
          create Namespace prod
          create ConfigMap prod/plain
          create Deployment prod/web
done: 1 ran, 1 applied ([TIME])

"#]]);
    assert_eq!(
        objects(&project),
        ["_cluster/Namespace/prod.yaml", "prod/ConfigMap/plain.yaml", "prod/Deployment.apps/web.yaml"]
    );
    let web = project.read("out/objects/prod/Deployment.apps/web.yaml");
    assert_eq!(web.matches("example.com/web:vc-").count(), 3, "{web}");
    assert!(!web.contains("example.com/web:1"), "{web}");
    assert_eq!(web.matches("imagePullPolicy: Never").count(), 2, "{web}");
    let config = project.read("out/objects/prod/ConfigMap/plain.yaml");
    assert!(config.contains("{{ not rendered }}"), "{config}");
    assert!(project.path("out/inventory/shop.all.json").is_file());
    project.settle();
    project.run("").nothing();
}

#[test]
fn only_what_changed_is_written() {
    let project = project();
    project.run("").success();
    let time =
        |name: &str| fs::metadata(project.path("out/objects").join(name)).unwrap().modified().unwrap();
    let before: Vec<_> = objects(&project).iter().map(|name| time(name)).collect();
    project.write("page", "good day\n");
    project.run("").success().did(&["image.web", "deploy.all"]).stderr(str![[r#"
     ran image.web  [TIME]  `page` changed in `layers.0.0.tree`
 applied deploy.all  [TIME]  here 413 B
          change Deployment prod/web (spec.template)
done: 1 ran, 1 applied ([TIME])

"#]]);
    let after: Vec<_> = objects(&project).iter().map(|name| time(name)).collect();
    let same: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
    assert_eq!(same, [true, true, false]);
}

#[test]
fn what_is_gone_from_the_templates_is_pruned_and_others_stay() {
    let project = project();
    project.run("").success();
    project.write(
        "out/objects/prod/ConfigMap/foreign.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: foreign\n  namespace: prod\n",
    );
    project.remove("k8s/20-config.yaml");
    project.call("plan").success().stdout(str![[r#"
deploy.all
    here: 1 change
        delete ConfigMap prod/plain
plan: 0 B and 1 change on 1 destination

"#]]);
    assert!(objects(&project).contains(&"prod/ConfigMap/plain.yaml".into()), "a plan changes nothing");
    project.run("").success().did(&["deploy.all"]).stderr(str![[r#"
 applied deploy.all  [TIME]  here 0 B
          delete ConfigMap prod/plain
done: 1 applied, 1 up to date ([TIME])

"#]]);
    assert_eq!(
        objects(&project),
        ["_cluster/Namespace/prod.yaml", "prod/ConfigMap/foreign.yaml", "prod/Deployment.apps/web.yaml"]
    );
}

#[test]
fn a_variable_moves_everything() {
    let project = project();
    project.run("").success();
    project.edit("vcbuild.toml", |text| text.replace("'prod'", "'test'"));
    project.run("").success().did(&["deploy.all"]);
    assert_eq!(
        objects(&project),
        ["_cluster/Namespace/test.yaml", "prod/ConfigMap/plain.yaml", "test/Deployment.apps/web.yaml"]
    );
}

#[test]
fn an_edit_in_the_cluster_is_put_right() {
    let project = project();
    project.run("").success();
    let path = "out/objects/prod/Deployment.apps/web.yaml";
    let before = project.read(path);
    project.edit(path, |text| text.replace("Never", "Always"));
    project.run("").success().did(&["deploy.all"]);
    assert_eq!(project.read(path), before);
}

#[test]
fn wrong_templates() {
    let fails = |name: &str, text: &str, words: snapbox::data::Inline| {
        let project = project().file(name, text);
        project.run("-j 1").failure(1).stderr(words);
        assert!(!project.path("out/objects").exists(), "half of it was applied");
    };
    fails(
        "k8s/40.yaml.j2",
        "a: {{ nothing }}\n",
        str![[r#"
     ran image.web  [TIME]  it has not run before
  failed deploy.all  [TIME]
error: `deploy.all` failed: render `k8s/40.yaml.j2`: `nothing` is undefined
     --> k8s/40.yaml.j2:1:7
      |
    1 | a: {{ nothing }}
      |       ^^^^^^^
error: 1 task failed:
    `deploy.all`: render `k8s/40.yaml.j2`: `nothing` is undefined
failed: 1 failed, 1 ran ([TIME])

"#]],
    );
    fails(
        "k8s/40.yaml.j2",
        "{% if %}\n",
        str![[r#"
     ran image.web  [TIME]  it has not run before
  failed deploy.all  [TIME]
error: `deploy.all` failed: render `k8s/40.yaml.j2`: syntax error: unexpected end of block
     --> k8s/40.yaml.j2:1:7
      |
    1 | {% if %}
      |       ^^
error: 1 task failed:
    `deploy.all`: render `k8s/40.yaml.j2`: syntax error: unexpected end of block
failed: 1 failed, 1 ran ([TIME])

"#]],
    );
    fails(
        "k8s/40.yaml.j2",
        "a: {{ image('none').ref }}\n",
        str![[r#"
     ran image.web  [TIME]  it has not run before
  failed deploy.all  [TIME]
error: `deploy.all` failed: render `k8s/40.yaml.j2`: `none` is not in the list `images` of this task, there are `web`
     --> k8s/40.yaml.j2:1:7
      |
    1 | a: {{ image('none').ref }}
      |       ^^^^^^^^^^^^^
error: 1 task failed:
    `deploy.all`: render `k8s/40.yaml.j2`: `none` is not in the list `images` of this task, there are `web`
failed: 1 failed, 1 ran ([TIME])

"#]],
    );
    fails(
        "k8s/40.yaml",
        "a: [\n",
        str![[r#"
     ran image.web  [TIME]  it has not run before
  failed deploy.all  [TIME]
error: `deploy.all` failed: read `k8s/40.yaml`: unclosed bracket '['
     --> k8s/40.yaml:1:4
      |
    1 | a: [
      |    ^
error: 1 task failed:
    `deploy.all`: read `k8s/40.yaml`: unclosed bracket '['
failed: 1 failed, 1 ran ([TIME])

"#]],
    );
    fails(
        "k8s/40.yaml",
        "kind: Pod\n",
        str![[r#"
     ran image.web  [TIME]  it has not run before
  failed deploy.all  [TIME]
error: `deploy.all` failed: read `k8s/40.yaml`: the document at line 1 has no `apiVersion`
error: 1 task failed:
    `deploy.all`: read `k8s/40.yaml`: the document at line 1 has no `apiVersion`
failed: 1 failed, 1 ran ([TIME])

"#]],
    );
    fails(
        "k8s/40.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: plain\n  namespace: prod\n",
        str![[r#"
     ran image.web  [TIME]  it has not run before
  failed deploy.all  [TIME]
error: `deploy.all` failed: `ConfigMap prod/plain` is there twice: in `k8s/20-config.yaml` at line 1, and in `k8s/40.yaml` at line 1
error: 1 task failed:
    `deploy.all`: `ConfigMap prod/plain` is there twice: in `k8s/20-config.yaml` at line 1, and in `k8s/40.yaml` at line 1
failed: 1 failed, 1 ran ([TIME])

"#]],
    );
    fails(
        "k8s/40.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n    - name: c\n      image: example.com/web:1\n      imagePullPolicy: Always\n",
        str![[r#"
     ran image.web  [TIME]  it has not run before
  failed deploy.all  [TIME]
error: `deploy.all` failed: container `c` of `Pod/p` in `k8s/40.yaml` has `imagePullPolicy: Always`, but its image is built here and is in no registry
hint: leave `imagePullPolicy` out, or say `Never`: the image is there before the container is
error: 1 task failed:
    `deploy.all`: container `c` of `Pod/p` in `k8s/40.yaml` has `imagePullPolicy: Always`, but its image is built here and is in no registry
failed: 1 failed, 1 ran ([TIME])

"#]],
    );
}

#[test]
fn two_deploys_do_not_fight_over_an_object() {
    let project = project();
    project.edit("vcbuild.toml", |text| format!("{text}[deploy.more]\ncluster = 'here'\nmanifests = ['k8s/20-config.yaml']\nafter = ['deploy.all']\n"));
    project.run("").failure(1).stderr(str![[r#"
     ran image.web  [TIME]  it has not run before
 applied deploy.all  [TIME]  here 575 B
          create Namespace prod
          create ConfigMap prod/plain
          create Deployment prod/web
  failed deploy.more  [TIME]
error: `deploy.more` failed: `here`: `ConfigMap prod/plain` belongs to `shop.all`, which has deployed it to `here`
    here: `ConfigMap prod/plain` belongs to `shop.all`, which has deployed it to `here`
hint: an object can be in one deploy task only: rename it, or take it out of the other and run that first
error: 1 task failed:
    `deploy.more`: `here`: `ConfigMap prod/plain` belongs to `shop.all`, which has deployed it to `here`
failed: 1 failed, 1 ran, 1 applied ([TIME])

"#]]);
}
