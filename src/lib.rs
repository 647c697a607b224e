//! The program: flags, configuration, sources, the loop, HTTP endpoints, subcommands.
