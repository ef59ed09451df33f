//! What the store keeps, loses and heals.

use super::*;

fn store(folder: &Path) -> Cas {
    let stamps = Stamps::new(folder.join("stamps"));
    fs::make_folder(&folder.join("tmp")).unwrap();
    Cas::new(folder.join("cas"), folder.join("tmp"), stamps)
}

#[test]
fn what_was_put_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    for bytes in [vec![], b"x".to_vec(), vec![3; 1 << 20]] {
        let blob = cas.put(&bytes).unwrap();
        assert_eq!(cas.read(blob).unwrap(), bytes);
        let named =
            cas.put_with(Hasher::sha256(), |w| w.write_all(&bytes).at("write", Path::new("x"))).unwrap();
        assert_eq!(named.digest, Digest::sha256_of(&bytes));
        let mut sink = Vec::new();
        cas.send(named, &mut sink).unwrap();
        assert_eq!(sink, bytes);
    }
    assert_eq!(fs::list(&folder.path().join("tmp")).unwrap().len(), 0);
}

#[test]
fn what_was_cut_off_is_gone_on_with_and_what_is_wrong_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let blob = Blob { digest: Digest::sha256_of(&bytes), size: bytes.len() as u64 };
    let until = |end: usize, then: Result<bool, &'static str>| {
        let bytes = &bytes;
        let write = move |from: u64, writer: &mut dyn Write| {
            writer.write_all(&bytes[from as usize..end]).unwrap();
            then.map_err(Error::failed)
        };
        cas.put_resumed(&blob, &write).map_err(|error| error.to_string())
    };
    assert_eq!(until(1_000_000, Err("cut")), Err("cut".into()));
    assert_eq!(until(1_000_010, Err("cut")), Err("cut".into()));
    let part = folder.path().join("tmp").join(format!("part.{}", blob.digest.hex()));
    assert!(std::fs::read(&part).unwrap() == bytes[..1_000_010]);
    // A partial that is wrong costs a second try, no more.
    let mut wrong = bytes[..1_000_010].to_vec();
    wrong[5] ^= 1;
    fs::write(&part, &wrong, 0o644, fs::Durability::Cache).unwrap();
    assert_eq!(until(bytes.len(), Ok(true)), Ok(true));
    assert!(cas.read(blob).unwrap() == bytes && !part.exists());
    // What is not what it was leaves nothing.
    fs::remove_file(&cas.path(&blob.digest)).unwrap();
    assert_eq!(until(1_000, Err("cut")), Err("cut".into()));
    assert_eq!(until(2_000, Ok(false)), Ok(false));
    assert_eq!(until(2_000, Ok(true)), Ok(false));
    assert!(!part.exists() && !cas.has(&blob));
}

#[test]
fn an_edit_that_the_stamp_hides_is_not_stored_under_the_old_name() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let path = folder.path().join("x");
    let known = Blob::of(&[1; 1 << 20]);
    fs::write(&path, &[2; 1 << 20], 0o644, fs::Durability::Cache).unwrap();
    let stamp = fs::status(&path, Links::Keep).unwrap().unwrap().stamp;
    assert!(!cas.put_known(&path, &stamp, &known).unwrap());
    assert!(!cas.has(&known));
    fs::write(&path, &[1; 1 << 20], 0o644, fs::Durability::Cache).unwrap();
    let stamp = fs::status(&path, Links::Keep).unwrap().unwrap().stamp;
    assert!(cas.put_known(&path, &stamp, &known).unwrap());
    assert!(cas.open(&known).is_ok());
}

#[test]
fn what_is_no_file_is_lost_and_healed() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let blob = cas.put(b"bytes").unwrap();
    let path = cas.path(&blob.digest);
    for wrong in 0..2 {
        fs::remove_file(&path).unwrap();
        match wrong {
            0 => fs::make_folder(&path.join("inside")).unwrap(),
            _ => fs::make_link(b"/etc/hostname", &path).unwrap(),
        }
        assert!(matches!(cas.read(blob), Err(Error::Lost(lost)) if lost == blob.digest));
        cas.put(b"bytes").unwrap();
        assert_eq!(cas.read(blob).unwrap(), b"bytes");
    }
}

#[test]
fn damage_is_lost_and_is_healed_by_the_next_put() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    for size in [5, 1 << 20] {
        let bytes = vec![9; size];
        let blob = cas.put(&bytes).unwrap();
        let path = cas.path(&blob.digest);
        let mut bad = bytes.clone();
        bad[size / 2] ^= 1;
        for wrong in [bad, vec![], [&bytes[..], b"more"].concat()] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, &wrong, 0o444, fs::Durability::Cache).unwrap();
            let mut sink = Vec::new();
            assert!(matches!(cas.send(blob, &mut sink), Err(Error::Lost(lost)) if lost == blob.digest));
            cas.put(&bytes).unwrap();
            assert_eq!(cas.read(blob).unwrap(), bytes);
        }
    }
}
