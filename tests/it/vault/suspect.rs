use tidekeeper::vault::manifest::{Omission, Status};
use tidekeeper::vault::suspect::{Size, judge};

const MIB: u64 = 1 << 20;

fn size(items: u64, bytes: u64) -> Size {
    Size { items, bytes }
}

fn verdict(new: Size, before: &[Size]) -> (Status, String) {
    let (status, why) = judge(new, &[], before);
    (status, why.unwrap_or_default())
}

#[test]
fn the_first_backup_is_believed_even_if_empty() {
    assert_eq!(judge(size(0, 0), &[], &[]), (Status::Complete, None));
}

#[test]
fn an_empty_source_may_stay_empty() {
    assert_eq!(judge(size(0, 90), &[], &[size(0, 90)]), (Status::Complete, None));
}

#[test]
fn empty_where_something_was_is_suspect_however_little_it_was() {
    let (status, why) = verdict(size(0, 90), &[size(1, 120)]);
    assert_eq!(status, Status::Suspect);
    assert_eq!(why, "it is empty, and the one before had 1 items");
}

#[test]
fn less_than_half_of_the_quietest_predecessor_is_suspect() {
    // Sessions: busy by day, quiet by night. 600 is low for a day and fine for a night.
    let before = [size(5_000, MIB), size(1_000, MIB), size(4_800, MIB)];
    assert_eq!(verdict(size(600, MIB), &before).0, Status::Complete);
    assert_eq!(verdict(size(500, MIB), &before).0, Status::Complete, "exactly half is not less");
    let (status, why) = verdict(size(499, MIB), &before);
    assert_eq!(status, Status::Suspect);
    assert_eq!(why, "499 items, less than half of the fewest (1000) among the 3 good ones before");
}

#[test]
fn only_the_nearest_predecessors_count() {
    let mut before = vec![size(1_000, MIB); 5];
    before.push(size(10, MIB));
    assert_eq!(verdict(size(400, MIB), &before).0, Status::Suspect);
}

#[test]
fn the_same_count_of_items_in_far_fewer_bytes_is_suspect() {
    let before = [size(100, 8 * MIB), size(100, 4 * MIB)];
    assert_eq!(verdict(size(100, MIB), &before).0, Status::Complete);
    let (status, why) = verdict(size(100, MIB - 1), &before);
    assert_eq!(status, Status::Suspect);
    assert!(why.contains("less than a quarter of the fewest (4194304)"), "{why}");
    assert_eq!(verdict(size(100, 10), &[size(100, MIB - 1)]).0, Status::Complete, "too small to say");
}

#[test]
fn what_is_missing_makes_it_partial_and_suspicion_outweighs_that() {
    let omission = |what: &str| Omission { what: what.into(), why: "denied".into() };
    let (status, why) = judge(size(9, 9), &[omission("users")], &[size(9, 9)]);
    assert_eq!((status, why.as_deref()), (Status::Partial, Some("without users: denied")));
    let (_, why) = judge(size(9, 9), &[omission("users"), omission("roles")], &[]);
    assert_eq!(why.as_deref(), Some("without users (denied) and 1 more"));
    assert_eq!(judge(size(0, 9), &[omission("users")], &[size(9, 9)]).0, Status::Suspect);
}

#[test]
fn no_size_overflows_the_comparison() {
    let huge = size(u64::MAX, u64::MAX);
    assert_eq!(verdict(huge, &[huge]).0, Status::Complete);
    assert_eq!(verdict(size(1, 1), &[huge]).0, Status::Suspect);
}
