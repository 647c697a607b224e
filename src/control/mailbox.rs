//! Notifications of threads to the loop.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

/// Wakes the loop up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake(Arc<Notify>);

impl Wake {
    /// Waits until the loop is woken up.
    pub(super) async fn notified(&self) {
        self.0.notified().await;
    }

    /// Forwards items to another channel, and wakes the loop up for each.
    pub(crate) fn forward<T: Send + 'static>(&self, mut source: mpsc::Receiver<T>) -> mpsc::Receiver<T> {
        let (sink, receiver) = mpsc::channel(1);
        let wake = self.clone();
        tokio::spawn(async move {
            while let Some(item) = source.recv().await {
                if sink.send(item).await.is_err() {
                    return;
                }
                wake.0.notify_one();
            }
        });
        receiver
    }
}

/// The latest notification of a thread. One that was not read yet is replaced, as notifications come in bursts.
#[derive(Debug)]
pub(crate) struct Mailbox<T>(Arc<Mutex<Option<T>>>);

/// The sending end of a [`Mailbox`].
#[derive(Debug)]
pub(crate) struct Notifier<T> {
    slot: Arc<Mutex<Option<T>>>,
    wake: Wake,
}

impl<T> Mailbox<T> {
    /// Creates a mailbox of the loop that `wake` wakes up.
    pub(crate) fn new(wake: &Wake) -> (Notifier<T>, Self) {
        let slot = Arc::new(Mutex::new(None));
        (Notifier { slot: Arc::clone(&slot), wake: wake.clone() }, Mailbox(slot))
    }

    /// Takes the notification, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Notifier<T> {
    /// Sends a notification. Returns false if the mailbox was dropped.
    pub(crate) fn notify(&self, notification: T) -> bool {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(notification);
        self.wake.0.notify_one();
        Arc::strong_count(&self.slot) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn latest_notification_wakes_the_loop_up() {
        let wake = Wake::default();
        let (notifier, mailbox) = Mailbox::new(&wake);
        assert_eq!(mailbox.take(), None);
        assert!(notifier.notify(1) && notifier.notify(2));
        wake.notified().await;
        assert_eq!((mailbox.take(), mailbox.take()), (Some(2), None));
        drop(mailbox);
        assert!(!notifier.notify(3));
    }

    #[tokio::test]
    async fn forwarded_items_wake_the_loop_up() {
        let wake = Wake::default();
        let (sink, source) = mpsc::channel(2);
        let mut receiver = wake.forward(source);
        sink.send(7).await.expect("it is received");
        wake.notified().await;
        assert_eq!(receiver.try_recv(), Ok(7));
    }
}
