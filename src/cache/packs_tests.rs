//! What goes into packs together comes out of them, or is lost and made again; and is never wrong.

use proptest::prelude::*;

use super::super::bulk::Bulk;
use super::super::cas::Cas;
use super::super::stamps::Stamps;
use super::*;
use crate::error::Error;
use crate::host::fs::Durability;
use crate::recipe::Content;

fn store(folder: &Path) -> Cas {
    fs::make_folder(&folder.join("tmp")).unwrap();
    Cas::new(folder.join("cas"), folder.join("tmp"), Stamps::new(folder.join("stamps")))
}

fn blobs(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|number| number.to_le_bytes().repeat(number as usize % 20)).collect()
}

fn put(cas: &Cas, all: &[Vec<u8>]) {
    let bulk = Bulk::new(cas);
    for bytes in all {
        assert_eq!(bulk.put(bytes).unwrap(), Blob::of(bytes));
    }
    bulk.finish().unwrap();
}

/// How many are lost; none is wrong.
fn lost(cas: &Cas, all: &[Vec<u8>]) -> usize {
    let is_lost = |bytes: &&Vec<u8>| match cas.read(Blob::of(bytes)) {
        Ok(found) => {
            assert!(found == **bytes, "a wrong blob");
            assert_eq!(cas.read_whole(&Digest::of(bytes)).unwrap(), **bytes);
            false
        }
        Err(Error::Lost(digest)) => {
            assert_eq!(digest, Digest::of(bytes));
            true
        }
        Err(error) => panic!("{error}"),
    };
    all.iter().filter(is_lost).count()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let packs = folder.join("cas/packs");
    fs::list(&packs).unwrap_or_default().into_iter().map(|name| packs.join(name)).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes, 0o444, Durability::Cache).unwrap();
}

#[test]
fn many_are_one_file_and_few_are_files() {
    let folder = tempfile::tempdir().unwrap();
    let (cas, all) = (store(folder.path()), blobs(0..500));
    let large = [vec![7; 64 * 1024], vec![8; 2 << 20]];
    put(&cas, &[&all[..], &all[..10], &large[..]].concat());
    assert_eq!(files(folder.path()).len(), 1);
    assert_eq!(lost(&store(folder.path()), &[&all[..], &large[..]].concat()), 0);
    for bytes in &all {
        // All empty ones are the same.
        assert!(!cas.path(&Digest::of(bytes)).exists() && cas.has(&Blob::of(bytes)));
        assert!(!cas.has(&Blob { size: 99, ..Blob::of(bytes) }));
    }
    assert!(large.iter().all(|bytes| cas.path(&Digest::of(bytes)).exists()));
    let few = blobs(501..511);
    put(&cas, &few);
    assert!(few.iter().all(|bytes| cas.path(&Digest::of(bytes)).exists()));
    // What is there already is not stored again.
    put(&cas, &all);
    assert_eq!(files(folder.path()).len(), 1);
    assert_eq!(fs::list(&folder.path().join("tmp")).unwrap().len(), 0);
}

#[test]
fn a_packed_blob_is_opened_as_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (cas, all) = (store(folder.path()), blobs(0..100));
    put(&cas, &all);
    let file = cas.open(&Blob::of(&all[7])).unwrap();
    let mut sink = Vec::new();
    crate::recipe::Sink::file(&mut sink, &file, all[7].len() as u64).unwrap();
    assert_eq!(sink, all[7]);
    assert_eq!(fs::status_of(&file).unwrap().stamp.size, all[7].len() as u64);
    let wrong = Blob { size: 1, ..Blob::of(&all[7]) };
    assert!(
        matches!(cas.open(&wrong), Err(Error::Lost(_))) && matches!(cas.read(wrong), Err(Error::Lost(_)))
    );
}

#[test]
fn what_nobody_finished_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (cas, all) = (store(folder.path()), blobs(0..300));
    let bulk = Bulk::new(&cas);
    for bytes in &all {
        bulk.put(bytes).unwrap();
    }
    drop(bulk);
    assert_eq!(lost(&cas, &all), all.len());
    assert_eq!(fs::list(&folder.path().join("tmp")).unwrap().len(), 0);
}

#[test]
fn local_files_are_stored_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (cas, all) = (store(folder.path()), blobs(0..200));
    let bulk = Bulk::new(&cas);
    for (number, bytes) in all.iter().enumerate() {
        let path = folder.path().join(number.to_string());
        write(&path, bytes);
        let stamp = fs::status(&path, Links::Keep).unwrap().unwrap().stamp;
        assert!(bulk.put_known(&path, &stamp, &Blob::of(bytes)).unwrap());
        let wrong = Blob { digest: Digest::of(b"another"), ..Blob::of(bytes) };
        assert!(!bulk.put_known(&path, &stamp, &wrong).unwrap());
        let file = fs::open_regular(&path).unwrap();
        assert_eq!(bulk.put_file(&file, &path).unwrap(), Blob::of(bytes));
    }
    bulk.finish().unwrap();
    assert_eq!((lost(&cas, &all), files(folder.path()).len()), (0, 1));
    assert!(!cas.has(&Blob { digest: Digest::of(b"another"), size: 4 }));
}

