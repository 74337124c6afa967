//! Members in order of score, then of bytes: a B+tree that counts, so that ranks are found as fast as members.
//!
//! Leaves are packed sequences of about a kilobyte, with the members' bytes in them: walking a range looks nowhere
//! else. Inner nodes have, for each child but the first, a bound: what lies in the child is not before it, and what
//! lies in the children on its left is.
//!
//! Invariants:
//! - *Bounds hold* for what is there and for what is put there, though the member that gave a bound may be gone.
//! - *Counts*: a node has the number of members of each child.
//! - *No empty child*, and the root has no single one.

use super::layout::{Layout, Len, Scored};
use super::packed::{Entries, Packed};

/// Bytes of a leaf of several members, at most.
const LEAF: usize = 1024;
/// Children of a node, at most.
const FANOUT: usize = 32;

/// A tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    root: Node,
    len: usize,
    size: Size,
}

/// What the nodes take.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// Bytes of all leaves' entries.
    bytes: usize,
    /// Leaves besides the root.
    leaves: usize,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Packed<Scored>),
    Inner(Box<Inner>),
}

#[derive(Clone, Debug, Default)]
struct Inner {
    children: Vec<Node>,
    /// The members of each child.
    counts: Vec<usize>,
    /// The bound of each child but the first.
    bounds: Vec<Bound>,
}

type Bound = (f64, Box<[u8]>);

/// A member with its score.
pub type Item<'a> = (&'a [u8], f64);

impl Default for Node {
    fn default() -> Node {
        Node::Leaf(Packed::default())
    }
}

/// Whether one member comes before another.
pub fn is_before(score: f64, member: &[u8], other_score: f64, other: &[u8]) -> bool {
    score < other_score || (score == other_score && member < other)
}

fn item(entry: &[u8]) -> Item<'_> {
    (Scored::key(entry), Scored::score(entry))
}

impl Tree {
    /// The number of members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes of memory, about.
    pub fn memory(&self) -> usize {
        /// A child's place and count, its bound, and what the allocator adds.
        const CHILD: usize = size_of::<Node>() + size_of::<usize>() + size_of::<Bound>() + 40;
        self.size.bytes + self.size.leaves * CHILD
    }

    /// Adds a member that is not there with that score.
    pub fn insert(&mut self, score: f64, member: &[u8]) {
        self.len += 1;
        if let Some((bound, right)) = self.root.insert(score, member, &mut self.size) {
            let left = std::mem::take(&mut self.root);
            let counts = vec![left.len(), right.len()];
            let inner = Inner { children: vec![left, right], counts, bounds: vec![bound] };
            self.root = Node::Inner(Box::new(inner));
        }
    }

    /// Removes the member of a rank.
    pub fn remove(&mut self, rank: usize) {
        debug_assert!(rank < self.len);
        self.len -= 1;
        self.root.remove(rank, &mut self.size);
        while let Node::Inner(inner) = &mut self.root
            && inner.children.len() <= 1
        {
            self.root = inner.children.pop().unwrap_or_default();
        }
        if self.len == 0 {
            *self = Tree::default();
        }
    }

    /// The number of members for which `is_in` holds, where it holds for some first ones and no others.
    pub fn partition_point(&self, is_in: impl Fn(f64, &[u8]) -> bool) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        while let Node::Inner(inner) = node {
            let child = inner.bounds.partition_point(|(score, member)| is_in(*score, member));
            rank += inner.counts[..child].iter().sum::<usize>();
            node = &inner.children[child];
        }
        let Node::Leaf(leaf) = node else {
            unreachable!("a node is one or the other");
        };
        rank + leaf.iter().map(item).take_while(|&(member, score)| is_in(score, member)).count()
    }

    /// The rank that a member has or would get.
    pub fn rank(&self, score: f64, member: &[u8]) -> usize {
        self.partition_point(|other_score, other| is_before(other_score, other, score, member))
    }

    /// The members from a rank on, upwards.
    pub fn iter_from(&self, rank: usize) -> Ahead<'_> {
        let mut path = Vec::new();
        match self.descend(rank, &mut path) {
            Some((leaf, within)) => Ahead { path, leaf: leaf.iter_at(leaf.offset(within)) },
            None => Ahead {
                path: Vec::new(),
                leaf: self.first_leaf().iter_at(self.first_leaf().used()),
            },
        }
    }

    /// The members from a rank on, downwards; none where there is no such rank.
    pub fn iter_back_from(&self, rank: usize) -> Back<'_> {
        let mut back = Back { path: Vec::new(), leaf: self.first_leaf(), offsets: Vec::new() };
        if let Some((leaf, within)) = self.descend(rank, &mut back.path) {
            back.enter(leaf);
            back.offsets.truncate(within + 1);
        }
        back
    }

    /// The leaf with the member of a rank, and the member's rank in it. The nodes on the way go to `path`, each
    /// with the index of the child.
    fn descend<'a>(
        &'a self,
        mut rank: usize,
        path: &mut Vec<(&'a Inner, usize)>,
    ) -> Option<(&'a Packed<Scored>, usize)> {
        if rank >= self.len {
            return None;
        }
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return Some((leaf, rank)),
                Node::Inner(inner) => {
                    let child = inner.child_of(&mut rank);
                    path.push((inner, child));
                    node = &inner.children[child];
                }
            }
        }
    }

    fn first_leaf(&self) -> &Packed<Scored> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => node = &inner.children[0],
            }
        }
    }
}

