//! Layers that other programs wrote are listed as they meant them, and hostile ones are refused.

use proptest::prelude::*;

use crate::error::Result;
use crate::oci::listing::{Held, Item, Plain, list};
use crate::oci::samples::{folder_of, tool};

fn listed(bytes: &[u8]) -> Result<Vec<Item>> {
    let mut found = Vec::new();
    list(&mut Plain(bytes), &|path| path == b"etc/passwd", &mut |item| {
        found.push(item);
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn what_tar_writes_is_listed_in_every_format() {
    let long = format!("{}/{}", "d".repeat(120), "ä".repeat(70));
    let (passwd, empty) = (b"root:x:0:0::/:/bin/sh\n".to_vec(), Vec::new());
    let folder = folder_of(&[("root/etc/passwd", &passwd), (&format!("root/{long}")[..], &empty)]);
    let run = |command: &str| tool(folder.path(), &command.split(' ').collect::<Vec<_>>());
    run("ln -s ../passwd root/etc/link");
    run("ln root/etc/passwd root/etc/hard");
    run("chmod 1777 root/etc");
    run("truncate -s 1M root/etc/sparse");
    for format in ["gnu", "pax", "gnu --sparse", "pax --sparse"] {
        run(&format!(
            "tar --format={format} --sort=name --owner=1234:1234 --group=3000000:3000000 --mtime=@77 -C root -cf x.tar ."
        ));
        let items = listed(&std::fs::read(folder.path().join("x.tar")).unwrap()).unwrap();
        let item = |path: &str| {
            let found = items.iter().find(|item| item.path == path.as_bytes());
            found.unwrap_or_else(|| panic!("{format}: no {path}"))
        };
        assert_eq!(items[0].path, b"");
        let etc = item("etc").attributes;
        assert_eq!((etc.mode, etc.uid, etc.gid, etc.mtime), (0o1777, 1234, 3_000_000, 77), "{format}");
        assert_eq!(item("etc/link").kind, Held::Link(b"../passwd".to_vec()));
        assert_eq!(item(&long).kind, Held::File(None), "{format}");
        // Of two names of one file the first in the tar has the content.
        assert_eq!(item("etc/hard").kind, Held::File(None));
        assert!(items.iter().any(|item| item.path.ends_with(b"sparse") || item.path.contains(&b'.')));
    }
}

fn header(change: impl Fn(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path("etc/passwd").unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Regular);
    change(&mut header);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn hostile_layers_are_refused() {
    let told = |bytes: &[u8]| listed(bytes).unwrap_err().to_string();
    let start = "the layer cannot be read: ";
    assert_eq!(told(&[7; 512]), format!("{start}a header's sum is not right"));
    assert_eq!(told(&header(|_| {})[..100]), format!("{start}it ends within a header"));
    let long = header(|header| header.set_size(1 << 60));
    assert_eq!(told(&long), format!("{start}it ends within a file"));
    for kind in [tar::EntryType::XHeader, tar::EntryType::GNULongName, tar::EntryType::XGlobalHeader] {
        let huge = header(|header| {
            header.set_entry_type(kind);
            header.set_size(1 << 40);
        });
        assert_eq!(told(&huge), format!("{start}a header has more than 1 MiB"));
    }
    for path in ["../x", "a/../../x", "a/.."] {
        let climbing = header(|header| {
            header.as_mut_bytes()[..path.len() + 1].copy_from_slice(format!("{path}\0").as_bytes())
        });
        assert_eq!(told(&climbing), format!("{start}it has the path `{path}`"));
    }
    for records in
        ["9 path=x\n", "x", "5 a=\n999999999999999999999 b=c\n", "11 size=-x\n", "-1 a=b\n", "0 a=b\n"]
    {
        let mut bytes = header(|header| {
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(records.len() as u64);
        });
        bytes.extend(records.as_bytes());
        bytes.resize(1024, 0);
        if !records.starts_with('9') {
            assert_eq!(told(&bytes), format!("{start}a PAX header is not as it should be"), "{records}");
        }
    }
    let absolute = header(|header| header.as_mut_bytes()[..7].copy_from_slice(b"//etc/x"));
    assert!(listed(&absolute).is_ok_and(|items| items[0].path.starts_with(b"etc/x")));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0_usize..512, value: u8) {
        let _ = listed(&bytes);
        let mut one = header(|_| {});
        one[at] = value;
        one.extend(&bytes);
        let _ = listed(&one);
        // With a sum that is right more of it is read.
        let mut fixed = tar::Header::new_old();
        fixed.as_mut_bytes().copy_from_slice(&one[..512]);
        fixed.set_cksum();
        let _ = listed(&[&fixed.as_bytes()[..], &bytes].concat());
    }
}
