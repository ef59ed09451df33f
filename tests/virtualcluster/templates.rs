//! The templates are what Ansible's users know: Ansible itself renders them to the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::root;
use crate::support::{Project, folder};

const PLAYBOOK: &str = "- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.template:
        src: \"{{ item }}\"
        dest: \"{{ rendered }}/{{ item | basename }}\"
      loop: \"{{ lookup('ansible.builtin.fileglob', 'templates/*', wantlist=True) }}\"
";

/// Volumes, another scheme, and everything else that a template decides by.
const MORE: &str = r#"
namespace: tenants
vn_agent_privileged: true
syncer_feature_gates: [A=true, B=false]
etcd_scheme: http
etcd_storage_enabled: true
etcd_storage_class: fast
persistent_volumes:
  - {name: one, capacity: 10Gi, host_path: /data/one, node_name: node1}
  - name: two
    capacity: 5Gi
    host_path: /data/two
    node_name: node2
    storage_class: slow
    access_modes: [ReadWriteMany]
    reclaim_policy: Retain
    labels: {type: "yes", tier: "1"}
"#;

/// The variables of the root's file, and a task that deploys each template's text as it is rendered.
fn project(more: &str) -> Project {
    let config = fs::read_to_string(root().join("vcbuild.toml")).unwrap();
    let variables = config.split("[host.").next().unwrap().replace("default = ", "# default = ");
    let project = Project::new().config(&format!(
        "{variables}[cluster.here]\ndir = 'out'\n[deploy.texts]\ncluster = 'here'\nmanifests = ['texts/*']\n"
    ));
    project.write("more.yaml", more);
    folder::copy(&root().join("templates"), &project.path("templates"));
    for name in folder::files(&project.path("templates")) {
        let name = name.to_str().unwrap();
        let text = project.read(format!("templates/{name}"));
        let object = name.trim_end_matches(".yaml.j2");
        let head = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: '{object}'\n");
        let data =
            format!("data:\n  text: {{% set text %}}\n{text}{{% endset %}}{{{{ text | b64encode }}}}\n");
        project.write(&format!("texts/{name}"), &(head + &data));
    }
    match more.is_empty() {
        true => project,
        false => project.options("--vars more.yaml"),
    }
}

/// What vcbuild makes of each template.
fn rendered_here(project: &Project) -> BTreeMap<String, String> {
    project.call("run").success();
    let folder = project.path("out/objects/default/ConfigMap");
    let texts = folder::files(&folder).into_iter().map(|name| {
        let object = fs::read_to_string(folder.join(&name)).unwrap();
        let text = object.split("text: ").nth(1).unwrap().lines().next().unwrap();
        let text = BASE64_STANDARD.decode(text.trim_matches('"')).unwrap();
        (name.file_stem().unwrap().to_str().unwrap().to_string(), String::from_utf8(text).unwrap())
    });
    texts.collect()
}

/// What Ansible makes of them.
fn rendered_by_ansible(project: &Project) -> BTreeMap<String, String> {
    let playbook = root().join("target/tools/ansible/bin/ansible-playbook");
    assert!(playbook.exists(), "Ansible is not installed: `tests/run` does that");
    let told = project.call("vars").success().text();
    let mut variables: serde_json::Map<String, Value> = told
        .lines()
        .map(|line| {
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.rsplit_once("  # ").unwrap().0;
            (name.trim().to_string(), serde_json::from_str(value.trim()).unwrap())
        })
        .collect();
    let to = project.path("ansible");
    fs::create_dir(&to).unwrap();
    variables.insert("rendered".into(), to.to_str().unwrap().into());
    project.write("variables.json", &Value::from(variables).to_string());
    project.write("play.yaml", PLAYBOOK);
    let mut command = Command::new(playbook);
    project.clean(&mut command);
    command.env("LC_ALL", "C.UTF-8").env("ANSIBLE_LOCALHOST_WARNING", "False");
    command.args(["-i", "localhost,", "-e", "@variables.json", "play.yaml"]).current_dir(project.root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let texts = folder::files(&to).into_iter().map(|name: PathBuf| {
        let text = fs::read_to_string(to.join(&name)).unwrap();
        (name.to_str().unwrap().trim_end_matches(".yaml.j2").to_string(), text)
    });
    texts.collect()
}

#[test]
fn ansible_renders_them_to_the_same_bytes() {
    for more in ["", MORE] {
        let project = project(more);
        let (here, there) = (rendered_here(&project), rendered_by_ansible(&project));
        assert_eq!(here.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
        assert_eq!(here.len(), 8);
        for (name, text) in &here {
            // A line end behind a last block is given back to a whole template only.
            assert_eq!(text.trim_end_matches('\n'), there[name].trim_end_matches('\n'), "{name}");
            assert!(there[name].ends_with("\n") && !there[name].ends_with("\n\n"), "{name}");
        }
        let volumes = there["30-storage"].matches("kind: PersistentVolume\n").count();
        assert_eq!(volumes, if more.is_empty() { 0 } else { 2 });
    }
}
