//! An allocator that counts what each thread holds, for tests of what others may cost us.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Counts, and lets the system's allocator do the work.
pub(crate) struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that this thread has allocated and not given back.
pub(crate) fn held() -> isize {
    HELD.get()
}

/// The most that it ever held since [`forget_most`].
#[allow(dead_code, reason = "not every user asks")]
pub(crate) fn most() -> isize {
    MOST.get()
}

/// Looks for the most from here on.
#[allow(dead_code, reason = "not every user asks")]
pub(crate) fn forget_most() {
    MOST.set(HELD.get());
}

/// Allocations of this thread so far.
pub(crate) fn calls() -> usize {
    CALLS.get()
}

fn count(change: isize) {
    let held = HELD.get() + change;
    HELD.set(held);
    MOST.set(MOST.get().max(held));
    CALLS.set(CALLS.get() + usize::from(change > 0));
}

// SAFETY: every call goes on to the system's allocator unchanged; the counters are plain cells of the same thread, and
// allocate nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as the trait demands of callers.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the trait's contract.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as the trait demands of callers.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps to the trait's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}
