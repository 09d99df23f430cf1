//! Processes that see another `/proc`, other pids or another clock than each other.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::death::{lock, me};
use crate::harness::{Outcome, Skip, say, tests};
use crate::peer::{self, Peer, Place, Role};
use crate::sys;

tests![
    a_pid_namespace_with_its_own_proc,
    a_pid_namespace_with_the_proc_of_another,
    strangers_under_the_same_pid_are_not_mistaken_for_a_member,
    a_time_namespace,
    a_clock_that_is_shifted_after_joining,
    a_proc_that_hides_other_users,
    no_proc_at_all,
    no_proc_and_another_pid_namespace,
];

/// Confines this process, then runs the peer proper inside and waits for it.
pub(crate) fn confine(kind: &str, role: &Role) {
    let (how, inner) = kind.split_once('-').expect("confined-HOW-KIND");
    // A /proc of its own can only be mounted from within a pid namespace.
    let inner = if how == "pidproc" { format!("ownproc-{inner}") } else { inner.to_owned() };
    let mut command = peer::command(&inner, &role.path);
    let confined = match how {
        "pid" | "pidproc" => sys::unshare(libc::CLONE_NEWPID),
        "time" => sys::prepare_time_namespace(),
        "hide" => {
            command.uid(65534).gid(65534);
            sys::mount_over_proc("proc", "hidepid=2")
        }
        "noproc" => sys::mount_over_proc("tmpfs", ""),
        "pidnoproc" => {
            sys::unshare(libc::CLONE_NEWPID).and_then(|()| sys::mount_over_proc("tmpfs", ""))
        }
        _ => panic!("nothing confines by `{how}`"),
    };
    if let Err(error) = confined {
        return say(&format!("cannot confine by {how}: {error}"));
    }
    let mut child = command.spawn().expect("a peer can be started");
    say(&format!("inner {}", child.id()));
    child.wait().expect("a peer is a child");
}

fn confined(how: &str, place: &Place) -> Result<Peer, Skip> {
    let command: Command = peer::command(&format!("confined-{how}-futex"), &place.file());
    Peer::confined(command).map_err(Skip)
}

/// A memory file that every user may use.
fn open_to_all() -> Place {
    let place = Place::new();
    drop(lock(&place.file()));
    let everybody = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(place.file(), everybody).expect("the file is ours");
    place
}

/// Through an owner's life, stop and death, a waiter elsewhere never sees it dead too early, and
/// sees it in the end.
fn owner_and_waiter(owner: &mut Peer, waiter: &mut Peer) {
    owner.expect("acquire", "held");
    waiter.expect("acquire-for 50", "timeout");
    owner.signal(rustix::process::Signal::STOP);
    waiter.expect("acquire-for 50", "timeout");
    owner.go_on();
    owner.expect("release", "released");
    waiter.expect("acquire", "held");
    waiter.expect("release", "released");
    owner.expect("acquire", "held");
    waiter.order("acquire");
    owner.kill();
    let told = waiter.hear();
    assert!(told.starts_with("held after"), "{told}");
    waiter.expect("release", "released");
}

fn on_both_sides(how: &str) -> Outcome {
    let place = open_to_all();
    owner_and_waiter(&mut confined(how, &place)?, &mut Peer::spawn("futex", &place.file()));
    owner_and_waiter(&mut Peer::spawn("futex", &place.file()), &mut confined(how, &place)?);
    owner_and_waiter(&mut confined(how, &place)?, &mut confined(how, &place)?);
    Ok(())
}

fn a_pid_namespace_with_its_own_proc() -> Outcome {
    on_both_sides("pidproc")
}

fn a_pid_namespace_with_the_proc_of_another() -> Outcome {
    on_both_sides("pid")
}

fn strangers_under_the_same_pid_are_not_mistaken_for_a_member() -> Outcome {
    let place = open_to_all();
    let mut owner = confined("pid", &place)?;
    // Inside it is pid 1; the /proc it sees shows somebody else under that number.
    assert!(owner.ask("me").ends_with(" 1"));
    owner.expect("acquire", "held");
    let child = owner.ask("fork");
    assert!(child.starts_with("child "), "{child}");
    // The child shares all namespaces with its parent, so everything but the NSpid line of its
    // own status says that /proc can be believed.
    owner.expect("acquire-for 50", "timeout");
    owner.expect("quit", "parent again");
    owner.expect("release", "released");
    Ok(())
}

fn a_time_namespace() -> Outcome {
    on_both_sides("time")
}

fn a_clock_that_is_shifted_after_joining() -> Outcome {
    let place = open_to_all();
    let mut owner = Peer::spawn("futex", &place.file());
    let mut waiter = Peer::spawn("futex", &place.file());
    owner.expect("acquire", "held");
    let before = me(&mut waiter);
    let shifted = waiter.ask("shift-time");
    if shifted != "shifted" {
        return Err(Skip(shifted));
    }
    assert_eq!(me(&mut waiter), before);
    // It still believes to share a time namespace with the owner, whose start it now sees shifted.
    waiter.expect("acquire-for 50", "timeout");
    owner.expect("release", "released");
    owner_and_waiter(&mut owner, &mut waiter);
    Ok(())
}

fn a_proc_that_hides_other_users() -> Outcome {
    on_both_sides("hide")
}

fn no_proc_at_all() -> Outcome {
    on_both_sides("noproc")
}

fn no_proc_and_another_pid_namespace() -> Outcome {
    on_both_sides("pidnoproc")
}
