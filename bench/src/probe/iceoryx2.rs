//! The same work by iceoryx2: copied in, copied out, and a wake by its events.

use std::time::Duration;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use super::company::{Companion, ready};
use super::sample::{Arguments, busy_for, now_ns, pin, print_quantiles, times};
use super::space;
use crate::{Outcome, screen};

type Sender = Publisher<ipc::Service, [u8], ()>;
type Receiver = Subscriber<ipc::Service, [u8], ()>;

fn node() -> Outcome<Node<ipc::Service>> {
    set_log_level(LogLevel::Error);
    Ok(NodeBuilder::new().create::<ipc::Service>()?)
}

macro_rules! service {
    ($node:expr, $topic:expr) => {{
        let name = format!("{}{}", space::prefix(), $topic);
        let service = $node.service_builder(&name.as_str().try_into()?);
        service.publish_subscribe::<[u8]>().subscriber_max_buffer_size(4).open_or_create()?
    }};
}

fn sender(node: &Node<ipc::Service>, topic: &str, bytes: usize) -> Outcome<Sender> {
    Ok(service!(node, topic).publisher_builder().initial_max_slice_len(bytes).create()?)
}

fn receiver(node: &Node<ipc::Service>, topic: &str) -> Outcome<Receiver> {
    Ok(service!(node, topic).subscriber_builder().create()?)
}

fn send(sender: &Sender, frame: &[u8]) -> Outcome<()> {
    let sample = sender.loan_slice_uninit(frame.len())?;
    sample.write_from_slice(frame).send()?;
    Ok(())
}

/// `iceoryx2-copy BYTES SLOTS CPUS SAMPLES BATCH`.
pub(super) fn copy(given: &mut Arguments) -> Outcome<()> {
    let (bytes, _slots, _cpus) = (given.next()?, given.next::<usize>()?, given.next::<usize>()?);
    let (samples, batch) = (given.next()?, given.next()?);
    pin(0)?;
    let node = node()?;
    let (sender, receiver) = (sender(&node, "copy", bytes)?, receiver(&node, "copy")?);
    let input = vec![7; bytes];
    let mut output = vec![1; bytes];
    let mut pair = || -> Outcome<()> {
        send(&sender, &input)?;
        let sample = receiver.receive()?.ok_or("nothing was received")?;
        output.copy_from_slice(sample.payload());
        Ok(())
    };
    // Every slot of its pool is touched once before it counts.
    for _ in 0..8 {
        pair()?;
    }
    let times = times(samples, batch, pair)?;
    print_quantiles(&times);
    Ok(())
}

/// `iceoryx2-pingpong BYTES_THERE BYTES_BACK SLOTS spin SAMPLES`.
pub(super) fn both_ways(given: &mut Arguments) -> Outcome<()> {
    let (there, back): (usize, usize) = (given.next()?, given.next()?);
    let (_slots, _way) = (given.next::<usize>()?, given.next::<String>()?);
    let samples = given.next::<usize>()?;
    let back = back.max(8);
    let node = node()?;
    let (outward, homeward) = (sender(&node, "ping", there)?, receiver(&node, "pong")?);
    let rounds = samples + samples / 10 + 1;
    let numbers = [there, back, rounds].map(|number| number.to_string());
    let echo = Companion::start("iceoryx2-pingpong-echo", &numbers)?;
    pin(0)?;
    let frame = vec![7; there];
    let mut answer = vec![0; back];
    let times = times(samples, 1, || {
        send(&outward, &frame)?;
        receive(&homeward, &mut answer)
    })?;
    echo.finish()?;
    print_quantiles(&times);
    Ok(())
}

pub(super) fn echo(given: &mut Arguments) -> Outcome<()> {
    let (there, back) = (given.next()?, given.next::<usize>()?);
    let rounds = given.next::<usize>()?;
    pin(1)?;
    let node = node()?;
    let (outward, homeward) = (receiver(&node, "ping")?, sender(&node, "pong", back)?);
    let mut frame = vec![0; there];
    ready()?;
    for _ in 0..rounds {
        receive(&outward, &mut frame)?;
        send(&homeward, &frame[..back])?;
    }
    Ok(())
}

fn receive(receiver: &Receiver, frame: &mut [u8]) -> Outcome<()> {
    loop {
        if let Some(sample) = receiver.receive()? {
            frame.copy_from_slice(sample.payload());
            return Ok(());
        }
        std::hint::spin_loop();
    }
}

/// `iceoryx2-wake IDLE_NS park SAMPLES`: a word sent, then an event to a listener that blocks.
pub(super) fn wake(given: &mut Arguments) -> Outcome<()> {
    let idle = Duration::from_nanos(given.next()?);
    let (_way, samples) = (given.next::<String>()?, given.next::<usize>()?);
    let node = node()?;
    let sender = sender(&node, "wake", 8)?;
    let name = format!("{}wake-event", space::prefix());
    let event = node.service_builder(&name.as_str().try_into()?).event().open_or_create()?;
    let sleeper = Companion::start("iceoryx2-wake-sleeper", &[samples.to_string()])?;
    let notifier = event.notifier_builder().create()?;
    pin(0)?;
    for _ in 0..samples {
        busy_for(idle);
        send(&sender, &now_ns().to_ne_bytes())?;
        notifier.notify()?;
    }
    busy_for(idle);
    send(&sender, &END.to_ne_bytes())?;
    notifier.notify()?;
    let said = sleeper.finish()?;
    screen::line(String::from_utf8(said)?.trim_end());
    Ok(())
}

/// No time: the last word. Earlier ones may have been overrun in the receiver's buffer.
const END: u64 = 0;

pub(super) fn sleeper(given: &mut Arguments) -> Outcome<()> {
    let samples = given.next::<usize>()?;
    pin(1)?;
    let node = node()?;
    let receiver = receiver(&node, "wake")?;
    let name = format!("{}wake-event", space::prefix());
    let event = node.service_builder(&name.as_str().try_into()?).event().open_or_create()?;
    let listener: Listener<ipc::Service> = event.listener_builder().create()?;
    let mut times = Vec::with_capacity(samples);
    ready()?;
    'events: loop {
        listener.blocking_wait(|_| {})?;
        let now = now_ns();
        while let Some(sample) = receiver.receive()? {
            match sample.payload().first_chunk().map_or(END, |it| u64::from_ne_bytes(*it)) {
                END => break 'events,
                begun => times.push(now.saturating_sub(begun) as f64),
            }
        }
    }
    times.sort_by(f64::total_cmp);
    print_quantiles(&times);
    Ok(())
}
