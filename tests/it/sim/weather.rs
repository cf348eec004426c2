//! What befalls the processes of a simulation: calls that take long, fail or lose their reply, processes that pause or die.
//! One pair of dice decides everything, so a seed is a history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidekeeper::clock::TestClock;

use crate::vault::estate::Dice;

/// How often something was done or happened, over one history or many.
pub type Tally = BTreeMap<&'static str, u64>;

/// How often, of 10,000 calls, something befalls one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    pub crash: u64,
    pub pause: u64,
    pub fail: u64,
    pub lose: u64,
}

impl Odds {
    /// Each history has weather of its own: what is always a little of everything never has much of anything.
    pub fn roll(dice: &mut Dice) -> Self {
        let mut some = |percent, most| if dice.chance(percent) { 1 + dice.below(most) } else { 0 };
        Odds { crash: some(60, 60), pause: some(50, 30), fail: some(50, 200), lose: some(60, 300) }
    }
}

/// The weather of one history, the dice that make it, and the count of what it brought.
#[derive(Debug)]
pub struct Weather {
    /// True time: no jump moves it.
    pub time: Arc<TestClock>,
    dice: Mutex<Dice>,
    odds: Odds,
    calm: AtomicBool,
    tally: Mutex<Tally>,
}

impl Weather {
    pub fn new(time: Arc<TestClock>, mut dice: Dice) -> Arc<Self> {
        let odds = Odds::roll(&mut dice);
        let (calm, tally) = (AtomicBool::new(true), Mutex::default());
        Arc::new(Weather { time, dice: Mutex::new(dice), odds, calm, tally })
    }

    /// Whether nothing befalls anybody.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::SeqCst);
    }

    /// Rolls the dice.
    pub fn dice<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.dice.lock().unwrap())
    }

    /// Whether something that has these odds happens now.
    pub fn strikes(&self, odds: impl FnOnce(&Odds) -> u64) -> bool {
        let odds = odds(&self.odds);
        !self.is_calm() && odds > 0 && self.dice(|dice| dice.below(10_000) < odds)
    }

    pub fn below(&self, n: u64) -> u64 {
        self.dice(|dice| dice.below(n))
    }

    /// A time between `least` and `most` seconds.
    pub fn seconds(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(1_000 * least + self.below(1_000 * (most - least) + 1))
    }

    /// Counts something that happened.
    pub fn count(&self, what: &'static str) {
        *self.tally.lock().unwrap().entry(what).or_default() += 1;
    }

    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }
}
