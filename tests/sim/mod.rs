//! The simulation: processes, a store, clocks and faults in one thread and in virtual time, all of it from one number.

pub mod dice;
pub mod model;
pub mod place;
pub mod roles;
pub mod scenario;
pub mod store;
pub mod world;
pub mod year;
