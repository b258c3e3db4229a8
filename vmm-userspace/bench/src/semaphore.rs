//! Semaphores between threads of one task.

use runtime::Status;
use runtime::pd::Pd;
use runtime::sm::Sm;
use runtime::task::defaults;
use runtime::thread::Thread;

use crate::Named;
use crate::meter::Meter;

/// Measures up and down without blocking, and a round of two threads that wake each other.
///
/// # Errors
/// What the kernel says.
pub fn measure(meter: &Meter) -> Result<[Named; 3], Status> {
    let semaphore = Sm::create(Pd::OWN, 0)?;
    let up = meter.run(|| semaphore.up())?;
    let down = meter.run(|| semaphore.down())?;

    let (ping, pong) = (Sm::create(Pd::OWN, 0)?, Sm::create(Pd::OWN, 0)?);
    // Of equal priority: a thread that is woken runs when the other one waits.
    Thread::spawn(defaults().share, move |_| while ping.down().is_ok() && pong.up().is_ok() {})?;
    let round = meter.run(|| {
        ping.up()?;
        pong.down()
    })?;
    Ok([("sem_up", up), ("sem_down", down), ("ping_pong", round)])
}