#[test]
fn everything_is_found_however_digests_are_spread() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |number: u32, spread: u32| match spread {
        0 => *Digest::of(&number.to_le_bytes()).bytes(),
        1 => {
            let mut low = [0; 32];
            low[28..].copy_from_slice(&(number * 2).to_be_bytes());
            low
        }
        _ => {
            let mut high = [0xff; 32];
            high[4..8].copy_from_slice(&(number * 2).to_be_bytes());
            high
        }
    };
    for spread in 0..3 {
        for count in [1, 127, 128, 129, 5000] {
            let mut writer = Writer::new(folder.path()).unwrap();
            for number in 0..count {
                let blob = Blob { digest: Digest::Blake3(digest(number, spread)), size: 1 };
                writer.add(&blob, &[number as u8]).unwrap();
            }
            let (file, _) = writer.finish().unwrap();
            let pack = Pack::open(file.path().to_path_buf()).unwrap().unwrap();
            for number in 0..count {
                let place = pack.find(&Digest::Blake3(digest(number, spread))).unwrap().unwrap();
                assert_eq!(place.blob.size, 1, "{number} of {count}");
                let mut absent = digest(number, spread);
                absent[31] ^= 1;
                assert!(pack.find(&Digest::Blake3(absent)).unwrap().is_none());
            }
            assert_eq!(pack.places().unwrap().len(), count as usize);
        }
    }
}

#[test]
fn several_writers_see_what_the_others_did() {
    let folder = tempfile::tempdir().unwrap();
    let all = blobs(0..2000);
    let stores: Vec<Cas> = (0..4).map(|_| store(folder.path())).collect();
    std::thread::scope(|scope| {
        for (number, cas) in stores.iter().enumerate() {
            let all = &all;
            scope.spawn(move || {
                for part in all[number * 300..number * 300 + 1000].chunks(100) {
                    put(cas, part);
                    assert_eq!(lost(cas, part), 0);
                }
            });
        }
        // Who brings packs together meanwhile takes nothing away from anybody.
        scope.spawn(|| (0..30).for_each(|_| store(folder.path()).packs.merge().unwrap()));
    });
    for cas in &stores {
        assert_eq!(lost(cas, &all[..1900]), 0);
    }
}

#[test]
fn many_packs_become_one_without_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (cas, all) = (store(folder.path()), blobs(20..1220));
    all.chunks(100).for_each(|part| put(&cas, part));
    assert_eq!((files(folder.path()).len(), lost(&cas, &all)), (12, 0));
    let damaged = &files(folder.path())[3];
    let mut bytes = fs::read(damaged, 1 << 20).unwrap().unwrap();
    bytes[0] ^= 1;
    write(damaged, &bytes);
    store(folder.path()).packs.merge().unwrap();
    assert_eq!(files(folder.path()).len(), 1);
    let later = store(folder.path());
    assert_eq!(lost(&later, &all), 1);
    put(&later, &all);
    assert_eq!((lost(&later, &all), lost(&store(folder.path()), &all)), (0, 0));
    // Who had them open sees what is there now.
    assert_eq!(lost(&cas, &all), 0);
    fs::remove_tree(&folder.path().join("cas")).unwrap();
    assert!(!cas.has(&Blob::of(&all[5])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damage_is_lost_never_wrong_and_heals(at in any::<prop::sample::Index>(), bit in 0_usize..9) {
        let folder = tempfile::tempdir().unwrap();
        let all = blobs(20..120);
        put(&store(folder.path()), &all);
        let path = files(folder.path()).remove(0);
        let mut bytes = fs::read(&path, 1 << 20).unwrap().unwrap();
        let at = at.index(bytes.len());
        match bit {
            8 => bytes.truncate(at),
            bit => bytes[at] ^= 1 << bit,
        }
        write(&path, &bytes);
        let cas = store(folder.path());
        let gone = lost(&cas, &all);
        // The bad pack is still there.
        put(&cas, &all);
        prop_assert_eq!(lost(&cas, &all), 0);
        prop_assert_eq!(lost(&store(folder.path()), &all), 0);
        let mut damaged = 0;
        let mut count = |found| damaged += usize::from(!matches!(found, Reread::Whole(_)));
        cas.packs.reread(&mut count).unwrap();
        prop_assert!(damaged > 0 || gone == 0, "{gone} lost, and nothing found");
        let mut again = 0;
        cas.packs.reread(&mut |found| again += usize::from(!matches!(found, Reread::Whole(_)))).unwrap();
        prop_assert_eq!(again, 0, "what is damaged is taken away");
        prop_assert_eq!(lost(&store(folder.path()), &all), 0);
    }
}
