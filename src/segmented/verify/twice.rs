//! Finds ids that more than one document of a collection has. Segments have their ids in order, so they are merged: in
//! memory is one id of each.

use std::{cmp::Reverse, collections::BinaryHeap};

use roaring::RoaringBitmap;

use crate::{
    segment::{Segment, SegmentError},
    stop::Stop,
    value::PointId,
};

/// Documents by id, in the order of the ids; the number is what the caller knows the document by.
pub(in crate::segmented) type Ids<'a> = Box<dyn Iterator<Item = Result<(PointId, u64), SegmentError>> + 'a>;

/// The ids of the documents of a segment that are not gone, with their rows.
pub(in crate::segmented) fn ids_of<'a>(
    segment: &'a Segment,
    gone: &'a RoaringBitmap,
) -> Result<Ids<'a>, SegmentError> {
    let live = segment.scroll(None)?.filter(|found| match found {
        Ok((_, row)) => !gone.contains(row.0),
        Err(_) => true,
    });
    Ok(Box::new(live.map(|found| found.map(|(id, row)| (id, u64::from(row.0))))))
}

/// Calls `each` with every id that is in more than one place: index of the source, and number there.
///
/// # Errors
/// [`SegmentError::Stopped`], and what reading ids says.
pub(in crate::segmented) fn find(
    mut sources: Vec<Ids<'_>>,
    stop: &Stop,
    mut each: impl FnMut(&PointId, &[(usize, u64)]),
) -> Result<(), SegmentError> {
    let mut heap = BinaryHeap::new();
    for (source, ids) in sources.iter_mut().enumerate() {
        if let Some((id, number)) = ids.next().transpose()? {
            heap.push(Reverse((id, source, number)));
        }
    }
    let mut same: Option<(PointId, Vec<(usize, u64)>)> = None;
    let mut tell = |same: &Option<(PointId, Vec<(usize, u64)>)>| match same {
        Some((id, places)) if places.len() > 1 => each(id, places),
        _ => {}
    };
    let mut goes_on = stop.pace();
    while let Some(Reverse((id, source, number))) = heap.pop() {
        if !goes_on() {
            stop.check()?;
        }
        if let Some((id, number)) = sources[source].next().transpose()? {
            heap.push(Reverse((id, source, number)));
        }
        match &mut same {
            Some((before, places)) if *before == id => places.push((source, number)),
            _ => {
                tell(&same);
                same = Some((id, vec![(source, number)]));
            }
        }
    }
    tell(&same);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn ids(names: &[&str]) -> Ids<'static> {
        let names: Vec<_> = names.iter().map(|name| PointId::new(*name).unwrap()).collect();
        Box::new(names.into_iter().zip(10..).map(Ok))
    }

    #[test]
    fn ids_that_are_in_several_places_are_told_once_with_all_of_them() {
        let mut found = Vec::new();
        let sources = vec![ids(&["a", "c", "e"]), ids(&[]), ids(&["b", "c", "c", "z"]), ids(&["c", "e"])];
        find(sources, &Stop::default(), |id, places| found.push((id.as_str().to_owned(), places.to_vec())))
            .unwrap();
        let expected = [
            ("c".to_owned(), vec![(0, 11), (2, 11), (2, 12), (3, 10)]),
            ("e".to_owned(), vec![(0, 12), (3, 11)]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let many: Ids<'_> =
            Box::new((0..100_000u64).map(|n| Ok((PointId::new(format!("{n:06}")).unwrap(), n))));
        let stop = Stop::at(Some(Instant::now()));
        assert!(matches!(find(vec![many], &stop, |_, _| {}), Err(SegmentError::Stopped(_))));
    }
}
