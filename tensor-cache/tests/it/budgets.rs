//! Bytes per device: counted exactly, made room for in order, refused in the open.

use tensor_cache::{
    AdmitError, Built, Charges, Device, FlightError, GetError, HolderKind, Options, Session,
};

use crate::harness::{GPU, Texts, ask, assert_quiet, begin, cache, fill, find, join};

const GIB: u64 = 1 << 30;
const OTHER: Device = Device(1);

fn of(bytes: u64) -> Texts {
    cache(&Options::new().budget(GPU, bytes))
}

fn listed(cache: &Texts) -> Vec<String> {
    cache.entries().into_iter().filter(|entry| entry.is_listed).map(|entry| entry.key).collect()
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let cache = of(100 * GIB);
    let session = cache.open_session();
    for key in ["a", "b", "c"] {
        drop(fill(&session, key, 0, 30 * GIB));
    }
    drop(find(&session, "a"));
    drop(fill(&session, "d", 0, 35 * GIB));
    assert_eq!(listed(&cache), ["a", "c", "d"], "more than 32 bits of bytes count");
    // Being in use to the end counts as being used then.
    let held = find(&session, "c").expect("it is there");
    drop(find(&session, "a"));
    drop(find(&session, "d"));
    drop(held);
    drop(fill(&session, "e", 0, 60 * GIB));
    assert_eq!(listed(&cache), ["c", "e"]);
    assert_eq!(cache.stats().evictions, 3);
    assert_quiet(&cache);
}

#[test]
fn a_new_value_is_never_the_one_to_go() {
    let cache = of(100);
    let session = cache.open_session();
    for _ in 0..50 {
        drop(fill(&session, "popular", 0, 80));
    }
    drop(fill(&session, "new", 0, 60));
    assert_eq!(listed(&cache), ["new"]);
}

#[test]
fn a_refusal_says_who_holds_what() {
    let cache = of(100);
    let (one, other) = (cache.open_session(), cache.open_session());
    let large = fill(&one, "large", 0, 50);
    let again = fill(&other, "large", 0, 50);
    let small = fill(&other, "small", 0, 20);
    let (token, _own) = begin(&one, &ask("growing").reserve(Charges::on(GPU, 25)));
    drop(fill(&one, "idle", 0, 5));
    let refused = one.get_or_build(&ask("more"), |_| Ok(Built::new(0).charge(GPU, 6)));
    let Err(GetError::Flight(FlightError::OverBudget(over))) = refused else {
        panic!("there is no room")
    };
    assert_eq!((over.device, over.needed, over.limit), (GPU, 6, 100));
    assert_eq!((over.leased, over.building), (70, 25));
    let sessions = vec![one.id(), other.id()];
    let kinds: Vec<_> =
        over.holders.iter().map(|it| (it.key.as_str(), it.bytes, &it.kind)).collect();
    let large_kind = HolderKind::Leased { object: large.object(), leases: 2, sessions };
    let growing = HolderKind::Building { flight: token.id() };
    let sessions = vec![other.id()];
    let small_kind = HolderKind::Leased { object: small.object(), leases: 1, sessions };
    assert_eq!(
        kinds,
        [("large", 50, &large_kind), ("growing", 25, &growing), ("small", 20, &small_kind)]
    );
    assert!(find(&one, "idle").is_some(), "nothing is evicted in vain");
    drop((large, again));
    drop(fill(&one, "more", 0, 6));
}

#[test]
fn a_refused_value_is_refused_to_everybody_who_waits() {
    let cache = of(100);
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    let other = join(&session, "model");
    let refused = token.finish(Built::new(0).charge(GPU, 101)).expect_err("too large");
    assert!(refused.to_string().ends_with(
        "the largest: none, it is too large by itself; release some, or raise the budget"
    ));
    for place in [own, other] {
        assert!(matches!(place.wait(), Err(GetError::Flight(FlightError::OverBudget(_)))));
    }
    // Nothing is left of it: the next one may be smaller.
    drop(fill(&session, "model", 0, 100));
    assert_quiet(&cache);
}

#[test]
fn a_reservation_is_made_before_the_build() {
    let cache = of(100);
    let session = cache.open_session();
    drop(fill(&session, "old", 0, 60));
    let (token, own) = begin(&session, &ask("model").reserve(Charges::on(GPU, 70)));
    assert_eq!(listed(&cache), [""; 0], "room was made");
    assert_eq!(cache.stats().devices[0].1.building, 70);
    let refused = session.get_or_build(&ask("second").reserve(Charges::on(GPU, 31)), |_| {
        panic!("it is refused before anything is built")
    });
    assert!(matches!(refused, Err(GetError::OverBudget(_))));
    assert!(token.finish(Built::new(1).charge(GPU, 80)).is_ok(), "its own room counts for it");
    assert_eq!(cache.stats().devices[0].1.leased, 80);
    drop(own);
    let (token, _own) = begin(&session, &ask("third").reserve(Charges::on(GPU, 20)));
    drop(token);
    assert_eq!(cache.stats().devices[0].1.building, 0, "the end of a build frees it");
}

#[test]
fn devices_do_not_pay_for_each_other() {
    let cache = cache(&Options::new().budget(GPU, 100).budget(OTHER, 10));
    let session = cache.open_session();
    let on = |key: &str, gpu, other| {
        let built = Built::new(0).charges(Charges::on(GPU, gpu).and(OTHER, other));
        session.get_or_build(&ask(key), |_| Ok(built)).expect("there is room")
    };
    drop(on("gpu", 60, 0));
    drop(on("other", 0, 8));
    drop(on("both", 30, 4));
    assert_eq!(listed(&cache), ["gpu", "both"]);
    drop(on("unlimited", 0, 0));
    assert_eq!(cache.stats().evictions, 1);
    let refused = session.admit("view".to_owned(), Built::new(0).charge(OTHER, 11));
    assert!(matches!(refused, Err(AdmitError::OverBudget(over)) if over.device == OTHER));
}

#[test]
fn a_budget_can_be_lowered() {
    let cache = cache(&Options::new());
    let session: Session<_, _, _> = cache.open_session();
    let leased = fill(&session, "leased", 0, 60);
    drop(fill(&session, "idle", 0, 60));
    cache.set_budget(GPU, Some(50));
    assert_eq!(listed(&cache), ["leased"], "what is leased stays");
    drop(leased);
    assert_eq!(listed(&cache), [""; 0], "and goes when it may");
    cache.set_budget(GPU, None);
    drop(fill(&session, "large", 0, u64::MAX));
    assert_eq!(cache.stats().devices[0].1.limit, None);
    drop(fill(&session, "another", 0, 1));
    assert_eq!(listed(&cache), ["another"], "no sum of bytes wraps");
}
