//! What the segments keep, and what they refuse.

use super::*;

fn record(index: u64, part: u16, size: usize) -> Record {
    let bytes = format!("{index}.{part}.").into_bytes().into_iter().cycle().take(size).collect();
    Record { index, part, bytes }
}

fn indexes(disk: &SegmentDisk) -> Vec<u64> {
    let mut found = Vec::new();
    disk.scan(0..=u64::MAX, &mut |it| {
        assert_eq!(it, record(it.index, it.part, it.bytes.len()));
        found.push(it.index);
        Ok(())
    })
    .unwrap();
    found
}

fn segments(dir: &Path) -> Vec<u64> {
    recover::numbers(dir).unwrap()
}

/// Some records of 4 KiB, one per index, in about three segments.
fn filled(dir: &Path) -> SegmentDisk {
    let disk = SegmentDisk::open(dir).unwrap();
    disk.put_meta("vote", vec![7]).unwrap();
    for first in (0..2_500).step_by(20) {
        disk.append((first..first + 20).map(|index| record(index, 0, 4_096)).collect()).unwrap();
        disk.barrier().unwrap();
    }
    disk
}

fn refusal(dir: &Path) -> String {
    match SegmentDisk::open(dir) {
        Err(OpenError::Damaged(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// Where the content of the newest segment ends.
fn end(disk: &SegmentDisk) -> (PathBuf, u64) {
    let writer = disk.writer();
    (recover::path(&disk.dir, writer.number), writer.at)
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn a_log_goes_on_over_segments_and_gives_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = filled(dir.path());
    assert_eq!(segments(dir.path()), [1, 2, 3]);
    assert!(disk.size() >= 3 * SEGMENT);
    drop(disk);
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert_eq!(indexes(&disk), (0..2_500).collect::<Vec<_>>());
    disk.purge_to(2_300).unwrap();
    assert_eq!(segments(dir.path()), [1, 2, 3], "not before the purge is durable");
    disk.barrier().unwrap();
    assert_eq!(segments(dir.path()), [3]);
    drop(disk);
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert_eq!(indexes(&disk), (2_301..2_500).collect::<Vec<_>>());
    assert_eq!(disk.meta("vote").unwrap(), Some(vec![7]), "segments begin with what is named");
}

#[test]
fn a_cut_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = filled(dir.path());
    disk.truncate_after(Some(10)).unwrap();
    disk.append(vec![record(11, 0, 10)]).unwrap();
    disk.barrier().unwrap();
    drop(disk);
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert_eq!(indexes(&disk), (0..=11).collect::<Vec<_>>());
    disk.truncate_after(None).unwrap();
    disk.barrier().unwrap();
    drop(disk);
    assert!(indexes(&SegmentDisk::open(dir.path()).unwrap()).is_empty());
}

#[test]
fn a_torn_end_is_dropped_and_cleared_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = filled(dir.path());
    let (path, at) = end(&disk);
    for index in 2_500..2_503 {
        disk.append(vec![record(index, 0, 4_096)]).unwrap();
    }
    drop(disk);
    // The first page never came to the device, the others did.
    overwrite(&path, at, &[0; 4_096]);
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert_eq!(indexes(&disk).len(), 2_500);
    assert_ne!(std::fs::read(&path).unwrap()[usize::try_from(at).unwrap() + 5_000], 0);
    // A record that fits exactly before what remained of another must not revive it.
    disk.append(vec![record(2_500, 0, 4_096)]).unwrap();
    disk.barrier().unwrap();
    drop(disk);
    assert_eq!(indexes(&SegmentDisk::open(dir.path()).unwrap()).len(), 2_501);
}

#[test]
fn what_was_durable_and_is_not_there_is_damage() {
    for at in [5_000, SEGMENT / 2, SEGMENT - 100_000] {
        for number in [1, 2, 3] {
            let dir = tempfile::tempdir().unwrap();
            drop(filled(dir.path()));
            let at = if number == 3 { at / 20 } else { at };
            overwrite(&recover::path(dir.path(), number), at, &[0; 4_096]);
            let refused = refusal(dir.path());
            assert!(refused.contains("is not there"), "{number} at {at}: {refused}");
        }
    }
}

#[test]
fn a_segment_that_is_gone_or_of_another_log_is_found_out() {
    for number in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        std::fs::remove_file(recover::path(dir.path(), number)).unwrap();
        assert!(refusal(dir.path()).contains("it is gone"), "{number}");

        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(filled(dir.path()));
        drop(filled(other.path()));
        std::fs::copy(recover::path(other.path(), number), recover::path(dir.path(), number))
            .unwrap();
        assert!(refusal(dir.path()).contains("another log"), "{number}");
        std::fs::write(recover::path(dir.path(), number), "").unwrap();
        assert!(refusal(dir.path()).contains("its head"), "{number}");
    }
}

#[test]
fn a_crash_while_a_segment_is_begun_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = filled(dir.path());
    let (log, sequence) = (disk.log, disk.writer().sequence);
    let checkpoint = disk.index().checkpoint();
    // The next one is there, the seal of this one is not.
    create(dir.path(), log, (4, sequence + 1), &checkpoint).unwrap();
    drop(disk);
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert_eq!(segments(dir.path()), [1, 2, 3, 4], "opening changes nothing");
    disk.append(vec![record(2_500, 0, 10)]).unwrap();
    assert_eq!(segments(dir.path()), [1, 2, 3]);
    disk.barrier().unwrap();
    drop(disk);
    std::fs::write(dir.path().join("seg-00000000000000000004.tmp"), "half").unwrap();
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert_eq!(indexes(&disk).len(), 2_501);
    assert_eq!(segments(dir.path()), [1, 2, 3]);
}

