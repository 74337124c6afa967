//! Lists against a model, with random operations.

use std::collections::VecDeque;

use super::{List, Side};
use crate::store::Limits;

fn element(random: &mut fastrand::Rng) -> Vec<u8> {
    let len = match random.u8(..20) {
        0 => random.usize(..20_000),
        1..5 => random.usize(100..300),
        _ => random.usize(..20),
    };
    vec![random.u8(..); len]
}

#[test]
fn a_list_holds_what_a_deque_would() {
    for (seed, size) in [-2, -1, 3, 128, -5].into_iter().enumerate() {
        let mut random = fastrand::Rng::with_seed(seed as u64);
        let limits = Limits { list_max_listpack_size: size, ..Limits::default() };
        let (mut list, mut model) = (List::new(), VecDeque::<Vec<u8>>::new());
        for step in 0..2500 {
            let index = random.usize(..=model.len());
            let growing = step / 500 % 2 == 0;
            match random.u8(..10) {
                0..3 if growing => {
                    let element = element(&mut random);
                    list.push(Side::Left, &element, &limits);
                    model.push_front(element);
                }
                3..6 if growing => {
                    let element = element(&mut random);
                    list.push(Side::Right, &element, &limits);
                    model.push_back(element);
                }
                6..8 => {
                    let element = element(&mut random);
                    list.insert(index, &element, &limits);
                    model.insert(index, element);
                }
                8 => {
                    let element = element(&mut random);
                    assert_eq!(list.set(index, &element, &limits), index < model.len());
                    if let Some(old) = model.get_mut(index) {
                        *old = element;
                    }
                }
                9 => {
                    let count = random.usize(..if growing { 4 } else { 40 });
                    list.remove_range(index, count);
                    model.drain(index..(index + count).min(model.len()));
                }
                0..2 => assert_eq!(list.pop(Side::Left), model.pop_front()),
                _ => assert_eq!(list.pop(Side::Right), model.pop_back()),
            }
            assert_eq!(list.len(), model.len());
            let index = random.usize(..=model.len());
            assert_eq!(list.get(index), model.get(index).map(|element| &element[..]));
            let ahead: Vec<&[u8]> = list.iter_from(index).take(30).collect();
            assert!(ahead.iter().eq(model.iter().skip(index).take(30)));
            let back: Vec<&[u8]> = list.iter_back_from(index).take(30).collect();
            let skip = model.len().saturating_sub(index + 1);
            let len = if index < model.len() { 30 } else { 0 };
            assert!(back.iter().eq(model.iter().rev().skip(skip).take(len)));
            if step % 100 == 0 {
                assert!(list.iter_from(0).eq(model.iter().map(|element| &element[..])));
                let bytes: usize = list.pieces.iter().map(|piece| piece.memory()).sum();
                assert_eq!(list.bytes, bytes);
                assert!(list.pieces.iter().all(|piece| piece.len() > 0));
            }
        }
        while let Some(element) = list.pop(Side::Left) {
            assert_eq!(Some(element), model.pop_front());
        }
        assert!(list.is_empty() && model.is_empty() && list.bytes == 0);
    }
}

#[test]
fn the_memory_of_a_list_is_near_that_of_its_elements() {
    for side in [Side::Left, Side::Right] {
        let mut list = List::new();
        (0..100_000).for_each(|_| list.push(side, &[b'x'; 20], &Limits::default()));
        let each = list.memory() as f64 / 100_000.0;
        assert!(each < 23.0, "{each} bytes for an element of 20");
    }
}
