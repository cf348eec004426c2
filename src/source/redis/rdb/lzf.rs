//! LZF, as strings longer than 20 bytes are written: only keys and function libraries are ever decompressed.

/// Appends what `packed` holds to `plain`; `None` if it is not LZF of exactly `len` bytes.
///
/// A control byte below 32 is followed by so many bytes plus one as they are; else its upper 3 bits (7: plus the next
/// byte) plus 2 say how many to copy from so far back as its lower 5 bits and the next byte say, plus 1.
pub(super) fn unpack(packed: &[u8], len: u64, plain: &mut Vec<u8>) -> Option<()> {
    let begin = plain.len();
    let end = begin.checked_add(usize::try_from(len).ok()?)?;
    let mut rest = packed;
    while let Some((&control, after)) = rest.split_first() {
        if control < 32 {
            let (run, after) = after.split_at_checked(usize::from(control) + 1)?;
            plain.extend_from_slice(run);
            rest = after;
        } else {
            let (count, after) = match control >> 5 {
                7 => after.split_first().map(|(more, after)| (9 + usize::from(*more), after))?,
                count => (usize::from(count) + 2, after),
            };
            let (&low, after) = after.split_first()?;
            let back = usize::from(control & 31) << 8 | usize::from(low);
            let from = plain.len().checked_sub(back + 1).filter(|from| *from >= begin)?;
            copy_within(plain, from, count);
            rest = after;
        }
        if plain.len() > end {
            return None;
        }
    }
    (plain.len() == end).then_some(())
}

/// Appends `count` bytes from `from` on; the copy may overlap what it makes.
fn copy_within(plain: &mut Vec<u8>, from: usize, count: usize) {
    let period = plain.len() - from;
    for n in 0..count {
        plain.push(plain[from + n % period]);
    }
}
