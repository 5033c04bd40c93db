//! The kinds this binary knows: those of every room.

use tidemill_engine::registry::Registry;

/// Every kind.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    tidemill_connectors::register(&mut registry);
    tidemill_operators::register(&mut registry);
    tidemill_sinks::register(&mut registry);
    registry
}
