//! How Services get into the kernel.
