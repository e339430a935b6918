//! Front ends: start, lease, stop.

use std::convert::Infallible;

use commpool_model::ids::Incarnation;

use super::Memory;
use crate::engine::front_ends::FrontEnds;
use crate::rows::{FrontEndRow, Lives};

impl FrontEnds for Memory {
    fn lives(&mut self) -> Result<Lives, Infallible> {
        Ok(self.lives.clone())
    }

    fn front_ends(&mut self) -> Result<Vec<FrontEndRow>, Infallible> {
        Ok(self.front_ends.values().cloned().collect())
    }

    fn put_front_end(&mut self, row: &FrontEndRow) -> Result<(), Infallible> {
        self.front_ends.insert(row.fe, row.clone());
        self.lives = Lives::new(self.front_ends.values());
        Ok(())
    }

    fn remove_front_end(&mut self, fe: Incarnation) -> Result<(), Infallible> {
        self.front_ends.remove(&fe);
        self.lives = Lives::new(self.front_ends.values());
        Ok(())
    }

    fn next_incarnation(&mut self) -> Result<Incarnation, Infallible> {
        self.last_incarnation += 1;
        Ok(Incarnation(self.last_incarnation))
    }

    fn epoch(&mut self) -> Result<u64, Infallible> {
        Ok(1 + self.crashes)
    }
}
