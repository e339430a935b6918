//! Bindings of one user.

use std::convert::Infallible;

use commpool_model::ids::{EndpointId, UserId};

use super::Memory;
use crate::engine::register::Bindings;
use crate::rows::EndpointRow;

impl Bindings for Memory {
    fn endpoints_of(&mut self, user: UserId) -> Result<Vec<EndpointRow>, Infallible> {
        let range = EndpointId(user.0 << 24)..=EndpointId(user.0 << 24 | 0xff_ffff);
        Ok(self.endpoints.range(range).map(|(_, row)| row.clone()).collect())
    }

    fn put_endpoint(&mut self, row: &EndpointRow) -> Result<(), Infallible> {
        self.endpoints.insert(row.id, row.clone());
        Ok(())
    }

    fn remove_endpoint(&mut self, id: EndpointId) -> Result<(), Infallible> {
        self.endpoints.remove(&id);
        Ok(())
    }
}
