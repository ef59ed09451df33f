//! What `contents` reads of tars by hand, by this library and by GNU tar, and what it refuses.

use std::fs::File;

use super::*;
use crate::digest::{Blob, Digest};
use crate::oci::descriptor::{Descriptor, LAYER};
use crate::oci::layer::{self, Attributes, Entry};
use crate::oci::samples::{Memory, folder_of, tool};

/// A layer of these bytes.
fn layer_of(media_type: &str, part: Part, blob: &[u8], tar: &[u8]) -> Layer {
    let mut descriptor = Descriptor::of(media_type, blob);
    descriptor.size = part.size();
    Layer { descriptor, diff_id: Digest::sha256_of(tar), part }
}

fn plain_layer(tar: &[u8]) -> Layer {
    layer_of(LAYER, Part::Inline(tar.to_vec()), tar, tar)
}

fn items_of(layer: &Layer, content: &dyn Content) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut note = |item: &Item| {
        items.push(item.clone());
        Ok(())
    };
    read(layer, content, &mut note)?;
    Ok(items)
}

fn items(tar: &[u8]) -> Result<Vec<Item>> {
    items_of(&plain_layer(tar), &Memory::default())
}

/// Paths and kinds in short.
fn short(items: &[Item]) -> Vec<String> {
    let line = |item: &Item| {
        let path = String::from_utf8_lossy(&item.path);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match &item.kind {
            Kind::File => format!("{path} {:o} {}", item.attributes.mode, item.size),
            Kind::Folder => format!("{path}/ {:o}", item.attributes.mode),
            Kind::Link(target) => format!("{path} -> {}", text(target)),
            Kind::Same(target) => format!("{path} = {}", text(target)),
            Kind::Special => format!("{path} special"),
            Kind::Removed => format!("{path} removed"),
            Kind::Emptied => format!("{path} emptied"),
        }
    };
    items.iter().map(line).collect()
}

fn refused(tar: &[u8]) -> String {
    let error = items(tar).unwrap_err().to_string();
    let at = error.find("`: ").unwrap() + 3;
    assert!(error.starts_with("the layer `sha256:"), "{error}");
    error[at..].to_string()
}

/// One header and its content.
fn member(kind: u8, path: &[u8], target: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str) -> Vec<u8> {
    member(b'0', path.as_bytes(), b"", b"x")
}

#[test]
fn what_this_library_packs_is_listed_without_reading_content() {
    let entry = |path: &str, kind, mode| Entry {
        path: path.into(),
        kind,
        attributes: Attributes { mode, uid: 3_000_000, gid: 7, mtime: 1 << 40 },
        xattrs: Default::default(),
    };
    let long = format!("opt/{}/{}", "d".repeat(200), "ü".repeat(90));
    // Nobody has this blob.
    let blob = Part::Blob(Blob { digest: Digest::of(b"big"), size: 1 << 40 });
    let entries = [
        entry(&long, layer::Kind::File(blob), 0o4750),
        entry("etc", layer::Kind::Folder, 0o700),
        entry("etc/link", layer::Kind::Link("../ö".repeat(50).into_bytes()), 0),
    ];
    let mut memory = Memory::default();
    let recipe = layer::pack(&entries, Attributes { mode: 0o755, ..Attributes::default() }).unwrap();
    let layer = layer_of(LAYER, memory.keep(&recipe), b"", b"");
    let items = items_of(&layer, &memory).unwrap();
    assert_eq!(
        short(&items),
        [
            "etc/ 700".to_string(),
            format!("etc/link -> {}", "../ö".repeat(50)),
            "opt/ 755".to_string(),
            format!("opt/{}/ 755", "d".repeat(200)),
            format!("{long} 4750 {}", 1_u64 << 40),
        ]
    );
    assert_eq!((items[0].attributes.uid, items[0].attributes.gid), (3_000_000, 7));
}

