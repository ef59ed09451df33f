//! The list of what an image is made of: what Go itself and dpkg say is in it.

use std::fs;
use std::process::Command;

use serde_json::Value;
use snapbox::str;

use crate::support::Project;

fn json(path: std::path::PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn purls(document: &Value) -> Vec<String> {
    let packages = document["packages"].as_array().unwrap().iter();
    let mut all: Vec<String> = packages
        .filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str().map(str::to_string))
        .collect();
    all.sort();
    all
}

#[test]
fn packages_of_the_base_and_of_programs() {
    let project = Project::new()
        .config(
            "[image.base]\nbase = 'scratch'\nfiles = [{ from = 'root', to = '/' }]\n\
             [image.app]\nbase = 'image.base'\nfiles = [{ from = 'tool', to = '/bin/', mode = '0755' }]\ntags = ['example.com/app:1']\nsbom = true\n\
             [save.layout]\nimages = ['image.app']\nformat = 'oci-layout'\ncompression = 'gzip'\nsbom = true\n",
        )
        .file("root/var/lib/dpkg/status", "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n\n")
        .file("root/var/lib/dpkg/status.d/tzdata", "Package: tzdata\nArchitecture: all\nVersion: 2024a-0\n")
        .file("root/lib/apk/db/installed", "P:musl\nV:1.2.4\nA:x86_64\nL:MIT\n")
        .file("root/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    // What `go version -m` reads of a program: a section that Go's linker makes.
    let info = "path\texample.com/tool\nmod\texample.com/tool\tv1.2.3\th1:x\ndep\tgolang.org/x/sys\tv0.1.0\th1:y\n";
    let mut section = b"\xff Go buildinf:\x08\x02".to_vec();
    section.resize(32, 0);
    for text in ["go1.22.1".to_string(), format!("{0}{info}{0}", "0123456789abcdef")] {
        section.extend([(text.len() & 0x7f) as u8 | 0x80, (text.len() >> 7) as u8]);
        section.extend(text.as_bytes());
    }
    fs::write(project.path("section"), section).unwrap();
    project.write("tool.c", "__asm__(\".section .go.buildinfo,\\\"aw\\\"\\n.incbin \\\"section\\\"\\n\");\nint main(void) { return 0; }\n");
    let made =
        Command::new("gcc").args(["-static", "-o", "tool", "tool.c"]).current_dir(project.root()).status();
    assert!(made.unwrap().success());
    project.call("get image.app --sbom -o list.json").success();
    let list = json(project.path("list.json"));
    assert_eq!(
        purls(&list),
        [
            "pkg:apk/debian/musl@1.2.4?arch=x86_64&distro=debian-12",
            "pkg:deb/debian/libc6@2.36?arch=amd64&distro=debian-12",
            "pkg:deb/debian/tzdata@2024a-0?arch=all&distro=debian-12",
            "pkg:golang/example.com/tool@v1.2.3",
            "pkg:golang/golang.org/x/sys@v0.1.0",
            "pkg:golang/stdlib@1.22.1",
        ]
    );
    assert_eq!((&list["spdxVersion"], &list["name"]), (&"SPDX-2.3".into(), &"example.com/app:1".into()));

    // As a referrer: it is about the manifest that is saved, whatever packed its layers.
    project.call("get save.layout -o saved").success();
    let blob = |digest: &Value| {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        json(project.path(format!("saved/images.tar/blobs/sha256/{hex}")))
    };
    let index = json(project.path("saved/images.tar/index.json"));
    let [image, about] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    assert_eq!(about["artifactType"], "application/spdx+json");
    let about = blob(&about["digest"]);
    assert_eq!(about["subject"]["digest"], image["digest"]);
    assert_eq!(about["artifactType"], "application/spdx+json");
    assert_eq!(blob(&about["layers"][0]["digest"]), list);

    // The same from nothing, byte for byte.
    project.remove("cache");
    project.call("get image.app --sbom -o again.json").success();
    assert_eq!(fs::read(project.path("again.json")).unwrap(), fs::read(project.path("list.json")).unwrap());
    project.call("get image.base --sbom -o none.json").failure(1).stderr(str![[r#"
error: the image has no list of what it is made of
hint: write `sbom = true` in its table

"#]]);
    project.call("get save.layout --sbom -o none.json").failure(2).stderr(str![[r#"
error: `save.layout` is no image: `--sbom` is for images

error: 1 mistake

"#]]);
}
