//! A closure that is called once, on whichever thread it has come to. Small ones are kept in place,
//! so that a message costs no allocation.

use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

/// Room for a closure's captures.
const WORDS: usize = 6;

type Space = [MaybeUninit<usize>; WORDS];

/// A closure that is called once.
pub struct Call {
    space: Space,
    table: &'static Table,
}

struct Table {
    /// Calls what is in the space, and consumes it.
    call: unsafe fn(*mut Space),
    /// Drops it.
    drop: unsafe fn(*mut Space),
}

/// What lies in the space: the closure, or a box of it.
struct InPlace<F>(F);
struct Boxed<F>(Box<F>);

impl<F: FnOnce() + Send + 'static> InPlace<F> {
    const FITS: bool =
        size_of::<F>() <= size_of::<Space>() && align_of::<F>() <= align_of::<Space>();
    const TABLE: Table = Table {
        // SAFETY: the space holds an `InPlace<F>`, which is consumed, here and below.
        call: |space| unsafe { (space.cast::<InPlace<F>>().read().0)() },
        // SAFETY: as above.
        drop: |space| unsafe { space.cast::<InPlace<F>>().drop_in_place() },
    };
}

impl<F: FnOnce() + Send + 'static> Boxed<F> {
    const TABLE: Table = Table {
        // SAFETY: the space holds a `Boxed<F>`, which is consumed, here and below.
        call: |space| unsafe { (space.cast::<Boxed<F>>().read().0)() },
        // SAFETY: as above.
        drop: |space| unsafe { space.cast::<Boxed<F>>().drop_in_place() },
    };
}

impl Call {
    /// Keeps a closure. One of up to six words costs no allocation.
    #[inline]
    pub fn new<F: FnOnce() + Send + 'static>(closure: F) -> Call {
        let mut space: Space = [MaybeUninit::uninit(); WORDS];
        let table = if InPlace::<F>::FITS {
            // SAFETY: it fits, checked above.
            unsafe { (&raw mut space).cast::<InPlace<F>>().write(InPlace(closure)) };
            &InPlace::<F>::TABLE
        } else {
            // SAFETY: a box is one word.
            unsafe { (&raw mut space).cast::<Boxed<F>>().write(Boxed(Box::new(closure))) };
            &Boxed::<F>::TABLE
        };
        Call { space, table }
    }

    /// Calls it.
    #[inline]
    pub fn call(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the space is as `new` has left it, and is not dropped afterwards.
        unsafe { (this.table.call)(&raw mut this.space) };
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: the space is as `new` has left it: `call` does not come here.
        unsafe { (self.table.drop)(&raw mut self.space) };
    }
}

// SAFETY: only closures that are `Send` are kept.
unsafe impl Send for Call {}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn small_and_large_closures_are_called_or_dropped_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let add = |count: &AtomicUsize, more| {
            count.fetch_add(more, Relaxed);
        };
        let small = |count: Arc<AtomicUsize>| move || add(&count, 1);
        let large =
            |count: Arc<AtomicUsize>, padding: [usize; 20]| move || add(&count, padding.len());
        Call::new(small(count.clone())).call();
        Call::new(large(count.clone(), [1; 20])).call();
        drop(Call::new(small(count.clone())));
        drop(Call::new(large(count.clone(), [1; 20])));
        assert_eq!((count.load(Relaxed), Arc::strong_count(&count)), (21, 1));
    }

    #[test]
    fn captures_of_great_alignment_are_boxed() {
        #[repr(align(64))]
        struct Aligned(u8);
        let (sender, receiver) = std::sync::mpsc::channel();
        let aligned = Aligned(7);
        Call::new(move || {
            let aligned = &aligned;
            sender.send((std::ptr::from_ref(aligned).addr() % 64, aligned.0)).unwrap();
        })
        .call();
        assert_eq!(receiver.recv().unwrap(), (0, 7));
    }
}