#[test]
fn what_gnu_tar_writes_is_listed() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(140));
    let folder = folder_of(&[("in/a", &b"content".to_vec()), (&format!("in/{long}"), &vec![b'y'; 1000])]);
    let run = |script: &str| tool(folder.path(), &["sh", "-ec", script]);
    run(&format!("ln in/a in/hard; ln -s {} in/soft; mkfifo in/pipe; chmod 2755 in", "t".repeat(150)));
    run(
        "truncate -s 3M in/holes; for i in 0 1 2 3 4 5; do printf x | dd of=in/holes bs=1 seek=$((i*500000)) conv=notrunc status=none; done",
    );
    for format in ["gnu", "pax", "oldgnu"] {
        run(&format!(
            "tar --sort=name --format={format} --sparse --numeric-owner --owner=4000000 --group=3000000 --mtime=@77 -cf made.tar -C in ."
        ));
        let bytes = std::fs::read(folder.path().join("made.tar")).unwrap();
        let items = items(&bytes).unwrap();
        let expected = [
            "/ 2755".to_string(),
            "a 644 7".to_string(),
            format!("{}/ 755", "d".repeat(120)),
            format!("{long} 644 1000"),
            "hard = a".to_string(),
            "holes 644 3145728".to_string(),
            "pipe special".to_string(),
            format!("soft -> {}", "t".repeat(150)),
        ];
        assert_eq!(short(&items), expected, "{format}");
        let said = |item: &Item| (item.attributes.uid, item.attributes.gid, item.attributes.mtime);
        assert!(items.iter().all(|item| said(item) == (4_000_000, 3_000_000, 77)), "{format}");
        // From a file only the headers are read: the same comes out.
        let (mut seen, mut told) = (Vec::new(), 0);
        let mut note = |item: &Item| {
            seen.push(item.clone());
            told += 1;
            Ok(())
        };
        let mut told_of = Told { reader: &mut note, last: None };
        let mut tar = Untar::new(&mut told_of);
        let open = File::open(folder.path().join("made.tar")).unwrap();
        tar.file(&open, bytes.len() as u64).unwrap();
        tar.finish().unwrap();
        assert_eq!((seen, told), (items, expected.len()), "{format}");
    }
}

