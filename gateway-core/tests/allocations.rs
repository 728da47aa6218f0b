//! What the record of a request and the parts around it allocate.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use towpath_gateway_core::{Body, Context, Endpoint, Load, Policies, RouteName, SpanId};

fn allocations(action: impl FnOnce()) -> u64 {
    allocation_counter::measure(action).count_total
}

#[test]
fn a_record_is_one_allocation_and_its_first_try_is_part_of_it() {
    let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap()));
    let name = RouteName::new("shop/r", "0");
    let pass = |tries: usize| {
        let context = Context::new();
        context.set_route(name.clone(), Policies::default()).unwrap();
        for _ in 0..tries {
            context.begin_attempt(Arc::clone(&endpoint)).set_span(SpanId([1; 8])).unwrap();
        }
        assert_eq!(context.attempt_count(), tries);
    };
    assert_eq!(allocations(|| pass(1)), allocations(|| pass(0)));
    assert_eq!(allocations(|| pass(3)), allocations(|| pass(0)) + 2);
}

#[test]
fn a_body_in_hand_or_counted_is_not_boxed() {
    let load = Load::new();
    let count = allocations(|| {
        let body = Body::new(Body::from("hello").counted(load.begin()));
        assert_eq!(body.bytes().map(|bytes| bytes.len()), Some(5));
    });
    assert_eq!(count, 0);
}
