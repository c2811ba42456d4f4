//! Answers that are kept: a small file that is asked for again and again is neither opened nor read again, and its headers are
//! not made again.
//!
//! Nothing is answered without a look. For each request its path is resolved as for any other, and what it names must be the
//! file that it was, as of the same time; so who changes a file, or what a path names, sees the change in the next answer. The
//! look takes what the kernel has in its memory. Where that is not enough, as where nothing is kept, the request goes the way of
//! all others, over a thread that may wait for a disk.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::HeaderMap;

use super::{path::RequestPath, version::FileVersion};

/// How much memory all answers may take. Less, and the pages of a large site drive each other out; more, and a client who asks for
/// all there is makes a server grow by as much.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What an answer takes besides its path and its content: its headers, most of all.
const OVERHEAD: usize = 1024;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// What the request's path means.
    pub(super) path: RequestPath,
    /// The file that it named.
    pub(super) version: FileVersion,
    pub(super) headers: HeaderMap,
    pub(super) content: Bytes,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// By path, as it stands in the request: for those who do not take gzip, and for those who do.
    by_path: [HashMap<Arc<str>, Place>; 2],
    /// Who is asked first whether they are still of use: those who have been here for longest.
    order: VecDeque<(Arc<str>, bool)>,
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    answer: Arc<Answer>,
    /// Since it was asked last.
    was_used: AtomicBool,
}

impl Kept {
    /// What was answered to this path.
    pub(super) fn get(&self, path: &str, gzip: bool) -> Option<Arc<Answer>> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = answers.by_path[usize::from(gzip)].get(path)?;
        place.was_used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&place.answer))
    }

    /// Keeps an answer, in the place of an earlier one, and of those that nobody has asked for if there is no room.
    pub(super) fn put(&self, path: &str, gzip: bool, answer: Answer) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key: Arc<str> = path.into();
        answers.bytes += cost(path, &answer);
        let place = Place { answer: Arc::new(answer), was_used: AtomicBool::new(false) };
        match answers.by_path[usize::from(gzip)].insert(Arc::clone(&key), place) {
            Some(before) => answers.bytes -= cost(path, &before.answer),
            None => answers.order.push_back((key, gzip)),
        }
        while answers.bytes > MOST_BYTES && answers.drop_one() {}
    }
}

impl Answers {
    /// Drops one that was not used since it was asked last. Returns false when there is none at all.
    fn drop_one(&mut self) -> bool {
        while let Some((path, gzip)) = self.order.pop_front() {
            let places = &mut self.by_path[usize::from(gzip)];
            let Some(place) = places.get(&path) else { continue };
            if place.was_used.swap(false, Ordering::Relaxed) {
                self.order.push_back((path, gzip));
                continue;
            }
            self.bytes -= cost(&path, &place.answer);
            places.remove(&path);
            return true;
        }
        false
    }
}

fn cost(path: &str, answer: &Answer) -> usize {
    // The path is there twice, as text and by its names.
    2 * path.len() + answer.content.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Answer {
        let file = tempfile::tempfile().expect("a file");
        let version = FileVersion::of(&file.metadata().expect("metadata"));
        let path = RequestPath::parse("/x").expect("a path");
        Answer { path, version, headers: HeaderMap::new(), content: vec![0; bytes].into() }
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_asked_for_stays() {
        let kept = Kept::default();
        let size = 32 * 1024;
        kept.put("/often", false, answer(size));
        for number in 0..3 * MOST_BYTES / size {
            kept.put(&format!("/{number}"), number % 2 == 0, answer(size));
            assert!(kept.get("/often", false).is_some(), "after {number}");
            assert!(kept.0.lock().expect("nobody panics").bytes <= MOST_BYTES);
        }
        assert!(kept.get("/0", true).is_none() && kept.get("/often", true).is_none());
        let answers = kept.0.lock().expect("nobody panics");
        assert!(answers.bytes > MOST_BYTES - 2 * size, "there was no need to drop more");
        assert_eq!(answers.order.len(), answers.by_path.iter().map(HashMap::len).sum::<usize>());
    }

    #[test]
    fn an_answer_takes_the_place_of_an_earlier_one_to_the_same() {
        let kept = Kept::default();
        for bytes in [10, 30, 20] {
            kept.put("/x", false, answer(bytes));
        }
        assert_eq!(kept.get("/x", false).map(|answer| answer.content.len()), Some(20));
        let answers = kept.0.lock().expect("nobody panics");
        assert_eq!((answers.bytes, answers.order.len()), (2 * 2 + 20 + OVERHEAD, 1));
    }
}
