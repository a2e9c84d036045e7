//! The `zeg` program: see the library of this crate.

fn main() -> std::process::ExitCode {
    zeg_cli::main()
}