#[test]
fn packed_layers_are_unpacked_and_compared_with_their_diff_id() {
    let tar = [file("a"), vec![0; 1024]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    for packed in [gzip.finish().unwrap(), zstd::stream::encode_all(&tar[..], 3).unwrap()] {
        // The media type says gzip either way.
        let part = Part::Inline(packed.clone());
        let layer = layer_of(&format!("{LAYER}+gzip"), part, &packed, &tar);
        assert_eq!(short(&items_of(&layer, &Memory::default()).unwrap()), ["a 644 1"]);
        let other = Layer { diff_id: Digest::sha256_of(b"other"), ..layer };
        let error = items_of(&other, &Memory::default()).unwrap_err().to_string();
        assert!(error.contains("it unpacks to `sha256:"), "{error}");
    }
}

#[test]
fn content_comes_to_whoever_wants_it() {
    struct Heads(Vec<(String, Vec<u8>)>);
    impl Reader for Heads {
        fn item(&mut self, item: &Item) -> Result<usize> {
            Ok(if item.path.starts_with(b"want") { 600 } else { 0 })
        }

        fn content(&mut self, item: &Item, bytes: &[u8]) -> Result<()> {
            self.0.push((String::from_utf8_lossy(&item.path).into_owned(), bytes.to_vec()));
            Ok(())
        }
    }
    let long = vec![b'l'; 2000];
    let tar = [
        member(b'0', b"no", b"", &long),
        member(b'0', b"want1", b"", &long),
        member(b'0', b"want2", b"", b"short"),
        member(b'0', b"want3", b"", b""),
        member(b'5', b"want4", b"", b""),
        member(b'0', b"want5", b"", &long[..1024]),
        file("end"),
    ];
    let mut heads = Heads(Vec::new());
    read(&plain_layer(&tar.concat()), &Memory::default(), &mut heads).unwrap();
    let expected = [
        ("want1".to_string(), long[..600].to_vec()),
        ("want2".to_string(), b"short".to_vec()),
        ("want5".to_string(), long[..600].to_vec()),
    ];
    assert_eq!(heads.0, expected);
}

#[test]
fn whiteouts_take_away() {
    let tar = [
        file("./etc/.wh.passwd"),
        file("etc/.wh..wh..opq"),
        file(".wh..wh..opq"),
        file(".wh.top"),
        file(".wh..wh.plnk"),
        member(b'5', b"./", b"", b""),
        file("/abs//x"),
        member(b'0', b"old-folder/", b"", b""),
        member(b'g', b"pax_global_header", b"", b"11 path=x\n"),
    ];
    let expected = [
        "etc/passwd removed",
        "etc emptied",
        " emptied",
        "top removed",
        "/ 644",
        "abs/x 644 1",
        "old-folder/ 644",
    ];
    assert_eq!(short(&items(&tar.concat()).unwrap()), expected);
}

#[test]
fn hostile_tars_are_refused() {
    for (path, why) in [
        ("a/../../b", "the path `a/../../b` goes up with `..`"),
        ("..", "the path `..` goes up with `..`"),
        ("/../x\x1b[2J", "the path `/../x\\u{1b}[2J` goes up with `..`"),
        (".wh.", "`.wh.` takes nothing away"),
        ("a/.wh...", "`a/.wh...` takes nothing away"),
    ] {
        assert_eq!(refused(&file(path)), why);
    }
    let pax = |text: &[u8]| [member(b'x', b"x", b"", text), file("a")].concat();
    let record = |key: &str, value: &[u8]| {
        let rest = key.len() + value.len() + 3;
        let digits = (rest + (rest + 9).to_string().len()).to_string().len();
        [format!("{} {key}=", rest + digits).as_bytes(), value, b"\n"].concat()
    };
    assert_eq!(short(&items(&pax(&record("path", b"b/c"))).unwrap()), ["b/c 644 1"]);
    let one = items(&pax(&[record("mtime", b"-1.5"), record("SCHILY.xattr.user.a", b"\0=\n")].concat()));
    let one = &one.unwrap()[0];
    assert_eq!(one.attributes.mtime, 0);
    assert_eq!(one.xattrs, Xattrs::from([(b"user.a".to_vec(), b"\0=\n".to_vec())]));
    assert_eq!(refused(&pax(&record("path", b"x/../y"))), "the path `x/../y` goes up with `..`");
    assert_eq!(
        refused(&pax(&record("path", b"x\0y"))),
        "the path `x\\0y` has a NUL byte".replace("\\0", "\\u{0}")
    );
    assert!(refused(&pax(&record("path", &b"y/".repeat(3000)))).ends_with("has more than 4095 bytes"));
    assert!(
        refused(&pax(&record("path", &b"y".repeat(300)))).ends_with("has a part of more than 255 bytes")
    );
    for odd in [
        "7 a=b\n",
        "5 a=b\n",
        "6 ab\n\n",
        "x a=b\n",
        "99999999999999999999 a=b\n",
        "6 a=b",
        "-6 a=b\n",
        "12 size=x1\n",
    ] {
        assert_eq!(refused(&pax(odd.as_bytes())), "the tar is damaged: a PAX record is none", "{odd:?}");
    }
    let mut huge = member(b'x', b"x", b"", b"");
    ::tar::Header::from_byte_slice(&huge);
    let mut header = ::tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&huge);
    header.set_size(1 << 40);
    header.set_cksum();
    huge = header.as_bytes().to_vec();
    let why = "a member's names and attributes have 1099511627776 bytes; at most 1048576 are read";
    assert_eq!(refused(&huge), why);
    // Many small ones are as much as one that is large.
    let one = |n: u8| member(b'x', b"x", b"", &record(&format!("SCHILY.xattr.{n}"), &[b'x'; 500_000]));
    let many = [one(0), one(1), one(2), file("a")].concat();
    assert!(refused(&many).ends_with("; at most 1048576 are read"));
    // More than there is: a size that cannot be, and content that does not come.
    assert_eq!(
        refused(&pax(&record("size", b"18446744073709551615"))),
        "the tar is damaged: a member has no possible size"
    );
    assert_eq!(refused(&pax(&record("size", b"1000000000"))), "the tar is damaged: it ends too early");
    assert_eq!(refused(&file("a")[..600]), "the tar is damaged: it ends too early");
    assert_eq!(refused(&file("a")[..100]), "the tar is damaged: it ends too early");
    assert_eq!(refused(&member(b'Z', b"a", b"", b"")), "`a` is of the unknown kind `Z`");
    assert_eq!(refused(&member(b'1', b"a", b"../b", b"")), "the path `../b` goes up with `..`");
    let mut bad = file("a");
    bad[0] = b'b';
    assert_eq!(refused(&bad), "the tar is damaged: a header has another check sum");
    assert_eq!(refused(&[b'x'; 512]), "the tar is damaged: a header has another check sum");
}

#[test]
fn what_follows_the_end_does_not_count() {
    let tar = [file("a"), vec![0; 512], b"anything".repeat(300)].concat();
    assert_eq!(short(&items(&tar).unwrap()), ["a 644 1"]);
    assert_eq!(short(&items(b"").unwrap()), Vec::<String>::new());
}

proptest::proptest! {
    #[test]
    fn no_tar_panics(
        kind in proptest::prelude::any::<u8>(),
        fields in proptest::collection::vec((0..512_usize, proptest::prelude::any::<u8>()), 0..12),
        rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1500),
    ) {
        let mut header = ::tar::Header::new_gnu();
        header.as_mut_bytes()[156] = kind;
        header.set_size(rest.len() as u64);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        for (at, byte) in fields {
            header.as_mut_bytes()[at] = byte;
        }
        header.set_cksum();
        let _ = items(&[header.as_bytes(), &rest[..]].concat());
    }
}
