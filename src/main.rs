//! Parse, start tracing, hand over to the command line; nothing else.

fn main() -> std::process::ExitCode {
    distilface::cli::main()
}
