//! A stream's lock held from one line to a later one.
//!
//! Guards borrow their writer, and a line ends before the next one comes: a thread keeps them on
//! its stack meanwhile. Guards are tokens, so which thread has them changes nothing.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use shared_tensor::stream::{Contents, Locked, Stamp, Wait, Writer};

use super::Answer;
use super::stream::told;
use crate::frame;

/// What a holder is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Claims a slot and fills this many bytes of the frame of this key.
    Begin { key: u64, bytes: usize },
    /// Fills the rest and publishes.
    Publish,
    /// Drops the view.
    Abort,
}

/// A thread that holds the lock.
#[derive(Debug)]
pub(super) struct Hold {
    orders: Option<Sender<Order>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl Hold {
    /// Takes the lock, and says how it was found.
    pub(super) fn take(
        mut writer: Writer,
        frame_bytes: usize,
        limit: Option<Duration>,
    ) -> Result<(Self, String), String> {
        let (orders, ordered) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let wait = move || limit.map_or(Wait::forever(), Wait::for_at_most);
        let thread = std::thread::spawn(move || match writer.lock(&wait()) {
            Err(error) => drop(answered.send(Err(told(&error)))),
            Ok(mut locked) => {
                let found = if locked.is_recovered() { "recovered" } else { "free" };
                let _ = answered.send(Ok(found.to_owned()));
                obey(&mut locked, frame_bytes, &ordered, &answered);
            }
        });
        let hold = Self { orders: Some(orders), answers, thread: Some(thread) };
        let found = hold.answer()?;
        Ok((hold, found))
    }

    /// Has an order carried out.
    pub(super) fn order(&self, order: Order) -> Answer {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if sent { self.answer() } else { Err("the lock is not held any more".to_owned()) }
    }

    fn answer(&self) -> Answer {
        self.answers.recv().unwrap_or_else(|_| Err("the holder of the lock is gone".to_owned()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn obey(
    locked: &mut Locked<'_>,
    frame_bytes: usize,
    orders: &Receiver<Order>,
    answers: &Sender<Answer>,
) {
    let answer = |answer| drop(answers.send(answer));
    while let Ok(order) = orders.recv() {
        let Order::Begin { key, bytes } = order else {
            answer(Err("no write is open".to_owned()));
            continue;
        };
        let frame = frame::frame(frame_bytes, key);
        let begun = locked.view(Contents::Fresh).and_then(|mut view| {
            view.write_at(0, &frame[..bytes])?;
            Ok(view)
        });
        let mut view = match begun {
            Ok(view) => view,
            Err(error) => {
                answer(Err(told(&error)));
                continue;
            }
        };
        answer(Ok(String::new()));
        match orders.recv() {
            Ok(Order::Publish) => {
                let published =
                    view.write_at(0, &frame).and_then(|()| view.publish(&Stamp::default()));
                answer(published.map(|count| count.to_string()).map_err(|error| told(&error)));
            }
            Ok(Order::Abort) => {
                drop(view);
                answer(Ok(String::new()));
            }
            Ok(Order::Begin { .. }) => answer(Err("a write is open already".to_owned())),
            Err(_) => return,
        }
    }
}
