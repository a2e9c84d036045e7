//! The program `zeg`; the library of this crate does the work.

fn main() -> std::process::ExitCode {
    zeg_cli::main()
}
