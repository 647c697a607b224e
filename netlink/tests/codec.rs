//! The netlink codec: round trips, and arbitrary bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_netlink::Error;
use portcullis_netlink::attribute::{Attributes, Malformed, Writer};
use portcullis_netlink::message::{Batch, Messages};
use proptest::prelude::*;

/// An attribute with its content.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Leaf(u16, Vec<u8>),
    Branch(u16, Vec<Tree>),
}

fn kind() -> impl Strategy<Value = u16> {
    1u16..0x3fff
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf =
        (kind(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, bytes)| Tree::Leaf(kind, bytes));
    leaf.prop_recursive(4, 30, 5, |inner| {
        (kind(), prop::collection::vec(inner, 0..5)).prop_map(|(kind, inside)| Tree::Branch(kind, inside))
    })
}

fn write(tree: &Tree, writer: &mut Writer<'_>) {
    match tree {
        Tree::Leaf(kind, bytes) => {
            writer.bytes(*kind, bytes);
        }
        Tree::Branch(kind, inside) => {
            writer.nested(*kind, |writer| inside.iter().for_each(|tree| write(tree, writer)));
        }
    }
}

/// Reads attributes with the structure of the written ones.
fn read(shape: &[Tree], attributes: Attributes<'_>) -> Vec<Tree> {
    let attributes: Vec<_> = attributes.collect::<Result<_, _>>().expect("what was written parses");
    assert_eq!(attributes.len(), shape.len());
    let pairs = attributes.iter().zip(shape);
    pairs
        .map(|(attribute, shape)| match shape {
            Tree::Leaf(..) => Tree::Leaf(attribute.kind, attribute.payload.to_vec()),
            Tree::Branch(_, inside) => Tree::Branch(attribute.kind, read(inside, attribute.nested())),
        })
        .collect()
}

/// Reads all attributes of arbitrary bytes. Returns their number.
fn walk(bytes: &[u8], depth: usize) -> usize {
    let attributes = Attributes::new(bytes).flatten();
    attributes
        .map(|attribute| {
            let _ =
                (attribute.u8(), attribute.u16_be(), attribute.u32(), attribute.u32_be(), attribute.u64_be());
            let _ = (attribute.address(), attribute.text());
            1 + if depth > 0 { walk(attribute.payload, depth - 1) } else { 0 }
        })
        .sum()
}

proptest! {
    #[test]
    fn read_attributes_equal_written_ones(messages in prop::collection::vec((16u16.., prop::collection::vec(tree(), 0..5)), 1..4)) {
        let mut batch = Batch::new();
        for (kind, trees) in &messages {
            batch.push("test", *kind, 0, |writer| {
                writer.raw(&[2, 0, 0, 0]);
                trees.iter().for_each(|tree| write(tree, writer));
            }).unwrap();
        }
        prop_assert_eq!(batch.len() as usize, messages.len());
        prop_assert_eq!(batch.size() % 4, 0);
        let read_back: Vec<_> = Messages::new(batch.bytes()).map(|message| {
            let message = message.unwrap();
            let (header, attributes) = message.split::<4>().unwrap();
            assert_eq!(header, &[2, 0, 0, 0]);
            (message.kind, attributes)
        }).collect();
        prop_assert_eq!(read_back.len(), messages.len());
        for ((kind, attributes), (expected_kind, trees)) in read_back.into_iter().zip(&messages) {
            prop_assert_eq!(kind, *expected_kind);
            prop_assert_eq!(&read(trees, attributes), trees);
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for message in Messages::new(&bytes).flatten() {
            if let Ok((_, attributes)) = message.split::<4>() {
                attributes.flatten().for_each(|attribute| { walk(attribute.payload, 3); });
            }
        }
        walk(&bytes, 4);
    }

    #[test]
    fn truncated_bytes_yield_complete_attributes(trees in prop::collection::vec(tree(), 1..6), cut in any::<prop::sample::Index>()) {
        let batch = Batch::with_message("test", 16, 0, |writer| trees.iter().for_each(|tree| write(tree, writer))).unwrap();
        let payload = &batch.bytes()[16..];
        let end = cut.index(payload.len());
        let whole: Vec<_> = Attributes::new(payload).collect::<Result<_, _>>().unwrap();
        let cut: Vec<_> = Attributes::new(&payload[..end]).collect();
        let good = cut.iter().take_while(|attribute| attribute.is_ok()).count();
        prop_assert!(cut.len() <= good + 1, "nothing follows a malformed attribute");
        for (cut, whole) in cut.iter().flatten().zip(&whole) {
            prop_assert_eq!(cut, whole);
        }
        // A truncated message is rejected as a whole, since its length is checked.
        let message = Messages::new(&batch.bytes()[..16 + end]).next().unwrap();
        let is_length_error = matches!(message, Err(Malformed::Length { what: "message", .. }));
        prop_assert!(is_length_error);
    }
}

#[test]
fn wrong_lengths_are_rejected() {
    // (case, bytes)
    let rows: [(&str, &[u8]); 5] = [
        ("half a header", &[4, 0]),
        ("shorter than its header", &[3, 0, 1, 0]),
        ("zero, which would loop for ever", &[0, 0, 0, 0, 8, 0, 1, 0, 1, 1, 1, 1]),
        ("longer than the rest", &[9, 0, 1, 0, 1, 2, 3, 4]),
        ("the longest", &[255, 255, 1, 0, 1, 2, 3, 4]),
    ];
    for (case, bytes) in rows {
        let read: Vec<_> = Attributes::new(bytes).collect();
        assert!(matches!(read[..], [Err(Malformed::Length { what: "attribute", .. })]), "{case}: {read:?}");
    }
}

#[test]
fn an_attribute_that_is_too_long_is_rejected_and_the_batch_stays_valid() {
    let mut batch = Batch::with_message("test", 16, 0, |writer| {
        writer.u32_be(1, 7);
    })
    .unwrap();
    let before = batch.bytes().to_vec();
    let rejected = batch.push("fill a set", 16, 0, |writer| {
        writer.nested(3, |writer| {
            for element in 0..10_000 {
                writer.u32_be(1, element);
            }
        });
    });
    assert!(matches!(rejected, Err(Error::AttributeTooLong { kind: 3, length: 80_004, .. })), "{rejected:?}");
    assert_eq!((batch.bytes(), batch.len()), (&before[..], 1));
}
