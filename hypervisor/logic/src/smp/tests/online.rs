//! Whoever finds a CPU online finds what it has built.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::model;
use crate::smp::online::Online;

#[test]
fn a_cpu_that_is_online_has_built_its_data() {
    model(3, || {
        let shared = Arc::new((Online::new(), [AtomicU64::new(0), AtomicU64::new(0)]));
        let starters = [0, 1].map(|cpu: u8| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1[usize::from(cpu)].store(1, Ordering::Relaxed);
                shared.0.join(cpu);
            })
        });
        for cpu in shared.0.get() {
            assert_eq!(shared.1[usize::from(cpu)].load(Ordering::Relaxed), 1);
        }
        for starter in starters {
            starter.join().unwrap();
        }
        assert_eq!(shared.0.get().len(), 2);
    });
}
