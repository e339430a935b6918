//! Subscription dialogs as their notifier keeps them.
