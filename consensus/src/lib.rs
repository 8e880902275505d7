//! The control log's state machines: no Python, no clock, no socket, no file.