#[cfg(test)]
impl Tree {
    /// Whether counts, bounds and sizes are what the nodes say.
    pub fn check(&self) {
        let mut size = Size::default();
        assert_eq!(self.root.check(&mut size), self.len);
        assert_eq!((size.bytes, size.leaves - 1), (self.size.bytes, self.size.leaves));
    }
}

#[cfg(test)]
impl Node {
    fn check(&self, size: &mut Size) -> usize {
        match self {
            Node::Leaf(leaf) => {
                size.bytes += leaf.memory();
                size.leaves += 1;
                leaf.iter().count()
            }
            Node::Inner(inner) => {
                let counts: Vec<usize> =
                    inner.children.iter().map(|node| node.check(size)).collect();
                assert_eq!(counts, inner.counts);
                assert!(counts.iter().all(|&count| count > 0), "no child is empty");
                assert_eq!(inner.bounds.len() + 1, counts.len());
                counts.iter().sum()
            }
        }
    }
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len(),
            Node::Inner(inner) => inner.counts.iter().sum(),
        }
    }

    /// Adds a member; gives the right half where the node had to be split, and its bound.
    fn insert(&mut self, score: f64, member: &[u8], size: &mut Size) -> Option<(Bound, Node)> {
        match self {
            Node::Leaf(leaf) => {
                size.bytes -= leaf.memory();
                let right = insert_in_leaf(leaf, score, member);
                size.bytes += leaf.memory();
                let right = right?;
                size.bytes += right.memory();
                size.leaves += 1;
                let (first, score) = item(right.entry(0));
                Some(((score, first.into()), Node::Leaf(right)))
            }
            Node::Inner(inner) => inner.insert(score, member, size),
        }
    }

    fn remove(&mut self, rank: usize, size: &mut Size) {
        match self {
            Node::Leaf(leaf) => {
                size.bytes -= leaf.memory();
                leaf.remove(leaf.offset(rank));
                size.bytes += leaf.memory();
            }
            Node::Inner(inner) => inner.remove(rank, size),
        }
    }
}

fn insert_in_leaf(leaf: &mut Packed<Scored>, score: f64, member: &[u8]) -> Option<Packed<Scored>> {
    let mut index = 0;
    let offset = leaf.offset_where(|entry| {
        let (other, other_score) = item(entry);
        let here = is_before(score, member, other_score, other);
        index += usize::from(!here);
        here
    });
    let offset = offset.unwrap_or(leaf.used());
    leaf.insert(offset, &[&Len::of(member.len()), member, &score.to_bits().to_le_bytes()]);
    if leaf.used() <= LEAF || leaf.len() == 1 {
        return None;
    }
    // Members that come in order leave full leaves behind.
    let middle = match index {
        0 => 1,
        last if last == leaf.len() - 1 => last,
        _ => leaf.len() / 2,
    };
    Some(leaf.split_off(middle))
}

impl Inner {
    /// The child with the member of a rank, which becomes the rank in the child.
    fn child_of(&self, rank: &mut usize) -> usize {
        let mut child = 0;
        while *rank >= self.counts[child] {
            *rank -= self.counts[child];
            child += 1;
        }
        child
    }

