//! Which segments no promised window needs any more. Pure.
