//! Parse, start tracing, hand over to the command line; nothing else.

fn main() {
    distilface::cli::main()
}