    fn insert(&mut self, score: f64, member: &[u8], size: &mut Size) -> Option<(Bound, Node)> {
        let child =
            self.bounds.partition_point(|(bound, other)| !is_before(score, member, *bound, other));
        self.counts[child] += 1;
        let (bound, right) = self.children[child].insert(score, member, size)?;
        let count = right.len();
        self.counts[child] -= count;
        self.children.insert(child + 1, right);
        self.counts.insert(child + 1, count);
        self.bounds.insert(child, bound);
        if self.children.len() <= FANOUT {
            return None;
        }
        let middle = self.children.len() / 2;
        let right = Inner {
            children: self.children.split_off(middle),
            counts: self.counts.split_off(middle),
            bounds: self.bounds.split_off(middle),
        };
        let bound = self.bounds.pop().expect("the right half has a bound");
        Some((bound, Node::Inner(Box::new(right))))
    }

    fn remove(&mut self, mut rank: usize, size: &mut Size) {
        let child = self.child_of(&mut rank);
        self.counts[child] -= 1;
        self.children[child].remove(rank, size);
        if self.counts[child] == 0 {
            if let Node::Leaf(leaf) = self.cut(child) {
                size.bytes -= leaf.memory();
                size.leaves -= 1;
            }
        } else if child > 0 && self.join(child - 1, size) {
        } else {
            self.join(child, size);
        }
    }

    fn cut(&mut self, child: usize) -> Node {
        if !self.bounds.is_empty() {
            self.bounds.remove(child.saturating_sub(1));
        }
        self.counts.remove(child);
        self.children.remove(child)
    }

    /// Joins a child with the one on its right where one of them is nearly empty; whether it did.
    fn join(&mut self, child: usize, size: &mut Size) -> bool {
        let [left, right, ..] = &self.children[child..] else {
            return false;
        };
        let joinable = match (left, right) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                left.used().min(right.used()) < LEAF / 4
                    && left.used() + right.used() <= LEAF * 3 / 4
            }
            (Node::Inner(left), Node::Inner(right)) => {
                let (left, right) = (left.children.len(), right.children.len());
                left.min(right) < FANOUT / 4 && left + right <= FANOUT * 3 / 4
            }
            _ => unreachable!("all leaves are equally far from the root"),
        };
        if !joinable {
            return false;
        }
        let bound = self.bounds.remove(child);
        let right = self.children.remove(child + 1);
        self.counts[child] += self.counts.remove(child + 1);
        match (&mut self.children[child], right) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                size.bytes -= left.memory() + right.memory();
                size.leaves -= 1;
                left.append(&right);
                size.bytes += left.memory();
            }
            (Node::Inner(left), Node::Inner(right)) => {
                left.children.extend(right.children);
                left.counts.extend(right.counts);
                left.bounds.push(bound);
                left.bounds.extend(right.bounds);
            }
            _ => unreachable!("they were of one kind"),
        }
        true
    }
}

/// Members upwards.
#[derive(Debug)]
pub struct Ahead<'a> {
    /// The nodes above the leaf, each with the index of the child.
    path: Vec<(&'a Inner, usize)>,
    leaf: Entries<'a, Scored>,
}

impl<'a> Iterator for Ahead<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(item(entry));
            }
            let (inner, child) = self.path.last_mut()?;
            *child += 1;
            match inner.children.get(*child) {
                Some(node) => {
                    let mut node = node;
                    while let Node::Inner(inner) = node {
                        self.path.push((inner, 0));
                        node = &inner.children[0];
                    }
                    if let Node::Leaf(leaf) = node {
                        self.leaf = leaf.iter();
                    }
                }
                None => drop(self.path.pop()),
            }
        }
    }
}

/// Members downwards.
#[derive(Debug)]
pub struct Back<'a> {
    path: Vec<(&'a Inner, usize)>,
    leaf: &'a Packed<Scored>,
    /// Where those entries of the leaf begin that are still to come, the next one last.
    offsets: Vec<u32>,
}

impl<'a> Back<'a> {
    fn enter(&mut self, leaf: &'a Packed<Scored>) {
        self.leaf = leaf;
        let mut offset = 0;
        for entry in leaf.iter() {
            self.offsets.push(offset as u32);
            offset += entry.len();
        }
    }
}

impl<'a> Iterator for Back<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            if let Some(offset) = self.offsets.pop() {
                return Some(item(self.leaf.entry(offset as usize)));
            }
            let (inner, child) = self.path.last_mut()?;
            match child.checked_sub(1) {
                Some(before) => {
                    *child = before;
                    let mut node = &inner.children[before];
                    while let Node::Inner(inner) = node {
                        let last = inner.children.len() - 1;
                        self.path.push((inner, last));
                        node = &inner.children[last];
                    }
                    if let Node::Leaf(leaf) = node {
                        self.enter(leaf);
                    }
                }
                None => drop(self.path.pop()),
            }
        }
    }
}