#[test]
fn a_crash_while_segments_are_removed_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = filled(dir.path());
    let first = std::fs::read(recover::path(dir.path(), 2)).unwrap();
    disk.purge_to(2_300).unwrap();
    disk.barrier().unwrap();
    drop(disk);
    std::fs::write(recover::path(dir.path(), 2), first).unwrap();
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert_eq!(indexes(&disk), (2_301..2_500).collect::<Vec<_>>());
    disk.barrier().unwrap();
    assert_eq!(segments(dir.path()), [3]);
}

#[test]
fn only_one_process_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SegmentDisk::open(dir.path()).unwrap();
    assert!(matches!(SegmentDisk::open(dir.path()), Err(OpenError::Locked)));
    drop(disk);
    assert!(SegmentDisk::open(dir.path()).is_ok());
}

/// The bytes of a log, for ever: a release that cannot read them would refuse every manager's log.
#[test]
fn segments_are_written_as_they_always_were() {
    let mut bytes =
        SegmentHead { log: [7; 16], number: 1, first: 1, checkpoint: SEGMENT_HEAD as u64 }.encode();
    let drafts = [
        Draft::records(&[record(1, 0, 5), record(1, 1, 3)]),
        Draft::truncate(Some(9)),
        Draft::truncate(None),
        Draft::purge(3, 2),
        Draft::meta("vote", &[1, 2]),
        Draft::seal(),
    ];
    for (sequence, draft) in (1..).zip(drafts) {
        draft.encode(&[7; 16], sequence, sequence - 1, &mut bytes);
    }
    let text: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    expect_test::expect![[r#"
        73776d7365676d31070707070707070707070707070707070100000000000000
        01000000000000004000000000000000800be2e2000000000000000000000000
        16122893240000000100000000000000000000000000000001000000d1a0711a
        0100000000000000000005000000312e302e3101000000000000000100030000
        00312e3100000000df170df90800000002000000000000000100000000000000
        02000000764c8f3809000000000000000e8cca7e000000000300000000000000
        020000000000000002000000796c19601c567ac3100000000400000000000000
        03000000000000000300000068b0974403000000000000000200000000000000
        505eeb8207000000050000000000000004000000000000000400000069c37ea2
        04766f74650102001a86d5610000000006000000000000000500000000000000
        05000000796c1960"#]]
    .assert_eq(&text.join("\n"));
}
